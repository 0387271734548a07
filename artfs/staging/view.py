"""The tree as it is now: the base version's catalog with the area's tables laid over it.

Why an overlay and not a copy of the catalog: nothing has to be copied or converted before the mount is ready, however
many entries the base has; a directory that was not touched costs nothing, and one that is renamed is one row, for
what it holds is found in the base by its inode, wherever it hangs.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Iterator
from typing import NamedTuple

from artfs.catalog import Catalog, Kind, Node, bounded_time
from artfs.errors import NotFound
from artfs.staging.database import Database
from artfs.staging.files import LocalFiles
from artfs.staging.schema import FIRST

ROOT = 1
_PAGE = 128  # rows of a listing fetched at a time
_COLUMNS = "inode, kind, mode, mtime, nlink, parent, name, size, shown, target"
_INODE = f"SELECT {_COLUMNS} FROM inode WHERE inode=?"
_INODES = f"SELECT {_COLUMNS} FROM inode WHERE inode IN (SELECT value FROM json_each(?))"
_NAME = "SELECT inode FROM name WHERE parent=? AND name=?"
_HIDDEN = "SELECT cookie, inode FROM name WHERE parent=? AND cookie IN (SELECT value FROM json_each(?))"
_NEW = f"SELECT cookie, name, inode FROM name WHERE parent=? AND cookie>? ORDER BY cookie LIMIT {_PAGE}"
_NEW_BY_NAME = (
    f"SELECT cookie, name, inode FROM name WHERE parent=? AND name>? AND cookie>={FIRST} ORDER BY name LIMIT {_PAGE}"
)


class Inode(NamedTuple):
    """One inode; the fields are those of table ``inode`` (schema.py). Named tuples come from rows in 0.2 us."""

    inode: int
    kind: int
    mode: int
    mtime_ns: int
    nlink: int
    parent: int | None
    name: str | None
    size: int | None
    shown: int | None
    target: str | None


class Child(NamedTuple):
    """A name in a directory."""

    cookie: int
    name: str
    inode: Inode


class View:
    """Reads area and base together. Thread-safe."""

    def __init__(self, database: Database, base: Catalog, files: LocalFiles) -> None:
        self.database = database
        self.base = base
        self.files = files

    def get(self, inode: int) -> Inode:
        """An inode; raises NotFound."""
        row = self.database.one(_INODE, inode)
        if row is not None:
            return Inode._make(row)
        node = self.base.node(inode) if inode < FIRST else None
        if node is None:
            raise NotFound(what="inode", name=inode)
        return of_base(node)

    def find(self, parent: int, name: str) -> Inode | None:
        """What a name in a directory leads to."""
        row = self.database.one(_NAME, parent, name)
        if row is not None:
            return self.get(row[0]) if row[0] else None
        if parent >= FIRST:
            return None
        node = self.base.lookup(parent, name)
        if node is None:
            return None
        changed = self.database.one(_INODE, node.inode)
        return of_base(node) if changed is None else Inode._make(changed)

    def size_and_mtime(self, inode: Inode) -> tuple[int | None, int]:
        """Bytes (None: nobody knows yet) and modification time of an inode."""
        if inode.shown is None:
            return inode.size, inode.mtime_ns
        status = self.files.stat(inode.inode)
        return status.st_size, bounded_time(status.st_mtime_ns)

    def children(self, parent: int, cookie: int = 0) -> Iterator[Child]:
        """What a directory holds after ``cookie``: what the base has there, by name, then the new names by age."""
        if cookie < FIRST:
            if parent < FIRST:
                yield from self._base_children(parent, cookie)
            cookie = FIRST - 1
        while page := self.database.all(_NEW, parent, cookie):
            inodes = self._inodes([inode for _, _, inode in page])
            for cookie, name, inode in page:
                yield Child(cookie, name, inodes.get(inode) or self.get(inode))
            if len(page) < _PAGE:
                return

    def children_by_name(self, parent: int) -> Iterator[Child]:
        """What a directory holds, by name."""
        old = self._base_children(parent, 0) if parent < FIRST else iter(())
        new = self._new_by_name(parent)
        return heapq.merge(old, new, key=lambda child: child.name)

    def children_by_path(self, parent: int) -> Iterator[Child]:
        """What a directory holds in the order of a catalog's paths: a directory that is not empty stands as ``a/``."""
        held: list[tuple[str, Child]] = []  # directories whose turn comes after names such as ``a-b``
        for child in self.children_by_name(parent):
            while held and held[0][0] < child.name:
                yield heapq.heappop(held)[1]
            if child.inode.kind == Kind.DIRECTORY and next(self.children(child.inode.inode), None) is not None:
                heapq.heappush(held, (child.name + "/", child))
            else:
                yield child
        while held:
            yield heapq.heappop(held)[1]

    def path_of(self, inode: int) -> str:
        """The path of a directory from the root; '' is the root itself."""
        parts: list[str] = []
        while inode != ROOT:
            directory = self.get(inode)
            parts.append(directory.name or "")
            inode = directory.parent or ROOT
        return "/".join(reversed(parts))

    def _base_children(self, parent: int, cookie: int) -> Iterator[Child]:
        """The base's names that stand, under whatever inode they now have; replaced ones keep their place."""
        nodes = self.base.children(parent, cookie)
        while page := list(itertools.islice(nodes, _PAGE)):
            ids = json.dumps([node.inode for node in page])
            names = dict(self.database.all(_HIDDEN, parent, ids))
            changed = {row[0]: Inode._make(row) for row in self.database.all(_INODES, ids)}
            for node in page:
                inode = names.get(node.inode, node.inode)
                if inode == node.inode:
                    yield Child(node.inode, node.name, changed.get(inode) or of_base(node))
                elif inode:
                    yield Child(node.inode, node.name, self.get(inode))

    def _new_by_name(self, parent: int) -> Iterator[Child]:
        last = ""
        while page := self.database.all(_NEW_BY_NAME, parent, last):
            inodes = self._inodes([inode for _, _, inode in page])
            for cookie, last, inode in page:
                yield Child(cookie, last, inodes.get(inode) or self.get(inode))

    def _inodes(self, inodes: list[int]) -> dict[int, Inode]:
        return {row[0]: Inode._make(row) for row in self.database.all(_INODES, json.dumps(inodes))}


def of_base(node: Node) -> Inode:
    """A row of the base's catalog as an inode that nobody has changed."""
    directory, link = node.kind == Kind.DIRECTORY, node.kind == Kind.SYMLINK
    return Inode(
        node.inode,
        node.kind,
        node.mode,
        node.mtime_ns,
        1,
        node.parent if directory else None,
        node.name if directory else None,
        node.size,
        None,
        (node.digest or b"").decode() if link else None,
    )
