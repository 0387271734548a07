"""What all schemes share: URIs and their redaction, unknown schemes, settling, slices, pins."""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artfs.catalog.entry import Reference
from artfs.catalog.layout import PACK_DATA
from artfs.errors import InvalidReference, LocalIOError, MissingExtra, ReferenceUnsupported
from artfs.references import References, redact, scheme_of
from artfs.references.handler import identity_key
from artfs.references.pins import Pins
from artfs.references.uri import is_azure, split_user

# -- URIs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://bucket/a key", "s3://bucket/a key"),
        ("s3://bucket/key?versionId=3HL4.kq_-", "s3://bucket/key?versionId=3HL4.kq_-"),
        ("s3://bucket/key?versionId=x&X-Amz-Signature=y", "s3://bucket/key?***"),
        ("gs://bucket/key#1700000000", "gs://bucket/key#1700000000"),
        ("https://user:pw@host:8443/p/q?sig=abc#frag", "https://***@host:8443/p/q?***#***"),
        ("https://host/@scope/pkg", "https://host/@scope/pkg"),
        ("https://[::1]:80/x", "https://[::1]:80/x"),
        ("https://us@er:pw@host/", "https://***@host/"),
        ("http://user:p/w@host/x", "http:***"),
        ("file:///a%20b", "file:///a%20b"),
        ("urn:isbn:1", "urn:isbn:1"),
        ("odd:user:pw@host", "odd:***"),
        ("nothing?token=1", "***"),
        ("s3://b/a\nb", "s3://b/a\ufffdb"),
    ],
)
def test_what_is_shown_of_a_uri(uri: str, shown: str) -> None:
    assert redact(uri) == shown


_SECRET = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%!$&'()*+,;=~._-", min_size=6).map(lambda s: f"SECRET{s}")
_HOST = st.sampled_from(["host", "host:80", "[::1]", "bucket.s3.amazonaws.com", ""])
_PATH = st.sampled_from(["", "/", "/a/b", "/@x/y:z", "//", "/ä b"])


@given(st.sampled_from(["http", "s3", "gs", "foo+bar"]), _SECRET, _HOST, _PATH)
def test_secrets_are_never_shown(scheme: str, secret: str, host: str, path: str) -> None:
    for uri in (
        f"{scheme}://{secret}@{host}{path}",
        f"{scheme}://name:{secret}@{host}{path}?{secret}#{secret}",
        f"{scheme}://{host}{path}?versionId=1&sig={secret}",
        f"{scheme}://{host}{path}#{secret}",
        f"{scheme}://a@{secret}@{host}{path}",
    ):
        assert secret not in redact(uri)


@given(st.text())
def test_anything_can_be_shown_on_one_line(uri: str) -> None:
    shown = redact(uri)
    assert "\n" not in shown
    assert shown.isprintable() or shown.encode("utf-8").decode() == shown
    assert redact(shown) == shown, "a message that is redacted again stays what it is"


@given(st.sampled_from(["S3", "http", "a+b.c-1"]), st.text(st.characters(exclude_categories=["C", "Z"])))
def test_the_scheme_is_found(scheme: str, rest: str) -> None:
    assert scheme_of(f"{scheme}:{rest}") == scheme.lower()


@pytest.mark.parametrize("text", ["", "x", "/a/b", "1a:b", ":x", "http://h/\n", "http://h/\x7f", "http://h/\ud800"])
def test_what_is_no_uri(text: str) -> None:
    with pytest.raises(InvalidReference):
        scheme_of(text)


@given(st.text("abc:@%", max_size=6), st.text("abc%:", max_size=6))
def test_user_info_is_split_off(user: str, password: str) -> None:
    url, found = split_user(f"https://{user.replace(':', '')}:{password}@host/path?q")
    assert url == "https://host/path?q"
    assert found == (user.replace(":", ""), password) if "@" not in user else found is not None


def test_azure_urls() -> None:
    assert is_azure("https://acct.blob.core.windows.net/c/b")
    assert is_azure("https://acct.blob.core.windows.net/c/b?versionId=1")
    assert not is_azure("https://acct.blob.core.windows.net/c/b?sv=1&sig=abc"), "signed: plain https"
    assert not is_azure("https://blob.core.windows.net.evil.example/c/b")


# -- schemes without a handler ----------------------------------------------------------------------------------


def test_an_unknown_scheme_records_its_uri(references: References, soon: float) -> None:
    uri = "ftp2://host/x"
    with pytest.raises(ValueError, match=r'You must pass name="<entry_name>"'):
        list(references.expand(uri))
    (entry,) = references.expand(uri, "x.bin")
    assert entry.path == "x.bin"
    assert entry.reference == Reference(uri, uri, None)
    for ask in (
        lambda: references.settle(entry.reference, scope="v", path="x.bin", deadline=soon),
        lambda: references.read(entry.reference, 0, 1, path="x.bin", deadline=soon),
    ):
        with pytest.raises(ReferenceUnsupported, match=r"^x.bin: reference ftp2://host/x .*ftp2"):
            ask()


@pytest.mark.parametrize("scheme", ["wandb-artifact", "artfs-artifact", "wandb-client-artifact"])
def test_references_to_artifacts_are_resolved_elsewhere(references: References, scheme: str) -> None:
    with pytest.raises(ReferenceUnsupported, match="registry"):
        references.expand(f"{scheme}://1234/x")


@pytest.mark.parametrize(
    ("uri", "module", "extra"),
    [
        ("gs://bucket/x", "google.auth", "gcs"),
        ("https://acct.blob.core.windows.net/c/x", "azure.storage.blob", "azure"),
    ],
)
def test_a_missing_package_names_its_extra(
    references: References, monkeypatch: pytest.MonkeyPatch, uri: str, module: str, extra: str
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "artfs.references.azure", raising=False)
    with pytest.raises(MissingExtra, match=rf"pip install 'artfs\[{extra}\]'"):
        references.expand(uri)


# -- slices -----------------------------------------------------------------------------------------------------


def test_slices_cover_a_reference(references: References, tmp_path: Path, soon: float) -> None:
    path = tmp_path / "large"
    size = 2 * PACK_DATA + 12345
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(PACK_DATA - 2)
        file.write(b"abcd")
    (entry,) = references.expand(f"file://{path}", checksum=False)
    settled = references.settle(entry.reference, scope="v", deadline=soon)
    slices = [references.source(settled, index, path="data/large") for index in range(3)]
    assert [part.size for part in slices] == [PACK_DATA, PACK_DATA, 12345]
    assert len({part.name for part in slices}) == 3

    def read(part, start, end):
        room = memoryview(bytearray(1 << 20))
        return b"".join(bytes(piece) for piece in part.stream(start, end, room, soon))

    assert read(slices[0], PACK_DATA - 2, PACK_DATA) == b"ab"
    assert read(slices[1], 0, 3) == b"cd\0"
    assert read(slices[2], 12344, 12345) == b"\0"
    assert slices[0].checksum(0) is None
    assert slices[0].label == f"data/large (file://{path})"
    assert references.source(settled, 1, path="other").name == slices[1].name, "equal references share the cache"


@given(
    st.tuples(st.text(), st.text(), st.dictionaries(st.text(), st.text())),
    st.tuples(st.text(), st.text(), st.dictionaries(st.text(), st.text())),
)
def test_different_identities_have_different_names(
    a: tuple[str, str, dict[str, str]], b: tuple[str, str, dict[str, str]]
) -> None:
    key_a, key_b = (identity_key(Reference(uri, digest, 1, extra), 1, 0) for uri, digest, extra in (a, b))
    assert (key_a == key_b) == (a == b)


# -- pins -------------------------------------------------------------------------------------------------------


def test_the_first_pin_stands(tmp_path: Path) -> None:
    path = tmp_path / "pins.sqlite"
    tables = [Pins(path) for _ in range(4)]
    results: list[dict[str, object]] = []
    barrier = threading.Barrier(4)

    def put(number: int) -> None:
        barrier.wait(10)
        results.append(tables[number].put("scope", "key", {"size": number}))

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(result == results[0] for result in results)
    assert tables[0].get("scope", "key") == results[0]
    assert tables[0].get("other", "key") is None
    for table in tables:
        table.close()
    reopened = Pins(path)
    assert reopened.get("scope", "key") == results[0]
    reopened.close()


def test_a_damaged_pin_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "references").mkdir()
    (tmp_path / "references" / "pins.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(LocalIOError, match="may be deleted"):
        References(tmp_path / "references", request_timeout=1, allow_file=False)


def test_nothing_is_readable_by_others(references: References, tmp_path: Path) -> None:
    assert (tmp_path / "references").stat().st_mode & 0o077 == 0


def test_no_secret_reaches_the_log_or_the_pins(
    references: References, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="artfs")
    reference = Reference("http://u:PASSWORD@127.0.0.1:9/x?sig=PASSWORD", "e", None)
    with pytest.raises(Exception, match=r"reach|finish"):
        references.settle(reference, scope="v", deadline=time.monotonic() + 0.3)
    assert "trying again" in caplog.text
    assert "PASSWORD" not in caplog.text
    assert all(b"PASSWORD" not in path.read_bytes() for path in (tmp_path / "references").iterdir())
