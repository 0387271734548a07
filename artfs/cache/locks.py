"""Locks between processes: open-file-description locks on single bytes, tried without ever blocking.

They belong to the open file description (fcntl(2), "Open file description locks"), so the kernel drops them when
the last descriptor goes, also after ``kill -9``, and two descriptors exclude each other even in one process. A byte
need not exist to be locked. Who has to wait polls: a blocking ``F_OFD_SETLKW`` cannot be given a deadline.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid (0, as OFD locks require).
_FLOCK: Final = struct.Struct("hhqqi4x")

SHORTEST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.050
"""Seconds between two tries: from near by a block takes a few ms, and 20 tries a second are cheap."""


def pause(waited: float) -> float:
    """How long to sleep after ``waited`` seconds in vain: an eighth of that, so that the wait ends little too late."""
    return min(max(SHORTEST_PAUSE, waited / 8), LONGEST_PAUSE)


def try_lock(fd: int, byte: int) -> bool:
    """Whether ``byte`` of the file is now locked exclusively through ``fd``, which must be open for writing."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            return False
        raise
    return True


def unlock(fd: int, byte: int) -> None:
    """Release ``byte``; harmless if it is not locked."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, 1, 0))


def poll(condition: Callable[[], bool], deadline: float) -> bool:
    """Try ``condition`` until it holds or the deadline (monotonic seconds) has passed; whether it held."""
    began = time.monotonic()
    while not condition():
        now = time.monotonic()
        if now >= deadline:
            return False
        time.sleep(min(pause(now - began), deadline - now))
    return True


_descriptors: set[int] = set()


@contextmanager
def locked(path: Path, byte: int, deadline: float) -> Iterator[bool]:
    """Hold ``byte`` of the lock file ``path`` (made if need be), or get False when others hold it at the deadline."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    _descriptors.add(fd)
    try:
        held = poll(lambda: try_lock(fd, byte), deadline)
        try:
            yield held
        finally:
            # Closing is not enough if the process was forked meanwhile: the child has the description open, too.
            if held:
                unlock(fd, byte)
    finally:
        _descriptors.discard(fd)
        os.close(fd)


def _close_inherited() -> None:
    while _descriptors:
        os.close(_descriptors.pop())


os.register_at_fork(after_in_child=_close_inherited)
