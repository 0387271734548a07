"""gs: recorded by ETag and generation, read by generation, through the JSON API of Cloud Storage.

Generations are immutable, so a read needs no further comparison. Credentials are Application Default Credentials from
google-auth (the ``gcs`` extra); the requests are plain GETs, so the storage SDK is not needed.
https://cloud.google.com/storage/docs/json_api/v1/objects
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import attrs

from artfs.catalog.entry import Entry, Reference
from artfs.errors import AccessDenied, InvalidReference, MissingExtra, ReferenceMissing
from artfs.references.client import Client, Response, read_body
from artfs.references.handler import (
    changed,
    check_answer,
    entry_path,
    limited,
    recorded_version,
    reference_entry,
    unchecked,
)
from artfs.references.retry import Requests, TransientError
from artfs.references.uri import redact

T = TypeVar("T")

_URI = re.compile(r"gs://(?P<bucket>[^/?#]+)(?:/(?P<key>.*?))?(?:#(?P<generation>\d+))?", re.DOTALL | re.IGNORECASE)
_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_only"
_FIELDS: Final = "name,size,etag,generation"


@attrs.frozen
class _Location:
    bucket: str
    key: str
    generation: str | None

    @classmethod
    def of(cls, uri: str) -> _Location:
        match = _URI.fullmatch(uri)
        if match is None:
            raise InvalidReference(uri=redact(uri), why="expected gs://bucket/key")
        return cls(match["bucket"], match["key"] or "", match["generation"])

    @property
    def uri(self) -> str:
        """As W&B records it: the generation stands in ``extra``."""
        return f"gs://{self.bucket}/{self.key}"


class Gs:
    """References to Google Cloud Storage, or to the emulator that ``STORAGE_EMULATOR_HOST`` names."""

    def __init__(self, requests: Requests, client: Client) -> None:
        self._requests, self._client = requests, client
        emulator = os.environ.get("STORAGE_EMULATOR_HOST")
        if emulator and "://" not in emulator:
            emulator = f"http://{emulator}"
        self._base = (emulator or "https://storage.googleapis.com").rstrip("/")
        self._tokens = None if emulator else _Tokens()

    def expand(self, uri: str, name: str | None, *, checksum: bool, max_objects: int) -> Iterator[Entry]:
        """The object, or every object below the prefix."""
        place = _Location.of(uri)
        if not checksum:
            yield unchecked(name or place.key or place.bucket, place.uri)
            return
        if place.key and not place.key.endswith("/"):
            try:
                found = self._metadata(place, place.generation, uri, self._deadline())
            except ReferenceMissing:
                if place.generation is not None:
                    raise
            else:
                yield reference_entry(entry_path(name, place.key, None), _recorded(place.uri, found))
                return
        yield from limited(self._below(place, name, uri), max_objects, uri)

    def _below(self, place: _Location, name: str | None, uri: str) -> Iterator[Entry]:
        prefix = place.key if not place.key or place.key.endswith("/") else place.key + "/"
        found = False
        query = {"prefix": prefix, "fields": f"items({_FIELDS}),nextPageToken"}
        while True:
            url = f"{self._base}/storage/v1/b/{quote(place.bucket, safe='')}/o?{urlencode(query)}"
            page = self._get(url, uri, self._deadline(), _json)
            for item in page.get("items", ()):
                found = True
                if not item["name"].endswith("/"):  # folders that consoles make
                    reference = _recorded(f"gs://{place.bucket}/{item['name']}", item)
                    yield reference_entry(entry_path(name, item["name"], prefix), reference)
            if not page.get("nextPageToken"):
                break
            query["pageToken"] = page["nextPageToken"]
        if not found:
            raise ReferenceMissing(uri=redact(uri), why="there is no such object and nothing below that prefix")

    def identity(self, reference: Reference) -> str | None:
        """The generation; an ETag alone is none, because content is not served on condition of it."""
        return recorded_version(reference)

    def stat(self, reference: Reference, deadline: float) -> Reference:
        """One request for the metadata, of the generation if it is recorded."""
        place = _Location.of(reference.uri)
        generation = recorded_version(reference) or place.generation
        item = self._metadata(place, generation, reference.uri, deadline)
        check_answer(reference, etag=item.get("etag"), size=int(item["size"]))
        found = _recorded(reference.uri, item)
        return attrs.evolve(reference, size=found.size, extra={**found.extra, **reference.extra})

    def fetch(self, reference: Reference, start: int, end: int, deadline: float) -> bytes:
        """One ranged GET of the generation, as stored (not decompressed)."""
        if start >= end:
            return b""
        place, generation = _Location.of(reference.uri), recorded_version(reference)

        def receive(response: Response) -> bytes:
            found = response.headers.get("X-Goog-Generation")
            if found is not None and found != generation:
                raise changed(reference, f"generation {generation}", f"generation {found}")
            if response.status == 416:
                raise changed(reference, f"{reference.size} bytes", "fewer")
            body = bytearray()
            read_body(response, deadline, body.extend)
            if len(body) != end - start:
                raise TransientError("the answer was cut short")
            return bytes(body)

        url = self._url(place, generation, alt="media")
        return self._get(url, reference.uri, deadline, receive, {"Range": f"bytes={start}-{end - 1}"})

    def _metadata(self, place: _Location, generation: str | None, uri: str, deadline: float) -> dict[str, Any]:
        return self._get(self._url(place, generation, fields=_FIELDS), uri, deadline, _json)

    def _url(self, place: _Location, generation: str | None, **query: str) -> str:
        if generation is not None:
            query["generation"] = generation
        path = f"/storage/v1/b/{quote(place.bucket, safe='')}/o/{quote(place.key, safe='')}"
        return f"{self._base}{path}?{urlencode(query)}"

    def _get(
        self,
        url: str,
        uri: str,
        deadline: float,
        receive: Callable[[Response], T],
        headers: dict[str, str] | None = None,
    ) -> T:
        # gzip: else Cloud Storage decompresses objects stored with that encoding, and ignores the range.
        # https://cloud.google.com/storage/docs/transcoding
        given = {"Accept-Encoding": "gzip"} if headers else {"Accept-Encoding": "identity"}
        what = redact(uri)
        if self._tokens is not None:
            given["Authorization"] = f"Bearer {self._tokens.token(what)}"
        return self._client.get(url, what=what, deadline=deadline, receive=receive, headers=given | (headers or {}))

    def _deadline(self) -> float:
        return time.monotonic() + self._requests.timeout


class _Tokens:
    """Access tokens of the Application Default Credentials, renewed when they are about to end."""

    def __init__(self) -> None:
        try:
            import google.auth
            import google.auth.transport.urllib3 as transport
        except ImportError as error:
            raise MissingExtra(what="gs://", package="google-auth", extra="gcs") from error
        import urllib3

        self._lock = threading.Lock()
        self._find = google.auth.default
        self._error = google.auth.exceptions.GoogleAuthError
        self._request = transport.Request(urllib3.PoolManager())  # type: ignore[no-untyped-call]  # google-auth's are
        self._credentials: Any = None

    def token(self, what: str) -> str:
        with self._lock:
            try:
                if self._credentials is None:
                    self._credentials, _ = self._find(scopes=[_SCOPE])
                if not self._credentials.valid:
                    self._credentials.refresh(self._request)
            except self._error as error:
                raise AccessDenied(what=what, why=f"{type(error).__name__}: {error}") from error
            return str(self._credentials.token)


def _recorded(uri: str, item: dict[str, Any]) -> Reference:
    return Reference(uri, item["etag"], int(item["size"]), {"versionID": str(item["generation"])})


def _json(response: Response) -> dict[str, Any]:
    return dict(json.loads(response.read()))
