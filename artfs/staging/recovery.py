"""Putting an area in order after the process that had it was killed, or the power was cut.

The database is whole by itself: SQLite replays the WAL up to the last complete commit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from artfs.staging.database import Database
from artfs.staging.files import LocalFiles

_PAGE = 1000


def recover(database: Database, files: LocalFiles) -> None:
    """Finish what was begun and drop what nothing refers to, unless the area was closed in good order."""
    clean = database.one("SELECT value FROM meta WHERE key='clean'")
    with database.transaction():
        database.change("INSERT OR REPLACE INTO meta VALUES ('clean', 0)")
    if clean is None or not clean[0]:
        _finish_truncations(database, files)
        _restore_sizes(database, files)
        _drop_unused_files(database, files)
    with database.transaction():
        database.change("DELETE FROM range WHERE inode IN (SELECT inode FROM inode WHERE nlink=0)")
        database.change("DELETE FROM inode WHERE nlink=0")


def _finish_truncations(database: Database, files: LocalFiles) -> None:
    for inode, size in _rows(database, "inode, truncating", "truncating IS NOT NULL"):
        _resize(files, inode, size)
    with database.transaction():
        database.change("UPDATE inode SET truncating=NULL WHERE truncating IS NOT NULL")


def _restore_sizes(database: Database, files: LocalFiles) -> None:
    """A power cut can take a local file's size, or the file: what shows of the base was never in it, and remains."""
    for inode, shown in _rows(database, "inode, shown", "shown IS NOT NULL AND nlink>0"):
        try:
            size = os.stat(files.path(inode)).st_size
        except FileNotFoundError:
            size = -1
        if size < shown:
            _resize(files, inode, shown)


def _resize(files: LocalFiles, inode: int, size: int) -> None:
    descriptor = os.open(files.path(inode), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def _drop_unused_files(database: Database, files: LocalFiles) -> None:
    for inode in files.inodes():
        row = database.one("SELECT shown FROM inode WHERE inode=? AND nlink>0", inode)
        if row is None or row[0] is None:
            os.unlink(files.path(inode))


def _rows(database: Database, columns: str, condition: str) -> Iterator[tuple[Any, ...]]:
    """Rows of table inode, a page at a time."""
    last = 0
    query = f"SELECT {columns} FROM inode WHERE inode>? AND {condition} ORDER BY inode LIMIT {_PAGE}"
    while page := database.all(query, last):
        yield from page
        last = page[-1][0]
