"""Finding the older version of an object whose ETag was recorded without a version id."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import cachetools

from artfs.catalog.entry import Reference
from artfs.errors import AccessDenied, ReferenceChanged, ReferenceMissing, Unavailable
from artfs.references.handler import recorded_etag

T = TypeVar("T")


class History:
    """What W&B does too: an object that was replaced or deleted is looked for among its versions. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: cachetools.LRUCache[tuple[str, str], str] = cachetools.LRUCache(4096)

    def ask(
        self,
        reference: Reference,
        version: str | None,
        ask: Callable[[str | None], T],
        search: Callable[[str], str | None],
    ) -> T:
        """``ask(version)``; where no version is known and the present one is another, for the one that ``search``
        finds by its ETag.
        """
        etag = recorded_etag(reference)
        if version is not None or etag is None:
            return ask(version)
        with self._lock:
            version = self._found.get((reference.uri, etag))
        try:
            return ask(version)
        except (ReferenceChanged, ReferenceMissing):
            try:
                version = search(etag)
            except (AccessDenied, Unavailable, ReferenceMissing):  # then what ``ask`` said stands
                version = None
            if version is None:
                raise
        with self._lock:
            self._found[reference.uri, etag] = version
        return ask(version)
