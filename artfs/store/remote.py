"""Object stores on the network, through obstore: S3 and servers that speak its protocol, GCS, Azure.

Long ranges from S3 go past it, see ``signed``.

obstore's own retries are off, since they know nothing of the caller's deadline. What bounds an attempt is a property of
an obstore client, so there is one client for each of a few time limits, made when first needed.

obstore runs its requests on threads of its own, which a forked child does not inherit: a request there would wait for
ever. A child of a process that has talked to a store gets an error instead.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from artfs.errors import (
    AccessDenied,
    ArtfsError,
    BucketNotFound,
    ConfigurationError,
    ObjectExists,
    ObjectNotFound,
    StoreUnavailable,
)
from artfs.store.backend import CODE, TRANSIENT_STATUS, NoAnswer, StoredObject
from artfs.store.signed import SIGNED_FOR, SignedRanges, Unfit

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Store
    from obstore.store import ObjectStore as Client
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

_STEP: Final = 1.25
"""Ratio of one time limit to the next shorter one: an attempt gets at least four fifths of the time that is left."""
_SHORTEST: Final = 0.25
_SLOWEST: Final = 256 << 10
"""Bytes a second below which an upload counts as stalled: an upload makes no progress that a client could watch."""

_PROVIDER_MESSAGE = re.compile(r"credential provider: (?:\w+: )?(.*)")
_STATUS = re.compile(r"status code: (\d{3})")
_SYSTEM_MESSAGE = re.compile(r'Os \{.*?message: "([^"]*)"', re.DOTALL)
_TRANSIENT_CODES: Final = frozenset({"RequestTimeout", "SlowDown", "InternalError"})
_DENIED_CODES: Final = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})  # S3 sends 400 with these
_NO_BUCKET: Final = frozenset({"NoSuchBucket", "ContainerNotFound"})

_forked = False
_used = False


def _after_fork() -> None:
    global _forked  # noqa: PLW0603  a fact about the process
    _forked = _used


os.register_at_fork(after_in_child=_after_fork)


class RemoteBackend:
    """One bucket (and prefix) on the network. Thread-safe; not after a fork."""

    def __init__(self, url: str, *, endpoint: str | None, request_timeout: float) -> None:
        """``url`` without secrets; ``request_timeout`` is how many seconds the server may be silent."""
        self._url = url
        self._endpoint = endpoint
        self._silence = request_timeout
        self._lock = threading.Lock()
        self._settings: dict[str, Any] | None = None
        self._clients: dict[tuple[int, bool], Client] = {}
        # Signing for the others may take a request to their servers.
        self._signed = SignedRanges(url, self._sign, silence=request_timeout) if url.startswith("s3:") else None

    def create(self) -> None:
        """Nothing: buckets are their owner's to make."""

    def put(self, key: str, buffers: Sequence[Buffer], *, overwrite: bool, seconds: float) -> None:
        size = sum(memoryview(buffer).nbytes for buffer in buffers)
        limit = min(seconds, self._silence + size / _SLOWEST)
        with self._errors(key, creating=not overwrite):
            obstore.put(
                self._client(limit, uploads=True),
                key,
                list(buffers),  # obstore sends them one after the other, without joining them
                use_multipart=False,
                mode="overwrite" if overwrite else "create",
            )

    def get(self, key: str, *, seconds: float) -> Buffer:
        with self._errors(key):
            answer = obstore.get(self._client(seconds), key)
            return answer.bytes()

    def get_range(self, key: str, start: int, end: int, *, seconds: float) -> Buffer:
        with self._errors(key):
            try:
                return obstore.get_range(self._client(seconds), key, start=start, end=end)
            except BaseError as error:
                if _match(_STATUS, str(error)) == "416":  # Range Not Satisfiable: the object ends before ``start``
                    return b""
                raise

    def stream(self, key: str, start: int, end: int, room: memoryview, *, seconds: float) -> Iterator[memoryview]:
        self._claim_process()  # connections and signed URLs are inherited, too
        try:
            if self._signed is not None:
                return (yield from self._signed.stream(key, start, end, room, seconds))
        except Unfit:  # nothing has been yielded yet
            log.debug("%s in %s: not by a signed URL", key, self._url)
        whole = memoryview(self.get_range(key, start, end, seconds=seconds)).cast("B")
        for at in range(0, len(whole), len(room)):
            yield whole[at : at + len(room)]

    def _sign(self, key: str) -> str:
        with self._errors(key):
            client = cast("S3Store", self._client(self._silence))
            return obstore.sign(client, "GET", key, timedelta(seconds=SIGNED_FOR))

    def head(self, key: str, *, seconds: float) -> int | None:
        client = self._client(seconds)
        with contextlib.suppress(ObjectNotFound), self._errors(key):
            return obstore.head(client, key)["size"]
        # The answer to HEAD has no body that would say whether the bucket is there; that to a listing has.
        with self._errors(key, listing=True):
            next(obstore.list(client, key, chunk_size=1), None)
        return None

    def delete(self, keys: Sequence[str], *, seconds: float) -> None:
        client = self._client(seconds)
        batches: Sequence[Sequence[str]] = [keys] if self._url.startswith("s3:") else [[key] for key in keys]
        for batch in batches:  # other stores report a missing object as an error, without saying which
            with contextlib.suppress(ObjectNotFound), self._errors(batch[0]):
                obstore.delete(client, batch)

    def pages(self, prefix: str, after: str, *, seconds: float) -> Iterator[Sequence[StoredObject]]:
        listing = obstore.list(self._client(seconds), prefix or None, offset=after or None, chunk_size=1000)
        while True:
            with self._errors(prefix, listing=True):
                page = next(listing, None)
            if page is None:
                return
            yield [StoredObject(item["path"], item["size"], item["last_modified"]) for item in page]

    def sweep(self, age: float) -> int:
        del age
        return 0  # a put is one request: the server keeps all of it or nothing

    def _client(self, limit: float, *, uploads: bool = False) -> Client:
        """The client whose requests end within ``limit`` seconds, and are given up after too long a silence."""
        self._claim_process()
        rung = math.floor(math.log(max(limit, _SHORTEST), _STEP))
        with self._lock:
            client = self._clients.get((rung, uploads))
            if client is None:
                client = self._clients[rung, uploads] = self._make_client(_STEP**rung, uploads=uploads)
            return client

    def _claim_process(self) -> None:
        """Note that this process uses a store; raises ArtfsError if it was forked from one that did."""
        global _used  # noqa: PLW0603  a fact about the process
        if _forked:
            raise ArtfsError(f"{self._url} was in use when this process was forked; start the process anew instead")
        _used = True

    def _make_client(self, limit: float, *, uploads: bool) -> Client:
        if self._settings is None:
            self._settings = self._find_settings()
        options: ClientConfig = {
            "allow_http": True,
            "timeout": timedelta(seconds=limit),
            "connect_timeout": timedelta(seconds=min(limit, self._silence, 5.0)),
        }
        if not uploads:  # while it sends, a client hears nothing
            options["read_timeout"] = timedelta(seconds=min(limit, self._silence))
        try:
            return from_url(self._url, **self._settings, client_options=options, retry_config={"max_retries": 0})
        except (BaseError, ValueError) as error:
            raise ConfigurationError(why=f"the object store {self._url}: {_first_line(error)}") from None

    def _find_settings(self) -> dict[str, Any]:
        if self._url.startswith("s3:"):
            from artfs.store import aws

            return aws.settings(self._url, self._endpoint)
        name = "base_url" if self._url.startswith("gs:") else "endpoint"
        return {"config": {name: self._endpoint}} if self._endpoint else {}

    @contextlib.contextmanager
    def _errors(self, key: str, *, creating: bool = False, listing: bool = False) -> Iterator[None]:
        try:
            yield
        except ArtfsError:
            raise
        except (BaseError, OSError, ValueError) as error:
            raise self._translated(error, key, creating=creating, listing=listing) from None

    def _translated(self, error: Exception, key: str, *, creating: bool, listing: bool) -> ArtfsError:
        # obstore tells little by class; the status and S3's code stand in the text. The text itself is not passed on:
        # it holds request URLs, which may be signed.
        text = str(error)
        status = _match(_STATUS, text)
        code = _match(CODE, text)
        why = " ".join(part for part in (status, code) if part) or _match(_PROVIDER_MESSAGE, text) or _first_line(error)
        number = int(status or 0)
        if isinstance(error, AlreadyExistsError) or (creating and number == 412):
            return ObjectExists(key=key)
        if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or number in {401, 403}:
            return AccessDenied(what=f"the object store {self._url}", why=why)
        if code in _DENIED_CODES:
            return AccessDenied(what=f"the object store {self._url}", why=why)
        if code in _NO_BUCKET or (number == 404 and listing):
            return BucketNotFound(store=self._url)
        if isinstance(error, FileNotFoundError) or number == 404:
            return ObjectNotFound(key=key, store=self._url)
        if number in TRANSIENT_STATUS or code in _TRANSIENT_CODES:
            return StoreUnavailable(store=self._url, why=why)
        if "TimedOut" in text or "kind: Timeout" in text:
            return NoAnswer(store=self._url, why="no answer in time")
        if "HTTP error" in text or "HttpError" in text:
            return StoreUnavailable(store=self._url, why=_match(_SYSTEM_MESSAGE, text) or "the connection broke")
        return ArtfsError(f"the object store {self._url} failed: {why}")


def _match(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found[1] if found else None


def _first_line(error: Exception) -> str:
    line = str(error).partition("\n")[0]
    return re.sub(r"\w+://\S+", lambda url: f"{urlsplit(url[0]).scheme}://...", line)
