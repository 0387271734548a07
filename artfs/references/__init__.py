"""Bytes that live elsewhere: adding a reference by its URI, and reading it by the identity that was recorded.

A reference is *settled* when its size and an identity (version id, generation, ETag, MD5) are known. Most are from the
start. For the others the first answer of the remote side is pinned in the cache directory, for the version (*scope*)
that it was read for, and later answers must match it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import cachetools

from artfs.catalog.entry import Entry, Reference
from artfs.errors import (
    AccessDenied,
    LocalIOError,
    ReferenceChanged,
    ReferenceMissing,
    ReferenceUnsupported,
    Unavailable,
)
from artfs.references.handler import MAX_OBJECTS, Handler, identity_key
from artfs.references.pins import Pins
from artfs.references.retry import Requests, RequestStatistics
from artfs.references.slices import Slice
from artfs.references.spool import Spool
from artfs.references.uri import ARTIFACT_SCHEMES, is_azure, redact, scheme_of

__all__ = ["ARTIFACT_SCHEMES", "MAX_OBJECTS", "References", "Slice", "redact", "scheme_of"]

if TYPE_CHECKING:
    from artfs.references.client import Client

log = logging.getLogger(__name__)

_KINDS: Final = {"http": "http", "https": "http", "s3": "s3", "gs": "gs", "file": "file"}


class References:
    """Every scheme behind one door. Thread-safe; its directory is shared by the processes of a user.

    It holds connections: the child of a fork makes another.
    """

    def __init__(self, directory: Path, *, request_timeout: float, allow_file: bool) -> None:
        """Keep pins and spooled objects in ``directory``; raises LocalIOError.

        ``request_timeout``: seconds that one request may stay silent. ``allow_file``: whether ``file://`` references
        may be read; adding them is always allowed.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LocalIOError(path=directory, why=error.strerror) from error
        self._allow_file = allow_file
        self._requests = Requests(request_timeout)
        self._pins = Pins(directory / "pins.sqlite")
        self._spool = Spool(directory / "spool")
        self._lock = threading.RLock()
        self._handlers: dict[str, Handler] = {}
        self._closing = contextlib.ExitStack()
        self._closing.callback(self._pins.close)
        self._reported: cachetools.LRUCache[str, bool] = cachetools.LRUCache(1024)

    # -- adding -------------------------------------------------------------------------------------------------

    def expand(
        self, uri: str, name: str | None = None, *, checksum: bool = True, max_objects: int | None = None
    ) -> Iterator[Entry]:
        """The entries that W&B's ``add_reference(uri, name, checksum, max_objects)`` adds, one at a time.

        More than ``max_objects`` (default 10,000,000) raise InvalidReference, a ValueError, after that many. Raises
        also InvalidPath, ReferenceMissing, AccessDenied, Unavailable, MissingExtra, SourceUnreadable.
        """
        limit = MAX_OBJECTS if max_objects is None else max_objects
        return self._handler(uri).expand(uri, name or None, checksum=checksum, max_objects=limit)

    # -- reading ------------------------------------------------------------------------------------------------

    def settled(self, reference: Reference, *, scope: str) -> Reference | None:
        """``reference`` with size and identity, from what is recorded or pinned; None if the remote must be asked."""
        if reference.size and self._handler(reference.uri).identity(reference) is not None:
            return reference
        pinned = self._pins.get(scope, identity_key(reference, reference.size))
        return None if pinned is None else _with(reference, pinned)

    def settle(self, reference: Reference, *, scope: str, path: str = "", deadline: float) -> Reference:
        """``reference`` with size and identity, asking the remote side where neither the catalog nor a pin has them.

        ``scope`` names the version, ``path`` the entry for messages. A recorded size of 0 counts as unknown, as W&B
        writes it where it did not know. Raises ReferenceChanged, ReferenceMissing, ReferenceUnsupported, AccessDenied,
        Unavailable, DeadlineExceeded.
        """
        known = self.settled(reference, scope=scope)
        if known is not None:
            return known
        handler = self._handler(reference.uri)
        with self._naming(reference, path):
            found = handler.stat(reference, deadline)
        value: dict[str, object] = {"size": found.size, "extra": dict(found.extra)}
        pinned = _with(reference, self._pins.put(scope, identity_key(reference, reference.size), value))
        if handler.identity(reference) is None:
            log.warning(
                "%s: %s recorded no identity; what it is now (%s, %d bytes) is pinned for this version",
                path, redact(reference.uri), _validators(pinned), pinned.size or 0,
            )  # fmt: skip
        return pinned

    def size(self, reference: Reference, *, scope: str, path: str = "", deadline: float) -> int:
        """Bytes of the reference; raises what ``settle`` raises."""
        return self.settle(reference, scope=scope, path=path, deadline=deadline).size or 0

    def read(self, reference: Reference, start: int, end: int, *, path: str = "", deadline: float) -> bytes:
        """Exactly the bytes ``start`` to ``end`` of a settled reference; raises what ``settle`` raises."""
        with self._naming(reference, path):
            data = self._handler(reference.uri).fetch(reference, start, end, deadline)
        self._requests.count(bytes_received=len(data))
        return data

    def source(self, reference: Reference, index: int, *, path: str = "") -> Slice:
        """The ``index``-th 64 MiB of a settled reference, for the cache."""
        return Slice.of(self, reference, index, path)

    def statistics(self) -> RequestStatistics:
        """What was asked of remote sides so far."""
        return self._requests.statistics()

    def clean(self) -> None:
        """Remove what was spooled from servers without ranges; pins stay, for they say what versions mean."""
        self._spool.clean(0.0)

    def close(self) -> None:
        """Close connections and files."""
        self._closing.close()

    # -- inside -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _naming(self, reference: Reference, path: str) -> Iterator[None]:
        """Put the entry's path before what happened to it, and log once what makes its bytes unavailable for good."""
        try:
            yield
        except (ReferenceChanged, ReferenceMissing, ReferenceUnsupported, AccessDenied, Unavailable) as error:
            named = type(error)(f"{path}: {error}", **error.fields) if path else error
            if isinstance(error, ReferenceChanged | ReferenceMissing):
                key = identity_key(reference, path)
                with self._lock:
                    seen, self._reported[key] = key in self._reported, True
                if not seen:
                    log.error("%s", named)  # noqa: TRY400  the error says it all, and goes on to the caller
            raise named from error.__cause__

    def _handler(self, uri: str) -> Handler:
        scheme = scheme_of(uri)
        if scheme in ARTIFACT_SCHEMES:
            raise ReferenceUnsupported(uri=redact(uri), why="it names an artifact's entry, which a registry resolves")
        kind = "azure" if scheme == "https" and is_azure(uri) else _KINDS.get(scheme, "unknown")
        with self._lock:
            if kind not in self._handlers:
                self._handlers[kind] = self._make(kind)
            return self._handlers[kind]

    @functools.cached_property
    def _client(self) -> Client:
        from artfs.references.client import Client

        client = Client(self._requests)
        self._closing.callback(client.close)
        return client

    def _make(self, kind: str) -> Handler:
        """A handler, importing what it needs only now; raises MissingExtra."""
        match kind:
            case "http":
                from artfs.references.http import Http

                return Http(self._requests, self._client, self._spool)
            case "s3":
                from artfs.references.s3 import S3

                return S3(self._requests)
            case "gs":
                from artfs.references.gs import Gs

                return Gs(self._requests, self._client)
            case "azure":
                from artfs.references.azure import Azure

                return Azure(self._requests)
            case "file":
                from artfs.references.file import File

                return File(self._pins, allow=self._allow_file)
            case _:
                from artfs.references.unknown import Unknown

                return Unknown()


def _with(reference: Reference, pinned: dict[str, Any]) -> Reference:
    return attrs.evolve(reference, size=int(pinned["size"]), extra=dict(pinned["extra"]))


def _validators(reference: Reference) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(reference.extra.items()) if name != "pin") or "no ETag"
