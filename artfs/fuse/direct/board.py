"""Memory that the supervisor and its workers share: what every worker is doing, and has done.

Two pages a worker, of 64-bit words. Each is written by its worker alone, so nothing is locked: a reader may see
counters of slightly different moments. The pages outlive their worker: what a request is that killed it stands there.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import time
from collections.abc import Iterator
from typing import Any, Final

from artfs.fuse.direct.protocol import Opcode
from artfs.fuse.failures import REPEATED

WORDS: Final = 1024
"""Of a worker."""
PID: Final = 0
UNIQUE: Final = 1
"""The request that the worker answers itself now, 0 when it waits for the next."""
OPCODE: Final = 2
INODE: Final = 3
THREADS: Final = 4
"""Requests handed to a thread."""
INTERRUPTED: Final = 5
"""Interrupts seen; where in its ring the next one goes."""

STARTS: Final = 6
"""Workers that had this page."""
LISTED: Final = 7
"""Pages of listings that had been made when the kernel asked."""

_REQUESTS: Final = slice(8, 72)
_ERRORS: Final = slice(72, 208)
_RING: Final = slice(208, 272)
_WAITING: Final = slice(272, 512)
_LOGGED: Final = slice(512, 640)
_RING_SIZE: Final = _RING.stop - _RING.start
MOST_WAITING: Final = _WAITING.stop - _WAITING.start


class Slot:
    """The page of one worker."""

    __slots__ = ("errors", "logged", "requests", "ring", "waiting", "words")

    def __init__(self, words: memoryview[int]) -> None:
        self.words = words
        self.requests = words[_REQUESTS]
        """Requests by opcode; 0 stands for those unknown to us."""
        self.errors = words[_ERRORS]
        """Requests answered with an errno that was a fault, by errno."""
        self.ring = words[_RING]
        """Uniques of the requests that were interrupted last."""
        self.logged = words[_LOGGED]
        """Hashes of the failures that the worker logged last, each with when, in monotonic nanoseconds."""
        self.waiting = words[_WAITING]
        """Uniques of requests that wait in threads; 0: a free place."""

    def interrupted(self, unique: int) -> None:
        """Note an interrupt: it may concern a request that another worker has."""
        count = self.words[INTERRUPTED]
        self.ring[count % _RING_SIZE] = unique
        self.words[INTERRUPTED] = count + 1

    def failed(self, number: int) -> None:
        """Count a fault. Threads that fail at the same moment may count as one."""
        self.errors[number if 0 <= number < len(self.errors) else errno.EIO] += 1

    def in_threads(self) -> list[int]:
        """Uniques of the requests that wait."""
        return [unique for unique in self.waiting if unique]

    def clear_requests(self) -> None:
        """Forget what a dead worker had in hand; its counters stay."""
        self.words[UNIQUE] = 0
        for place in range(MOST_WAITING):
            self.waiting[place] = 0

    def release(self) -> None:
        """Let go of the memory."""
        for view in (self.requests, self.errors, self.ring, self.logged, self.waiting, self.words):
            view.release()


class Board:
    """A page for each of ``count`` workers, in memory with a descriptor that can be passed on."""

    def __init__(self, count: int, descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = os.memfd_create("artfs-board", os.MFD_CLOEXEC)
            os.ftruncate(descriptor, count * WORDS * 8)
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, count * WORDS * 8)
        words = memoryview(self._memory).cast("Q")
        self.slots = [Slot(words[index * WORDS : (index + 1) * WORDS]) for index in range(count)]
        words.release()

    @classmethod
    def attach(cls, descriptor: int) -> Board:
        """The board that somebody else made."""
        return cls(os.fstat(descriptor).st_size // (WORDS * 8), descriptor)

    def requests(self) -> dict[str, int]:
        """Requests of all workers, by kind."""
        found = {}
        for number, name in _kinds():
            count = sum(slot.requests[number] for slot in self.slots)
            if count:
                found[name] = count
        return found

    def errors(self) -> dict[str, int]:
        """Faults of all workers, by name of the errno."""
        found = {}
        for number in range(_ERRORS.stop - _ERRORS.start):
            count = sum(slot.errors[number] for slot in self.slots)
            if count:
                found[errno.errorcode.get(number, str(number))] = count
        return found

    def is_news(self, slot: Slot, what: str) -> bool:
        """Whether no worker has logged this lately; then the worker of ``slot`` is about to, and it is noted.

        The kernel tries a failed read once more, and that may come to another worker.
        """
        key = int.from_bytes(hashlib.blake2b(what.encode(), digest_size=8).digest(), "little")
        now = time.monotonic_ns()
        oldest = 0
        for other in self.slots:
            for place in range(0, len(other.logged), 2):
                if other.logged[place] == key and now - other.logged[place + 1] < REPEATED * 1e9:
                    return False
        for place in range(0, len(slot.logged), 2):
            if slot.logged[place + 1] < slot.logged[oldest + 1]:
                oldest = place
        slot.logged[oldest], slot.logged[oldest + 1] = key, now
        return True

    def statistics(self) -> dict[str, Any]:
        """Counters since the mount, of all workers and of each; what waits now, but for the request that asks."""
        return {
            "engine": "direct",
            "fuse": {
                "requests": self.requests(),
                "errors": self.errors(),
                "threads": sum(slot.words[THREADS] for slot in self.slots),
                "listed_ahead": sum(slot.words[LISTED] for slot in self.slots),
                "waiting": max(0, sum(len(slot.in_threads()) for slot in self.slots) - 1),
            },
            "workers": [
                {
                    "pid": slot.words[PID],
                    "starts": slot.words[STARTS],
                    "requests": sum(slot.requests),
                    "threads": slot.words[THREADS],
                }
                for slot in self.slots
            ],
        }

    def interrupts(self) -> set[int]:
        """Uniques of the requests that were interrupted last, whoever was told."""
        return {unique for slot in self.slots for unique in slot.ring}

    def close(self) -> None:
        """Let go of the memory."""
        for slot in self.slots:
            slot.release()
        self._memory.close()
        os.close(self.descriptor)


def _kinds() -> Iterator[tuple[int, str]]:
    yield 0, "unknown"
    for opcode in Opcode:
        yield opcode.value, opcode.name.lower()
