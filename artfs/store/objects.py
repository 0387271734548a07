"""The object store: whole objects in, whole objects and ranges out, with deadlines and retries.

A deadline is an absolute ``time.monotonic()``. A failure that may pass is tried again while the deadline allows, with
exponential backoff and jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote, urlsplit

import attrs

from artfs.errors import ConfigurationError, Damaged, DeadlineExceeded, StoreUnavailable
from artfs.store.backend import BATCH, Backend, NoAnswer, StoredObject, views
from artfs.store.local import LocalBackend

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_SHORT_TRIES: Final = 3
"""Answers shorter than asked for: a broken connection is cured by trying again, a truncated object never is."""
_REMOTE: Final = frozenset({"s3", "gs", "az"})


@attrs.frozen
class StoreStatistics:
    """Counts since the store was opened."""

    requests: int = 0
    """Attempts, retries included."""
    retries: int = 0
    failures: int = 0
    """Operations that failed for good, objects that do not exist included."""
    bytes_in: int = 0
    """Bytes of objects received."""
    bytes_out: int = 0
    """Bytes of objects stored."""


class _ShortAnswer(StoreUnavailable):
    template = "{key} in the object store {store} ends at byte {end}, before byte {expected}"


class ObjectStore:
    """Objects under keys such as ``packs/ab/abcd``. Thread-safe.

    Every operation may raise StoreUnavailable, DeadlineExceeded, AccessDenied, BucketNotFound, ConfigurationError, and
    on a local disk LocalIOError. A ``file:`` store may be used in the child of a process that used it, others not.
    """

    def __init__(self, backend: Backend, url: str, request_timeout: float) -> None:
        self.url = url
        """Where it is; holds no secrets."""
        self._backend = backend
        self._request_timeout = request_timeout
        self._lock = threading.Lock()
        self._counts = StoreStatistics()

    def create(self) -> None:
        """Make the directory of a ``file:`` store, private to its owner; buckets are for their owner to make."""
        self._backend.create()

    def put(self, key: str, buffers: Buffer | Sequence[Buffer], *, deadline: float, overwrite: bool = True) -> None:
        """Store an object from one buffer or several end to end, whole or not at all.

        Raises DiskFull, and ObjectExists unless ``overwrite``; that may also be the doing of an attempt whose answer
        was lost.
        """
        parts = views(buffers)
        self._run(
            f"storing {key}",
            deadline,
            lambda seconds: self._backend.put(_checked(key), parts, overwrite=overwrite, seconds=seconds),
        )
        self._count(bytes_out=sum(part.nbytes for part in parts))

    def get(self, key: str, *, deadline: float) -> bytes:
        """A whole object; raises ObjectNotFound."""
        found = self._run(f"reading {key}", deadline, lambda seconds: self._backend.get(_checked(key), seconds=seconds))
        self._count(bytes_in=memoryview(found).nbytes)
        return bytes(found)

    def get_range(self, key: str, start: int, end: int, *, deadline: float) -> Buffer:
        """Exactly the bytes ``start`` to ``end``; raises ObjectNotFound, and Damaged if the object is shorter."""
        if start >= end:
            return b""
        found = self._run(
            f"reading {key}", deadline, lambda seconds: self._exact_range(_checked(key), start, end, seconds)
        )
        self._count(bytes_in=end - start)
        return found

    def stream(self, key: str, start: int, end: int, room: memoryview, *, deadline: float) -> Iterator[memoryview]:
        """The same in order, in pieces of ``len(room)`` bytes, the last one perhaps less.

        A piece holds until the next one is asked for: it may lie in ``room``. What breaks off is taken up where it
        broke. Raises the same, perhaps after some pieces.
        """
        what, at = f"reading {key}", start
        pieces: Iterator[memoryview] | None = None

        def next_piece(seconds: float) -> memoryview:
            nonlocal pieces
            if pieces is None:
                self._count(requests=1)
                pieces = self._backend.stream(_checked(key), at, end, room, seconds=seconds)
            try:
                piece = next(pieces, None)
                if piece is None or len(piece) < min(len(room), end - at):
                    raise _ShortAnswer(key=key, store=self.url, end=at + len(piece or b""), expected=end)
            except StoreUnavailable:
                pieces = None
                raise
            return piece

        try:
            while at < end:
                piece = self._run(what, deadline, next_piece, requests=0)
                at += len(piece)
                yield piece
        finally:
            self._count(bytes_in=at - start)

    def head(self, key: str, *, deadline: float) -> int | None:
        """An object's size in bytes, None if there is no such object."""
        return self._run(
            f"looking for {key}", deadline, lambda seconds: self._backend.head(_checked(key), seconds=seconds)
        )

    def delete(self, keys: Iterable[str], *, deadline: float) -> None:
        """Delete objects; those that do not exist are no error."""
        wanted = [_checked(key) for key in keys]
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            self._run(f"deleting {len(batch)} objects", deadline, partial(self._delete_batch, batch))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object under a directory such as ``packs``; each page may take twice the time of a request."""
        after = ""
        pages: Iterator[Sequence[StoredObject]] | None = None

        def next_page(seconds: float) -> Sequence[StoredObject] | None:
            nonlocal pages
            if pages is None:
                pages = self._backend.pages(prefix, after, seconds=seconds)
            try:
                return next(pages, None)
            except StoreUnavailable:
                pages = None  # the next attempt goes on after the last page
                raise

        while True:
            deadline = time.monotonic() + 2 * self._request_timeout
            page = self._run(f"listing {prefix}", deadline, next_page)
            if page is None:
                return
            yield from page
            if page:
                after = page[-1].key

    def sweep(self, age: float) -> int:
        """Remove what puts that died more than ``age`` seconds ago left on a local disk; how many."""
        return self._backend.sweep(age)

    def statistics(self) -> StoreStatistics:
        """Counts since the store was opened."""
        return self._counts

    def _delete_batch(self, batch: Sequence[str], seconds: float) -> None:
        self._backend.delete(batch, seconds=seconds)

    def _exact_range(self, key: str, start: int, end: int, seconds: float) -> Buffer:
        found = self._backend.get_range(key, start, end, seconds=seconds)
        received = memoryview(found).nbytes
        if received != end - start:
            raise _ShortAnswer(key=key, store=self.url, end=start + received, expected=end)
        return found

    def _run(self, what: str, deadline: float, attempt: Callable[[float], _T], *, requests: int = 1) -> _T:
        started = time.monotonic()
        tries = 0
        try:
            while True:
                tries += 1
                if requests or tries > 1:
                    self._count(requests=requests, retries=int(tries > 1))
                try:
                    return attempt(deadline - time.monotonic())
                except StoreUnavailable as error:
                    if isinstance(error, _ShortAnswer) and tries >= _SHORT_TRIES:
                        raise Damaged(str(error)) from error
                    pause = _pause(tries)
                    if time.monotonic() + pause >= deadline:
                        if isinstance(error, NoAnswer):
                            seconds = round(time.monotonic() - started, 1)
                            raise DeadlineExceeded(what=f"{what} in {self.url}", seconds=seconds) from error
                        raise
                    log.debug("%s: %s; trying again in %.1f s", what, error, pause)
                    time.sleep(pause)
        except Exception:
            self._count(failures=1)
            raise

    def _count(self, **more: int) -> None:
        with self._lock:
            old = self._counts
            self._counts = attrs.evolve(old, **{name: getattr(old, name) + more[name] for name in more})


def open_store(url: str, *, endpoint: str | None, request_timeout: float) -> ObjectStore:
    """The store at ``file:///directory``, ``s3://bucket/prefix``, ``gs://..`` or ``az://..``; talks to nobody yet.

    ``endpoint`` is the URL of an S3 server other than Amazon's. ``request_timeout``: seconds that a server may be
    silent. Credentials come from the surroundings, so a URL that holds any is refused. Raises ConfigurationError.
    """
    parts = urlsplit(url)
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError(why="the URL of the object store holds credentials or a query; name the place only")
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise ConfigurationError(why=f"{url} is not file:///absolute/directory")
        return ObjectStore(LocalBackend(Path(unquote(parts.path)), url), url, request_timeout)
    if parts.scheme not in _REMOTE or not parts.netloc:
        raise ConfigurationError(why=f"{url!r} is no object store; expected file:///directory or s3://bucket/prefix")
    from artfs.store.remote import RemoteBackend  # obstore is not loaded where the store is a directory

    url = url.rstrip("/")
    return ObjectStore(RemoteBackend(url, endpoint=endpoint, request_timeout=request_timeout), url, request_timeout)


def _checked(key: str) -> str:
    # Keys also come from catalogs and manifests that others wrote.
    if any(part in {"", ".", ".."} for part in key.split("/")) or "\0" in key:
        raise Damaged(f"{key!r} cannot be the key of an object")
    return key


def _pause(tries: int) -> float:
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (tries - 1))
    return random.uniform(longest / 2, longest)  # noqa: S311  jitter, not cryptography
