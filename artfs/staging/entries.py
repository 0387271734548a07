"""A staging area as the entries of a new catalog: what the base had is carried over, what was written is hashed.

New files pass through ``versions.ingest`` like files of a source directory. A large file of the base that was edited
becomes a mixture: base slices, and extents for the blocks that were touched.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import attrs

from artfs.catalog import Catalog, Entry, Extent, Kind, Node, bounded_time
from artfs.catalog.layout import BLOCK, NEIGHBOURHOOD, PACK_DATA
from artfs.digests import md5_base64, sha256
from artfs.names import PATH_LIMIT, check_path
from artfs.staging.schema import FIRST
from artfs.staging.view import ROOT, Inode, View
from artfs.versions.ingest import Packs
from artfs.versions.scan import SourceFile, identity_of
from artfs.vfs.tree import Tree

_STEP = NEIGHBOURHOOD
_SURELY_SHORT: Final = PATH_LIMIT // 4
"""Characters that are within the limit of bytes whatever they are: a character has four at most."""


class Segment(NamedTuple):
    """A run of an edited file."""

    start: int
    stop: int
    written: bool
    """Whether anything in it was written here; else it is the base's, byte for byte."""


@attrs.frozen
class StagedEntries:
    """Reads an area that nobody writes to any more."""

    view: View
    tree: Tree
    """The area's own tree, which merges written bytes and the base's."""
    packs: Packs
    patience: float
    """Seconds for one read of the base, retries included."""

    def __iter__(self) -> Iterator[SourceFile | Entry]:
        """Everything in path order, directories just before what they hold; raises InvalidPath for one too long."""
        return self._below(ROOT, "")

    def _below(self, directory: int, prefix: str) -> Iterator[SourceFile | Entry]:
        for child in self.view.children_by_path(directory):
            path = prefix + child.name
            if len(path) > _SURELY_SHORT:
                check_path(path)  # a rename above it may have made it too long
            if child.inode.kind == Kind.DIRECTORY:
                yield Entry(path, Kind.DIRECTORY, child.inode.mode, child.inode.mtime_ns)
                yield from self._below(child.inode.inode, path + "/")
            else:
                yield self._leaf(child.inode, path)

    def _leaf(self, node: Inode, path: str) -> SourceFile | Entry:
        if node.kind == Kind.SYMLINK:
            target = node.target or ""
            return Entry(path, Kind.SYMLINK, 0o777, node.mtime_ns, len(target.encode()), target=target)
        base = self.view.base.node(node.inode) if node.inode < FIRST else None
        if node.shown is None:
            assert base is not None  # without bytes of its own it is the base's
            return attrs.evolve(self.view.base.entry(base, path), mode=node.mode, mtime_ns=node.mtime_ns)
        if node.shown == 0 or base is None:
            return source_file(self.view, node, path)
        return self._edited(node, base, path)

    def _edited(self, node: Inode, base: Node, path: str) -> Entry:
        size, mtime_ns = self.view.size_and_mtime(node)
        assert size is not None
        written = list(self.view.database.all("SELECT start, stop FROM range WHERE inode=? ORDER BY start", node.inode))
        # Of a small file, and of one that was a reference, nothing is worth sharing.
        whole = size <= NEIGHBOURHOOD or base.kind != Kind.FILE
        parts = [Segment(0, size, True)] if whole else segments(written, node.shown or 0, size)
        md5 = hashlib.md5(usedforsecurity=False)
        extents: list[Extent] = []
        for part in parts:
            if part.written:
                extents += self._stored(node.inode, part, md5)
            else:
                extents += shared(self.view.base, base, part)
                for chunk in self._read(node.inode, part):
                    md5.update(chunk)
        digest = md5_base64(md5.digest())
        return Entry(path, Kind.FILE, node.mode, mtime_ns, size, digest, extents=tuple(extents))

    def _stored(self, inode: int, part: Segment, md5: hashlib._Hash) -> Iterator[Extent]:
        for start in range(part.start, part.stop, PACK_DATA):
            data = b"".join(self._read(inode, Segment(start, min(start + PACK_DATA, part.stop), True)))
            md5.update(data)
            digest = sha256(data)
            yield self.packs.claim([digest]).get(digest) or self.packs.add(digest, data)

    def _read(self, inode: int, part: Segment) -> Iterator[bytes | bytearray | memoryview]:
        offset = part.start
        while offset < part.stop:
            wanted = min(_STEP, part.stop - offset)
            data = self.tree.read(inode, offset, wanted, time.monotonic() + self.patience)
            yield data
            offset += len(data)


def source_file(view: View, node: Inode, path: str) -> SourceFile:
    """A file that has nothing of the base, as a source to be logged; raises LocalIOError."""
    status = view.files.stat(node.inode)
    local = view.files.path(node.inode)
    mtime_ns = bounded_time(status.st_mtime_ns)
    return SourceFile(path, local, Kind.FILE, node.mode, status.st_size, mtime_ns, identity_of(status))


def segments(written: list[tuple[int, int]], shown: int, size: int) -> list[Segment]:
    """An edited file cut where written and base bytes meet, the written ones widened to whole blocks.

    ``written`` are the ranges below ``shown``, in order; from ``shown`` on everything was written here.
    """
    cuts: list[tuple[int, int]] = []
    for start, stop in [*written, (min(shown, size), size)]:
        first, last = start // BLOCK * BLOCK, min(-(-stop // BLOCK) * BLOCK, size)
        if first >= last:
            continue
        if cuts and first <= cuts[-1][1]:
            cuts[-1] = (cuts[-1][0], max(last, cuts[-1][1]))
        else:
            cuts.append((first, last))
    parts = []
    position = 0
    for first, last in cuts:
        if position < first:
            parts.append(Segment(position, first, False))
        parts.append(Segment(first, last, True))
        position = last
    if position < size:
        parts.append(Segment(position, size, False))
    return parts


def shared(catalog: Catalog, node: Node, part: Segment) -> Iterator[Extent]:
    """The slices of a base file that hold a run of it, exactly."""
    for piece in catalog.slices(node, part.start, part.stop):
        first, last = max(part.start, piece.start), min(part.stop, piece.start + piece.length)
        if first < last:
            yield Extent(catalog.pack(piece.pack).key, piece.offset + first - piece.start, last - first)
