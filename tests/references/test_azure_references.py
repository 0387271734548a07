"""Azure references, against Azurite."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from artfs.catalog.entry import Entry, Reference
from artfs.errors import AccessDenied, ConfigurationError, InvalidReference, ReferenceChanged, ReferenceMissing
from artfs.references import References

BODY = bytes(range(256)) * 400
ACCOUNT = "https://artfs.blob.core.windows.net"
Put = Callable[..., str]


@pytest.fixture
def service(azure_connection: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from azure.storage.blob import BlobServiceClient

    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azure_connection)
    with BlobServiceClient.from_connection_string(azure_connection) as service:
        yield service


@pytest.fixture
def container(service: Any) -> str:
    name = f"refs-{uuid.uuid4().hex[:12]}"
    service.create_container(name)
    return name


@pytest.fixture
def put(service: Any, container: str) -> Put:
    def put(blob: str, body: bytes = BODY, **metadata: str) -> str:
        """The ETag."""
        made = service.get_blob_client(container, blob).upload_blob(body, overwrite=True, metadata=metadata or None)
        return str(made["etag"]).strip('"')

    return put


def only(entries: Iterator[Entry]) -> Reference:
    (entry,) = entries
    assert entry.reference is not None
    return entry.reference


def test_one_blob(references: References, container: str, put: Put, soon: float) -> None:
    etag = put("dir/data.bin")
    uri = f"{ACCOUNT}/{container}/dir/data.bin"
    (entry,) = references.expand(uri)
    assert entry.path == "data.bin"
    assert entry.reference == Reference(uri, etag, len(BODY), {"etag": etag})
    assert references.read(entry.reference, 100, 5000, deadline=soon) == BODY[100:5000]
    (entry,) = references.expand(uri, "x/y")
    assert entry.path == "x/y"


def test_a_range_of_several_requests(
    references: References, container: str, put: Put, soon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from artfs.references import azure as module

    monkeypatch.setattr(module, "_PIECE", 10_000)
    put("data")
    reference = only(references.expand(f"{ACCOUNT}/{container}/data"))
    assert references.read(reference, 5, 55_555, deadline=soon) == BODY[5:55_555]


def test_a_directory(references: References, container: str, put: Put, soon: float) -> None:
    for name in ("top/a", "top/sub/b c", "top/sub/100%#?41", "top-not/x"):
        put(name, name.encode())
    put("top/sub", b"", hdi_isfolder="true")
    put("top", b"", hdi_isfolder="true")
    for uri in (f"{ACCOUNT}/{container}/top", f"{ACCOUNT}/{container}/top/"):
        found = {e.path: e.reference for e in references.expand(uri)}
        assert set(found) == {"a", "sub/b c", "sub/100%#?41"}, "stubs of folders are skipped"
        for path, reference in found.items():
            assert reference is not None
            assert references.read(reference, 0, reference.size or 0, deadline=soon).decode() == f"top/{path}"
    assert {e.path for e in references.expand(f"{ACCOUNT}/{container}/top", "n")} >= {"n/a", "n/sub/b c"}
    assert len(list(references.expand(f"{ACCOUNT}/{container}"))) == 4
    with pytest.raises(ValueError, match="Exceeded 2 objects tracked, pass max_objects to add_reference"):
        list(references.expand(f"{ACCOUNT}/{container}/top", max_objects=2))


def test_without_checksum(references: References, container: str, put: Put, soon: float) -> None:
    uri = f"{ACCOUNT}/{container}/dir/data"
    (entry,) = references.expand(uri, checksum=False)
    assert (entry.path, entry.reference) == ("dir/data", Reference(uri, uri, None))
    with pytest.raises(ReferenceMissing):
        references.settle(entry.reference, scope="v", deadline=soon)
    put("dir/data")
    settled = references.settle(entry.reference, scope="v", deadline=soon)
    assert references.read(settled, 1, 4, deadline=soon) == BODY[1:4]
    put("dir/data", BODY[::-1])
    with pytest.raises(ReferenceChanged):
        references.read(settled, 1, 4, deadline=soon)


def test_changed_and_gone(references: References, service: Any, container: str, put: Put, soon: float) -> None:
    put("data")
    reference = only(references.expand(f"{ACCOUNT}/{container}/data"))
    put("data", b"second")
    for span in ((0, 3), (1000, 1010)):
        with pytest.raises(ReferenceChanged, match="p: "):
            references.read(reference, *span, path="p", deadline=soon)
    service.get_blob_client(container, "data").delete_blob()
    with pytest.raises(ReferenceMissing):
        references.read(reference, 0, 3, deadline=soon)
    with pytest.raises(ReferenceMissing, match="nothing below"):
        list(references.expand(f"{ACCOUNT}/{container}/data"))


def test_credentials(
    references: References, azure_connection: str, container: str, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("data")
    wrong = azure_connection.replace("AccountKey=", "AccountKey=d3Jvbmct")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", wrong)
    with pytest.raises(AccessDenied) as caught:
        list(references.expand(f"{ACCOUNT}/{container}/data"))
    assert "d3Jvbmct" not in str(caught.value)


def test_a_connection_string_that_is_none(references: References, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("azure.storage.blob")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "s3cret")
    with pytest.raises(ConfigurationError) as caught:
        list(references.expand(f"{ACCOUNT}/c/data"))
    assert "s3cret" not in str(caught.value)


def test_uris_without_a_container(references: References) -> None:
    pytest.importorskip("azure.storage.blob")
    with pytest.raises(InvalidReference, match="container/blob"):
        list(references.expand(ACCOUNT))
