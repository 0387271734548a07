"""Reading a catalog: memory-mapped, immutable, from any number of threads."""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import attrs

from artfs.catalog.entry import Entry, Extent, Kind, PackInfo, Reference
from artfs.catalog.schema import APPLICATION_ID, FORMAT, ROOT
from artfs.digests import md5_base64
from artfs.errors import CorruptCatalog, LocalIOError, SchemaMismatch

_MMAP = 2 << 30  # SQLite's own most; what lies beyond is read with pread(2)
_PAGE = 128  # rows of ``children`` fetched at a time


class Node(NamedTuple):
    """One row of table ``node`` (schema.py says what each field means).

    A named tuple, because rows come by the million: made from SQLite's row in 0.2 us, an attrs class takes 1.2.
    """

    inode: int
    parent: int
    name: str
    kind: int
    mode: int
    mtime_ns: int
    size: int | None
    digest: bytes | None
    pack: int | None
    offset: int | None

    @property
    def remote(self) -> bool:
        """Whether it is a reference to bytes outside the store."""
        return self.kind == Kind.REFERENCE and self.digest is None


Listed: TypeAlias = tuple[int, str, int, int, int, "int | None"]
"""What a listing shows of a node: inode, name, kind, mode, modification time in nanoseconds, size. No more columns than
it needs and no names for them, since listings come by the million."""


class Slice(NamedTuple):
    """Where a run of a file's bytes lies."""

    start: int
    """In the file."""
    pack: int
    """Id of the pack in this catalog."""
    offset: int
    """In the pack's data."""
    length: int


@attrs.frozen
class CatalogStatistics:
    """What a catalog has opened."""

    connections: int
    """SQLite connections idle in the pool; one for each thread that ever read at once."""


_COLUMNS = "inode, parent, name, kind, mode, mtime, size, digest, pack, offset"
_NODE = f"SELECT {_COLUMNS} FROM node WHERE inode=?"
_LOOKUP = f"SELECT {_COLUMNS} FROM node WHERE parent=? AND name=?"
_CHILDREN = f"SELECT {_COLUMNS} FROM node WHERE parent=? AND name>? ORDER BY name LIMIT {_PAGE}"
_LISTING = "SELECT inode, name, kind, mode, mtime, size FROM node WHERE parent=? AND name>? ORDER BY name"
_WALK = f"SELECT {_COLUMNS} FROM node WHERE inode>=? ORDER BY inode"
_PACKS = "SELECT id, key, size, checksums FROM pack WHERE id>? ORDER BY id LIMIT 100"
_DIRECTORIES = "SELECT inode, parent, name, mode FROM node WHERE kind=? ORDER BY inode"
_REFERENCE = "SELECT uri, r.digest, size, extra FROM reference r JOIN node USING (inode) WHERE inode=?"
_SLICES = (
    "SELECT start, pack, offset, length FROM extent WHERE inode=?1 AND start<?3 "
    "AND start>=coalesce((SELECT max(start) FROM extent WHERE inode=?1 AND start<=?2), 0) ORDER BY start"
)


class Catalog:
    """One version's tree. ``name`` stands in messages only."""

    def __init__(self, path: Path, name: str) -> None:
        """Open the file; raises CorruptCatalog, SchemaMismatch for a newer format, LocalIOError."""
        self.path = path
        self.name = name
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False
        self._first = connection = self._connect()
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (format_,) = connection.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION_ID:
                raise CorruptCatalog(name=name, why="it is not a catalog")
            if format_ > FORMAT:
                raise SchemaMismatch(
                    what=f"the catalog {name}", found=format_, known=FORMAT, hint="upgrade artfs to read it"
                )
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            pages, page_size = (connection.execute(f"PRAGMA {p}").fetchone()[0] for p in ("page_count", "page_size"))
            if path.stat().st_size != pages * page_size:
                raise CorruptCatalog(name=name, why="it is truncated")
            self.digest: str = meta["digest"]
            self.tree_digest: str = meta["tree_digest"]
            self.file_count: int = meta["file_count"]
            self.size: int = meta["size"]
            self.pack_count: int = connection.execute("SELECT coalesce(max(id), 0) FROM pack").fetchone()[0]
        except (sqlite3.DatabaseError, KeyError) as error:
            connection.close()
            raise self._mapped(error) from error
        except FileNotFoundError as error:
            connection.close()
            raise LocalIOError(path=path, why=error.strerror) from error
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the connections; one that a thread is reading with at this moment, when it is done."""
        self._closed = True
        self._first.close()
        while self._idle:
            self._idle.pop().close()

    def node(self, inode: int) -> Node | None:
        """The row of an inode."""
        return self._one(_NODE, (inode,))

    def lookup(self, parent: int, name: str) -> Node | None:
        """The row of a name in a directory; a name that is not UTF-8 (it has surrogates) is in none."""
        try:
            return self._one(_LOOKUP, (parent, name))
        except UnicodeEncodeError:
            return None

    def resolve(self, path: str) -> Node | None:
        """The row of a path from the root ('' is the root itself)."""
        node = self.node(ROOT)
        for name in path.split("/") if path else ():
            if node is None:
                return None
            node = self.lookup(node.inode, name)
        return node

    def path_of(self, inode: int) -> str:
        """The path of an inode from the root, for messages."""
        parts: list[str] = []
        while inode != ROOT:
            node = self.node(inode)
            if node is None:
                return f"inode {inode}"
            parts.append(node.name)
            inode = node.parent
        return "/".join(reversed(parts))

    def children(self, parent: int, after: int = 0) -> Iterator[Node]:
        """What a directory holds, by name, after the child with the inode ``after``, a page of rows at a time."""
        previous = self.node(after) if after else None
        name = previous.name if previous is not None else ""
        while page := self._all(_CHILDREN, (parent, name)):
            yield from map(Node._make, page)
            if len(page) < _PAGE:
                return
            name = page[-1][2]

    def listing(self, parent: int, after: int = 0) -> Iterator[Listed]:
        """``children``, but of each only what a listing shows, and no row read that is not taken."""
        previous = self.node(after) if after else None
        return self._rows(_LISTING, (parent, previous.name if previous is not None else ""))

    def slices(self, node: Node, begin: int, end: int) -> list[Slice]:
        """The slices that hold the bytes ``begin`` to ``end`` of a file, whole: first and last may reach beyond."""
        if node.pack is not None:
            return [Slice(0, node.pack, node.offset or 0, node.size or 0)]
        if not node.size:
            return []
        return [Slice._make(row) for row in self._all(_SLICES, (node.inode, begin, end))]

    def pack(self, pack: int) -> PackInfo:
        """One pack by its id in this catalog; raises CorruptCatalog."""
        rows = self._all("SELECT key, size, checksums FROM pack WHERE id=?", (pack,))
        if not rows:
            raise CorruptCatalog(name=self.name, why=f"it has no pack {pack}")
        return PackInfo(*rows[0])

    def packs(self) -> Iterator[PackInfo]:
        """Every pack that the version refers to."""
        last = 0
        while rows := self._all(_PACKS, (last,)):
            for _, *fields in rows:
                yield PackInfo(*fields)
            last = rows[-1][0]

    def reference(self, inode: int) -> Reference:
        """Where the bytes of a reference live; raises CorruptCatalog."""
        rows = self._all(_REFERENCE, (inode,))
        if not rows:
            raise CorruptCatalog(name=self.name, why=f"inode {inode} is no reference")
        uri, digest, size, extra = rows[0]
        return Reference(uri, digest, size, json.loads(extra) if extra else {})

    def entries(self, path: str = "") -> Iterator[Entry]:
        """Everything beneath ``path`` (that path itself if it is no directory), in path order, directories included.

        Inodes are in path order, so this is one scan of the table, whatever the size of the tree.
        """
        top = self.resolve(path)
        if top is None:
            return
        packs = {index: info.key for index, info in enumerate(self.packs(), 1)}
        if top.kind != Kind.DIRECTORY:
            yield self._entry(top, path, packs)
            return
        stack = [(top.inode, f"{path}/" if path else "")]
        for node in map(Node._make, self._rows(_WALK, (top.inode + 1,))):
            while stack and stack[-1][0] != node.parent:
                stack.pop()
            if not stack:
                return
            full = stack[-1][1] + node.name
            if node.kind == Kind.DIRECTORY:
                stack.append((node.inode, full + "/"))
            yield self._entry(node, full, packs)

    def leaves(self, path: str = "") -> Iterator[Entry]:
        """``entries`` without the directories that hold something: what the digests are made of, sorted by path."""
        held: Entry | None = None
        for entry in self.entries(path):
            if held is not None and not entry.path.startswith(held.path + "/"):
                yield held
            held = entry if entry.kind is Kind.DIRECTORY else None
            if held is None:
                yield entry
        if held is not None:
            yield held

    def directories(self) -> Iterator[tuple[str, int]]:
        """Path and permission bits of every directory: the root ('') first, the others sorted by path and a slash."""
        stack: list[tuple[int, str]] = []
        for inode, parent, name, mode in self._rows(_DIRECTORIES, (Kind.DIRECTORY.value,)):
            while stack and stack[-1][0] != parent:
                stack.pop()
            path = stack[-1][1] + name if stack else ""
            stack.append((inode, f"{path}/" if stack else ""))
            yield path, mode

    def permissions(self) -> Iterator[int]:
        """The permission bits of every path in path order, the root first: what the digests leave out but for one."""
        return (mode for (mode,) in self._rows("SELECT mode FROM node ORDER BY inode", ()))

    def entry(self, node: Node, path: str) -> Entry:
        """What stands at a node, under any path."""
        packs = {s.pack: self.pack(s.pack).key for s in self.slices(node, 0, node.size or 0)}
        return self._entry(node, path, packs)

    def statistics(self) -> CatalogStatistics:
        """How many connections are open."""
        return CatalogStatistics(connections=len(self._idle))

    def _entry(self, node: Node, path: str, packs: dict[int, str]) -> Entry:
        kind = Kind(node.kind)
        common = (path, kind, node.mode, node.mtime_ns)
        if kind is Kind.DIRECTORY:
            return Entry(*common)
        if kind is Kind.SYMLINK:
            return Entry(*common, size=node.size or 0, target=(node.digest or b"").decode())
        reference = self.reference(node.inode) if kind is Kind.REFERENCE else None
        if node.remote:
            return Entry(*common, reference=reference)
        extents = tuple(Extent(packs[s.pack], s.offset, s.length) for s in self.slices(node, 0, node.size or 0))
        digest = md5_base64(node.digest or b"")
        return Entry(*common, size=node.size or 0, digest=digest, extents=extents, reference=reference)

    def _rows(self, query: str, values: tuple[object, ...]) -> Iterator[Any]:
        connection = self._take()
        try:
            yield from connection.execute(query, values)
        except sqlite3.DatabaseError as error:
            raise self._mapped(error) from error
        finally:
            self._give_back(connection)

    def _one(self, query: str, values: tuple[object, ...]) -> Node | None:
        rows = self._all(query, values)
        return Node._make(rows[0]) if rows else None

    def _all(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        connection = self._take()
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._mapped(error) from error
        finally:
            self._give_back(connection)

    def _take(self) -> sqlite3.Connection:
        # deque.pop and append are atomic: the pool needs no lock, and a lone thread always gets the same connection.
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            return self._connect()
        except LocalIOError:
            if self._closed:
                raise
            return self._first  # the cache has given up the file's name; SQLite lets threads share in turn

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if self._closed:
            connection.close()
        elif connection is not self._first:
            self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode=ro&immutable=1",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
            connection.execute(f"PRAGMA mmap_size={_MMAP}")
        except sqlite3.DatabaseError as error:
            raise self._mapped(error) from error
        return connection

    def _mapped(self, error: Exception) -> CorruptCatalog | LocalIOError:
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_CANTOPEN:
            return LocalIOError(path=self.path, why=str(error))
        return CorruptCatalog(name=self.name, why=str(error))
