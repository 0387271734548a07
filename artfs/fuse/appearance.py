"""How a tree looks from outside, whichever engine shows it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from typing import Any

import attrs

from artfs.catalog import Kind
from artfs.fuse.options import MountOptions
from artfs.vfs.tree import Capacity

STATISTICS = b"user.artfs.statistics"
"""Extended attribute of the root that holds the counters of everything, as JSON; not listed."""
PREFETCH = b"user.artfs.prefetch"
"""Extended attribute of every file: asking for it has the file fetched in the background. Not listed. An attribute,
because it is the one way to the daemon that every program, every language and both engines have."""
PREFETCHING = b"1"
"""Its value."""
NAME_MAX = 255
"""Bytes of one name, as on any Linux file system."""
BLOCK_SIZE = 128 << 10
"""What stat recommends for reads (``st_blksize``). cp and cat use at least this much anyway; Python's ``open``
allocates a buffer of it for every file, so more would cost where files are small."""
FRAGMENT_SIZE = 4096
"""The unit of statfs."""

_FORMAT = {
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FILE: stat.S_IFREG,
    Kind.REFERENCE: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
}


class Appearance:
    """Owner and modes as the options of a mount want them."""

    __slots__ = ("_dir_mode", "_file_mode", "gid", "uid")

    def __init__(self, options: MountOptions) -> None:
        self.uid = os.getuid() if options.uid is None else options.uid
        self.gid = os.getgid() if options.gid is None else options.gid
        self._file_mode = options.file_mode
        self._dir_mode = options.dir_mode

    def mode(self, kind: Kind, mode: int) -> int:
        """``st_mode`` of what has the permission bits ``mode``: the type and the bits that are shown."""
        if kind == Kind.SYMLINK:
            mode = 0o777
        elif kind == Kind.DIRECTORY:
            mode = mode if self._dir_mode is None else self._dir_mode
        else:
            mode = mode if self._file_mode is None else self._file_mode
        return _FORMAT[kind] | mode


@attrs.frozen
class Fragments:
    """A capacity in the units of statfs."""

    blocks: int
    free: int
    files: int
    files_free: int


def fragments(capacity: Capacity) -> Fragments:
    """What df shows: the whole tree."""
    free = capacity.free // FRAGMENT_SIZE
    blocks = -(-capacity.size // FRAGMENT_SIZE) + free
    return Fragments(blocks, free, capacity.files + capacity.files_free, capacity.files_free)


def statistics_json(counters: Mapping[str, Any]) -> bytes:
    """The value of ``STATISTICS``.

    getfattr(1) asks for the size first and then for the value, which has grown meanwhile: rounded up.
    """
    text = json.dumps(counters).encode()
    return text.ljust(-(-(len(text) + 1) // 1024) * 1024)
