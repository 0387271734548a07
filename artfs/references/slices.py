"""One 64 MiB slice of a reference, as the block cache reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from artfs.catalog.layout import PACK_DATA
from artfs.references.handler import identity_key
from artfs.references.uri import redact

if TYPE_CHECKING:
    from artfs.catalog.entry import Reference
    from artfs.references import References


@attrs.frozen
class Slice:
    """The bytes ``index * 64 MiB`` onwards of a settled reference: a source of the cache."""

    references: References
    reference: Reference
    path: str
    """The entry's, for messages."""
    index: int
    name: str
    """Equal for slices of equal references, so that all versions share what is cached."""
    label: str
    size: int
    """Bytes in this slice."""

    @classmethod
    def of(cls, references: References, reference: Reference, index: int, path: str) -> Slice:
        """The slice of ``reference``, whose size is known."""
        total = reference.size or 0
        return cls(
            references,
            reference,
            path,
            index,
            name=identity_key(reference, total, index),
            label=f"{path} ({redact(reference.uri)})" if path else redact(reference.uri),
            size=max(0, min(PACK_DATA, total - index * PACK_DATA)),
        )

    def stream(self, start: int, end: int, room: memoryview, deadline: float) -> Iterator[memoryview]:
        """The bytes ``start`` to ``end`` of the slice, a ``room`` at a time; raises what ``References.read`` raises."""
        first = self.index * PACK_DATA
        data = self.references.read(self.reference, first + start, first + end, path=self.path, deadline=deadline)
        whole = memoryview(data)
        for at in range(0, len(whole), len(room)):
            yield whole[at : at + len(room)]

    def checksum(self, block: int) -> int | None:  # noqa: ARG002  a cache asks for one of every source
        """None: nobody recorded any, the first fetch decides."""
        return None
