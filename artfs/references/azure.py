"""https://<account>.blob.core.windows.net: recorded by ETag and version id, read by version id or on condition of
the ETag, through Azure's SDK (the ``azure`` extra).

Credentials are Azure's own: ``AZURE_STORAGE_CONNECTION_STRING`` if it is for that account, ``AZURE_STORAGE_KEY`` or
``AZURE_STORAGE_SAS_TOKEN``, else ``DefaultAzureCredential``. A URL that carries a signature of its own (``sig=``) is
read as plain http instead.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

from artfs.catalog.entry import Entry, Reference
from artfs.errors import (
    AccessDenied,
    ArtfsError,
    ConfigurationError,
    InvalidReference,
    MissingExtra,
    ReferenceMissing,
    Unavailable,
)
from artfs.references.client import retry_after
from artfs.references.handler import (
    bare,
    changed,
    check_answer,
    entry_path,
    limited,
    recorded_etag,
    recorded_version,
    reference_entry,
    unchecked,
)
from artfs.references.history import History
from artfs.references.retry import Requests, TransientError
from artfs.references.uri import AZURE_DOMAIN, redact

try:
    import azure.core.exceptions as sdk
    from azure.storage.blob import BlobProperties, BlobServiceClient
except ImportError as missing:
    raise MissingExtra(what="Azure Blob Storage", package="azure-storage-blob", extra="azure") from missing

T = TypeVar("T")

_PIECE: Final = 8 << 20
"""Bytes in one request: the SDK looks at no deadline before it has them all."""


@attrs.frozen
class _Location:
    account: str
    """``https://<account>.blob.core.windows.net``."""
    container: str
    blob: str
    version: str | None

    @classmethod
    def of(cls, uri: str) -> _Location:
        parts = urlsplit(uri)
        container, _, blob = parts.path.lstrip("/").partition("/")
        if not container or parts.username is not None:
            raise InvalidReference(uri=redact(uri), why=f"expected https://<account>{AZURE_DOMAIN}/container/blob")
        version = parse_qs(parts.query).get("versionId", [None])[0]
        return cls(f"https://{parts.netloc.lower()}", unquote(container), unquote(blob), version)

    def uri(self, blob: str) -> str:
        """As W&B records it, plain; only what would end the path or read as an escape is escaped."""
        escaped = blob.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
        return f"{self.account}/{self.container}/{escaped}"


class Azure:
    """References to Azure Blob Storage."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._lock = threading.Lock()
        self._services: dict[str, BlobServiceClient] = {}
        self._history = History()

    def expand(self, uri: str, name: str | None, *, checksum: bool, max_objects: int) -> Iterator[Entry]:
        """The blob, or every blob below it as a directory."""
        place = _Location.of(uri)
        if not checksum:
            yield unchecked(name or place.blob or place.container, place.uri(place.blob))
            return
        if place.blob:
            try:
                found = self._properties(place, place.version, uri, self._deadline())
            except ReferenceMissing:
                if place.version is not None:
                    raise
            else:
                if not _is_folder(found):
                    yield reference_entry(entry_path(name, place.blob, None), self._recorded(place, found))
                    return
        yield from limited(self._below(place, name, uri), max_objects, uri)

    def _below(self, place: _Location, name: str | None, uri: str) -> Iterator[Entry]:
        prefix = place.blob if not place.blob or place.blob.endswith("/") else place.blob + "/"
        found = False
        for blob in self._list(place, prefix, "metadata", uri):
            found = True
            if not _is_folder(blob):
                yield reference_entry(entry_path(name, blob.name, prefix), self._recorded(place, blob))
        if not found:
            raise ReferenceMissing(uri=redact(uri), why="there is no such blob and nothing below that prefix")

    def _list(self, place: _Location, prefix: str, include: str, uri: str) -> Iterator[BlobProperties]:
        container = self._service(place, uri).get_container_client(place.container)

        def page(token: str | None, timeout: float) -> tuple[list[BlobProperties], str | None]:
            listing = container.list_blobs(prefix, [include], connection_timeout=timeout, read_timeout=timeout)
            pages: Any = listing.by_page(token)
            return list(next(pages, ())), pages.continuation_token

        token: str | None = ""
        while token is not None:
            blobs, token = self._call(uri, self._deadline(), functools.partial(page, token or None))
            yield from blobs

    def _recorded(self, place: _Location, blob: BlobProperties) -> Reference:
        etag, version = bare(str(blob.etag)), getattr(blob, "version_id", None)
        extra = {"etag": etag} | ({"versionID": str(version)} if version else {})
        return Reference(place.uri(blob.name), etag, int(blob.size), extra)

    def identity(self, reference: Reference) -> str | None:
        """The version id or the ETag."""
        return recorded_version(reference) or recorded_etag(reference)

    def stat(self, reference: Reference, deadline: float) -> Reference:
        """One HEAD, of the version if it is recorded."""

        def ask(place: _Location, version: str | None) -> Reference:
            blob = self._properties(place, version, reference.uri, deadline)
            check_answer(reference, etag=blob.etag, size=blob.size)
            return self._recorded(place, blob)

        found = self._ask(reference, ask)
        return attrs.evolve(reference, size=found.size, extra={**found.extra, **reference.extra})

    def fetch(self, reference: Reference, start: int, end: int, deadline: float) -> bytes:
        """Ranged GETs, of the version if it is recorded."""
        data = bytearray()
        while start < end:
            piece_end = min(start + _PIECE, end)
            data += self._ask(reference, functools.partial(self._range, reference, start, piece_end, deadline))
            start = piece_end
        return bytes(data)

    def _range(
        self, reference: Reference, start: int, end: int, deadline: float, place: _Location, version: str | None
    ) -> bytes:
        def ask(timeout: float) -> bytes:
            blob = self._service(place, reference.uri).get_blob_client(place.container, place.blob)
            try:
                download = blob.download_blob(
                    start, end - start, version_id=version, connection_timeout=timeout, read_timeout=timeout
                )
            except sdk.HttpResponseError as error:
                if error.status_code == 416:
                    raise changed(reference, f"{reference.size} bytes", "fewer") from None
                raise
            check_answer(reference, etag=download.properties.etag, size=None)
            data: bytes = download.readall()
            if len(data) != end - start:
                raise changed(reference, f"{reference.size} bytes", f"{start + len(data)} bytes")
            return data

        return self._call(reference.uri, deadline, ask)

    def _ask(self, reference: Reference, ask: Callable[[_Location, str | None], T]) -> T:
        place = _Location.of(reference.uri)
        return self._history.ask(
            reference,
            recorded_version(reference) or place.version,
            lambda version: ask(place, version),
            lambda etag: self._search(place, etag, reference.uri),
        )

    def _search(self, place: _Location, etag: str, uri: str) -> str | None:
        same_name = (blob for blob in self._list(place, place.blob, "versions", uri) if blob.name == place.blob)
        return next((blob.version_id for blob in same_name if bare(str(blob.etag)) == etag), None)

    def _properties(self, place: _Location, version: str | None, uri: str, deadline: float) -> BlobProperties:
        blob = self._service(place, uri).get_blob_client(place.container, place.blob)
        return self._call(
            uri,
            deadline,
            lambda timeout: blob.get_blob_properties(
                version_id=version, connection_timeout=timeout, read_timeout=timeout
            ),
        )

    def _deadline(self) -> float:
        return time.monotonic() + self._requests.timeout

    def _call(self, uri: str, deadline: float, ask: Callable[[float], T]) -> T:
        what = redact(uri)

        def attempt(timeout: float) -> T:
            try:
                return ask(timeout)
            except sdk.AzureError as error:
                # Azure's messages may quote the request with its signature: neither shown nor chained.
                raise _failure(error, what) from None

        return self._requests.run(what, deadline, attempt)

    def _service(self, place: _Location, uri: str) -> BlobServiceClient:
        with self._lock:
            if place.account not in self._services:
                self._services[place.account] = _service(place.account, self._requests.timeout, redact(uri))
            return self._services[place.account]


def _service(account: str, timeout: float, what: str) -> BlobServiceClient:
    options: dict[str, Any] = {
        "retry_total": 0,
        "connection_timeout": timeout,
        "read_timeout": timeout,
        "max_single_get_size": _PIECE,
        "max_chunk_get_size": _PIECE,
    }
    if connection := os.environ.get("AZURE_STORAGE_CONNECTION_STRING"):
        try:
            service = BlobServiceClient.from_connection_string(connection, **options)
        except ValueError:
            raise ConfigurationError(why="AZURE_STORAGE_CONNECTION_STRING cannot be parsed") from None
        if service.account_name == (urlsplit(account).hostname or "").partition(".")[0]:
            return service
    credential: Any = os.environ.get("AZURE_STORAGE_KEY") or os.environ.get("AZURE_STORAGE_SAS_TOKEN")
    if not credential:
        try:
            from azure.identity import DefaultAzureCredential
        except ImportError as error:
            raise MissingExtra(what=what, package="azure-identity", extra="azure") from error
        credential = DefaultAzureCredential()
    return BlobServiceClient(account, credential=credential, **options)


def _is_folder(blob: BlobProperties) -> bool:
    """Stubs that stand for directories in accounts with a hierarchical namespace."""
    return (blob.metadata or {}).get("hdi_isfolder") == "true"


def _failure(error: sdk.AzureError, what: str) -> ArtfsError | TransientError:
    if isinstance(error, sdk.ClientAuthenticationError):
        return AccessDenied(what=what, why="Azure accepts none of the credentials found")
    if isinstance(error, sdk.HttpResponseError) and error.status_code is not None:
        status = error.status_code
        said = f"Azure answered {status} {getattr(error, 'error_code', None) or error.reason or ''}".rstrip()
        if status == 404:
            return ReferenceMissing(uri=what, why=said)
        if status in {401, 403, 409}:  # 409: PublicAccessNotPermitted
            return AccessDenied(what=what, why=said)
        if status in {408, 429} or (status >= 500 and status != 501):
            headers = getattr(error.response, "headers", {})
            return TransientError(said, retry_after=retry_after(headers.get("Retry-After")))
        return Unavailable(what=what, why=said)
    return TransientError(f"the connection failed ({type(error).__name__})")
