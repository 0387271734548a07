"""What the cache counts."""

from __future__ import annotations

import attrs


class Counters:
    """Running totals, bumped without a lock: a race may lose one, and they are for people, not for decisions."""

    __slots__ = (
        "bytes_fetched",
        "bytes_read",
        "damaged",
        "evicted_bytes",
        "evicted_files",
        "hits",
        "mismatches",
        "prefetches_dropped",
        "prefetches_failed",
        "reads",
        "reads_fetched",
        "requests",
        "uncached",
    )

    def __init__(self) -> None:
        self.hits = self.reads = self.reads_fetched = self.bytes_read = 0
        self.requests = self.bytes_fetched = 0
        self.prefetches_dropped = self.prefetches_failed = 0
        self.mismatches = self.damaged = self.uncached = 0
        self.evicted_files = self.evicted_bytes = 0


@attrs.frozen
class CacheStatistics:
    """Totals since the cache was opened by this process, and what it holds open now."""

    hits: int
    """Reads answered at once from the page cache."""
    reads: int
    """Blocking reads."""
    reads_fetched: int
    """Those of them that had to wait for a fetch."""
    bytes_read: int
    """Bytes given to readers."""
    requests: int
    """Ranged requests made, repeated ones included."""
    bytes_fetched: int
    """Bytes these brought."""
    prefetches_dropped: int
    """Background requests not begun because enough of them waited."""
    prefetches_failed: int
    """Background requests that failed; a reader that needs the blocks asks again."""
    mismatches: int
    """Answers whose checksum or length was wrong."""
    damaged: int
    """Cached blocks found damaged after a boot, and fetched again."""
    uncached: int
    """Blocks served from memory because they could not be written."""
    evicted_files: int
    """Files this process evicted."""
    evicted_bytes: int
    """Disk space these took."""
    open_parts: int
    """Parts open now."""
    flights: int
    """Blocks on their way now."""


@attrs.frozen
class CacheInfo:
    """The cache directory as it is now, whoever filled it. Sizes are bytes on disk, not of sparse lengths."""

    directory: str
    size: int
    """All of it: parts and catalogs."""
    limit: int
    """What ``size`` is kept under."""
    disk_free: int
    """What the file system has left for this user."""
    disk_free_wanted: int
    """What eviction leaves free."""
    parts: int
    parts_size: int
    catalogs: int
    catalogs_size: int
