"""gs references, against fake-gcs-server."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from servers.reference_servers import Origin, Request

from artfs.catalog.entry import Entry, Reference
from artfs.errors import AccessDenied, InvalidReference, ReferenceChanged, ReferenceMissing
from artfs.references import References

BODY = bytes(range(256)) * 400
Put = Callable[..., dict[str, Any]]


def call(url: str, method: str = "GET", body: bytes | None = None, content_type: str = "application/json") -> Any:
    request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": content_type})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


@pytest.fixture
def bucket(gcs_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    name = f"refs-{uuid.uuid4().hex[:12]}"
    call(
        f"{gcs_server}/storage/v1/b?project=p",
        "POST",
        json.dumps({"name": name, "versioning": {"enabled": True}}).encode(),
    )
    return name


@pytest.fixture
def put(gcs_server: str, bucket: str) -> Put:
    def put(key: str, body: bytes = BODY) -> dict[str, Any]:
        url = f"{gcs_server}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(key, safe='')}"
        return dict(call(url, "POST", body, "application/octet-stream"))

    return put


@pytest.fixture
def delete(gcs_server: str, bucket: str) -> Callable[[str], None]:
    return lambda key: call(f"{gcs_server}/storage/v1/b/{bucket}/o/{quote(key, safe='')}", "DELETE")


def only(entries: Iterator[Entry]) -> Reference:
    (entry,) = entries
    assert entry.reference is not None
    return entry.reference


def test_one_object(references: References, bucket: str, put: Put, soon: float) -> None:
    made = put("dir/data.bin")
    uri = f"gs://{bucket}/dir/data.bin"
    (entry,) = references.expand(uri)
    assert entry.path == "data.bin"
    assert entry.reference == Reference(uri, made["etag"], len(BODY), {"versionID": made["generation"]})
    assert references.read(entry.reference, 100, 5000, deadline=soon) == BODY[100:5000]
    (entry,) = references.expand(uri, "x/y")
    assert entry.path == "x/y"


def test_a_prefix(references: References, bucket: str, put: Put, soon: float) -> None:
    for key in ("top/a", "top/sub/b c", "top/sub/d?e%41", "top-not/x"):
        put(key, key.encode())
    put("top/folder/", b"")
    put("top/zero", b"")
    for uri in (f"gs://{bucket}/top", f"gs://{bucket}/top/"):
        found = {e.path: e.reference for e in references.expand(uri)}
        assert set(found) == {"a", "sub/b c", "sub/d?e%41", "zero"}
        for path in ("a", "sub/b c", "sub/d?e%41"):
            reference = found[path]
            assert reference is not None
            assert reference.uri == f"gs://{bucket}/top/{path}"
            content = references.read(reference, 0, reference.size or 0, deadline=soon)
            assert content.decode() == f"top/{path}"
    assert "n/sub/b c" in {e.path for e in references.expand(f"gs://{bucket}/top", "n")}
    with pytest.raises(ValueError, match="Exceeded 2 objects tracked, pass max_objects to add_reference"):
        list(references.expand(f"gs://{bucket}", max_objects=2))


def test_generations_stay_readable(references: References, bucket: str, put: Put, soon: float) -> None:
    first = put("data")
    reference = only(references.expand(f"gs://{bucket}/data"))
    put("data", b"second")
    assert references.read(reference, 5, 15, deadline=soon) == BODY[5:15]
    explicit = only(references.expand(f"gs://{bucket}/data#{first['generation']}"))
    assert explicit.extra == reference.extra
    assert explicit.uri == f"gs://{bucket}/data"


def test_without_checksum(references: References, bucket: str, put: Put, soon: float) -> None:
    uri = f"gs://{bucket}/dir/data"
    (entry,) = references.expand(uri, checksum=False)
    assert (entry.path, entry.reference) == ("dir/data", Reference(uri, uri, None))
    with pytest.raises(ReferenceMissing):
        references.settle(entry.reference, scope="v", deadline=soon)
    first = put("dir/data")
    settled = references.settle(entry.reference, scope="v", deadline=soon)
    assert settled.extra["versionID"] == first["generation"]
    assert settled.size == len(BODY)


def test_an_etag_without_a_generation_is_checked(references: References, bucket: str, put: Put, soon: float) -> None:
    made = put("data")
    known = Reference(f"gs://{bucket}/data", made["etag"], len(BODY), {})
    assert references.read(references.settle(known, scope="v", deadline=soon), 0, 4, deadline=soon) == BODY[:4]
    with pytest.raises(ReferenceChanged, match="expected ETag other"):
        references.settle(Reference(known.uri, "other", len(BODY), {}), scope="v", deadline=soon)


def test_gone(references: References, bucket: str, put: Put, delete: Callable[[str], None], soon: float) -> None:
    put("data")
    delete("data")
    with pytest.raises(ReferenceMissing, match="nothing below"):
        list(references.expand(f"gs://{bucket}/data"))
    never = Reference(f"gs://{bucket}/never", "e", 5, {"versionID": "12345"})
    with pytest.raises(ReferenceMissing, match="p: reference gs://"):
        references.read(never, 0, 5, path="p", deadline=soon)
    with pytest.raises(ReferenceMissing):
        list(references.expand("gs://no-such-bucket/x"))


@pytest.mark.parametrize("uri", ["gs://", "gs:///key", "gs:bucket/key"])
def test_uris_without_a_bucket(references: References, uri: str) -> None:
    with pytest.raises(InvalidReference, match="gs://bucket/key"):
        list(references.expand(uri))


def test_another_generation_than_asked_is_refused(
    references: References, origin: Origin, soon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No real server does this: a proxy or an emulator that ignores the parameter might."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", origin.url.removeprefix("http://"))
    origin.content("/storage/v1/b/b/o/k", BODY, x_goog_generation="2")
    with pytest.raises(ReferenceChanged, match="expected generation 1, found generation 2"):
        references.read(Reference("gs://b/k", "e", len(BODY), {"versionID": "1"}), 0, 5, deadline=soon)


def test_application_default_credentials(
    references: References, origin: Origin, soon: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A service account's file. Google's own server is the only one that checks tokens, so here an origin does."""
    pytest.importorskip("google.auth")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    token = json.dumps({"access_token": "t0ken", "expires_in": 3600, "token_type": "Bearer"}).encode()
    account = {
        "type": "service_account",
        "client_email": "artfs@example.org",
        "private_key": key.decode(),
        "token_uri": origin.content("/token", token, content_type="application/json"),
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setattr(references._handler("gs://b/k"), "_base", origin.url)

    def checked(request: Request) -> None:
        request.answer(200 if request.headers["Authorization"] == "Bearer t0ken" else 401, BODY[:5])

    origin.serve("/storage/v1/b/b/o/k", checked)
    reference = Reference("gs://b/k", "e", 5, {"versionID": "1"})
    for _ in range(2):
        assert references.read(reference, 0, 5, deadline=soon) == BODY[:5]
    assert [path for path, _ in origin.seen].count("/token") == 1


def test_no_credentials(references: References, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("google.auth")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nonexistent")
    with pytest.raises(AccessDenied, match="gs://bucket/x"):
        list(references.expand("gs://bucket/x"))
