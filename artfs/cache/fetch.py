"""Missing blocks become ranged requests, checked bytes, and blocks that every process can read.

A request is a run of missing blocks that crosses no multiple of 8 MiB: large enough for the network, small enough that
several run side by side, and cut at the same places by every process. A process waits for another one only when it
needs that very block and holds no lock, so there is nothing to deadlock.
"""

from __future__ import annotations

import errno
import logging
import mmap
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import Final

from artfs.cache.eviction import Eviction
from artfs.cache.flights import Flight, Flights, Held, Loose
from artfs.cache.locks import LONGEST_PAUSE, pause
from artfs.cache.part import ABSENT, HEADER, UNCHECKED, Part
from artfs.cache.source import Source
from artfs.cache.statistics import Counters
from artfs.cache.table import PartTable
from artfs.cache.workers import Workers
from artfs.catalog.layout import BLOCK, NEIGHBOURHOOD
from artfs.digests import block_checksum
from artfs.errors import ArtfsError, CorruptPack, DeadlineExceeded, LocalIOError

log = logging.getLogger(__name__)

REQUEST_BLOCKS: Final = NEIGHBOURHOOD // BLOCK
"""Blocks in a request at most."""
FOREGROUND: Final = 32
"""Requests at once that somebody waits for; each has a thread, with a buffer of a block."""
BACKGROUND: Final = 8
"""Requests at once that nobody waits for: the longest readahead window, 64 MiB."""
BACKGROUND_QUEUE: Final = 64
"""Background requests that may wait; more are dropped, since what they would bring is needed too late or never."""
REQUESTED: Final = 4
"""Requests at once for what was asked for beforehand, so that readahead beside them finds the network free."""
REQUESTED_QUEUE: Final = 4096
"""Of these may wait: 32 GiB of neighbourhoods."""
BACKGROUND_DEADLINE: Final = 30.0
"""Seconds for a background request. A reader may come to wait for it, and must have time left to ask again."""
COMPLAINT_PAUSE: Final = 60.0
"""Seconds between two log lines about a disk that cannot be used."""


def runs(blocks: Iterable[int]) -> Iterator[range]:
    """Ascending blocks as contiguous runs, none of which crosses a multiple of REQUEST_BLOCKS."""
    start = end = -1
    for block in blocks:
        if block == end and block % REQUEST_BLOCKS:
            end += 1
            continue
        if start >= 0:
            yield range(start, end)
        start, end = block, block + 1
    if start >= 0:
        yield range(start, end)


class _Job:
    """Blocks to bring by one worker; those in ``wanted`` must come, the others may."""

    __slots__ = ("deadline", "flights", "pending", "source", "stored", "wanted")

    def __init__(
        self, source: Source, pending: dict[int, Flight], wanted: Collection[int], deadline: float, flights: Flights
    ) -> None:
        self.source = source
        self.pending = pending
        self.wanted = wanted
        self.deadline = deadline
        self.flights = flights
        self.stored = 0

    def land(self, block: int, held: Held | None = None, error: BaseException | None = None) -> None:
        self.flights.land(self.source.name, block, self.pending.pop(block), held, error)

    def end(self, error: BaseException | None) -> None:
        """Land what is left: the wanted with the error, the others with nothing."""
        for block in list(self.pending):
            self.land(block, error=error if block in self.wanted else None)


class Fetcher:
    """Brings blocks, in the foreground (``want``) and in the background (``prefetch``). Thread-safe."""

    def __init__(self, table: PartTable, eviction: Eviction, counters: Counters) -> None:
        self._table = table
        self._eviction = eviction
        self._counters = counters
        self._quiet_until = 0.0
        self.flights = Flights()
        self._foreground = Workers("artfs-fetch", FOREGROUND)
        self._background = Workers("artfs-prefetch", BACKGROUND, BACKGROUND_QUEUE)
        self._requested = Workers("artfs-request", REQUESTED, REQUESTED_QUEUE)
        self._queued: set[tuple[str, int, int]] = set()
        self._rooms = threading.local()

    def close(self, timeout: float) -> None:
        """Begin nothing more."""
        self._requested.close(0.0)
        self._background.close(0.0)
        self._foreground.close(timeout)

    def part(self, source: Source, deadline: float) -> Part | None:
        """The source's part, or None if the disk does not permit one. Raises DeadlineExceeded."""
        for attempt in (1, 2):
            try:
                return self._table.open(source, deadline)
            except OSError as error:
                if attempt == 1 and error.errno in {errno.ENOSPC, errno.EDQUOT} and self._eviction.evict(room=HEADER):
                    continue
                self.complain(error)
                break
        return None

    def complain(self, error: OSError) -> None:
        """Log, at most once a minute, that the cache directory cannot be used."""
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + COMPLAINT_PAUSE
            log.warning("the cache cannot be used, bytes are served without it: %s", str(error))

    def want(
        self, source: Source, missing: list[int], extras: Iterable[int], deadline: float
    ) -> tuple[dict[int, Flight], dict[int, Flight]]:
        """Have ``missing`` fetched: flights begun for this caller, and those of others to wait for.

        ``extras`` are absent blocks worth having: near a missing one they come in its request, else in the background.
        """
        mine, others = self.flights.take(source.name, missing, deadline)
        for run in runs(sorted({*mine, *extras})):
            wanted = [block for block in run if block in mine]
            if not wanted:
                self.prefetch(source, run.start, run.stop)
                continue
            pending, _ = self.flights.take(source.name, (b for b in run if b not in mine), deadline)
            pending.update((block, mine[block]) for block in wanted)
            job = _Job(source, pending, wanted, deadline, self.flights)
            if not self._foreground.submit(partial(self._work, job)):
                job.end(LocalIOError(path="the cache", why="it is closed"))
        return mine, others

    def prefetch(self, source: Source, first: int, end: int) -> None:
        """Have the absent blocks of [first, end) fetched when there is time, or not at all."""
        for run in runs(range(first, end)):
            if not self._background.submit(partial(self._prefetch, source, run)):
                self._counters.prefetches_dropped += 1

    def request(self, source: Source, first: int, end: int) -> bool:
        """Have the absent blocks of [first, end) fetched in turn; whether there was room for all of it in the queue.

        Small files that lie together ask for the same blocks: what waits already is not queued again.
        """
        complete = True
        for run in runs(range(first, end)):
            key = source.name, run.start, run.stop
            if key in self._queued:
                continue
            self._queued.add(key)
            if not self._requested.submit(partial(self._answer, source, run, key)):
                self._queued.discard(key)
                self._counters.prefetches_dropped += 1
                complete = False
        return complete

    def _answer(self, source: Source, run: range, key: tuple[str, int, int]) -> None:
        self._queued.discard(key)
        self._prefetch(source, run)

    def _prefetch(self, source: Source, run: range) -> None:
        # Flights begin here and not when the job was queued: nobody must wait for what has not begun.
        deadline = time.monotonic() + BACKGROUND_DEADLINE
        try:
            part = self.part(source, deadline)
            if part is None or not part.writable:
                return
            states = part.states()
        except (OSError, DeadlineExceeded) as error:
            log.debug("no prefetch of %s: %s", source.label, error)
            return
        absent = [block for block in run if states[block] == ABSENT]
        pending, _ = self.flights.take(source.name, absent, deadline)
        # The part may be evicted while the request runs: then its blocks are fetched once more by who needs them.
        del part
        self._work(_Job(source, pending, (), deadline, self.flights))

    # -- in a worker --------------------------------------------------------------------------------------------

    def _work(self, job: _Job) -> None:
        error: BaseException | None = None
        try:
            self._bring(job)
        except ArtfsError as known:
            # Without its traceback, whose frames would keep buffers and descriptors alive.
            error = known.with_traceback(None)
            if not job.wanted:
                self._counters.prefetches_failed += 1
                log.debug("prefetch of %s: %s", job.source.label, known)
        except Exception as unknown:  # a defect: those who wait raise it, and it is logged here
            error = unknown
            log.exception("fetching %s failed unexpectedly", job.source.label)
        finally:
            job.end(error)
        self._eviction.grown(job.stored)

    def _bring(self, job: _Job) -> None:
        began = time.monotonic()
        while job.pending:
            part = self.part(job.source, job.deadline)
            if part is None or not part.writable:
                self._bring_uncached(job)
                return
            try:
                if not self._bring_free(job, part):
                    self._await_others(job, part, began)
            except ArtfsError:
                raise
            except OSError as error:
                self.complain(error)
                self._table.forget(job.source.name, part)
                self._bring_uncached(job)
                return
            # What another process is fetching and nobody here has asked for is no concern of ours.
            for block in [block for block in job.pending if block not in job.wanted]:
                job.land(block)
            if job.pending and time.monotonic() >= job.deadline:
                raise DeadlineExceeded(what=f"a fetch of {job.source.label}", seconds=job.deadline - began)

    @staticmethod
    def _await_others(job: _Job, part: Part, began: float) -> None:
        """Wait until another process has brought one of the wanted blocks, or it is time to try the locks again.

        A look at the states is one system call, where trying the locks takes four and one a block.
        """
        wanted = [block for block in job.pending if block in job.wanted]
        end = min(time.monotonic() + LONGEST_PAUSE, job.deadline)
        while wanted and (now := time.monotonic()) < end:
            time.sleep(min(pause(now - began), end - now))
            states = part.states()
            if any(states[block] != ABSENT for block in wanted):
                return

    def _bring_uncached(self, job: _Job) -> None:
        for run in list(runs(sorted(block for block in job.pending if block in job.wanted))):
            self._request(job, None, run)

    def _bring_free(self, job: _Job, part: Part) -> bool:
        """Land the blocks that are there or that no other process is fetching; whether anything was done."""
        source = job.source
        held = [block for block in sorted(job.pending) if part.lock(block)]
        try:
            if part.unlinked():
                self._table.forget(source.name, part)
                return True
            states = part.states()
            present = [block for block in job.pending if part.ready(block, states, source.checksum(block))]
            for block in present:
                job.land(block)
            missing = [block for block in held if block in job.pending]
            for block in missing:
                if states[block] == UNCHECKED:
                    self._counters.damaged += 1
                    log.warning("cached block %d of %s is damaged; it is fetched again", block, source.label)
                    part.discard(block)
            for run in sorted(runs(missing), key=lambda run: not any(block in job.wanted for block in run)):
                self._request(job, part, run)
        finally:
            for block in held:
                part.unlock(block)
        return bool(present or missing)

    def _request(self, job: _Job, part: Part | None, run: range) -> None:
        """Fetch a run, put it in the part and land it, block by block."""
        try:
            self._receive(job, part, run)
        except DeadlineExceeded:
            raise
        except ArtfsError as error:
            left = [block for block in run if block in job.pending]
            wanted = [block for block in left if block in job.wanted]
            if not wanted or len(wanted) == len(left):
                raise
            # What came along for the ride must not cost the reader its own blocks.
            log.debug("%s: %s; asking for blocks %s alone", job.source.label, error, wanted)
            for alone in runs(wanted):
                self._receive(job, part, alone)

    def _receive(self, job: _Job, part: Part | None, run: range) -> None:
        """Fetch a run and land it; once a block could not be stored, the rest of the run is not tried either."""
        for block, data, checksum in self._blocks(job.source, run, job.deadline):
            if part is not None and self._store(part, block, data, checksum):
                job.stored += len(data)
                job.land(block, part)
            else:
                part = None
                self._counters.uncached += 1
                job.land(block, Loose(block, bytes(data)))

    def _blocks(self, source: Source, run: range, deadline: float) -> Iterator[tuple[int, memoryview, int]]:
        """The blocks of a run with their checksums, each until the next is asked for.

        One that is not the right one is asked for once more, with what follows it. Raises CorruptPack.
        """
        room = self._room()
        block, again = run.start, False
        while block < run.stop:
            fault = "it ended early"
            self._counters.requests += 1
            for data in source.stream(block * BLOCK, min(run.stop * BLOCK, source.size), room, deadline):
                self._counters.bytes_fetched += len(data)
                length = min(BLOCK, source.size - block * BLOCK)
                if len(data) != length:
                    fault = f"{len(data)} bytes came instead of {length}"
                    break
                checksum = block_checksum(data)
                if source.checksum(block) not in {None, checksum}:
                    fault = f"the checksum of block {block} does not match"
                    break
                yield block, data, checksum
                block, again = block + 1, False
            if block < run.stop:
                self._counters.mismatches += 1
                where = f"bytes {block * BLOCK} to {min((block + 1) * BLOCK, source.size)}"
                # Whoever reads logs a failure that stays; one that a second request cures is only worth knowing.
                log.info("%s, %s: %s", source.label, where, fault)
                if again:
                    raise CorruptPack(key=source.label, where=where, why=fault)
                again = True

    def _room(self) -> memoryview:
        """The piece of memory in which this thread receives blocks.

        Mapped, because it has to begin with a page: the kernel's copy to one that begins 16 bytes into a page was seen
        to take ten times as long (AMD EPYC, Linux 6.18).
        """
        room: memoryview | None = getattr(self._rooms, "room", None)
        if room is None:
            room = self._rooms.room = memoryview(mmap.mmap(-1, BLOCK))
        return room

    def _store(self, part: Part, block: int, data: memoryview, checksum: int) -> bool:
        """Whether the block is in the part now; if the disk is full, evict and try once more."""
        for attempt in (1, 2):
            try:
                part.store(block, data, (checksum,))
            except OSError as error:
                full = error.errno in {errno.ENOSPC, errno.EDQUOT}
                if attempt == 1 and full and self._eviction.evict(room=len(data)):
                    continue
                self.complain(error)
                return False
            return True
        return False
