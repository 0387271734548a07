"""What files hashed to when they were last logged, so that an unchanged file is not read again.

One SQLite database in the cache directory, shared by all processes. Losing it costs time only, so faults in it are
logged and otherwise passed over.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from pathlib import Path

import attrs

from artfs.names import is_text
from artfs.versions.scan import SourceFile

log = logging.getLogger(__name__)

_SETTLED_NS = 1_000_000_000
"""A file changed less than a second before it was read may change again within one tick of the file system's clock
and look the same (git calls this racy): it is not remembered."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS file (
    source TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, device INTEGER, inode INTEGER, ctime INTEGER,
    md5 BLOB,      -- 16 bytes
    extents BLOB   -- SHA-256 of each extent, 32 bytes each
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


@attrs.frozen
class Hashed:
    """Digests of one file."""

    md5: bytes
    extents: tuple[bytes, ...]
    """SHA-256 of each extent (64 MiB, the last one shorter)."""


class Hashes:
    """The memory; thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._new: list[tuple[object, ...]] = []
        self._database: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
            self._database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + _SCHEMA)
            path.chmod(0o600)
        except (sqlite3.Error, OSError) as error:
            self._forget(error)

    def get(self, file: SourceFile) -> Hashed | None:
        """What the file hashed to, if nothing tells that it has changed since."""
        if self._database is None:
            return None
        try:
            with self._lock:
                row = self._database.execute(
                    "SELECT md5, extents FROM file WHERE source=? AND size=? AND mtime=? AND device=? AND inode=?"
                    " AND ctime=?",
                    (_place(file), file.size, file.mtime_ns, *file.identity),
                ).fetchone()
        except sqlite3.Error as error:
            self._forget(error)
            return None
        return Hashed(row[0], tuple(row[1][i : i + 32] for i in range(0, len(row[1]), 32))) if row else None

    def put(self, file: SourceFile, hashed: Hashed) -> None:
        """Remember what a file hashed to; written in batches."""
        if time.time_ns() - max(file.mtime_ns, file.identity[2]) < _SETTLED_NS:
            return
        row = (_place(file), file.size, file.mtime_ns, *file.identity, hashed.md5, b"".join(hashed.extents))
        with self._lock:
            self._new.append(row)
            full = len(self._new) >= 1000
        if full:
            self.flush()

    def flush(self) -> None:
        """Write what is still in memory."""
        with self._lock:
            rows, self._new = self._new, []
            if self._database is None or not rows:
                return
            try:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                self._forget(error)

    def close(self) -> None:
        """Write and close."""
        self.flush()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _forget(self, error: Exception) -> None:
        log.warning("the memory of file hashes cannot be used, every file is read again: %s", error)
        database, self._database = self._database, None
        if database is not None:
            database.close()
        discard_if_corrupt(self._path, error)


def _place(file: SourceFile) -> str | bytes:
    """Where the file is; as bytes if it lies in a directory whose name is not UTF-8, which SQLite's text must be."""
    return file.source if is_text(file.source) else os.fsencode(file.source)


def discard_if_corrupt(path: Path, error: Exception) -> None:
    """Remove a damaged SQLite database whose loss only costs time, so that the next to open it begins anew."""
    if getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            name.unlink(missing_ok=True)
