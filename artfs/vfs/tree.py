"""What a mount shows: the interface between the file system and whatever speaks a kernel's protocol.

Every operation is synchronous and thread-safe, and comes in two forms told apart by ``deadline``. With None it
answers at once, from memory, page cache or a memory-mapped catalog, or raises ``WouldBlock``: a loop calls it inline.
With a deadline (absolute, ``time.monotonic()`` seconds) it may wait for disk and network: a loop calls it in a thread.

Inodes are stable: the same in every process and after every restart, whether or not a lookup happened before. So
there are no file handles: reading takes an inode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import attrs

from artfs.catalog import Kind

ROOT_INODE = 1
YEAR = 365 * 24 * 3600.0
"""Seconds that a kernel may keep what never changes."""


class WouldBlock(Exception):
    """Asked to answer at once, an operation needs disk or network: call it again in a thread, with a deadline."""


class Attributes(NamedTuple):
    """What stat shows of one inode, and how long a kernel may keep it.

    A named tuple, like ``DirectoryEntry``: listings make them by the million, in 0.4 us where attrs takes 1.6.
    """

    inode: int
    kind: Kind
    mode: int
    """Permission bits, ``& 0o777``."""
    size: int
    """Bytes; of a symlink the length of its target; 0 for a reference whose size nobody knows yet."""
    mtime_ns: int
    nlink: int = 1
    entry_lifetime: float = YEAR
    """Seconds for which the name leads to this inode."""
    lifetime: float = YEAR
    """Seconds for which these attributes hold; 0 while the size is unknown, so that stat asks again and waits."""


class DirectoryEntry(NamedTuple):
    """One line of a listing: a name, and the ``Attributes`` of what it leads to.

    Flat, since a listing of a million makes a million: one tuple instead of two, without a call to find each field.
    """

    cookie: int
    """Where the listing goes on after this entry; positive, stable for the life of the directory."""
    name: str
    inode: int
    kind: Kind
    mode: int
    size: int
    mtime_ns: int
    nlink: int = 1
    entry_lifetime: float = YEAR
    lifetime: float = YEAR

    @property
    def attributes(self) -> Attributes:
        """What stat shows of it."""
        return Attributes._make(self[2:])


@attrs.frozen
class Capacity:
    """What statfs shows."""

    size: int
    """Bytes of all files."""
    free: int
    """Bytes that can still be written; 0 in what is read-only."""
    files: int
    files_free: int


class Tree(Protocol):
    """A read-only file system. Raises ``artfs.errors.NotFound`` for an inode that does not exist."""

    def lookup(self, parent: int, name: str, deadline: float | None) -> Attributes | None:
        """What ``name`` in the directory ``parent`` is, or None."""

    def absent_lifetime(self, parent: int) -> float:
        """Seconds for which a name that ``lookup`` did not find in ``parent`` stays absent."""

    def attributes(self, inode: int, deadline: float | None) -> Attributes:
        """The attributes of an inode; with a deadline, asks the remote for a size that is not known."""

    def list(self, inode: int, cookie: int, deadline: float | None) -> Iterator[DirectoryEntry]:
        """The entries after ``cookie`` (0: all), without ``.`` and ``..``. Take what fits, drop the rest."""

    def readlink(self, inode: int, deadline: float | None) -> str:
        """The target of a symlink."""

    def read(
        self, inode: int, offset: int, size: int, deadline: float | None, room: memoryview | None = None
    ) -> bytes | bytearray | memoryview:
        """At most ``size`` bytes from ``offset``, fewer only at the end of the file; empty beyond it.

        With no deadline they may be put into ``room``, which holds ``size`` bytes, and the answer be a part of it.
        """

    def prefetch(self, inode: int, deadline: float | None) -> bool:
        """Have a file fetched in the background before somebody reads it; False if the inode is no file.

        What fails is left to the reader.
        """

    def xattrs(self, inode: int, deadline: float | None) -> Mapping[str, bytes]:
        """Extended attributes by full name (``user.artfs.digest``)."""

    def capacity(self) -> Capacity:
        """Size and number of files of the whole tree."""

    def statistics(self) -> Mapping[str, Any]:
        """Counters of everything beneath, JSON-ready, by part."""

    def close(self) -> None:
        """Let go of every descriptor and thread; nothing may be called afterwards."""
