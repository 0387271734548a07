"""http(s) references, against nginx and against an origin that misbehaves on purpose."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest
from servers.reference_servers import Nginx, Origin, Request

from artfs.catalog.entry import Entry, Kind, Reference
from artfs.errors import (
    AccessDenied,
    ConfigurationError,
    DeadlineExceeded,
    InvalidReference,
    ReferenceChanged,
    ReferenceMissing,
    Unavailable,
)
from artfs.references import References
from artfs.references.handler import identity_key

BODY = bytes(range(256)) * 1000
ETAG = '"v1"'


def add(references: References, uri: str, name: str | None = None, **options: bool) -> Reference:
    (entry,) = references.expand(uri, name, **options)
    assert entry.kind is Kind.REFERENCE
    assert entry.reference is not None
    return entry.reference


def read_all(references: References, reference: Reference, scope: str = "v") -> bytes:
    deadline = time.monotonic() + 20
    settled = references.settle(reference, scope=scope, path="f", deadline=deadline)
    assert settled.size is not None
    return references.read(settled, 0, settled.size, path="f", deadline=deadline)


# -- nginx ------------------------------------------------------------------------------------------------------


def test_what_is_recorded(references: References, nginx: Nginx, soon: float) -> None:
    (nginx.www / "data.bin").write_bytes(BODY)
    (entry,) = references.expand(f"{nginx.url}/data.bin")
    assert entry.path == "data.bin"
    reference = entry.reference
    assert reference is not None
    assert reference.uri == f"{nginx.url}/data.bin"
    assert reference.size == len(BODY)
    assert reference.extra["etag"] == f'"{reference.digest}"'
    assert references.settled(reference, scope="v") == reference
    assert references.read(reference, 1000, 3000, deadline=soon) == BODY[1000:3000]
    assert references.read(reference, len(BODY) - 1, len(BODY), deadline=soon) == BODY[-1:]
    assert references.read(reference, 7, 7, deadline=soon) == b""


def test_a_name_replaces_the_basename(references: References, nginx: Nginx) -> None:
    (nginx.www / "data.bin").write_bytes(BODY)
    (entry,) = references.expand(f"{nginx.url}/data.bin?token=abc", "dir/x.bin")
    assert entry.path == "dir/x.bin"
    (entry,) = references.expand(f"{nginx.url}/data.bin?token=abc")
    assert entry.path == "data.bin", "a query must not become part of a file name"


def test_a_url_without_a_basename_needs_a_name(references: References, nginx: Nginx) -> None:
    with pytest.raises(InvalidReference, match="pass a name"):
        list(references.expand(nginx.url))


def test_an_empty_file(references: References, nginx: Nginx) -> None:
    (nginx.www / "empty").write_bytes(b"")
    reference = add(references, f"{nginx.url}/empty")
    assert reference.size == 0
    assert read_all(references, reference) == b""


def test_changed_content_is_never_read(
    references: References, nginx: Nginx, soon: float, caplog: pytest.LogCaptureFixture
) -> None:
    path = nginx.www / "changes"
    path.write_bytes(BODY)
    reference = add(references, f"{nginx.url}/changes")
    path.write_bytes(BODY[:-1] + b"!")
    os.utime(path, (1, 1))
    for _ in range(2):
        with pytest.raises(ReferenceChanged, match=r"^train/f: reference .*expected ETag .*, found ETag") as caught:
            references.read(reference, 0, 10, path="train/f", deadline=soon)
    assert reference.digest in str(caught.value)
    lines = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(lines) == 1, "said once, not once a block"


def test_a_file_that_is_gone(references: References, nginx: Nginx, soon: float) -> None:
    path = nginx.www / "gone"
    path.write_bytes(BODY)
    reference = add(references, f"{nginx.url}/gone")
    path.unlink()
    with pytest.raises(ReferenceMissing, match=r"a/gone: .*404 Not Found"):
        references.read(reference, 0, 10, path="a/gone", deadline=soon)
    with pytest.raises(FileNotFoundError):
        add(references, f"{nginx.url}/gone")


def test_redirects_are_followed(references: References, nginx: Nginx, soon: float) -> None:
    (nginx.www / "data.bin").write_bytes(BODY)
    reference = add(references, f"{nginx.url}/moved/data.bin")
    assert reference.uri == f"{nginx.url}/moved/data.bin"
    assert references.read(reference, 5, 50, deadline=soon) == BODY[5:50]
    with pytest.raises(Unavailable, match="redirects"):
        add(references, f"{nginx.url}/loop")


def test_user_info_is_used_and_not_recorded(
    references: References, nginx: Nginx, soon: float, caplog: pytest.LogCaptureFixture
) -> None:
    (nginx.www / "hello.txt").write_bytes(b"hello")
    with_user = f"{nginx.url}/private/hello.txt".replace("://", "://ann:s3cr%40et%2F@")
    reference = add(references, with_user)
    assert reference.uri == f"{nginx.url}/private/hello.txt"
    assert "netrc" in caplog.text
    assert "s3cr" not in caplog.text
    with pytest.raises(AccessDenied):
        references.read(reference, 0, 5, deadline=soon)
    # A manifest from elsewhere may still have it.
    imported = Reference(with_user, reference.digest, 5, reference.extra)
    assert references.read(imported, 0, 5, deadline=soon) == b"hello"


def test_credentials_from_netrc(
    references: References, nginx: Nginx, tmp_path: Path, soon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nginx.www / "hello.txt").write_bytes(b"hello")
    url = f"{nginx.url}/private/hello.txt"
    with pytest.raises(AccessDenied, match="401"):
        add(references, url)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ann password s3cr@et/\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert references.read(add(references, url), 0, 5, deadline=soon) == b"hello"
    (tmp_path / "broken").write_text("machine 127.0.0.1 s3cr@et/ login ann\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "broken"))
    with pytest.raises(ConfigurationError) as caught:
        add(references, url)
    assert "s3cr" not in str(caught.value)


def test_credentials_stay_with_their_host(references: References, nginx: Nginx) -> None:
    """/elsewhere/ redirects to what wants the same password under another host name."""
    (nginx.www / "hello.txt").write_bytes(b"hello")
    with pytest.raises(AccessDenied, match="401"):
        add(references, f"{nginx.url}/elsewhere/x".replace("://", "://ann:s3cr%40et%2F@"))


def test_no_server(references: References, soon: float) -> None:
    reference = Reference("http://u:pw@127.0.0.1:9/x?sig=pw", "e", 5, {"etag": '"e"'})
    with pytest.raises((Unavailable, DeadlineExceeded), match="refused") as caught:
        references.read(reference, 0, 5, deadline=time.monotonic() + 1)
    assert "pw" not in str(caught.value)


def test_tls_that_fails_is_not_tried_again(references: References, origin: Origin) -> None:
    with pytest.raises(Unavailable, match=r"TLS failed"):
        add(references, origin.content("/x", BODY).replace("http:", "https:"))
    assert references.statistics().retries == 0


# -- an origin with faults --------------------------------------------------------------------------------------


def test_no_etag_records_the_url(references: References, origin: Origin) -> None:
    url = origin.content("/x", BODY)
    assert add(references, url) == Reference(url, url, len(BODY), {})


def test_without_checksum_nobody_is_asked(references: References, origin: Origin) -> None:
    url = origin.content("/x", BODY, etag=ETAG)
    assert add(references, url, checksum=False) == Reference(url, url, None, {})
    assert origin.seen == []


@pytest.mark.parametrize(
    "validator", [{"etag": ETAG}, {"etag": 'W/"weak"'}, {"last_modified": formatdate(0, usegmt=True)}]
)
def test_the_first_answer_is_pinned_for_its_version(
    new_references: Callable[..., References],
    origin: Origin,
    soon: float,
    validator: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    references = new_references()
    url = origin.content("/x", BODY, **validator)
    reference = add(references, url, checksum=False)
    assert references.settled(reference, scope="v1") is None
    assert references.size(reference, scope="v1", path="f", deadline=soon) == len(BODY)
    assert "pinned" in caplog.text
    settled = references.settled(reference, scope="v1")
    assert settled is not None
    assert references.read(settled, 0, 9, deadline=soon) == BODY[:9]
    other = {name: formatdate(86400, usegmt=True) if "GMT" in value else '"v2"' for name, value in validator.items()}
    origin.content("/x", BODY, **other)
    for each in (references, new_references()):
        again = each.settled(reference, scope="v1")
        assert again == settled, "another process finds the same pin"
        with pytest.raises(ReferenceChanged):
            each.read(again, 0, 9, deadline=soon)
    # Another version, read for the first time now, takes what is there now.
    assert read_all(references, reference, scope="v2") == BODY


def test_without_any_validator_the_size_is_compared(references: References, origin: Origin, soon: float) -> None:
    url = origin.content("/x", BODY)
    settled = references.settle(add(references, url), scope="v", deadline=soon)
    other = references.settle(add(references, url), scope="w", deadline=soon)
    assert references.source(settled, 0).name != references.source(other, 0).name, "they may be different bytes"
    assert references.read(settled, 3, 9, deadline=soon) == BODY[3:9]
    origin.content("/x", BODY + b"more")
    with pytest.raises(ReferenceChanged, match=f"{len(BODY)} bytes"):
        references.read(settled, 3, 9, deadline=soon)


def test_a_weak_etag_is_compared_weakly(references: References, origin: Origin, soon: float) -> None:
    reference = add(references, origin.content("/x", BODY, etag='W/"a"'))
    assert reference.digest == 'W/"a"'
    origin.content("/x", BODY, etag='"a"')
    assert references.read(reference, 0, 5, deadline=soon) == BODY[:5]
    origin.content("/x", BODY, etag='W/"b"')
    with pytest.raises(ReferenceChanged):
        references.read(reference, 0, 5, deadline=soon)


def test_an_etag_that_vanished_is_a_change(references: References, origin: Origin, soon: float) -> None:
    reference = add(references, origin.content("/x", BODY, etag=ETAG))
    origin.content("/x", BODY)
    with pytest.raises(ReferenceChanged, match="found no ETag"):
        references.read(reference, 0, 5, deadline=soon)


def test_content_that_shrank_under_the_same_etag(references: References, origin: Origin, soon: float) -> None:
    reference = add(references, origin.content("/x", BODY, etag=ETAG))
    origin.content("/x", BODY[:100], etag=ETAG)
    with pytest.raises(ReferenceChanged):
        references.read(reference, 200, 300, deadline=soon)
    with pytest.raises(ReferenceChanged):
        references.read(reference, 0, 50, deadline=soon)


@pytest.mark.parametrize("length", [True, False])
def test_a_server_without_ranges_is_read_once(
    new_references: Callable[..., References], origin: Origin, soon: float, length: bool
) -> None:
    references = new_references()
    headers = {"etag": ETAG} if length else {"etag": ETAG, "content_length": ""}
    reference = add(references, origin.content("/x", BODY, ranges=False, **headers))
    assert reference.size == (len(BODY) if length else None)
    settled = references.settle(reference, scope="v", deadline=soon)
    assert settled.size == len(BODY)
    for start in range(0, len(BODY), 50_000):
        end = min(start + 50_000, len(BODY))
        assert references.read(settled, start, end, deadline=soon) == BODY[start:end]
    asked = len(origin.seen)
    assert asked <= 4, "the probes, and one transfer"
    assert new_references().read(settled, 10, 20, deadline=soon) == BODY[10:20]
    assert len(origin.seen) == asked, "another process takes it from the spool"
    references.clean()
    assert references.read(settled, 10, 20, deadline=soon) == BODY[10:20]
    assert len(origin.seen) > asked


def test_many_readers_share_one_transfer(new_references: Callable[..., References], origin: Origin) -> None:
    go = threading.Event()

    def slowly(request: Request) -> None:
        if request.headers.get("Range") is None:
            request.send_response(200)
            request.send_header("ETag", ETAG)
            request.send_header("Content-Length", str(len(BODY)))
            request.end_headers()
            request.wfile.write(BODY[:1000])
            go.wait(20)
            request.wfile.write(BODY[1000:])
        else:
            request.answer(200, BODY, etag=ETAG)

    reference = add(new_references(), origin.serve("/x", slowly))
    deadline = time.monotonic() + 20
    # What has arrived is readable while the rest is under way.
    assert new_references().read(reference, 10, 900, deadline=deadline) == BODY[10:900]
    with pytest.raises(DeadlineExceeded):
        new_references().read(reference, 900, 1100, deadline=time.monotonic() + 0.1)
    results: dict[int, bytes] = {}

    def reader(number: int, references: References) -> None:
        results[number] = references.read(reference, number * 1000, number * 1000 + 1000, deadline=deadline)

    threads = [threading.Thread(target=reader, args=(n, new_references())) for n in range(8)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert results == {n: BODY[n * 1000 : n * 1000 + 1000] for n in range(8)}
    transfers = [headers for _, headers in origin.seen if "Range" not in headers]
    assert len(transfers) == 1


def test_a_transfer_of_changed_content_fails(references: References, origin: Origin, soon: float) -> None:
    reference = add(references, origin.content("/x", BODY, ranges=False, etag=ETAG))
    origin.content("/x", BODY, ranges=False, etag='"v2"')
    for _ in range(2):
        with pytest.raises(ReferenceChanged):
            references.read(reference, 0, 10, deadline=soon)


def test_a_transfer_that_was_cut_off_is_begun_anew(
    references: References, origin: Origin, tmp_path: Path, soon: float
) -> None:
    reference = add(references, origin.content("/x", BODY, ranges=False, etag=ETAG))
    spool = tmp_path / "references" / "spool"
    spool.mkdir()
    # What a machine that lost power leaves behind: zeros, and no lock.
    (spool / f"{identity_key(reference)}.part").write_bytes(bytes(len(BODY)))
    assert references.read(reference, 5, 50, deadline=soon) == BODY[5:50]
    assert references.read(reference, 5, len(BODY), deadline=soon) == BODY[5:]
    unfinished = spool / f"{identity_key(reference)}.part"
    while unfinished.exists():
        assert time.monotonic() < soon
        time.sleep(0.01)
    references.clean()
    assert list(spool.iterdir()) == []
    origin.serve("/x", lambda request: request.answer(404))
    with pytest.raises(ReferenceMissing, match="404"):
        references.read(reference, 5, len(BODY), deadline=soon)


def test_trying_again_after_503(references: References, origin: Origin, soon: float) -> None:
    reference = add(references, origin.content("/x", BODY, etag=ETAG))
    serve = origin.routes["/x"]
    refused = iter([{"retry_after": "0"}, {"retry_after": formatdate(0, usegmt=True)}, {}])

    def busy(request: Request) -> None:
        headers = next(refused, None)
        if headers is None:
            serve(request)
        else:
            request.answer(503, **headers)

    origin.serve("/x", busy)
    assert references.read(reference, 0, 10, deadline=soon) == BODY[:10]
    counts = references.statistics()
    assert (counts.requests, counts.retries, counts.failures, counts.bytes_received) == (5, 3, 0, 10)


def test_retry_after_beyond_the_deadline_is_not_waited_for(references: References, origin: Origin, soon: float) -> None:
    reference = add(references, origin.content("/x", BODY, etag=ETAG))
    origin.serve("/x", lambda request: request.answer(429, retry_after="3600"))
    with pytest.raises(Unavailable, match="429 Too Many Requests"):
        references.read(reference, 0, 10, deadline=soon)
    assert time.monotonic() < soon - 10


def test_a_truncated_answer_is_fetched_again(references: References, origin: Origin, soon: float) -> None:
    reference = add(references, origin.content("/x", BODY, etag=ETAG))
    serve = origin.routes["/x"]
    cut = iter([True, True])

    def truncate(request: Request) -> None:
        if not next(cut, False):
            serve(request)
            return
        request.send_response(206)
        request.send_header("ETag", ETAG)
        request.send_header("Content-Range", f"bytes 0-99/{len(BODY)}")
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(BODY[:50])
        request.close_connection = True

    origin.serve("/x", truncate)
    assert references.read(reference, 0, 100, deadline=soon) == BODY[:100]


def test_another_range_than_asked_is_refused(references: References, origin: Origin) -> None:
    reference = add(references, origin.content("/x", BODY, etag=ETAG))
    origin.serve("/x", lambda r: r.answer(206, BODY[:10], etag=ETAG, content_range=f"bytes 0-9/{len(BODY)}"))
    with pytest.raises(Unavailable):
        references.read(reference, 10, 20, deadline=time.monotonic() + 0.5)


@pytest.mark.parametrize("trickle", [False, True])
def test_a_stalled_server_meets_the_deadline(references: References, origin: Origin, trickle: bool) -> None:
    reference = add(references, origin.content("/x", BODY, etag=ETAG))

    def stall(request: Request) -> None:
        if trickle:
            request.send_response(206)
            request.send_header("ETag", ETAG)
            request.send_header("Content-Range", f"bytes 0-99999/{len(BODY)}")
            request.send_header("Content-Length", "100000")
            request.end_headers()
            while not origin.released.wait(0.02):
                request.wfile.write(b"x")
        origin.released.wait(20)

    origin.serve("/x", stall)
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="f: reading http"):
        references.read(reference, 0, 100_000, path="f", deadline=start + 0.4)
    assert time.monotonic() - start < 3


def test_a_presigned_url_is_used_but_not_shown(references: References, origin: Origin, soon: float) -> None:
    url = origin.content("/x", BODY, etag=ETAG) + "?X-Amz-Signature=s3cret&partNumber=2"
    reference = add(references, url)
    assert reference.uri == url
    assert references.read(reference, 0, 10, deadline=soon) == BODY[:10]
    assert all(path.endswith("?X-Amz-Signature=s3cret&partNumber=2") for path, _ in origin.seen)
    for answer in (lambda r: r.answer(403), lambda r: r.answer(404), lambda r: r.answer(200, b"", etag='"2"')):
        origin.serve("/x", answer)
        with pytest.raises((AccessDenied, ReferenceMissing, ReferenceChanged)) as caught:
            references.read(reference, 0, 10, deadline=soon)
        assert "s3cret" not in str(caught.value)
    assert "s3cret" not in references.source(reference, 0).label


def test_a_size_of_zero_from_a_manifest_is_asked_for(references: References, origin: Origin, soon: float) -> None:
    url = origin.content("/x", BODY, etag=ETAG)
    imported = Reference(url, "v1", 0, {"etag": ETAG})
    assert read_all(references, imported) == BODY
    origin.content("/x", BODY, etag='"v2"')
    with pytest.raises(ReferenceChanged):
        references.settle(imported, scope="another", deadline=soon)


def test_a_server_that_compresses(references: References, nginx: Nginx, soon: float) -> None:
    text = b"so very compressible " * 5000
    (nginx.www / "text.txt").write_bytes(text)
    reference = add(references, f"{nginx.url}/text.txt")
    assert reference.size == len(text)
    data = references.read(reference, 0, len(text), deadline=soon)
    assert hashlib.sha256(data).digest() == hashlib.sha256(text).digest()


def test_a_proxy_is_used(references: References, origin: Origin, soon: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", origin.url.replace("://", "://who:proxy-pw@"))
    monkeypatch.setenv("no_proxy", "")
    origin.serve("http://files.example/x", lambda r: r.answer(200, b"", etag=ETAG))
    assert add(references, "http://files.example/x").digest == "v1"
    (path, headers), *_ = origin.seen
    assert path == "http://files.example/x"
    assert {name.lower(): value for name, value in headers.items()}[
        "proxy-authorization"
    ] == "Basic " + base64.b64encode(b"who:proxy-pw").decode()


def test_entries_are_lazy_and_checked(references: References) -> None:
    with pytest.raises(InvalidReference, match="References must be URIs"):
        references.expand("no-scheme/file.txt")
    with pytest.raises(InvalidReference, match="not a URL with a host"):
        list(references.expand("http:///x"))
    with pytest.raises(ValueError, match="invalid path"):
        list(references.expand("http://h/x", "../up", checksum=False))
    assert isinstance(next(references.expand("http://h/x", checksum=False)), Entry)
