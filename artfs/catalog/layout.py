"""The geometry that catalog, store and cache share. Sizes are bytes."""

from __future__ import annotations

BLOCK = 1 << 20
"""What is fetched, checksummed and cached: 1 MiB of a pack or of a reference (the last one may be shorter)."""

PACK_DATA = 64 << 20
"""Most data in a pack; also the length of an extent of a large new file and of a slice of a reference."""

NEIGHBOURHOOD = 8 << 20
"""What one request for a small file brings: the aligned 8 MiB of its pack around it."""


def block_count(size: int) -> int:
    """How many blocks hold ``size`` bytes."""
    return -(-size // BLOCK)
