"""Small files read in the order in which they lie: what to fetch before it is read. Pure policy, in neighbourhoods.

A neighbourhood is 8 MiB of a pack; its place is a number that grows in the order of the catalog. One miss brings one
neighbourhood whole. A reader that goes through them one after the other (tar, grep, a first epoch without shuffling)
would wait once for each; one that jumps about must not have fetched what it may never read.
"""

from __future__ import annotations

import sys
from typing import Final

from artfs.catalog.layout import NEIGHBOURHOOD, PACK_DATA

PER_PACK: Final = PACK_DATA // NEIGHBOURHOOD
MOST_AHEAD: Final = 8
"""Neighbourhoods fetched ahead at most: the 64 MiB of a large file's longest window."""
STEADY: Final = 2
"""Steps in a row, each to the next neighbourhood, that make an order; a single one may be chance."""
_NEVER: Final = sys.maxsize
_NOTHING: Final = range(0)


def place(pack: int, offset: int) -> int:
    """The place of what lies at ``offset`` of a catalog's pack."""
    return pack * PER_PACK + offset // NEIGHBOURHOOD


class Succession:
    """The policy for one version. Threads may share it: a race costs a prefetch, never a wrong answer."""

    __slots__ = ("_asked", "_last", "_steps", "due")

    def __init__(self) -> None:
        self._last = -1
        self._steps = 0
        self._asked = 0
        self.due = _NEVER
        """Reads at a place below this need not be told of, unless they miss."""

    def touch(self, at: int) -> range:
        """Take note of a read at a place and say which to fetch in the background now; often none."""
        last = self._last
        if last - 1 <= at <= last:  # readers side by side are a little out of order
            return _NOTHING
        follows = at == last + 1 or at == (last // PER_PACK + 1) * PER_PACK  # a pack may hold less than its most
        if not follows and not last < at < self._asked:
            self._last, self._steps, self._asked, self.due = at, 0, at + 1, _NEVER
            return _NOTHING
        self._last = at
        self._steps = steps = self._steps + 1
        if steps < STEADY:
            return _NOTHING
        self.due = at + 1
        ahead = range(max(self._asked, at + 1), at + 1 + min(1 << (steps - STEADY + 1), MOST_AHEAD))
        self._asked = max(self._asked, ahead.stop)
        return ahead
