"""What an artifact holds before it is logged: a temporary SQLite file, so that memory does not grow with the entries.

Files are not copied: a draft keeps where they are and what stat said of them. A file is hashed when its digest is
first asked for, or on its way to the store; if it is no longer what it was when it was added, that raises
SourceChanged. A file that was changed less than a second before it was added is hashed at once: it could change again
without its times telling.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from artfs.catalog import Catalog, Entry, Extent, Kind, Reference
from artfs.digests import ManifestDigest, md5_base64
from artfs.errors import DiskFull, EntryNotFound, LocalIOError, PathConflict, SourceChanged, SourceUnreadable
from artfs.versions.scan import SourceFile

_SETTLED_NS: Final = 1_000_000_000
_THREADS: Final = 4
_PAGE: Final = 1000
"""Rows read at a time: between two pages the draft may change."""

_TEMPORARY: Final = "the directory for temporary files"
"""TMPDIR or /var/tmp: SQLite chooses."""

_TABLES: Final = """
CREATE TABLE entry (
    path      TEXT PRIMARY KEY,
    kind      INTEGER NOT NULL,
    mode      INTEGER NOT NULL,
    mtime     INTEGER NOT NULL,
    size      INTEGER,            -- NULL where a reference's is unknown
    digest    TEXT,               -- as in the manifest; NULL until a file is hashed
    source    BLOB,               -- of a file on this machine: its absolute path,
    device    INTEGER, inode INTEGER, ctime INTEGER,  -- and what tells that it has not changed
    extents   TEXT,               -- of a file that is stored already: JSON [[pack, offset, length], ..]
    ref       TEXT, extra TEXT,   -- of a reference; extra is JSON
    target    TEXT,               -- of a symlink
    serial    INTEGER NOT NULL,   -- grows with every addition
    inherited INTEGER NOT NULL    -- 1: of the version that an incremental one builds on
) WITHOUT ROWID;
-- Directories of which something is to be kept: that they are there, their mode and mtime.
CREATE TABLE directory (path TEXT PRIMARY KEY, mode INTEGER NOT NULL, mtime INTEGER NOT NULL) WITHOUT ROWID;
"""
_COLUMNS: Final = (
    "path, kind, mode, mtime, size, digest, source, device, inode, ctime,"
    " extents, ref, extra, target, serial, inherited"
)
_INSERT: Final = f"INTO entry ({_COLUMNS}) VALUES ({', '.join('?' * 16)})"
_BELOW: Final = "path > ?1 || '/' AND path < ?1 || '0'"  # '0' follows '/' in ASCII
_IS_DIRECTORY: Final = f"""
SELECT 1 FROM entry WHERE {_BELOW}
UNION ALL SELECT 1 FROM directory WHERE path = ?1 UNION ALL SELECT 1 FROM directory WHERE {_BELOW} LIMIT 1
"""
# A directory that holds something sorts as if a slash followed its name: that is where its paths sort.
_DIRECTORIES: Final = """
SELECT path, mode, mtime,
    path || CASE WHEN EXISTS (SELECT 1 FROM entry e WHERE e.path > d.path || '/' AND e.path < d.path || '0')
        OR EXISTS (SELECT 1 FROM directory b WHERE b.path > d.path || '/' AND b.path < d.path || '0')
    THEN '/' ELSE '' END AS key
FROM directory d ORDER BY key
"""


class Row(NamedTuple):
    """One row of table ``entry``."""

    path: str
    kind: int
    mode: int = 0o644
    mtime: int = 0
    size: int | None = None
    digest: str | None = None
    source: bytes | None = None
    device: int = 0
    inode: int = 0
    ctime: int = 0
    extents: str | None = None
    ref: str | None = None
    extra: str | None = None
    target: str | None = None
    serial: int = 0
    inherited: int = 0

    def file(self) -> SourceFile:
        """The file on this machine."""
        assert self.source is not None
        identity = (self.device, self.inode, self.ctime)
        return SourceFile(
            self.path, os.fsdecode(self.source), Kind.FILE, self.mode, self.size or 0, self.mtime, identity
        )

    def entry(self) -> Entry:
        """As a catalog holds it. Of a file that is not stored yet there are no extents, and perhaps no digest."""
        common = (self.path, Kind(self.kind), self.mode, self.mtime)
        extents = tuple(Extent(*extent) for extent in json.loads(self.extents)) if self.extents else ()
        if self.kind == Kind.SYMLINK:
            return Entry(*common, size=self.size or 0, target=self.target or "")
        if self.ref is None:
            return Entry(*common, size=self.size or 0, digest=self.digest or "", extents=extents)
        extra = json.loads(self.extra) if self.extra else {}
        reference = Reference(self.ref, self.digest or "", self.size, extra)
        if self.extents is None:
            return Entry(*common, reference=reference)
        return Entry(*common, self.size or 0, self.digest or "", extents=extents, reference=reference)


def file_row(file: SourceFile, digest: str | None = None) -> Row:
    """The row of a file on this machine; hashed if its times may not tell a later change."""
    if digest is None and time.time_ns() - max(file.mtime_ns, file.identity[2]) < _SETTLED_NS:
        digest = hash_file(file)
    source = os.fsencode(os.path.abspath(file.source))
    return Row(file.path, Kind.FILE, file.mode, file.mtime_ns, file.size, digest, source, *file.identity)


def entry_row(entry: Entry, *, inherited: bool = False) -> Row:
    """The row of what is stored already, or a reference or symlink."""
    reference = entry.reference
    stored = entry.kind is Kind.FILE or bool(entry.digest)
    return Row(
        entry.path,
        entry.kind,
        entry.mode,
        entry.mtime_ns,
        entry.size if reference is None else reference.size,
        entry.manifest_digest or None,
        extents=json.dumps([[e.pack, e.offset, e.length] for e in entry.extents]) if stored else None,
        ref=None if reference is None else reference.uri,
        extra=json.dumps(dict(reference.extra)) if reference is not None and reference.extra else None,
        target=entry.target or None,
        inherited=inherited,
    )


def hash_file(file: SourceFile) -> str:
    """The entry digest of a file; raises SourceChanged if it is no longer what stat said, SourceUnreadable."""
    try:
        with open(file.source, "rb", buffering=0) as stream:
            digest = hashlib.file_digest(stream, _md5).digest()
            status = os.fstat(stream.fileno())
    except OSError as error:
        raise SourceUnreadable(path=file.source, why=error.strerror) from error
    if not file.is_still(status):
        raise SourceChanged(path=file.source)
    return md5_base64(digest)


def _md5() -> Any:  # hashlib's object has no public type
    return hashlib.md5(usedforsecurity=False)


class Draft:
    """The entries; thread-safe. ``name`` stands in messages. The file goes with the last reference to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.RLock()
        # A file that SQLite deletes itself. One transaction that is never committed: there is nothing to recover.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.executescript(f"PRAGMA journal_mode=OFF; PRAGMA cache_size=-16000; BEGIN; {_TABLES}")
        weakref.finalize(self, self._connection.close).atexit = False  # SQLite has unlinked the file
        self._serial = 0
        # What comes in path order, as from a loop over sorted files, meets nothing that is here: it needs no query, and
        # a page of it is one statement (100,000 references: 4 to 5 s instead of 7).
        self._greatest = ""  # no path in the tables, or on its way there, is greater
        self._added: list[Row] = []  # not in the table yet
        self._clear_of_files = ""  # a directory no part of whose path is a file
        self._fault: DiskFull | LocalIOError | None = None  # what befell the file

    # -- changing -----------------------------------------------------------------------------------------------

    def add(self, row: Row, *, overwrite: bool = False) -> Row:
        """Take in an entry; the row as it stands now.

        Raises PathConflict where its path has other content already and ``overwrite`` is not given, and where one
        path would be both a file and a directory.
        """
        with self._lock:
            if row.path > self._greatest and self._fault is None:
                return self._append(row)
        with self._open() as database:
            self._check_shape(row.path)
            row = self._numbered(row)
            if database.execute(f"INSERT OR IGNORE {_INSERT}", row).rowcount:
                return row
            old = self.get(row.path)
            assert old is not None
            if not overwrite and not _same(old, row) and self.digest_of(old) != self.digest_of(row):
                raise PathConflict(f"Cannot add the same path twice: {row.path!r}; overwrite=True replaces it")
            database.execute(f"INSERT OR REPLACE {_INSERT}", row)
            return row

    def _append(self, row: Row) -> Row:
        """Take in what sorts behind everything else: neither is it there, nor is anything below it."""
        self._check_ancestors(row.path)
        row = self._numbered(row)
        self._greatest = row.path
        self._added.append(row)
        if len(self._added) >= _PAGE:
            with self._open():
                pass
        return row

    def _numbered(self, row: Row) -> Row:
        self._serial += 1
        return row._replace(serial=self._serial)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The database, with everything that was added in it; raises DiskFull, LocalIOError, then and ever after."""
        with self._lock:
            if self._fault is not None:
                raise self._fault
            try:
                if self._added:
                    self._connection.executemany(f"INSERT {_INSERT}", self._added)
                    self._added = []
                yield self._connection
            except sqlite3.Error as error:
                # Without a journal the file is no longer whole, and nobody may take it for that.
                if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                    self._fault = DiskFull(where=_TEMPORARY, why="the list of what the artifact holds does not fit")
                else:
                    self._fault = LocalIOError(path=_TEMPORARY, why=error)
                raise self._fault from error

    def add_tree(self, files: Iterable[SourceFile], *, overwrite: bool = False) -> None:
        """Take in what ``scan`` found; raises what ``add`` and hashing raise."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="artfs-hash") as pool:
            iterator = iter(files)
            while batch := list(itertools.islice(iterator, _PAGE)):
                regular = [file for file in batch if file.kind is Kind.FILE]
                for row in pool.map(file_row, regular):
                    self.add(row, overwrite=overwrite)
                for file in batch:
                    if file.kind is Kind.DIRECTORY:
                        self.add_directory(file.path, file.mode, file.mtime_ns)
                    elif file.kind is Kind.SYMLINK:
                        self.add(Row(file.path, file.kind, file.mode, file.mtime_ns, file.size, target=file.target))

    def add_directory(self, path: str, mode: int, mtime_ns: int) -> None:
        """Keep a directory, were it empty; raises PathConflict."""
        with self._open() as database:
            if self.get(path) is not None:
                raise PathConflict(path=path, a="a file", b="a directory")
            self._check_ancestors(f"{path}/")
            database.execute("INSERT OR REPLACE INTO directory VALUES (?, ?, ?)", (path, mode, mtime_ns))
            self._greatest = max(self._greatest, path)

    def merge(self, catalog: Catalog, *, inherited: bool = False) -> None:
        """Take in all of a version, less the paths that are here already.

        What is ``inherited`` takes the place of what was inherited before.
        """
        with self._open() as database:
            if inherited:
                database.execute("DELETE FROM entry WHERE inherited")
            self._clear_of_files = ""
            entries = catalog.entries()
            while page := list(itertools.islice(entries, _PAGE)):
                database.executemany(
                    "INSERT OR IGNORE INTO directory VALUES (?, ?, ?)",
                    ((entry.path, entry.mode, entry.mtime_ns) for entry in page if entry.kind is Kind.DIRECTORY),
                )
                database.executemany(
                    f"INSERT OR IGNORE {_INSERT}",
                    (entry_row(entry, inherited=inherited) for entry in page if entry.kind is not Kind.DIRECTORY),
                )
                self._greatest = max(self._greatest, *(entry.path for entry in page))

    def remove(self, path: str) -> None:
        """Remove an entry, or everything in a directory; raises EntryNotFound."""
        with self._open() as database:
            gone = database.execute("DELETE FROM entry WHERE path = ?", (path,)).rowcount
            if not gone:
                gone = database.execute(f"DELETE FROM entry WHERE {_BELOW}", (path,)).rowcount
                gone += database.execute(f"DELETE FROM directory WHERE path = ?1 OR {_BELOW}", (path,)).rowcount
            if not gone:
                raise EntryNotFound(f"No such file or directory: {path!r} is not in {self.name}")

    def resolve(self, scheme: str, find: Callable[[Row], Row]) -> None:
        """Replace every reference of a scheme by what ``find`` says it is."""
        with self._open() as database:
            found = database.execute(f"SELECT {_COLUMNS} FROM entry WHERE ref LIKE ? || '://%'", (scheme,)).fetchall()
            for row in map(Row._make, found):
                self.add(find(row), overwrite=True)

    # -- looking ------------------------------------------------------------------------------------------------

    def get(self, path: str) -> Row | None:
        """The row of a path."""
        with self._open() as database:
            found = database.execute(f"SELECT {_COLUMNS} FROM entry WHERE path = ?", (path,)).fetchone()
        return None if found is None else Row._make(found)

    def rows(self, directory: str = "") -> Iterator[Row]:
        """Every entry (below a directory) in path order."""
        last, end = (f"{directory}/", f"{directory}0") if directory else ("", "\U0010ffff")
        query = f"SELECT {_COLUMNS} FROM entry WHERE path > ? AND path < ? ORDER BY path LIMIT {_PAGE}"
        while page := self._all(query, (last, end)):
            yield from map(Row._make, page)
            last = page[-1][0]

    def local(self, source: str) -> str | None:
        """The path that a file of this machine was last added under."""
        with self._open() as database:
            database.execute("CREATE INDEX IF NOT EXISTS entry_source ON entry (source, serial)")
            key = (os.fsencode(os.path.abspath(source)),)
            found = database.execute(
                "SELECT path FROM entry WHERE source = ? ORDER BY serial DESC LIMIT 1", key
            ).fetchone()
        return None if found is None else str(found[0])

    def count(self) -> int:
        """Files and references, as W&B counts entries."""
        return int(self._all("SELECT count(*) FROM entry WHERE kind <> ?", (Kind.SYMLINK,))[0][0])

    def size(self) -> int:
        """Bytes of files and references together, as far as they are known."""
        return int(self._all("SELECT total(size) FROM entry WHERE kind <> ?", (Kind.SYMLINK,))[0][0])

    def digest_of(self, row: Row) -> str:
        """The digest of an entry, hashing its file if need be."""
        if row.digest is None and row.source is not None:
            digest = hash_file(row.file())
            with self._open() as database:
                database.execute(
                    "UPDATE entry SET digest = ? WHERE path = ? AND serial = ?", (digest, row.path, row.serial)
                )
            return digest
        return row.digest or ""

    def digest(self) -> str:
        """W&B's digest of it all."""
        digest = ManifestDigest()
        rows = (row for row in self.rows() if row.kind != Kind.SYMLINK)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="artfs-hash") as pool:
            while batch := list(itertools.islice(rows, _PAGE)):
                for row, value in zip(batch, pool.map(self.digest_of, batch), strict=True):
                    digest.add(row.path, value)
        return digest.hexdigest()

    def items(self) -> Iterator[tuple[SourceFile | Entry, str | None]]:
        """Everything in the order of a catalog, as ``ingest`` takes it, with the digest that a file must have."""
        with self._open() as database:
            found = self._pages(database.execute(_DIRECTORIES))
        directories = ((key, (Entry(path, Kind.DIRECTORY, mode, mtime), None)) for path, mode, mtime, key in found)
        rows = ((row.path, _item(row)) for row in self.rows())
        for _, item in heapq.merge(directories, rows, key=lambda keyed: keyed[0]):
            yield item

    def _pages(self, cursor: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
        while True:
            with self._open():
                page = cursor.fetchmany(_PAGE)
            if not page:
                return
            yield from page

    def _all(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._open() as database:
            return database.execute(query, values).fetchall()

    def _check_shape(self, path: str) -> None:
        """Whether a new entry would be both a file and a directory."""
        if self._all(_IS_DIRECTORY, (path,)):
            raise PathConflict(path=path, a="a file", b="a directory")
        self._check_ancestors(path)
        if f"{self._clear_of_files}/".startswith(f"{path}/"):
            self._clear_of_files = ""

    def _check_ancestors(self, path: str) -> None:
        directory = path.rpartition("/")[0]
        if directory == self._clear_of_files:
            return
        for end in [i for i, character in enumerate(path) if character == "/"]:
            if self.get(path[:end]) is not None:
                raise PathConflict(path=path[:end], a="a file", b="a directory")
        self._clear_of_files = directory


def _same(old: Row, new: Row) -> bool:
    """Whether both are one file on this machine that has not changed between."""
    if old.source is None or old.digest is not None or new.digest is not None:
        return False
    return old[6:10] == new[6:10] and (old.size, old.mtime) == (new.size, new.mtime)


def _item(row: Row) -> tuple[SourceFile | Entry, str | None]:
    return (row.entry(), None) if row.source is None else (row.file(), row.digest)
