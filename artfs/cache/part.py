"""A part: the cache file that mirrors one source. The one place that knows its format.

========  =====  ==========================================================================================
offset    bytes  meaning (integers little endian)
========  =====  ==========================================================================================
0         8      magic ``ARTFSPRT``
8         4      format version, 1
12        4      number of blocks, 0 to 64
16        8      size of the data in bytes
24        8      zero
32        16     boot id under which state 2 is to be trusted (/proc/sys/kernel/random/boot_id)
48        16     zero
64        64     state of each block: 0 absent, 1 present but unchecked since the boot, 2 trusted
128       512    XXH3-64 of each block that is present
640       3456   zero
4096      size   the data, sparse
========  =====  ==========================================================================================

A part gets its name only when its header is whole (hard link of a temporary file), and never shrinks. States go
0 -> 2 (fetched), 2 -> 1 (the machine was booted), 1 -> 2 (checked) and 1 -> 0 (found damaged).

Data is written before its state, which is all that ``kill -9`` needs: both are in the page cache. A crash of the
machine is another matter: the kernel may have written the header and not the data, which then reads as zeros. Hence
the boot id: what was trusted before this boot is checked on its first use, and never again.

Locked bytes (see ``locks``): 64 + n while block n is written; 32 while states are put back after a boot.
"""

from __future__ import annotations

import os
import struct
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from artfs.cache.locks import poll, try_lock, unlock
from artfs.catalog.layout import BLOCK, PACK_DATA, block_count
from artfs.digests import block_checksum
from artfs.errors import DeadlineExceeded

HEADER: Final = 4096
ABSENT, UNCHECKED, TRUSTED = 0, 1, 2
RENEWAL: Final = 60.0
"""Seconds: a part in use gets a new modification time at most this often."""

_PREFIX: Final = struct.Struct("<8sIIQ8x16s16x")
_MAGIC: Final = b"ARTFSPRT"
_VERSION: Final = 1
_BOOT_ID: Final = 32
_STATES: Final = 64
_CHECKSUMS: Final = 128
_MOST_BLOCKS: Final = PACK_DATA // BLOCK
_DISTRUST: Final = bytes.maketrans(bytes([TRUSTED]), bytes([UNCHECKED]))


def boot_id() -> bytes:
    """The 16 bytes that name this boot of the machine."""
    return uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()).bytes


def make_private(*directories: Path) -> None:
    """Make directories, outermost first, with mode 0700: of the parents it makes, mkdir(parents=True) opens all."""
    for directory in directories:
        directory.mkdir(mode=0o700, exist_ok=True)


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data``: pwrite(2) stops short when a disk runs full and says so only on the next call."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


class Part:
    """An open part. Thread-safe; the descriptor closes with the last reference, so never under a reader.

    ``trusted`` holds a 1 for every block that this process knows to be trusted. Such a block stays so for the life of
    the file, therefore a hit looks nowhere else. (The header is read, not mapped: a file that somebody truncates would
    turn a look at a mapping into SIGBUS, and in Python 3.11 a mapping costs a second descriptor.)
    """

    __slots__ = ("__weakref__", "_distrust", "blocks", "fd", "size", "trusted", "used", "writable")

    def __init__(self, fd: int, size: int, *, writable: bool) -> None:
        self.fd = fd
        self.size = size
        self.blocks = block_count(size)
        self.writable = writable
        self.trusted = bytearray(_MOST_BLOCKS)
        self.used = False
        self._distrust = False

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor, which releases every lock taken through it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def adopt(self, boot: bytes, deadline: float) -> bool:
        """Check the header and, once a boot, withdraw trust; False if this is not a whole part of this size."""
        header = os.pread(self.fd, _CHECKSUMS, 0)
        if len(header) < _CHECKSUMS or os.fstat(self.fd).st_size != HEADER + self.size:
            return False
        magic, version, blocks, size, booted = _PREFIX.unpack_from(header)
        if (magic, version, blocks, size) != (_MAGIC, _VERSION, self.blocks, self.size):
            return False
        if booted == boot:
            return True
        if not self.writable:
            self._distrust = True
            return True
        # Nobody writes a block of this part meanwhile: whoever opened it has been through here.
        began = time.monotonic()
        if not poll(lambda: try_lock(self.fd, _BOOT_ID), deadline):
            raise DeadlineExceeded(what="opening a cached part", seconds=max(0.0, deadline - began))
        try:
            if os.pread(self.fd, len(boot), _BOOT_ID) != boot:
                states = os.pread(self.fd, _MOST_BLOCKS, _STATES)
                write_all(self.fd, states.translate(_DISTRUST), _STATES)
                write_all(self.fd, boot, _BOOT_ID)
        finally:
            unlock(self.fd, _BOOT_ID)
        return True

    # -- reading ------------------------------------------------------------------------------------------------

    def try_read(self, offset: int, length: int, room: memoryview | None = None) -> memoryview | None:
        """The bytes, if they are all in the page cache: one system call. None if not; OSError as preadv2(2).

        ``room``, if given, holds ``length`` bytes and is used again and again: a fresh buffer costs as much as the
        copy (100 KB: 12 us instead of 7), because it is zeroed first.
        """
        buffer = memoryview(bytearray(length)) if room is None else room[:length]
        # A short count means that the rest is on disk only.
        if os.preadv(self.fd, (buffer,), HEADER + offset, os.RWF_NOWAIT) != length:
            return None
        self.used = True
        return buffer

    def try_trust(self, first: int, end: int) -> bool:
        """Whether the blocks [first, end) are trusted by now, as far as that is in the page cache. OSError as above."""
        if self._distrust or end > self.blocks:
            return False
        states = bytearray(end - first)
        if os.preadv(self.fd, (states,), _STATES + first, os.RWF_NOWAIT) != len(states):
            return False
        if states.count(TRUSTED) != len(states):
            return False
        self.trusted[first:end] = b"\1" * len(states)
        return True

    def read(self, offset: int, length: int) -> bytes:
        """The bytes from disk; fewer if somebody has truncated the file."""
        data = os.pread(self.fd, length, HEADER + offset)
        self.used = True
        return data

    def states(self) -> bytes:
        """The state of every block as all processes see it."""
        states = os.pread(self.fd, _MOST_BLOCKS, _STATES).ljust(_MOST_BLOCKS, b"\0")
        return states.translate(_DISTRUST) if self._distrust else states

    def ready(self, block: int, states: bytes, expected: int | None) -> bool:
        """Whether the block can be read, checking it if nobody has since the boot. ``expected`` is its XXH3-64."""
        if self.trusted[block]:
            return True
        if states[block] == UNCHECKED:
            start = block * BLOCK
            length = min(BLOCK, self.size - start)
            data = os.pread(self.fd, length, HEADER + start)
            if expected is None:
                raw = os.pread(self.fd, 8, _CHECKSUMS + 8 * block)
                expected = int.from_bytes(raw, "little")
            if len(data) != length or block_checksum(data) != expected:
                return False
            if self.writable:
                # Needs no lock: it says the same whoever says it.
                write_all(self.fd, bytes([TRUSTED]), _STATES + block)
        elif states[block] != TRUSTED:
            return False
        self.trusted[block] = 1
        return True

    # -- writing: only while the blocks are locked --------------------------------------------------------------

    def lock(self, block: int) -> bool:
        """Whether this descriptor now holds the block; False if another does."""
        return try_lock(self.fd, _STATES + block)

    def unlock(self, block: int) -> None:
        """Let go of a block."""
        unlock(self.fd, _STATES + block)

    def store(self, first: int, data: memoryview, checksums: Sequence[int]) -> None:
        """Write whole blocks from block ``first`` on, then their checksums, then their states."""
        write_all(self.fd, data, HEADER + first * BLOCK)
        write_all(self.fd, struct.pack(f"<{len(checksums)}Q", *checksums), _CHECKSUMS + 8 * first)
        write_all(self.fd, bytes([TRUSTED]) * len(checksums), _STATES + first)
        self.trusted[first : first + len(checksums)] = b"\1" * len(checksums)

    def read_around(self, first: int, end: int) -> None:
        """Have the kernel begin to read the blocks [first, end) from disk into memory."""
        os.posix_fadvise(self.fd, HEADER + first * BLOCK, (end - first) * BLOCK, os.POSIX_FADV_WILLNEED)

    def discard(self, block: int) -> None:
        """Mark a block as absent."""
        write_all(self.fd, bytes([ABSENT]), _STATES + block)

    # -- eviction -----------------------------------------------------------------------------------------------

    def unlinked(self) -> bool:
        """Whether eviction has taken the file: what is written to it, only its present readers see."""
        return os.fstat(self.fd).st_nlink == 0

    def renew(self) -> None:
        """Tell eviction, by the modification time, that the part was used, if it was and has not been told lately."""
        if self.used and self.fd >= 0:
            self.used = False
            # A cache that cannot be written cannot be evicted from either.
            with suppress(OSError):
                if time.time() - os.fstat(self.fd).st_mtime >= RENEWAL:
                    os.utime(self.fd)


def create_part(path: Path, temporary: Path, size: int, boot: bytes) -> None:
    """Make an empty part for ``size`` bytes of data; content that another process puts there first wins."""
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, _PREFIX.pack(_MAGIC, _VERSION, block_count(size), size, boot).ljust(HEADER, b"\0"), 0)
        os.ftruncate(fd, HEADER + size)
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.close(fd)
        os.unlink(temporary)


def open_part(path: Path, size: int, boot: bytes, deadline: float) -> Part | None:
    """The part at ``path``, read-only if it must be; None if it is not a whole part of this size.

    Raises OSError, FileNotFoundError among them, and DeadlineExceeded.
    """
    try:
        part = Part(os.open(path, os.O_RDWR | os.O_CLOEXEC), size, writable=True)
    except FileNotFoundError:
        raise
    except OSError:
        part = Part(os.open(path, os.O_RDONLY | os.O_CLOEXEC), size, writable=False)
    return part if part.adopt(boot, deadline) else None
