"""Eviction: whole files go, the least recently used first, until the limits are met.

One process at a time, decided by a lock on ``evict.lock``. Readers need no notice: an unlinked file keeps its bytes
for those who have it open, and they let go of it within a minute (``PartTable.tend``).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

from artfs.cache.locks import locked
from artfs.cache.statistics import CacheInfo, Counters

log = logging.getLogger(__name__)

STEP: Final = 64 << 20
"""Bytes that a process fetches, at most, between two looks at the limits."""
PATIENCE: Final = 1.0
"""Seconds to wait for another process that is evicting, when a write has found the disk full."""
ABANDONED: Final = 86400.0
"""Seconds after which a temporary file has no owner any more: nothing takes a day to write."""


@attrs.frozen(order=True)
class _File:
    mtime_ns: int
    size: int
    path: str


def _files(directory: Path) -> Iterator[_File]:
    """The regular files below a directory, with the space they take; what vanishes meanwhile is left out."""
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
            continue
        with suppress(FileNotFoundError):
            status = entry.stat(follow_symlinks=False)
            yield _File(status.st_mtime_ns, status.st_blocks * 512, entry.path)


class Eviction:
    """Keeps ``directory`` under ``limit`` bytes and ``free`` bytes of its disk unused. Thread-safe.

    Between two looks a process may exceed the limit by one step; in return eviction goes a step below the limit.
    """

    def __init__(self, directory: Path, *, limit: int, free: int, tend: Callable[[], None], counters: Counters) -> None:
        self._directory = directory
        self._limit = limit
        self._free = free
        self._tend = tend
        self._counters = counters
        self._step = min(STEP, limit // 16)
        self._unseen = 0
        self._asked = 0
        self._lock = threading.Lock()

    def grown(self, count: int) -> None:
        """``count`` more bytes are cached; evict if it is time to look."""
        with self._lock:
            self._unseen += count
            if self._unseen <= self._step:
                return
            self._unseen = 0
        self.evict()

    def evict(self, room: int = 0) -> int:
        """Meet the limits, and free at least ``room`` bytes; the bytes freed. Never raises for want of permission."""
        deadline = time.monotonic() + (PATIENCE if room else 0.0)
        freed = 0
        with self._lock:
            self._asked += 1
        try:
            while True:
                seen = self._asked
                with locked(self._directory / "evict.lock", 0, deadline) as held:
                    if not held:
                        return freed
                    freed += self._evict(max(0, room - freed))
                if seen == self._asked:
                    return freed
                # Another thread was turned away meanwhile, and what it has brought may not have been counted.
        except OSError as error:
            log.debug("cannot evict from %s: %s", self._directory, error)
            return freed

    def clean(self) -> int:
        """Remove everything that can be; the bytes freed."""
        freed = 0
        for name in ("parts", "catalogs", "profiles", "tmp"):
            for file in _files(self._directory / name):
                freed += self._remove(file)
        self._tend()
        return freed

    def info(self) -> CacheInfo:
        """What the directory holds, counted now."""
        parts = [file.size for file in _files(self._directory / "parts")]
        catalogs = [file.size for file in _files(self._directory / "catalogs")]
        return CacheInfo(
            directory=str(self._directory),
            size=sum(parts) + sum(catalogs),
            limit=self._limit,
            disk_free=self._disk_free(),
            disk_free_wanted=self._free,
            parts=len(parts),
            parts_size=sum(parts),
            catalogs=len(catalogs),
            catalogs_size=sum(catalogs),
        )

    def _evict(self, room: int) -> int:
        # First, so that what this process is reading counts as used.
        self._tend()
        parts = sorted(_files(self._directory / "parts"))
        # Catalogs go last: they are small, and without them nothing can be read offline.
        catalogs = sorted(_files(self._directory / "catalogs"))
        total = sum(file.size for file in parts) + sum(file.size for file in catalogs)
        excess = total - self._limit + self._step if total > self._limit else 0
        wanted = max(room, excess, self._free - self._disk_free())
        freed = 0
        for file in (*parts, *catalogs):
            if freed >= wanted:
                break
            freed += self._remove(file)
        oldest = time.time_ns() - int(ABANDONED * 1e9)
        for file in _files(self._directory / "tmp"):
            if file.mtime_ns < oldest:
                self._remove(file)
        if freed:
            log.info("evicted %d bytes of %d from %s", freed, total, self._directory)
            self._tend()
        return freed

    def _remove(self, file: _File) -> int:
        try:
            os.unlink(file.path)
        except OSError as error:
            log.debug("cannot evict %s: %s", file.path, error)
            return 0
        self._counters.evicted_files += 1
        self._counters.evicted_bytes += file.size
        return file.size

    def _disk_free(self) -> int:
        try:
            status = os.statvfs(self._directory)
        except OSError:
            return 0
        return status.f_bavail * status.f_frsize
