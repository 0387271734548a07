"""The handles of a writable mount: which go through the kernel's page cache and which go past it.

A file that is only written, nobody having it open for anything else, is opened with FOPEN_DIRECT_IO: its bytes go from
the program to the staging area's file, and lie once in the page cache instead of twice. 1 GiB in writes of 1 MiB, with
memory at hand: 1,000 to 1,300 MB/s instead of 330 to 490, since memory that is used for the first time costs more than
the copies. Nothing is lost by it: the kernel drops what it has cached of a file whose modification time has changed.

Who opens the file meanwhile goes through the page cache as ever. For him the kernel forgets the pages that such a write
covers, before the write and once more after it, since a reader may bring old bytes back in between.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Final

from artfs.fuse.kernel import kernel_version

LEAST_KERNEL: Final = (6, 18)
"""The one that was seen to forget pages before and after the write; older ones have not been tried."""
_PAST_CACHE: Final = 1 << 62
"""Set in the handles that go past the page cache; but for this and the next bit, a handle is the inode."""
_MAPPABLE: Final = 1 << 61
"""Set in the handles of which mmap(2) makes shared writable mappings: those opened for reading and writing."""


class Handles:
    """The open handles by inode. For one thread."""

    def __init__(self) -> None:
        self._able = kernel_version() >= LEAST_KERNEL
        self._through_cache: Counter[int] = Counter()
        self._mappable: Counter[int] = Counter()

    def add(self, inode: int, flags: int) -> int:
        """The handle for a file that is opened with ``flags``."""
        if self._able and flags & os.O_ACCMODE == os.O_WRONLY and inode not in self._through_cache:
            return inode | _PAST_CACHE
        self._through_cache[inode] += 1
        if flags & os.O_ACCMODE != os.O_RDWR:
            return inode
        self._mappable[inode] += 1
        return inode | _MAPPABLE

    def may_be_mapped(self, inode: int) -> bool:
        """Whether there may be shared writable mappings of a file. They hold their handle, whatever is closed."""
        return inode in self._mappable

    def remove(self, handle: int) -> None:
        """The handle is closed."""
        if past_cache(handle):
            return
        _one_less(self._through_cache, inode_of(handle))
        if handle & _MAPPABLE:
            _one_less(self._mappable, inode_of(handle))


def _one_less(counts: Counter[int], inode: int) -> None:
    counts[inode] -= 1
    if not counts[inode]:
        del counts[inode]


def inode_of(handle: int) -> int:
    """The inode that a handle is of."""
    return handle & ~(_PAST_CACHE | _MAPPABLE)


def past_cache(handle: int) -> bool:
    """Whether the handle goes past the page cache."""
    return bool(handle & _PAST_CACHE)
