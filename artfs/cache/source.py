"""What a part mirrors: the interface between the cache and whatever can fetch the bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Source(Protocol):
    """The data of one pack, or one slice of a reference: immutable, at most 64 MiB."""

    @property
    def name(self) -> str:
        """Identity, unique for ever and usable as a file name (a pack's uuid, a hash of a reference's identity)."""

    @property
    def label(self) -> str:
        """What messages call it (pack key or URI), without secrets."""

    @property
    def size(self) -> int:
        """Bytes of data."""

    def stream(self, start: int, end: int, room: memoryview, deadline: float) -> Iterator[memoryview]:
        """The bytes ``start`` to ``end``, by ``deadline`` (monotonic seconds); raises ArtfsError.

        In order and in pieces of ``len(room)`` bytes, the last one perhaps less. A piece may lie in ``room``, and holds
        until the next one is asked for.
        """

    def checksum(self, block: int) -> int | None:
        """XXH3-64 that the block must have, None where nobody knows: then the first fetch decides."""
