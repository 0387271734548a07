"""Single flight in a process: who fetches which block just now."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterable
from typing import Protocol

import attrs

from artfs.catalog.layout import BLOCK
from artfs.errors import ArtfsError


class Held(Protocol):
    """What has the bytes of a block that has landed."""

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Bytes of the source from ``offset`` on, within the block; fewer if it has lost them."""


@attrs.frozen
class Loose:
    """A block that could not be kept: it lives as long as somebody waits for it."""

    block: int
    data: bytes

    def read(self, offset: int, length: int) -> memoryview:
        """Bytes of the source from ``offset`` on."""
        start = offset - self.block * BLOCK
        return memoryview(self.data)[start : start + length]


class Flight:
    """One block on its way. It lands once, with what holds it, with an error, or with neither.

    ``held`` is set when this process fetched the block: the part, which keeps its bytes also when it is evicted
    meanwhile, or the bytes themselves. Neither means: look at the part again. That is so when another process fetched
    the block, and when a fetch that nobody had to have was given up.
    """

    __slots__ = ("_landed", "deadline", "error", "held")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.held: Held | None = None
        self.error: BaseException | None = None
        self._landed = threading.Event()

    def land(self, held: Held | None = None, error: BaseException | None = None) -> None:
        """Wake everybody who waits."""
        self.held = held
        self.error = error
        self._landed.set()

    def wait(self, deadline: float) -> bool:
        """Whether it landed by ``deadline`` (monotonic seconds)."""
        return self._landed.wait(max(0.0, deadline - time.monotonic()))

    def raise_error(self) -> None:
        """Raise the error it landed with, if any: a copy, because several threads raise it."""
        if isinstance(self.error, ArtfsError):
            raise copy.copy(self.error)
        if self.error is not None:
            raise RuntimeError("a fetch failed unexpectedly") from self.error


class Flights:
    """The blocks in flight, by (part name, block). Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[tuple[str, int], Flight] = {}

    def take(self, name: str, blocks: Iterable[int], deadline: float) -> tuple[dict[int, Flight], dict[int, Flight]]:
        """New flights for the blocks that nobody is fetching, and the flights of the others.

        A flight past its deadline is replaced: its source does not keep deadlines, and must not hold up those who come
        later. Should it end after all, two threads write the same bytes to the same place.
        """
        mine: dict[int, Flight] = {}
        others: dict[int, Flight] = {}
        now = time.monotonic()
        with self._lock:
            for block in blocks:
                flight = self._flights.get((name, block))
                if flight is not None and flight.deadline > now:
                    others[block] = flight
                else:
                    mine[block] = self._flights[name, block] = Flight(deadline)
        return mine, others

    def land(self, name: str, block: int, flight: Flight, held: Held | None, error: BaseException | None) -> None:
        """End a flight: take it off the table first, so that nobody joins what has ended."""
        with self._lock:
            if self._flights.get((name, block)) is flight:
                del self._flights[name, block]
        flight.land(held, error)

    def __len__(self) -> int:
        return len(self._flights)
