"""Whether what is read may stay in memory: then reading more than was asked for costs nothing later.

Small files lie side by side, and a disk gives a whole block of them in little more time than one of them: a shuffled
reader of 10,000 files of 100 KB that brings each block once finds nine of ten in memory. But only if the block is
still there when they are read; where data does not fit into memory, it would read everything ten times.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

SHARE: Final = 2
"""Of the available memory, one in so many bytes may be counted on."""
_LOOK: Final = 10.0
"""Seconds for which what was read of the machine's memory is taken to hold."""
_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/proc/self/cgroup")
_CGROUPS: Final = Path("/sys/fs/cgroup")


class Memory:
    """What the machine, and this process's control group, have room for."""

    __slots__ = ("_looked", "_room")

    def __init__(self) -> None:
        self._looked = float("-inf")
        self._room = 0

    def holds(self, size: int) -> bool:
        """Whether ``size`` bytes can be expected to stay in the page cache."""
        now = time.monotonic()
        if now - self._looked > _LOOK:
            self._looked = now
            self._room = available() // SHARE
        return size <= self._room


def available() -> int:
    """Bytes that can be used without swapping (``MemAvailable``; a control group's limit, if that is less); or 0."""
    limits = [number for number in (_of_the_machine(), _of_the_group()) if number is not None]
    return min(limits, default=0)


def _of_the_machine() -> int | None:
    for line in _read(_MEMINFO).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10
    return None


def _of_the_group() -> int | None:
    """The limit of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst); None without one."""
    for line in _read(_CGROUP).splitlines():
        if line.startswith("0::"):
            limit = _read(_CGROUPS / line.removeprefix("0::/") / "memory.max").strip()
            return int(limit) if limit.isdecimal() else None
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
