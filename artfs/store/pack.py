"""Packs: many extents in one immutable object of at most 64 MiB of data.

A pack is an object under the key ``packs/<first 2 digits>/<32 digits>``, the digits being a uuid4 in hexadecimal that
is never used again. All integers are unsigned and little-endian. From its first byte to its last:

======================  =====================================================================================
data                    ``data_length`` bytes: the extents end to end, in the order they were added
index                   ``extent_count`` records of 48 bytes, in the same order:

                        ====== ====== =====================================================
                        offset length
                        ====== ====== =====================================================
                        0      32     SHA-256 of the extent's bytes
                        32     8      offset of the extent in the data
                        40     8      length of the extent, at least 1
                        ====== ====== =====================================================
footer                  the last 64 bytes of the object:

                        ====== ====== =====================================================
                        offset length
                        ====== ====== =====================================================
                        0      8      ``artfpack`` in ASCII
                        8      2      format version, 1
                        10     2      codec of the data: 0, stored as it is
                        12     4      ``extent_count``
                        16     8      ``data_length``
                        24     8      XXH3-64 (seed 0) of the index
                        32     24     zero
                        56     8      XXH3-64 (seed 0) of the footer's first 56 bytes
                        ====== ====== =====================================================
======================  =====================================================================================

Block checksums (8 bytes each, in the registry and in catalogs, not in the pack) are XXH3-64 of each MiB of the data;
the last block may be shorter.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import attrs

from artfs.catalog.layout import BLOCK, PACK_DATA
from artfs.digests import block_checksum
from artfs.errors import CorruptPack, Damaged, ObjectNotFound
from artfs.registry import KnownExtent
from artfs.store.objects import ObjectStore

if TYPE_CHECKING:
    from typing_extensions import Buffer

FORMAT: Final = 1
_MAGIC: Final = b"artfpack"
_RECORD: Final = struct.Struct("<32sQQ")
_FOOTER: Final = struct.Struct("<8sHHIQQ24x")
_CHECK: Final = struct.Struct("<Q")
FOOTER_SIZE: Final = _FOOTER.size + _CHECK.size
_MOST_EXTENTS: Final = PACK_DATA  # of one byte each
_FIRST_READ: Final = 64 << 10
"""Bytes at the end of a pack that are read first: footer and index of most."""


@attrs.frozen
class SealedPack:
    """A pack that is ready to be stored."""

    key: str
    buffers: tuple[Buffer, ...]
    """The whole object, end to end."""
    size: int
    """Bytes of data."""
    checksums: bytes
    """XXH3-64 of each block, 8 bytes little-endian each."""
    extents: tuple[KnownExtent, ...]

    @property
    def stored_size(self) -> int:
        """Bytes of the whole object."""
        return self.size + _RECORD.size * len(self.extents) + FOOTER_SIZE


class PackBuilder:
    """Fills one pack. Data is copied once, block by block, so callers may re-use their buffers at once."""

    def __init__(self) -> None:
        name = uuid.uuid4().hex
        self.key = f"packs/{name[:2]}/{name}"
        self.size = 0
        self._blocks: list[bytearray] = []
        self._checksums = bytearray()
        self._extents: list[KnownExtent] = []

    def room(self) -> int:
        """Bytes of data that still fit."""
        return PACK_DATA - self.size

    def append(self, sha256: bytes, chunks: Iterable[Buffer]) -> int:
        """Add an extent that fits; its offset."""
        start = self.size
        for chunk in chunks:
            self._copy(memoryview(chunk).cast("B"))
        if self.size > PACK_DATA:
            raise ValueError("the extent does not fit into the pack")
        self._extents.append(KnownExtent(sha256, self.key, start, self.size - start))
        return start

    def seal(self) -> SealedPack:
        """The finished pack; nothing may be added any more."""
        filled = self.size % BLOCK
        if filled:
            last = self._blocks[-1]
            del last[filled:]
            self._checksums += _CHECK.pack(block_checksum(last))
        index = b"".join(_RECORD.pack(extent.sha256, extent.offset, extent.length) for extent in self._extents)
        footer = _FOOTER.pack(_MAGIC, FORMAT, 0, len(self._extents), self.size, block_checksum(index))
        tail = index + footer + _CHECK.pack(block_checksum(footer))
        return SealedPack(self.key, (*self._blocks, tail), self.size, bytes(self._checksums), tuple(self._extents))

    def _copy(self, rest: memoryview) -> None:
        while rest:
            filled = self.size % BLOCK
            if not filled:
                self._blocks.append(bytearray(BLOCK))
            taken = min(BLOCK - filled, len(rest))
            self._blocks[-1][filled : filled + taken] = rest[:taken]
            self.size += taken
            rest = rest[taken:]
            if filled + taken == BLOCK:
                self._checksums += _CHECK.pack(block_checksum(self._blocks[-1]))


def read_index(store: ObjectStore, key: str, deadline: float) -> tuple[KnownExtent, ...]:
    """The extents that a stored pack says it holds; raises CorruptPack, ObjectNotFound.

    Does not read the data: its bytes may still differ from what the digests name.
    """
    object_size = store.head(key, deadline=deadline)
    if object_size is None:
        raise ObjectNotFound(key=key, store=store.url)
    start = max(0, object_size - _FIRST_READ)
    tail = bytes(_read(store, key, start, object_size, deadline))
    if len(tail) < FOOTER_SIZE:
        raise CorruptPack(key=key, where="its end", why="it is too short to be a pack")
    footer, (check,) = tail[-FOOTER_SIZE : -_CHECK.size], _CHECK.unpack(tail[-_CHECK.size :])
    magic, version, codec, count, size, index_check = _FOOTER.unpack(footer)
    if magic != _MAGIC or check != block_checksum(footer):
        raise CorruptPack(key=key, where="its footer", why="the footer's checksum differs")
    if (version, codec) != (FORMAT, 0):
        raise CorruptPack(key=key, where="its footer", why=f"format {version} with codec {codec} is unknown here")
    if size > PACK_DATA or count > _MOST_EXTENTS or size + count * _RECORD.size + FOOTER_SIZE != object_size:
        raise CorruptPack(key=key, where="its footer", why="the lengths do not add up to the object's")
    if size < start:
        tail = bytes(_read(store, key, size, start, deadline)) + tail
        start = size
    index = tail[size - start : -FOOTER_SIZE]
    if block_checksum(index) != index_check:
        raise CorruptPack(key=key, where="its index", why="the index's checksum differs")
    return tuple(_extents(key, index, size))


def _extents(key: str, index: bytes, size: int) -> Iterator[KnownExtent]:
    for sha256, offset, length in _RECORD.iter_unpack(index):
        if not length or offset + length > size:
            raise CorruptPack(key=key, where="its index", why="an extent lies outside the data")
        yield KnownExtent(sha256, key, offset, length)


def _read(store: ObjectStore, key: str, start: int, end: int, deadline: float) -> Buffer:
    try:
        return store.get_range(key, start, end, deadline=deadline)
    except CorruptPack:
        raise
    except Damaged as error:
        raise CorruptPack(key=key, where=f"byte {start}", why=str(error)) from error
