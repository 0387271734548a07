"""One version as a file system: the catalog's tree, its bytes through the cache. Nothing in it ever changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from artfs.catalog import Catalog, Kind, Node
from artfs.digests import md5_base64
from artfs.errors import NotFound
from artfs.registry import VersionRow
from artfs.versions.content import ContentReader
from artfs.versions.repository import Repository
from artfs.vfs.tree import YEAR, Attributes, Capacity, DirectoryEntry, WouldBlock

_NODES: Final = 8192
"""Rows kept at hand, about 400 bytes each: a file that is opened is read a moment later."""
_SHOWN: Final[Mapping[int, Kind]] = {
    Kind.DIRECTORY: Kind.DIRECTORY,
    Kind.FILE: Kind.FILE,
    Kind.SYMLINK: Kind.SYMLINK,
    Kind.REFERENCE: Kind.FILE,
}
"""By the catalog's number; a dictionary, because calling the enum takes 0.5 us."""
_new: Final = tuple.__new__
"""Of a named tuple, for a listing of a million: ``_make`` without its check, in half the time."""


class VersionTree:
    """A ``Tree`` over one catalog."""

    def __init__(
        self,
        version: VersionRow,
        catalog: Catalog,
        reader: ContentReader,
        *,
        base: int = 0,
        repository: Repository | None = None,
    ) -> None:
        """``base`` is added to every inode, many versions fit in one mount; ``repository`` is closed with it."""
        self.version = version
        self._repository = repository
        self._catalog = catalog
        self._reader = reader
        self._base = base
        self._nodes: dict[int, Node] = {}

    def lookup(self, parent: int, name: str, deadline: float | None) -> Attributes | None:  # noqa: ARG002 - Tree
        """What a name is; never waits."""
        node = self._catalog.lookup(parent - self._base, name)
        return None if node is None else self._attributes(self._keep(node))

    def absent_lifetime(self, parent: int) -> float:  # noqa: ARG002 - Tree
        """What is not in a version never will be."""
        return YEAR

    def attributes(self, inode: int, deadline: float | None) -> Attributes:
        """What stat shows; asks the remote for a reference's size that nobody recorded."""
        node = self._node(inode)
        if node.size is None and self._reader.size(node, deadline) is None:
            raise WouldBlock
        return self._attributes(node)

    def list(self, inode: int, cookie: int, deadline: float | None) -> Iterator[DirectoryEntry]:  # noqa: ARG002 - Tree
        """The entries of a directory by name; a cookie is the inode of the entry before."""
        base, shown = self._base, _SHOWN
        for child, name, kind, mode, mtime_ns, size in self._catalog.listing(inode - base, cookie):
            if size is None:  # a reference: what its remote said may be known by now
                yield DirectoryEntry(child, name, *self._attributes(self._node(base + child)))
            else:
                fields = child, name, base + child, shown[kind], mode, size, mtime_ns, 1, YEAR, YEAR
                yield _new(DirectoryEntry, fields)

    def readlink(self, inode: int, deadline: float | None) -> str:  # noqa: ARG002 - Tree
        """The target of a symlink."""
        return (self._node(inode).digest or b"").decode()

    def read(
        self, inode: int, offset: int, size: int, deadline: float | None, room: memoryview | None = None
    ) -> bytes | bytearray | memoryview:
        """Bytes of a file or reference."""
        node = self._nodes.get(inode - self._base) or self._node(inode)
        if deadline is not None:
            return self._reader.read(node, offset, size, deadline)
        data = self._reader.try_read(node, offset, size, room)
        if data is None:
            raise WouldBlock
        return data

    def prefetch(self, inode: int, deadline: float | None) -> bool:
        """Have a file or reference fetched into the cache in the background."""
        node = self._node(inode)
        if node.kind not in {Kind.FILE, Kind.REFERENCE}:
            return False
        if not self._reader.prefetch(node, deadline):
            raise WouldBlock
        return True

    def xattrs(self, inode: int, deadline: float | None) -> Mapping[str, bytes]:
        """Name of the version; of a file also its digest and cached bytes, of a reference its URI and digest."""
        if deadline is None:
            raise WouldBlock  # how much is cached is read from disk
        node = self._node(inode)
        values = {"user.artfs.version": str(self.version.name)}
        if node.inode == 1:
            values["user.artfs.digest"] = self._catalog.digest
        if node.kind == Kind.FILE:
            values["user.artfs.digest"] = md5_base64(node.digest or b"")
        if node.kind == Kind.REFERENCE:
            reference = self._catalog.reference(node.inode)
            values |= {"user.artfs.digest": reference.digest, "user.artfs.ref": self._reader.redacted(node)}
        if node.kind in {Kind.FILE, Kind.REFERENCE}:
            values["user.artfs.cached"] = str(self._reader.cached(node))
        return {name: value.encode() for name, value in values.items()}

    def capacity(self) -> Capacity:
        """Size and number of the version's files."""
        return Capacity(size=self._catalog.size, free=0, files=self._catalog.file_count, files_free=0)

    def statistics(self) -> Mapping[str, Any]:
        """What reading this version keeps open."""
        parts = {} if self._repository is None else self._repository.statistics()
        return parts | {
            "version": str(self.version.name),
            "nodes": len(self._nodes),
            "catalog": attrs.asdict(self._catalog.statistics()),
            "content": attrs.asdict(self._reader.statistics()),
        }

    def close(self) -> None:
        """Close the catalog."""
        self._catalog.close()
        if self._repository is not None:
            self._repository.close()

    def path_of(self, inode: int) -> str:
        """For messages."""
        return f"{self._catalog.name}/{self._catalog.path_of(inode - self._base)}"

    def _node(self, inode: int) -> Node:
        node = self._nodes.get(inode - self._base) or self._catalog.node(inode - self._base)
        if node is None:
            raise NotFound(what="inode", name=inode)
        return self._keep(node)

    def _keep(self, node: Node) -> Node:
        if len(self._nodes) >= _NODES:
            self._nodes.clear()  # no order to keep on every hit
        self._nodes[node.inode] = node
        return node

    def _attributes(self, node: Node) -> Attributes:
        size = node.size if node.size is not None else self._reader.size(node, None)
        return Attributes(
            self._base + node.inode,
            _SHOWN[node.kind],
            node.mode,
            size or 0,
            node.mtime_ns,
            lifetime=0.0 if size is None else YEAR,
        )
