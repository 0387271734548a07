"""The SQLite schema of a catalog, format 1: the canonical reference.

``PRAGMA application_id`` is ``0x61667363`` ("afsc") and ``PRAGMA user_version`` the format. A catalog is written once
and never changed. Names are UTF-8 and compare by bytes, which is the order of Unicode code points.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x61667363
FORMAT: Final = 1
ROOT: Final = 1
"""Inode of the root directory, its own parent, with an empty name."""

TABLES: Final = """
-- One row a path. Inodes are numbered in path order from the root's 1, each directory before what it holds, so one
-- version has the same inodes in every process, and a directory's rows lie close together. A stored file is a file, or
-- a reference to a file of another version: the extents of that one are copied, so that its bytes live on with this
-- version, and are read without the other.
CREATE TABLE node (
    inode   INTEGER PRIMARY KEY,
    parent  INTEGER NOT NULL,
    name    TEXT NOT NULL,
    kind    INTEGER NOT NULL,   -- 1 directory, 2 file, 3 symlink, 4 reference
    mode    INTEGER NOT NULL,   -- permission bits, & 0o777
    mtime   INTEGER NOT NULL,   -- nanoseconds since the epoch
    size    INTEGER,            -- bytes of a file or reference, NULL where a reference's is unknown; link length; 0
    digest  BLOB,               -- stored file: the MD5, 16 bytes; symlink: its target, UTF-8; else NULL
    pack    INTEGER,            -- stored file that is one extent: its pack, and where its bytes begin in the pack's
    offset  INTEGER             -- data; NULL for an empty file and for one that stands in table extent
);
-- Stored files of several extents, in order. start is where the extent begins in the file.
CREATE TABLE extent (
    inode   INTEGER NOT NULL,
    start   INTEGER NOT NULL,
    pack    INTEGER NOT NULL,
    offset  INTEGER NOT NULL,
    length  INTEGER NOT NULL,
    PRIMARY KEY (inode, start)
) WITHOUT ROWID;
CREATE TABLE reference (
    inode   INTEGER PRIMARY KEY,
    uri     TEXT NOT NULL,
    digest  TEXT NOT NULL,      -- as in W&B's manifest
    extra   TEXT                -- JSON object of W&B's manifest: etag, versionID; NULL for none
);
CREATE TABLE pack (
    id        INTEGER PRIMARY KEY,
    key       TEXT NOT NULL UNIQUE,  -- in the object store
    size      INTEGER NOT NULL,      -- bytes of data
    checksums BLOB NOT NULL          -- XXH3-64 of each MiB of the data, 8 bytes little-endian each
);
-- digest, tree_digest: hexadecimal; file_count, size: as W&B counts them (files and references).
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
"""

INDEX: Final = "CREATE UNIQUE INDEX node_name ON node (parent, name)"
"""Made after the rows: three times as fast as keeping it while they come."""
