"""The SQLite schema of a staging area, format 1: the canonical reference.

``PRAGMA application_id`` is ``0x61667373`` ("afss") and ``PRAGMA user_version`` the format. The tables lie over the
base version's catalog, which is never changed: what has no row here is as the base has it.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x61667373
FORMAT: Final = 1

FIRST: Final = 1 << 40
"""Inodes and cookies below this are the base catalog's inodes; those given out here begin with it."""

TABLES: Final = """
-- What differs from the base, by inode. Every inode from FIRST up has a row; one of the base has one as soon as
-- its mode, its mtime, its number of names, its place (a directory's) or its content has changed.
CREATE TABLE inode (
    inode      INTEGER PRIMARY KEY,
    kind       INTEGER NOT NULL,  -- as in a catalog; a reference whose bytes were changed is a file
    mode       INTEGER NOT NULL,  -- permission bits, & 0o777
    mtime      INTEGER NOT NULL,  -- nanoseconds; of a file with a local file not used: the local file's holds
    nlink      INTEGER NOT NULL,  -- names; 0: removed, but perhaps still open, or somebody's working directory
    parent     INTEGER,           -- of a directory: where it is, and under which name (it has only one)
    name       TEXT,
    size       INTEGER,           -- as in a catalog; of a file with a local file not used: the local file's holds
    shown      INTEGER,           -- NULL: the content is the base's. Else there is a local file, data/<inode in hex>,
                                  -- and so many first bytes of the base show where nothing was written
    truncating INTEGER,           -- the local file is about to get this size; NULL when it has it
    target     TEXT               -- of a symlink
);
-- Names that differ from the base. One that hides a name of the base has the cookie of what it hides, which is that
-- inode; other cookies are given out in ascending order, so a listing knows where to go on whatever was removed.
CREATE TABLE name (
    parent INTEGER NOT NULL,
    cookie INTEGER NOT NULL,
    name   TEXT NOT NULL,
    inode  INTEGER NOT NULL,      -- 0: the base's name is gone
    PRIMARY KEY (parent, cookie)
) WITHOUT ROWID;
CREATE UNIQUE INDEX name_name ON name (parent, name);
-- Which bytes below ``shown`` were written here: start <= offset < stop. Neighbours are joined, none overlap.
CREATE TABLE range (
    inode INTEGER NOT NULL,
    start INTEGER NOT NULL,
    stop  INTEGER NOT NULL,
    PRIMARY KEY (inode, start)
) WITHOUT ROWID;
-- next: the first number that no inode or cookie has. clean: 1 while the area is closed in good order.
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
"""
