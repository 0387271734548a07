"""The area's SQLite database: one writing connection for all threads, a commit an operation.

Journal mode WAL with ``synchronous=NORMAL``. A commit is a write(2) into the WAL: it outlives the process, whatever
kills it, and costs no sync. Against a power cut ``sync`` syncs the WAL; until then a commit may go, with all that
came after it, but never half of one, for frames of the WAL carry checksums. ``OFF`` would be wrong: a checkpoint
must not overwrite the database before the WAL is on disk.

Checkpoints are never made by a commit: they sync, and nobody who creates a file should wait for that. Who owns
the database calls ``checkpoint`` in a thread of its own.

Removing a file takes a little room before it gives any. On a full disk that comes from a reserve, a file beside the
database that ``spend_reserve`` gives up.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from artfs.errors import DiskFull, LocalIOError, SchemaMismatch
from artfs.faults import fault_point
from artfs.staging.schema import APPLICATION_ID, FORMAT, TABLES

_RESERVE: Final = 4 << 20
"""Bytes kept for removals on a full disk: about 250 of them, at four pages of 4 KiB a commit."""


@attrs.frozen
class DatabaseStatistics:
    """Work since the database was opened."""

    commits: int
    syncs: int
    """Syncs of the WAL that programs asked for."""
    checkpoints: int


class Database:
    """Reads and writes; thread-safe. ``read_only`` looks at an area that another process may have open."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the database, and make it if it does not exist; raises SchemaMismatch, LocalIOError, DiskFull."""
        self.lock = threading.RLock()
        self._path = path
        self._reserve = path.with_suffix(".reserve")
        self._commits = self._synced = self._syncs = self._checkpoints = 0
        try:
            self._connection = _connect(path, "ro" if read_only else "rwc")
            if not read_only:
                self._prepare()
                self.keep_reserve()
            self._check_format()
        except sqlite3.Error as error:
            raise self._mapped(error) from error
        self._wal: int | None = None
        self._afterwards: list[Callable[[], None]] = []

    def _prepare(self) -> None:
        self._connection.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-16384;"
        )
        if not self._connection.execute("PRAGMA user_version").fetchone()[0]:
            self._connection.executescript(
                f"BEGIN; PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={FORMAT}; {TABLES} COMMIT"
            )

    def _check_format(self) -> None:
        application, found = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if (application, found) != (APPLICATION_ID, FORMAT):
            raise SchemaMismatch(
                what=f"the staging area {self._path.parent}", found=found, known=FORMAT, hint="use the release it is of"
            )

    def one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        """The first row of a query."""
        with self.lock:
            try:
                row: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
            except sqlite3.Error as error:
                raise self._mapped(error) from error
            return row

    def all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows of a query that ends in a limit."""
        with self.lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._mapped(error) from error

    def change(self, statement: str, *values: object) -> int:
        """Run a statement inside ``transaction``; how many rows it changed."""
        try:
            return self._connection.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise self._mapped(error) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in it happens or nothing, and has happened when it ends. Excludes other threads."""
        with self.lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    fault_point("commit")
                    self._connection.execute("COMMIT")
                except BaseException:
                    # A failed COMMIT may have ended the transaction already (sqlite3_get_autocommit).
                    self._afterwards.clear()
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._mapped(error) from error
            self._commits += 1
            while self._afterwards:
                self._afterwards.pop()()
        fault_point("committed")

    def on_commit(self, action: Callable[[], None]) -> None:
        """Run ``action``, which cannot fail, as soon as the transaction that is going on has happened."""
        self._afterwards.append(action)

    @property
    def commits(self) -> int:
        """Transactions so far."""
        return self._commits

    def sync(self) -> None:
        """Return when every commit so far would outlive a power cut."""
        commits = self._commits
        if commits == self._synced:
            return
        with self.lock:
            if self._wal is None:
                self._wal = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
                sync_directory(self._path.parent)
        os.fsync(self._wal)
        self._synced = max(self._synced, commits)
        self._syncs += 1

    def checkpoint(self) -> None:
        """Move what the WAL holds into the database, so that the WAL begins anew; readers and writers go on."""
        try:
            connection = _connect(self._path, "rw")
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise self._mapped(error) from error
        self._checkpoints += 1

    def keep_reserve(self) -> None:
        """Set aside what room there is, up to what is wanted."""
        descriptor = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = _RESERVE
            # tmpfs gives back all of what it cannot give in full; ext4 keeps what it could.
            while os.fstat(descriptor).st_size < size:
                with contextlib.suppress(OSError):
                    os.posix_fallocate(descriptor, 0, size)
                size -= _RESERVE // 64
        finally:
            os.close(descriptor)

    def spend_reserve(self) -> bool:
        """Give back the room that was set aside; whether there was any."""
        if not self._reserve.stat().st_size:
            return False
        os.truncate(self._reserve, 0)
        return True

    def statistics(self) -> DatabaseStatistics:
        """Counters since it was opened."""
        return DatabaseStatistics(self._commits, self._syncs, self._checkpoints)

    def close(self) -> None:
        """Close it; as the last connection SQLite then makes a checkpoint and removes the WAL."""
        with self.lock:
            self._connection.close()
        if self._wal is not None:
            os.close(self._wal)
            self._wal = None

    def _mapped(self, error: sqlite3.Error) -> DiskFull | LocalIOError:
        if getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}:
            return DiskFull(where=self._path.parent, why="the staging area cannot grow")
        return LocalIOError(path=self._path, why=str(error))


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=30
    )


def sync_directory(path: Path) -> None:
    """Make the names in a directory outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
