"""Single flight in a process: who fetches which block just now."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterable

from artfs.errors import ArtfsError


class Flight:
    """One block on its way. It lands once, with the bytes, with an error, or with neither.

    ``data`` is the block itself when this process fetched it; it lives as long as somebody waits for it. Neither data
    nor error means: look at the part again. That is so when another process fetched the block, and when a fetch that
    nobody had to have was given up.
    """

    __slots__ = ("_landed", "data", "deadline", "error")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.data: memoryview | None = None
        self.error: BaseException | None = None
        self._landed = threading.Event()

    def land(self, data: memoryview | None = None, error: BaseException | None = None) -> None:
        """Wake everybody who waits."""
        self.data = data
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

    def land(self, name: str, block: int, flight: Flight, data: memoryview | None, error: BaseException | None) -> None:
        """End a flight: take it off the table first, so that nobody joins what has ended."""
        with self._lock:
            if self._flights.get((name, block)) is flight:
                del self._flights[name, block]
        flight.land(data, error)

    def __len__(self) -> int:
        return len(self._flights)
