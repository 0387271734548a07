"""What a place for objects must offer: single attempts, without retries, that raise this project's errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol, cast

import attrs

from artfs.errors import StoreUnavailable

if TYPE_CHECKING:
    from typing_extensions import Buffer


@attrs.frozen
class StoredObject:
    """An object as a listing shows it."""

    key: str
    size: int
    modified: datetime
    """When it was stored, by the store's clock."""


def views(data: Buffer | Sequence[Buffer]) -> list[memoryview]:
    """One buffer, or a list or tuple of them, as views of bytes."""
    parts = data if isinstance(data, (list, tuple)) else [data]
    return [memoryview(cast("Buffer", part)).cast("B") for part in parts]


class NoAnswer(StoreUnavailable):
    """One attempt ran into its own time limit."""


class Backend(Protocol):
    """One attempt at each operation. Keys have been checked; ``seconds`` bounds the attempt where it may stall.

    Raises StoreUnavailable where trying again may help (NoAnswer if it took too long), AccessDenied, BucketNotFound,
    ObjectNotFound, ObjectExists, DiskFull, LocalIOError, ConfigurationError.
    """

    def create(self) -> None:
        """Make the place itself, where that is artfs's business."""

    def put(self, key: str, buffers: Sequence[Buffer], *, overwrite: bool, seconds: float) -> None:
        """Store an object, whole or not at all, durably."""

    def get(self, key: str, *, seconds: float) -> Buffer:
        """A whole object."""

    def get_range(self, key: str, start: int, end: int, *, seconds: float) -> Buffer:
        """Bytes ``start`` to ``end``, fewer if the object ends before; nonempty ranges only."""

    def stream(self, key: str, start: int, end: int, room: memoryview, *, seconds: float) -> Iterator[memoryview]:
        """The same in order, in pieces of ``len(room)`` bytes, the last one perhaps less.

        A piece may lie in ``room``, and holds until the next one is asked for.
        """

    def head(self, key: str, *, seconds: float) -> int | None:
        """An object's size, None if there is no such object."""

    def delete(self, keys: Sequence[str], *, seconds: float) -> None:
        """Delete at most ``BATCH`` objects; those that do not exist are no error."""

    def pages(self, prefix: str, after: str, *, seconds: float) -> Iterator[Sequence[StoredObject]]:
        """Objects under a directory, page by page; after a failure, those whose keys come after ``after``."""

    def sweep(self, age: float) -> int:
        """Remove what puts that died more than ``age`` seconds ago left behind; how many."""


BATCH: Final = 1000
"""Keys in one delete: S3's DeleteObjects takes no more."""
TRANSIENT_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP answers after which the same request may succeed."""
CODE: Final = re.compile(r"<Code>(\w+)</Code>")
"""S3's name for an error, in the body of the answer."""
