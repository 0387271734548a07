"""Changing names and inodes. Every method that changes something runs inside one transaction of the database."""

from __future__ import annotations

import time

from artfs.catalog import Catalog, Kind
from artfs.staging.database import Database
from artfs.staging.files import LocalFiles
from artfs.staging.schema import FIRST
from artfs.staging.view import ROOT, Inode, View

_NUMBERS = 1 << 20  # inodes and cookies set aside at a time: one more row changed in a million operations
_REALTIME_COARSE = (
    5  # linux/time.h: the clock that the kernel stamps local files with; finer ones would run ahead of it
)


def now_ns() -> int:
    """The time, as local files get it."""
    return time.clock_gettime_ns(_REALTIME_COARSE)


class Nodes(View):
    """A view that can be changed. ``number`` apart, thread-safe by the database's transaction."""

    def __init__(self, database: Database, base: Catalog, files: LocalFiles) -> None:
        super().__init__(database, base, files)
        row = database.one("SELECT value FROM meta WHERE key='next'")
        self._next = self._reserved = FIRST if row is None else int(row[0])

    def number(self) -> int:
        """A number that no inode and no cookie ever had."""
        number = self._next
        self._next += 1
        if number >= self._reserved:
            until = number + _NUMBERS
            self.database.change("INSERT OR REPLACE INTO meta VALUES ('next', ?)", until)
            self.database.on_commit(lambda: setattr(self, "_reserved", until))
        return number

    def save(self, inode: Inode) -> None:
        """Record an inode."""
        self.database.change(
            "INSERT INTO inode (inode, kind, mode, mtime, nlink, parent, name, size, shown, target) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET kind=excluded.kind, mode=excluded.mode, "
            "mtime=excluded.mtime, nlink=excluded.nlink, parent=excluded.parent, name=excluded.name, "
            "size=excluded.size, shown=excluded.shown, target=excluded.target",
            *inode,
        )

    def forget(self, inode: int) -> None:
        """Drop what is recorded of an inode that has no names."""
        self.database.change("DELETE FROM inode WHERE inode=?", inode)
        self.database.change("DELETE FROM range WHERE inode=?", inode)

    def bind(self, parent: int, name: str, inode: int) -> None:
        """Let ``name`` lead to ``inode``. A name that is replaced keeps its place in listings: a program that
        rewrites each file it lists, by rename, must come to an end.
        """
        if self.database.change("UPDATE name SET inode=? WHERE parent=? AND name=?", inode, parent, name):
            return
        hidden = self.base.lookup(parent, name) if parent < FIRST else None
        cookie = self.number() if hidden is None else hidden.inode
        self.database.change("INSERT INTO name VALUES (?, ?, ?, ?)", parent, cookie, name, inode)

    def unbind(self, parent: int, name: str) -> None:
        """Remove a name that is there."""
        hidden = self.base.lookup(parent, name) if parent < FIRST else None
        if hidden is None:
            self.database.change("DELETE FROM name WHERE parent=? AND name=?", parent, name)
        else:
            self.bind(parent, name, 0)

    def touch(self, directory: Inode) -> None:
        """What a directory holds has changed now."""
        now = now_ns()
        if not self.database.change("UPDATE inode SET mtime=? WHERE inode=?", now, directory.inode):
            self.save(directory._replace(mtime_ns=now))

    def holds_anything(self, directory: int) -> bool:
        """Whether a directory has names in it."""
        return next(self.children(directory), None) is not None

    def is_within(self, inode: int, directory: int) -> bool:
        """Whether the directory ``inode`` is ``directory`` or lies beneath it."""
        while inode not in {directory, ROOT}:
            inode = self.get(inode).parent or ROOT
        return inode == directory

    def length_of_path(self, directory: int) -> int:
        """Bytes of a directory's path from the root."""
        return len(self.path_of(directory).encode())


def new_inode(number: int, kind: Kind, mode: int) -> Inode:
    """A fresh inode with one name."""
    return Inode(number, kind, mode & 0o777, now_ns(), 1, None, None, 0, None, None)
