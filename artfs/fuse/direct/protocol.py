"""The kernel's FUSE protocol, as far as a read-only file system speaks it: ``linux/fuse.h``, version 7.31 and later.

Integers are in the machine's byte order and aligned to their size; the structs have no hidden padding. A test compares
everything here with the header of the machine.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final

MAJOR: Final = 7
MINOR: Final = 38
"""What we speak; the kernel speaks the smaller of its own and this."""
LEAST_MINOR: Final = 31
"""Linux 5.4. All that we need is older: FUSE_NO_OPENDIR_SUPPORT came with 7.29."""
ROOT_ID: Final = 1
IOC_CLONE: Final = 0x8004E500
"""FUSE_DEV_IOC_CLONE: make an open /dev/fuse another way to the connection whose descriptor is the argument."""
NOTIFY_RESEND: Final = 7
"""FUSE_NOTIFY_RESEND (7.40, Linux 6.9): queue again every request that was read and not answered."""
RESENT: Final = 1 << 63
"""FUSE_UNIQUE_RESEND: set in the unique of a request that was queued again."""
MIN_READ_BUFFER: Final = 8192
"""FUSE_MIN_READ_BUFFER, enough for all that we are sent: nothing is written, and a name has 255 bytes."""
MOST_PAGES: Final = 256
"""In one READ, of 4 KiB: 1 MiB, the kernel's limit unless root raises it."""


class Opcode(IntEnum):
    """enum fuse_opcode."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52


def kind(opcode: int) -> str:
    """What a request is called in messages."""
    try:
        return Opcode(opcode).name.lower()
    except ValueError:
        return str(opcode)


class Flag(IntFlag):
    """Flags of INIT. Those from bit 32 travel in ``flags2``, where INIT_EXT says that there is one."""

    ASYNC_READ = 1 << 0
    DO_READDIRPLUS = 1 << 13
    ASYNC_DIO = 1 << 15
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    INIT_EXT = 1 << 30
    HAS_RESEND = 1 << 39


class OpenFlag(IntFlag):
    """What the reply to OPENDIR allows: the kernel keeps the listing, and keeps it beyond the next opendir."""

    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3


_ATTR = (
    ("ino", "Q"), ("size", "Q"), ("blocks", "Q"), ("atime", "q"), ("mtime", "q"), ("ctime", "q"),
    ("atimensec", "I"), ("mtimensec", "I"), ("ctimensec", "I"), ("mode", "I"), ("nlink", "I"), ("uid", "I"),
    ("gid", "I"), ("rdev", "I"), ("blksize", "I"), ("flags", "I"),
)  # fmt: skip
_ENTRY = (
    ("nodeid", "Q"), ("generation", "Q"), ("entry_valid", "Q"), ("attr_valid", "Q"), ("entry_valid_nsec", "I"),
    ("attr_valid_nsec", "I"), *((f"attr.{name}", code) for name, code in _ATTR),
)  # fmt: skip
_DIRENT = (("ino", "Q"), ("off", "Q"), ("namelen", "I"), ("type", "I"))

STRUCTS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "fuse_in_header": (
        ("len", "I"), ("opcode", "I"), ("unique", "Q"), ("nodeid", "Q"), ("uid", "I"), ("gid", "I"), ("pid", "I"),
        ("total_extlen", "H"), ("padding", "H"),
    ),
    "fuse_out_header": (("len", "I"), ("error", "i"), ("unique", "Q")),
    "fuse_attr": _ATTR,
    "fuse_entry_out": _ENTRY,
    "fuse_attr_out": (
        ("attr_valid", "Q"), ("attr_valid_nsec", "I"), ("dummy", "I"),
        *((f"attr.{name}", code) for name, code in _ATTR),
    ),
    "fuse_init_in": (("major", "I"), ("minor", "I"), ("max_readahead", "I"), ("flags", "I")),
    "fuse_init_out": (
        ("major", "I"), ("minor", "I"), ("max_readahead", "I"), ("flags", "I"), ("max_background", "H"),
        ("congestion_threshold", "H"), ("max_write", "I"), ("time_gran", "I"), ("max_pages", "H"),
        ("map_alignment", "H"), ("flags2", "I"), ("unused", "28s"),
    ),
    "fuse_open_out": (("fh", "Q"), ("open_flags", "I"), ("padding", "I")),
    "fuse_read_in": (
        ("fh", "Q"), ("offset", "Q"), ("size", "I"), ("read_flags", "I"), ("lock_owner", "Q"), ("flags", "I"),
        ("padding", "I"),
    ),
    "fuse_dirent": _DIRENT,
    "fuse_direntplus": (
        *((f"entry_out.{name}", code) for name, code in _ENTRY), *((f"dirent.{name}", code) for name, code in _DIRENT),
    ),
    "fuse_getxattr_in": (("size", "I"), ("padding", "I")),
    "fuse_getxattr_out": (("size", "I"), ("padding", "I")),
    "fuse_interrupt_in": (("unique", "Q"),),
    "fuse_kstatfs": (
        ("blocks", "Q"), ("bfree", "Q"), ("bavail", "Q"), ("files", "Q"), ("ffree", "Q"), ("bsize", "I"),
        ("namelen", "I"), ("frsize", "I"), ("padding", "I"), ("spare", "24s"),
    ),
}  # fmt: skip
"""Name and format of every field. ``fuse_init_in`` only up to what every kernel sends."""


def _layout_of(fields: tuple[tuple[str, str], ...]) -> Struct:
    return Struct("=" + "".join(code for _, code in fields))


def _layout(name: str) -> Struct:
    return _layout_of(STRUCTS[name])


def _run(name: str, first: str, last: str) -> Struct:
    """Some fields that follow each other."""
    names = [field for field, _ in STRUCTS[name]]
    return _layout_of(STRUCTS[name][names.index(first) : names.index(last) + 1])


IN_HEADER: Final = _layout("fuse_in_header")
OUT_HEADER: Final = _layout("fuse_out_header")
ENTRY_OUT: Final = _layout("fuse_entry_out")
ATTR_OUT: Final = _layout("fuse_attr_out")
INIT_IN: Final = _layout("fuse_init_in")
INIT_OUT: Final = _layout("fuse_init_out")
OPEN_OUT: Final = _layout("fuse_open_out")
READ_IN: Final = _layout("fuse_read_in")
DIRENT: Final = _layout("fuse_dirent")
DIRENTPLUS: Final = _layout("fuse_direntplus")
DIRENTPLUS_LIFETIMES: Final = _run("fuse_direntplus", "entry_out.generation", "entry_out.attr_valid_nsec")
DIRENTPLUS_MODE: Final = _run("fuse_direntplus", "entry_out.attr.mode", "entry_out.attr.flags")
DIRENTPLUS_LINE: Final = Struct(f"=Q{DIRENTPLUS_LIFETIMES.size}s3Q3q3I{DIRENTPLUS_MODE.size}s2Q2I")
"""``fuse_direntplus`` with these two, which most entries of a listing have in common, made before: 16 values instead of
28, in 0.33 us instead of 0.5."""
GETXATTR_IN: Final = _layout("fuse_getxattr_in")
GETXATTR_OUT: Final = _layout("fuse_getxattr_out")
INTERRUPT_IN: Final = _layout("fuse_interrupt_in")
STATFS_OUT: Final = _layout("fuse_kstatfs")
FLAGS2: Final = Struct("=I")
"""Of ``fuse_init_in``, after the rest, where INIT_EXT says so."""

HEADER_SIZE: Final = IN_HEADER.size


def error_reply(unique: int, number: int) -> bytes:
    """A reply that is an errno, or success without content where it is 0."""
    return OUT_HEADER.pack(OUT_HEADER.size, -number, unique)
