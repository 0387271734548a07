"""Building a catalog from entries that come in path order, holding one path at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

from artfs.catalog.entry import Entry, Kind
from artfs.catalog.schema import APPLICATION_ID, FORMAT, INDEX, ROOT, TABLES
from artfs.digests import ManifestDigest, TreeDigest, md5_raw
from artfs.errors import DiskFull, InvalidInput, LocalIOError, PathConflict

_DIRECTORY_MODE = 0o755


@attrs.frozen
class Summary:
    """What a finished catalog amounts to."""

    digest: str
    """W&B's ``Artifact.digest``."""
    tree_digest: str
    file_count: int
    """Files and references."""
    size: int
    """Bytes of files and references together, as far as they are known."""
    packs: tuple[str, ...]
    """Keys of the packs it refers to."""


@attrs.define
class _Open:
    """A directory on the path that was added last."""

    prefix: str
    inode: int


class CatalogBuilder:
    """Writes one catalog.

    Entries come in the order of their paths (``sorted()`` of the strings); a directory that is not empty may come just
    before the first path beneath it, to set its mode and mtime, and is made without an entry otherwise. Packs may be
    sealed in any order before ``finish``. A context manager: leaving it before ``finish`` removes the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Written once, then published by rename: a half-written file is thrown away, so no journal and no sync.
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.executescript(
                "PRAGMA page_size=4096; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE;"
                f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={FORMAT}; BEGIN; {TABLES}"
            )
        except sqlite3.OperationalError as error:
            raise self._local(error) from error
        self._digest = ManifestDigest()
        self._tree_digest = TreeDigest()
        self._open = [_Open("", ROOT)]
        self._inode = ROOT
        self._packs: dict[str, int] = {}
        self._last = ""
        self._pending: Entry | None = None  # a directory that is empty unless the next path lies beneath it
        self._files = 0
        self._bytes = 0
        self._rows: list[tuple[object, ...]] = []
        self._insert(ROOT, 0, "", Kind.DIRECTORY, _DIRECTORY_MODE, 0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._inode:  # not finished
            self._database.close()
            self._path.unlink(missing_ok=True)

    def set_root(self, mode: int, mtime_ns: int) -> None:
        """Mode and mtime of the root directory."""
        self._flush()
        self._write("UPDATE node SET mode=?, mtime=? WHERE inode=?", [(mode & 0o777, mtime_ns, ROOT)])

    def add(self, entry: Entry) -> int:
        """Take in the next path and return its inode; its extents name packs by key.

        Raises InvalidInput when paths are out of order and PathConflict when two entries have one path (a file that
        is also a directory shows only in ``finish``).
        """
        pending, self._pending = self._pending, None
        if pending is not None and not entry.path.startswith(pending.path + "/"):
            self._digest_leaf(pending)
        if entry.kind is Kind.DIRECTORY:
            self._pending = entry
        else:
            self._digest_leaf(entry)
        parent, name = self._enter(entry.path)
        inode = self._next()
        if entry.kind is Kind.DIRECTORY:
            self._insert(inode, parent, name, Kind.DIRECTORY, entry.mode, entry.mtime_ns, 0)
            self._open.append(_Open(entry.path + "/", inode))
        else:
            self._add_leaf(inode, parent, name, entry)
        return inode

    def set_pack(self, key: str, size: int, checksums: bytes) -> None:
        """Record the data size and block checksums of a pack that entries refer to."""
        self._write("INSERT OR REPLACE INTO pack VALUES (?, ?, ?, ?)", [(self._pack(key), key, size, checksums)])

    @property
    def packs(self) -> tuple[str, ...]:
        """Keys of the packs that entries referred to so far."""
        return tuple(self._packs)

    def finish(self) -> Summary:
        """Complete the file and say what it holds; raises PathConflict, and InvalidInput for a pack never set."""
        if self._pending is not None:
            self._digest_leaf(self._pending)
        summary = Summary(
            self._digest.hexdigest(),
            self._tree_digest.hexdigest(),
            self._files,
            self._bytes,
            tuple(self._packs),
        )
        try:
            self._flush()
            self._check_packs()
            self._database.execute(INDEX)
            self._database.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                attrs.asdict(summary, filter=lambda field, _: field.name != "packs").items(),
            )
            self._database.execute("COMMIT")
            self._database.close()
        except sqlite3.IntegrityError:
            raise self._conflict() from None
        except sqlite3.OperationalError as error:
            raise self._local(error) from error
        self._inode = 0
        return summary

    def _enter(self, path: str) -> tuple[int, str]:
        """Leave the directories that ``path`` is not in, make those it needs; its parent's inode and its name."""
        while not path.startswith(self._open[-1].prefix):
            self._open.pop()
        directory = self._open[-1]
        *missing, name = path[len(directory.prefix) :].split("/")
        for part in missing:
            inode = self._next()
            self._insert(inode, directory.inode, part, Kind.DIRECTORY, _DIRECTORY_MODE, 0, 0)
            directory = _Open(f"{directory.prefix}{part}/", inode)
            self._open.append(directory)
        return directory.inode, name

    def _digest_leaf(self, entry: Entry) -> None:
        """Everything but a directory that holds something is digested, in strict path order."""
        path = entry.path
        if path <= self._last:
            if path == self._last:
                raise PathConflict(path=path, a="one entry", b="another")
            raise InvalidInput(f"catalog entries are out of order: {path!r} after {self._last!r}")
        self._last = path
        match entry.kind:
            case Kind.FILE:
                self._digest.add(path, entry.digest)
                self._tree_digest.add("x" if entry.mode & 0o111 else "f", path, entry.digest)
            case Kind.REFERENCE:
                assert entry.reference is not None
                self._digest.add(path, entry.reference.digest)
                self._tree_digest.add("r", path, f"{entry.reference.uri}\0{entry.reference.digest}")
            case Kind.SYMLINK:
                self._tree_digest.add("l", path, entry.target)
            case Kind.DIRECTORY:
                self._tree_digest.add("d", path, "")

    def _add_leaf(self, inode: int, parent: int, name: str, entry: Entry) -> None:
        size: int | None = entry.size
        digest: bytes | None = None
        pack = offset = None
        match entry.kind:
            case Kind.SYMLINK:
                digest = entry.target.encode()
                size = len(digest)
            case Kind.REFERENCE:
                assert entry.reference is not None
                size = entry.reference.size
                self._add_reference(inode, entry)
            case _:
                pass
        if entry.kind is Kind.FILE or entry.digest:
            digest, size = md5_raw(entry.digest), entry.size
            if sum(extent.length for extent in entry.extents) != size:
                raise InvalidInput(f"the extents of {entry.path!r} do not add up to its size")
            if len(entry.extents) == 1:
                pack, offset = self._pack(entry.extents[0].pack), entry.extents[0].offset
            elif entry.extents:
                self._add_extents(inode, entry)
        if entry.kind is not Kind.SYMLINK:
            self._files += 1
            self._bytes += size or 0
        self._insert(inode, parent, name, entry.kind, entry.mode, entry.mtime_ns, size, digest, pack, offset)

    def _add_extents(self, inode: int, entry: Entry) -> None:
        start = 0
        rows = []
        for extent in entry.extents:
            rows.append((inode, start, self._pack(extent.pack), extent.offset, extent.length))
            start += extent.length
        self._write("INSERT INTO extent VALUES (?, ?, ?, ?, ?)", rows)

    def _add_reference(self, inode: int, entry: Entry) -> None:
        reference = entry.reference
        assert reference is not None
        extra = json.dumps(dict(reference.extra), sort_keys=True) if reference.extra else None
        self._write("INSERT INTO reference VALUES (?, ?, ?, ?)", [(inode, reference.uri, reference.digest, extra)])

    def _pack(self, key: str) -> int:
        return self._packs.setdefault(key, len(self._packs) + 1)

    def _next(self) -> int:
        self._inode += 1
        return self._inode

    def _insert(
        self,
        inode: int, parent: int, name: str, kind: Kind, mode: int, mtime: int, size: int | None,
        digest: bytes | None = None, pack: int | None = None, offset: int | None = None,
    ) -> None:  # fmt: skip
        self._rows.append((inode, parent, name, int(kind), mode & 0o777, mtime, size, digest, pack, offset))
        if len(self._rows) >= 1000:
            self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        self._write("INSERT INTO node VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        try:
            self._database.executemany(statement, rows)
        except sqlite3.OperationalError as error:
            raise self._local(error) from error

    def _check_packs(self) -> None:
        known = {key for (key,) in self._database.execute("SELECT key FROM pack")}
        missing = [key for key in self._packs if key not in known]
        if missing:
            raise InvalidInput(f"{len(missing)} packs have no size and checksums, first {missing[0]}")

    def _conflict(self) -> PathConflict:
        row = self._database.execute(
            "SELECT parent, name FROM node GROUP BY parent, name HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        parent, path = row
        while parent != ROOT:
            parent, name = self._database.execute("SELECT parent, name FROM node WHERE inode=?", (parent,)).fetchone()
            path = f"{name}/{path}"
        return PathConflict(path=path, a="a file", b="a directory")

    def _local(self, error: sqlite3.OperationalError) -> DiskFull | LocalIOError:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return DiskFull(where=self._path.parent, why="the catalog does not fit")
        return LocalIOError(path=self._path, why=str(error))
