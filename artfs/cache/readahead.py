"""Readahead: what to fetch beyond what a reader asks for. Pure policy, in bytes of one file.

The numbers are those on which object-store mounts have converged (mountpoint-s3 ``prefetch.rs``, hf-mount
``prefetch.rs``): the window doubles while reading is sequential, 1 MiB back and 16 MiB forward count as sequential
because the kernel's own readahead arrives out of order, and a farther seek starts anew.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from artfs.catalog.layout import BLOCK

FIRST_WINDOW: Final = BLOCK
LAST_WINDOW: Final = 64 << 20
BACK: Final = 1 << 20
FORWARD: Final = 16 << 20


class Advice(NamedTuple):
    """Half-open ranges of the file."""

    start: int
    stop: int
    """[start, stop): what to fetch if this read misses; it holds the read itself."""
    ahead: int
    """[ahead, ahead_stop): what to fetch in the background now, whether or not this read misses; often nothing."""
    ahead_stop: int


class Readahead:
    """The policy for one open file of ``size`` bytes.

    Threads may share it: each call works on its own copy of the state, so a race costs a window, never a wrong range.
    """

    __slots__ = ("_asked", "_position", "_read", "_size", "_window")

    def __init__(self, size: int) -> None:
        self._size = size
        # A first read at 0 looks like the beginning of a sequential one; anywhere else it does not.
        self._position = 0
        self._asked = 0
        self._read = 0
        self._window = FIRST_WINDOW

    def advise(self, offset: int, length: int) -> Advice:
        """Take note of a read and say what to fetch."""
        size = self._size
        offset = min(offset, size)
        end = min(offset + length, size)
        position, asked, window = self._position, self._asked, self._window
        # Before anything has been read, only a read at 0 continues something.
        back, forward = (BACK, FORWARD) if position else (0, 0)
        if not position - back <= offset <= position + forward:
            self._position, self._asked, self._read, self._window = end, end, 0, FIRST_WINDOW
            return Advice(offset, end, end, end)
        self._position = max(position, end)
        read = self._read = self._read + end - offset
        # A stream that begins here, or has jumped over all that was asked for, gets its window with this read.
        stop = min(size, max(end, asked if asked > offset else offset + window))
        self._asked = stop
        # One read at 0 does not make a stream yet.
        if position == 0 or stop == size or end < stop - window // 2:
            return Advice(offset, stop, stop, stop)
        # Half of the window is used up: time for the next. It grows only on bytes that were really read, else a reader
        # that hops forward would fetch all that it hops over.
        if read >= window // 2:
            window = min(2 * window, LAST_WINDOW)
        self._read, self._window = 0, window
        self._asked = ahead_stop = min(size, stop + window)
        return Advice(offset, stop, stop, ahead_stop)
