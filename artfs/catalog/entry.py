"""What a catalog is made of, as values that cross its boundary one at a time."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

import attrs

_LATEST_NS = (1 << 63) - 1


def bounded_time(ns: int) -> int:
    """A time as SQLite's 64 bits hold its nanoseconds; one before 1677 or after 2262 becomes the nearest of those.

    Linux does the same to what a file system cannot hold (timestamp_truncate in fs/inode.c; ext4: 1901 to 2446).
    """
    return max(-_LATEST_NS - 1, min(ns, _LATEST_NS))


class Kind(enum.IntEnum):
    """What a path is."""

    DIRECTORY = 1
    FILE = 2
    SYMLINK = 3
    REFERENCE = 4


@attrs.frozen
class Extent:
    """A run of bytes of a file: a slice of a pack's data."""

    pack: str
    """The pack's key in the object store."""
    offset: int
    length: int


@attrs.frozen
class Reference:
    """Bytes that live elsewhere, and the identity they had when they were recorded."""

    uri: str
    digest: str
    """What W&B records: ETag, base64 MD5, or the URI."""
    size: int | None
    """Bytes; None where nobody recorded it."""
    extra: Mapping[str, str] = MappingProxyType({})
    """The manifest's ``extra``: ``etag``, ``versionID``; never credentials."""


@attrs.frozen
class Entry:
    """One path of a version. Directories need an entry only to keep their mode and mtime, or because they are empty."""

    path: str
    kind: Kind
    mode: int = 0o644
    """Permission bits, ``& 0o777``."""
    mtime_ns: int = 0
    size: int = 0
    """Bytes of a file; of a reference 0 (its own size is in ``reference``) unless it has extents."""
    digest: str = ""
    """Of a file, or of a reference whose bytes are in packs: base64 of its MD5."""
    target: str = ""
    """Of a symlink."""
    extents: tuple[Extent, ...] = ()
    """Of a file: what it is made of, in order, ``size`` bytes together; of a reference to a file of another version
    likewise, and then ``size`` and ``digest`` are set too."""
    reference: Reference | None = None

    @property
    def manifest_digest(self) -> str:
        """The digest that W&B's manifest holds for a file or a reference."""
        return self.digest if self.reference is None else self.reference.digest


@attrs.frozen
class PackInfo:
    """What reading needs to know of a pack."""

    key: str
    size: int
    """Bytes of data (without index and footer)."""
    checksums: bytes
    """XXH3-64 of each block of the data, 8 bytes little-endian each."""

    def checksum(self, block: int) -> int:
        """The XXH3-64 of one block."""
        return int.from_bytes(self.checksums[8 * block : 8 * block + 8], "little")
