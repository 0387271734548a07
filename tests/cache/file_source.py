"""A real local source: reads a file, writes down every request, and fails or stalls when told to."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from artfs.catalog.layout import BLOCK
from artfs.digests import block_checksum
from artfs.errors import DeadlineExceeded, StoreUnavailable


class FileSource:
    """Mirrors ``path``. Requests go to ``path``.requests, which processes share."""

    def __init__(self, path: Path, *, checksums: bool = True) -> None:
        self.path = path
        self.name = path.name
        self.label = f"packs/{path.name}"
        self.size = path.stat().st_size
        self.log = path.with_name(path.name + ".requests")
        self.gate = path.with_name(path.name + ".closed")  # while this file exists, requests stall
        content = path.read_bytes()
        self._checksums = [block_checksum(content[at : at + BLOCK]) for at in range(0, self.size, BLOCK)]
        self._known = checksums
        self.bad: dict[int, int] = {}  # block -> how many times it comes damaged
        self.short = 0  # how many answers are cut
        self.error: Exception | None = None
        self.most: int | None = None  # longer requests fail
        self.keeps_deadlines = True
        self.stalled = threading.Semaphore(0)  # released by each request that stalls

    def checksum(self, block: int) -> int | None:
        return self._checksums[block] if self._known else None

    def stream(self, start: int, end: int, room: memoryview, deadline: float) -> Iterator[memoryview]:
        answer = memoryview(self._answer(start, end, deadline))
        for at in range(0, len(answer), len(room)):
            piece = answer[at : at + len(room)]
            room[: len(piece)] = piece
            yield room[: len(piece)]

    def _answer(self, start: int, end: int, deadline: float) -> bytes:
        fd = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{start} {end} {os.getpid()}\n".encode())
        os.close(fd)
        if self.gate.exists():
            self.stalled.release()
        while self.gate.exists():
            if self.keeps_deadlines and time.monotonic() > deadline:
                raise DeadlineExceeded(what="a request", seconds=0)
            time.sleep(0.002)
        if self.error is not None:
            raise self.error
        if self.most is not None and end - start > self.most:
            raise StoreUnavailable(store="file", why="too much asked for")
        with self.path.open("rb") as file:
            file.seek(start)
            data = bytearray(file.read(end - start))
        for block in range(start // BLOCK, -(-end // BLOCK)):
            if self.bad.get(block, 0) > 0:
                self.bad[block] -= 1
                data[block * BLOCK - start] ^= 0xFF
        if self.short > 0:
            self.short -= 1
            del data[-1:]
        return bytes(data)

    # -- what the test looks at ---------------------------------------------------------------------------------

    def content(self, offset: int = 0, length: int | None = None) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(self.size - offset if length is None else length)

    def requests(self) -> list[tuple[int, int]]:
        if not self.log.exists():
            return []
        return [(int(a), int(b)) for a, b, _ in map(str.split, self.log.read_text().splitlines())]

    def blocks_requested(self) -> list[int]:
        return sorted(b for start, end in self.requests() for b in range(start // BLOCK, -(-end // BLOCK)))

    def close_gate(self) -> None:
        self.gate.touch()

    def open_gate(self) -> None:
        self.gate.unlink(missing_ok=True)


def soon(seconds: float = 20.0) -> float:
    """A deadline."""
    return time.monotonic() + seconds


def eventually(condition, seconds: float = 20.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.002)
