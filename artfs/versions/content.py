"""Reading the files of one version: from file offsets to packs and references, through the cache, with readahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import attrs
import cachetools

from artfs.cache import Advice, Cache, Readahead, Source, Succession
from artfs.cache.memory import Memory
from artfs.cache.succession import PER_PACK, place
from artfs.catalog import Catalog, Node, PackInfo, Reference
from artfs.catalog.layout import BLOCK, NEIGHBOURHOOD, PACK_DATA, block_count
from artfs.references import References, redact
from artfs.store import ObjectStore

_SOURCES: Final = 4096
"""Packs whose key and checksums stay in memory, about 1 KB each."""
_SETTLED: Final = 4096
"""References whose size and identity stay in memory."""
COPIES: Final = 2
"""How often a byte that is read is in memory: in the pages of the cache file, and in those of the mount."""
_STREAMS: Final = 512
"""Large files being read whose readahead is remembered."""


class Piece(NamedTuple):
    """A run of a file's bytes and where it lies."""

    source: Source
    offset: int
    """In the source."""
    length: int


class PackSource:
    """The data of one pack, as the cache mirrors it."""

    __slots__ = ("_info", "_store", "label", "name", "size")

    def __init__(self, store: ObjectStore, info: PackInfo) -> None:
        self._store = store
        self._info = info
        self.name = info.key.rpartition("/")[2]
        self.label = info.key
        self.size = info.size

    def stream(self, start: int, end: int, room: memoryview, deadline: float) -> Iterator[memoryview]:
        """A range of the pack's data, a ``room`` at a time."""
        return self._store.stream(self._info.key, start, end, room, deadline=deadline)

    def checksum(self, block: int) -> int:
        """What the catalog says of the block."""
        return self._info.checksum(block)


@attrs.frozen
class ContentStatistics:
    """What reading one version keeps in memory."""

    sources: int
    """Packs whose checksums are at hand."""
    streams: int
    """Large files whose readahead is remembered."""


class ContentReader:
    """Reads files and references of a catalog; thread-safe."""

    def __init__(
        self, catalog: Catalog, cache: Cache, store: ObjectStore, references: Callable[[], References]
    ) -> None:
        """``references`` is asked for them when the first reference is read: most versions have none."""
        self._catalog = catalog
        self._cache = cache
        self._store = store
        self._references = references
        self._sources: dict[int, PackSource] = {}
        self._settled: dict[int, Reference] = {}
        self._streams: cachetools.LRUCache[int, Readahead] = cachetools.LRUCache(_STREAMS)
        self._streams_lock = threading.Lock()
        self._succession = Succession()
        self._memory = Memory()

    def size(self, node: Node, deadline: float | None) -> int | None:
        """Bytes of a file or reference; of a reference without a recorded size, what its remote says.

        With no deadline only what is known already: None where the remote has not been asked yet.
        """
        if node.size is not None:
            return node.size
        reference = self._reference(node, deadline)
        return None if reference is None else reference.size

    def redacted(self, node: Node) -> str:
        """The URI of a reference without secrets."""
        return redact(self._catalog.reference(node.inode).uri)

    def try_read(self, node: Node, offset: int, size: int, room: memoryview | None = None) -> bytes | memoryview | None:
        """At most ``size`` bytes from ``offset`` if that takes neither disk nor network, else None.

        They may be put into ``room``, which holds ``size`` bytes; the answer is then a part of it.
        """
        data: bytes | memoryview | None
        if node.pack is not None:
            assert node.size is not None
            length = min(size, node.size - offset)
            if length <= 0:
                return b""
            start = (node.offset or 0) + offset
            data = self._cache.try_read(self._source(node.pack), start, length, room)
            # The place is worked out here and not by ``place``, to save a call on every hit.
            if data is not None and node.pack * PER_PACK + start // NEIGHBOURHOOD >= self._succession.due:
                self._follow(node.pack, start)
        else:
            total = self.size(node, None)
            if total is None or (node.remote and node.inode not in self._settled):
                return None
            length = min(size, total - offset)
            if length <= 0:
                return b""
            data = self._join(node, offset, length, room)
        if data is not None and (node.size is None or node.size > NEIGHBOURHOOD):
            self._go_on(node, self._stream(node).advise(offset, length))
        return data

    def read(self, node: Node, offset: int, size: int, deadline: float) -> bytes | memoryview:
        """At most ``size`` bytes from ``offset``, fewer only at the end; raises what fetching raises."""
        if node.remote:
            self._reference(node, deadline)
        total = self.size(node, deadline)
        assert total is not None
        length = min(size, total - offset)
        if length <= 0:
            return b""
        if total <= NEIGHBOURHOOD and not node.remote:
            if node.pack is not None:
                self._follow(node.pack, (node.offset or 0) + offset)
            parts = [
                self._cache.read(
                    piece.source,
                    piece.offset,
                    piece.length,
                    deadline,
                    window=neighbourhood(piece),
                    around=self._memory.holds(COPIES * self._catalog.size),
                )
                for piece in self.pieces(node, offset, offset + length)
            ]
            return parts[0] if len(parts) == 1 else b"".join(parts)
        stream = self._stream(node)
        advice = stream.advise(offset, length)
        wanted = self.pieces(node, offset, advice.stop)
        parts = []
        missing = length
        for piece in wanted:
            if missing:
                take = min(missing, piece.length)
                parts.append(self._cache.read(piece.source, piece.offset, take, deadline, window=_blocks(piece)))
                missing -= take
            else:
                self._cache.prefetch(piece.source, *_blocks(piece))
        self._go_on(node, advice)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def prefetch(self, node: Node, deadline: float | None) -> bool:
        """Have a file or reference fetched in the background, in the order in which they are asked for.

        With no deadline, whether that could be begun at once: a reference may have to be asked for its size first.
        """
        if node.remote and self._reference(node, deadline) is None:
            return False
        small = (node.size or 0) <= NEIGHBOURHOOD and not node.remote
        for piece in self.pieces(node, 0, self.size(node, deadline) or 0):
            if not self._cache.request(piece.source, *(neighbourhood(piece) if small else _blocks(piece))):
                break  # the queue is full
        return True

    def settle(self, node: Node, deadline: float) -> int:
        """The size of a file or reference, of which ``pieces`` can then be asked."""
        if node.remote:
            self._reference(node, deadline)
        return self.size(node, deadline) or 0

    def request_pack(self, pack: int, first: int, end: int) -> bool:
        """Have the blocks [first, end) of a pack fetched in the background; whether there was room for the wish."""
        return pack > self._catalog.pack_count or self._cache.request(self._source(pack), first, end)

    def request_reference(self, inode: int, first: int, end: int, deadline: float) -> bool:
        """The same for a reference, which may have to be asked for its size."""
        node = self._catalog.node(inode)
        if node is None or not node.remote:
            return True
        stop = min(end * BLOCK, self.settle(node, deadline))
        pieces = self.pieces(node, first * BLOCK, stop)
        return all(self._cache.request(piece.source, *_blocks(piece)) for piece in pieces)

    def pieces(self, node: Node, begin: int, end: int) -> list[Piece]:
        """Where the bytes ``begin`` to ``end`` lie, in order; ``end`` must not be beyond the end of the file.

        Of a reference, ``settle`` or ``read`` must have been asked before, with a deadline.
        """
        if node.remote:
            return self._reference_pieces(node, begin, end)
        pieces = []
        for start, pack, offset, length in self._catalog.slices(node, begin, end):
            first, last = max(begin, start), min(end, start + length)
            if first < last:
                pieces.append(Piece(self._source(pack), offset + first - start, last - first))
        return pieces

    def cached(self, node: Node) -> int:
        """How many bytes of a file or reference can be read without its remote, counted in whole blocks."""
        total = self.size(node, None)
        if not total or (node.remote and node.inode not in self._settled):
            return 0
        return sum(
            min(piece.offset + piece.length, (block + 1) * BLOCK) - max(piece.offset, block * BLOCK)
            for piece in self.pieces(node, 0, total)
            for block in range(*_blocks(piece))
            if self._cache.present(piece.source, block * BLOCK, 1)
        )

    def statistics(self) -> ContentStatistics:
        """What is kept in memory."""
        return ContentStatistics(sources=len(self._sources), streams=len(self._streams))

    def _join(self, node: Node, offset: int, length: int, room: memoryview | None) -> bytes | memoryview | None:
        parts: list[bytes | memoryview] = []
        at = 0
        for piece in self.pieces(node, offset, offset + length):
            part = self._cache.try_read(piece.source, piece.offset, piece.length, None if room is None else room[at:])
            if part is None:
                return None
            parts.append(part)
            at += piece.length
        if len(parts) == 1:
            return parts[0]
        return b"".join(parts) if room is None else room[:length]  # they lie there one after the other

    def _go_on(self, node: Node, advice: Advice) -> None:
        """Fetch what lies ahead."""
        if advice.ahead < advice.ahead_stop:
            for piece in self.pieces(node, advice.ahead, advice.ahead_stop):
                self._cache.prefetch(piece.source, *_blocks(piece))

    def _follow(self, pack: int, offset: int) -> None:
        """Fetch the neighbourhoods that come next, where small files are read in the order in which they lie."""
        for at in self._succession.touch(place(pack, offset)):
            following, index = divmod(at, PER_PACK)
            if following <= self._catalog.pack_count:
                first = index * (NEIGHBOURHOOD // BLOCK)
                self._cache.prefetch(self._source(following), first, first + NEIGHBOURHOOD // BLOCK)

    def _source(self, pack: int) -> PackSource:
        source = self._sources.get(pack)
        if source is None:
            source = PackSource(self._store, self._catalog.pack(pack))
            if len(self._sources) >= _SOURCES:
                self._sources.clear()  # cheaper than keeping an order on every hit; what is in use comes back at once
            self._sources[pack] = source
        return source

    def _stream(self, node: Node) -> Readahead:
        with self._streams_lock:
            stream = self._streams.get(node.inode)
            if stream is None:
                stream = self._streams[node.inode] = Readahead(node.size or self.size(node, None) or 0)
            return stream

    def _reference_pieces(self, node: Node, begin: int, end: int) -> list[Piece]:
        reference = self._settled.get(node.inode)
        assert reference is not None
        pieces = []
        while begin < end:
            index, offset = divmod(begin, PACK_DATA)
            length = min(end - begin, PACK_DATA - offset)
            source = self._references().source(reference, index, path=self._catalog.path_of(node.inode))
            pieces.append(Piece(source, offset, length))
            begin += length
        return pieces

    def _reference(self, node: Node, deadline: float | None) -> Reference | None:
        """A reference with its size and identity; with no deadline only if both are in memory."""
        reference = self._settled.get(node.inode)
        if reference is None and deadline is not None:
            recorded = self._catalog.reference(node.inode)
            path = self._catalog.path_of(node.inode)
            scope = self._catalog.tree_digest
            reference = self._references().settle(recorded, scope=scope, path=path, deadline=deadline)
            if len(self._settled) >= _SETTLED:
                self._settled.pop(next(iter(self._settled)), None)  # the oldest
            self._settled[node.inode] = reference
        return reference


def neighbourhood(piece: Piece) -> tuple[int, int]:
    """The blocks [first, end) of the aligned 8 MiB around a small piece, and of the next where it reaches over."""
    first = piece.offset // NEIGHBOURHOOD * (NEIGHBOURHOOD // BLOCK)
    end = -(-(piece.offset + piece.length) // NEIGHBOURHOOD) * (NEIGHBOURHOOD // BLOCK)
    return first, min(end, block_count(piece.source.size))


def _blocks(piece: Piece) -> tuple[int, int]:
    return piece.offset // BLOCK, block_count(piece.offset + piece.length)
