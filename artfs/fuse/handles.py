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
"""Set in the handles that go past the page cache; the rest of a handle is the inode."""


class Handles:
    """The open handles by inode. For one thread."""

    def __init__(self) -> None:
        self._able = kernel_version() >= LEAST_KERNEL
        self._through_cache: Counter[int] = Counter()

    def add(self, inode: int, flags: int) -> int:
        """The handle for a file that is opened with ``flags``."""
        if self._able and flags & os.O_ACCMODE == os.O_WRONLY and inode not in self._through_cache:
            return inode | _PAST_CACHE
        self._through_cache[inode] += 1
        return inode

    def remove(self, handle: int) -> None:
        """The handle is closed."""
        if not past_cache(handle):
            self._through_cache[handle] -= 1
            if not self._through_cache[handle]:
                del self._through_cache[handle]


def inode_of(handle: int) -> int:
    """The inode that a handle is of."""
    return handle & ~_PAST_CACHE


def past_cache(handle: int) -> bool:
    """Whether the handle goes past the page cache."""
    return bool(handle & _PAST_CACHE)
