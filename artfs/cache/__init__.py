"""The cache: every byte that was fetched, on local disk, for all mounts, processes and Python callers of a user.

``Cache.try_read`` answers at once from the page cache or not at all; ``Cache.read`` waits, with a deadline, for disk
and network. The rest of the package is behind these two: ``part`` (the files), ``table`` (which are open), ``fetch``
and ``flights`` (how missing blocks come), ``eviction``, ``catalogs``, and the policy in ``readahead``.
"""

from __future__ import annotations

import errno
import logging
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final

from artfs.cache.catalogs import Catalogs
from artfs.cache.eviction import Eviction
from artfs.cache.fetch import Fetcher
from artfs.cache.flights import Held
from artfs.cache.part import ABSENT, Part
from artfs.cache.readahead import Advice, Readahead
from artfs.cache.source import Source
from artfs.cache.statistics import CacheInfo, CacheStatistics, Counters
from artfs.cache.succession import Succession
from artfs.cache.table import PartTable
from artfs.catalog.layout import BLOCK, block_count
from artfs.errors import DeadlineExceeded

__all__ = ["Advice", "Cache", "CacheInfo", "CacheStatistics", "Readahead", "Source", "Succession"]

log = logging.getLogger(__name__)

CLOSING: Final = 5.0
"""Seconds that ``close`` gives to requests under way."""

_NO_STATES: Final = bytes(64)


class Cache:
    """One cache directory. Thread-safe; after a fork the child opens descriptors of its own.

    It never fails a read because the directory is full, read-only or damaged: then bytes are fetched and served from
    memory, and one log line a minute says so.
    """

    def __init__(self, directory: Path, *, limit: int, free: int) -> None:
        """Use ``directory`` (made with mode 0700), up to ``limit`` bytes, leaving ``free`` bytes of its disk."""
        self.directory = directory
        self._limit = limit
        self._free = free
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            log.warning("the cache directory cannot be made, bytes are served without it: %s", error)
        self._start()
        _caches.add(self)

    def _start(self) -> None:
        self._nowait = True
        self._counters = Counters()
        self._table = PartTable(self.directory)
        self._eviction = Eviction(
            self.directory, limit=self._limit, free=self._free, tend=self._table.tend, counters=self._counters
        )
        self._fetcher = Fetcher(self._table, self._eviction, self._counters)
        self._catalogs = Catalogs(self.directory, self._eviction)

    def _start_in_child(self) -> None:
        # Locks may be held by threads that the child does not have, and descriptors share their OFD locks with the
        # parent: nothing of it is touched but to close the descriptors.
        self._table.abandon()
        self._start()

    def close(self) -> None:
        """Stop the threads and close the parts. No read may be under way or follow."""
        _caches.discard(self)
        self._fetcher.close(CLOSING)
        self._table.close()

    # -- reading ------------------------------------------------------------------------------------------------

    def try_read(self, source: Source, offset: int, length: int, room: memoryview | None = None) -> memoryview | None:
        """``length`` bytes of the source if they are in the page cache and known to be right; None otherwise.

        In ``room`` if it is given, which must hold so many; the answer is then the first part of it.

        Never waits, opens nothing, raises nothing, and costs one system call, a second one when it meets blocks that
        another process has brought. What reaches beyond the source's end is left to ``read``.
        """
        part = self._table.get(source.name)
        if part is None or not self._nowait:
            return None
        first, end = offset // BLOCK, -(-(offset + length) // BLOCK)
        try:
            if part.trusted.find(0, first, end) >= 0 and not part.try_trust(first, end):
                return None
            data = part.try_read(offset, length, room)
        except OSError as error:
            # BlockingIOError is the ordinary "only on disk"; other faults are for read to meet and to deal with.
            if error.errno == errno.EOPNOTSUPP:
                log.info("%s cannot be read without waiting (RWF_NOWAIT); every read takes a thread", self.directory)
                self._nowait = False
            return None
        if data is not None:
            self._counters.hits += 1
            self._counters.bytes_read += length
        return data

    def read(
        self,
        source: Source,
        offset: int,
        length: int,
        deadline: float,
        *,
        window: tuple[int, int] | None = None,
        around: bool = False,
    ) -> bytes | memoryview:
        """Up to ``length`` bytes at ``offset``, fewer only at the source's end, by ``deadline`` (monotonic seconds).

        Fetches what is missing, and of the blocks [first, end) of ``window`` what shares a request with it; the rest
        of the window follows in the background. With ``around``, what has to come from disk brings its blocks whole
        into memory. Raises DeadlineExceeded, CorruptPack, and what the source raises.
        """
        began = time.monotonic()
        end = min(offset + length, source.size)
        if offset >= end:
            return b""
        blocks = range(offset // BLOCK, block_count(end))
        fetched: dict[int, Held] = {}
        waited = False
        self._counters.reads += 1
        while True:
            part = self._fetcher.part(source, deadline)
            states = _NO_STATES
            missing = [block for block in blocks if block not in fetched]
            if part is not None:
                try:
                    if part.trusted.find(0, blocks.start, blocks.stop) >= 0 or window is not None:
                        states = part.states()
                    missing = [b for b in missing if not part.ready(b, states, source.checksum(b))]
                    if not missing and around and not waited:
                        part.read_around(blocks.start, blocks.stop)
                except OSError as error:
                    log.warning("the cached part of %s cannot be read, it is made anew: %s", source.label, error)
                    self._table.forget(source.name, part, unlink=True)
                    part = None
                    missing = [block for block in blocks if block not in fetched]
            if not missing:
                data = self._assemble(source, part, offset, end, fetched)
                if len(data) == end - offset:
                    break
                fetched.clear()
                continue
            waited = True
            self._await(source, missing, _extras(source, part, states, window), fetched, began, deadline)
        if waited:
            self._counters.reads_fetched += 1
        self._counters.bytes_read += len(data)
        return data

    def _await(
        self,
        source: Source,
        missing: list[int],
        extras: list[int],
        fetched: dict[int, Held],
        began: float,
        deadline: float,
    ) -> None:
        """Have blocks fetched and wait; ``fetched`` gets what this process brought."""
        late = DeadlineExceeded(what=f"reading {source.label}", seconds=max(0.0, deadline - began))
        if time.monotonic() >= deadline:
            raise late
        mine, others = self._fetcher.want(source, missing, extras, deadline)
        for block, flight in (*mine.items(), *others.items()):
            if not flight.wait(deadline):
                raise late
            if flight.held is not None:
                fetched[block] = flight.held
            elif block in mine or not isinstance(flight.error, DeadlineExceeded):
                # The deadline of another caller is no reason to give up before one's own.
                flight.raise_error()

    def _assemble(
        self, source: Source, part: Part | None, offset: int, end: int, fetched: dict[int, Held]
    ) -> bytes | memoryview:
        """The bytes, from what was fetched for this read and from the part for the rest; fewer if either lost some."""
        pieces: list[bytes | memoryview] = []
        at = offset
        while at < end:
            held = fetched.get(at // BLOCK, part)
            assert held is not None, "no block is missing"
            stop = min(end, (at // BLOCK + 1) * BLOCK)
            while stop < end and fetched.get(stop // BLOCK, part) is held:
                stop = min(end, stop + BLOCK)
            fault = "it was truncated"
            try:
                data = held.read(at, stop - at)
            except OSError as error:
                data, fault = b"", str(error)
            if len(data) < stop - at:
                log.warning("the cached part of %s cannot be read, it is made anew: %s", source.label, fault)
                if isinstance(held, Part):
                    self._table.forget(source.name, held, unlink=True)
                return b""
            pieces.append(data)
            at = stop
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def prefetch(self, source: Source, first_block: int, end_block: int) -> None:
        """Have the blocks fetched in the background. At once; dropped when busy; no failure is reported."""
        self._fetcher.prefetch(source, max(0, first_block), min(end_block, block_count(source.size)))

    def request(self, source: Source, first_block: int, end_block: int) -> bool:
        """The same for what somebody has asked for: thousands of requests may wait, apart from ``prefetch``.

        Whether there was room for all of it; no failure is reported, whoever reads the blocks meets it.
        """
        return self._fetcher.request(source, max(0, first_block), min(end_block, block_count(source.size)))

    # -- looking ------------------------------------------------------------------------------------------------

    def cached(self, source: Source) -> int:
        """How many bytes of the source are in the cache."""
        states = self._states(source)
        starts = range(0, source.size, BLOCK)
        return sum(min(BLOCK, source.size - start) for start in starts if states[start // BLOCK] != ABSENT)

    def present(self, source: Source, offset: int, length: int) -> bool:
        """Whether a read of these bytes can do without the source."""
        end = min(offset + length, source.size)
        return ABSENT not in self._states(source)[offset // BLOCK : block_count(end)]

    def _states(self, source: Source) -> bytes:
        try:
            part = self._table.open(source, time.monotonic() + 1.0, create=False)
            return part.states() if part is not None else _NO_STATES
        except (OSError, DeadlineExceeded) as error:
            log.debug("cannot look at the part of %s: %s", source.label, error)
            return _NO_STATES

    def info(self) -> CacheInfo:
        """What the directory holds, counted now: it looks at every file."""
        return self._eviction.info()

    def statistics(self) -> CacheStatistics:
        """What this process has done with the cache."""
        totals = {name: getattr(self._counters, name) for name in Counters.__slots__}
        return CacheStatistics(**totals, open_parts=len(self._table), flights=len(self._fetcher.flights))

    # -- catalogs, room -----------------------------------------------------------------------------------------

    def catalog(self, sha256_hex: str, load: Callable[[Path], None], *, deadline: float | None = None) -> Path:
        """The file of a decompressed catalog; ``load`` writes it, once for all processes, if it is absent.

        ``deadline`` (monotonic seconds, 5 minutes from now by default) bounds the wait for another process; ``load``
        keeps time itself. Raises what it raises, DeadlineExceeded, LocalIOError and DiskFull. Open the file soon:
        eviction may take its name.
        """
        return self._catalogs.get(sha256_hex, load, deadline)

    def evict(self) -> int:
        """Meet the limits now; the bytes freed, 0 also when another process is at it."""
        return self._eviction.evict()

    def clean(self) -> int:
        """Remove all parts and catalogs; the bytes freed. Who reads one keeps reading it."""
        return self._eviction.clean()


def _extras(source: Source, part: Part | None, states: bytes, window: tuple[int, int] | None) -> list[int]:
    """The absent blocks of a window; none where they could not be kept."""
    if window is None or part is None or not part.writable:
        return []
    first, end = window
    return [b for b in range(max(0, first), min(end, block_count(source.size))) if states[b] == ABSENT]


_caches: weakref.WeakSet[Cache] = weakref.WeakSet()


def _renew_caches() -> None:
    for cache in list(_caches):
        cache._start_in_child()  # noqa: SLF001  # the module's own class


os.register_at_fork(after_in_child=_renew_caches)
