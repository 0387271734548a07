"""A tree in memory, for tests of the adapter: what it is asked, and when it answers, is up to the test."""

from __future__ import annotations

import threading
import time
from collections import Counter

from artfs.catalog import Kind
from artfs.errors import DeadlineExceeded, NotFound
from artfs.vfs.tree import Attributes, Capacity, DirectoryEntry, WouldBlock

MTIME = 1_600_000_000_123_456_789


class MemoryTree:
    """``content`` maps paths to bytes (a file), str (a symlink's target) or None (an empty directory)."""

    def __init__(self, content, *, modes=None, absent_lifetime=3600.0, xattrs=None):
        self.asked = Counter()
        self.closed = False
        self._absent_lifetime = absent_lifetime
        self._xattrs = xattrs or {}
        self._nodes = {1: ("", {})}
        for path, value in content.items():
            *parents, name = path.split("/")
            directory = 1
            for parent in parents:
                directory = self._add(directory, parent, None)
            self._add(directory, name, value)
        self._modes = {self._find(path): mode for path, mode in (modes or {}).items()}

    def _add(self, directory, name, value):
        names = self._nodes[directory][1]
        if name not in names:
            names[name] = len(self._nodes) + 1
            self._nodes[names[name]] = (name, {} if value is None else value)
        return names[name]

    def _find(self, path):
        inode = 1
        for part in filter(None, path.split("/")):
            inode = self._nodes[inode][1][part]
        return inode

    def _value(self, inode):
        if inode not in self._nodes:
            raise NotFound(what="inode", name=inode)
        return self._nodes[inode][1]

    def _describe(self, inode):
        value = self._value(inode)
        if isinstance(value, dict):
            kind, mode, size = Kind.DIRECTORY, 0o755, 0
        elif isinstance(value, str):
            kind, mode, size = Kind.SYMLINK, 0o777, len(value.encode())
        else:
            kind, mode, size = Kind.FILE, 0o644, len(value)
        return Attributes(inode, kind, self._modes.get(inode, mode), size, MTIME)

    def lookup(self, parent, name, deadline):
        self.asked["lookup"] += 1
        inode = self._value(parent).get(name)
        return None if inode is None else self._describe(inode)

    def absent_lifetime(self, parent):
        return self._absent_lifetime

    def attributes(self, inode, deadline):
        self.asked["attributes"] += 1
        return self._describe(inode)

    def list(self, inode, cookie, deadline):
        self.asked["list"] += 1
        for position, (name, child) in enumerate(self._value(inode).items(), 1):
            if position > cookie:
                yield DirectoryEntry(position, name, *self._describe(child))

    def readlink(self, inode, deadline):
        self.asked["readlink"] += 1
        return self._value(inode)

    def read(self, inode, offset, size, deadline, room=None):
        self.asked["read"] += 1
        return memoryview(self._value(inode))[offset : offset + size]

    def prefetch(self, inode, deadline):
        self.asked["prefetch"] += 1
        return isinstance(self._value(inode), bytes)

    def xattrs(self, inode, deadline):
        self.asked["xattrs"] += 1
        return self._xattrs.get(inode, {})

    def capacity(self):
        return Capacity(size=10_000_000, free=0, files=len(self._nodes), files_free=0)

    def statistics(self):
        return {"memory": dict(self.asked)}

    def close(self):
        self.closed = True


class HugeTree(MemoryTree):
    """A directory of ``count`` files that are made up as they are listed."""

    def __init__(self, count):
        super().__init__({})
        self.count = count

    def _describe(self, inode):
        if inode == 1:
            return super()._describe(1)
        return Attributes(inode, Kind.FILE, 0o644, inode, MTIME)

    def lookup(self, parent, name, deadline):
        self.asked["lookup"] += 1
        return self._describe(int(name) + 2) if name.isdecimal() and int(name) < self.count else None

    def list(self, inode, cookie, deadline):
        self.asked["list"] += 1
        for position in range(cookie, self.count):
            yield DirectoryEntry(position + 1, f"{position:06d}", *self._describe(position + 2))


class BlockingTree(MemoryTree):
    """Names say how they answer.

    ``slow*`` answers in a thread; ``hang*`` waits until the deadline, ``stuck*`` for ever; ``broken*`` raises what
    nobody foresaw, ``gone*`` a foreseen failure.
    """

    never = threading.Event()

    def _behave(self, name, deadline):
        if name.startswith("broken"):
            raise ZeroDivisionError(f"surprise in {name}")
        if name.startswith("gone"):
            raise DeadlineExceeded(what=f"reading {name}", seconds=1)
        if not name.startswith(("slow", "hang", "stuck")):
            return
        if deadline is None:
            raise WouldBlock
        if name.startswith("hang"):
            self.never.wait(deadline - time.monotonic())
            raise DeadlineExceeded(what=f"reading {name}", seconds=1)
        if name.startswith("stuck"):
            self.never.wait()

    def lookup(self, parent, name, deadline):
        if name.startswith("slow") or "-lookup" in name:
            self._behave(name, deadline)
        return super().lookup(parent, name, deadline)

    def read(self, inode, offset, size, deadline, room=None):
        self._behave(self._nodes[inode][0], deadline)
        return super().read(inode, offset, size, deadline)

    def list(self, inode, cookie, deadline):
        for entry in super().list(inode, cookie, deadline):
            if entry.name.startswith("slow") and deadline is None:
                raise WouldBlock
            yield entry

    def attributes(self, inode, deadline):
        if self._nodes[inode][0].startswith("slow") and deadline is None:
            raise WouldBlock
        return super().attributes(inode, deadline)
