"""Profiles: which blocks of a version a run has read, and in which order, for the next mount to fetch first.

One file a version, ``profiles/<SHA-256 of its catalog>`` in the cache directory: records of 16 bytes, one for the first
read of a block, in the order of these reads. All processes of a mount append to it, so a block may stand there once for
each of them. It is advice: what does not fit (a truncated record, a block that is not there) is passed over.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import attrs

from artfs.catalog import Catalog, Node
from artfs.catalog.layout import BLOCK, NEIGHBOURHOOD
from artfs.errors import ArtfsError, local_error
from artfs.versions.content import ContentReader

log = logging.getLogger(__name__)

_RECORD: Final = struct.Struct("<BBHIQ")
"""Kind, block in its neighbourhood, 0, which neighbourhood, id of the pack or inode of the reference."""
_PACK: Final = 1
_REFERENCE: Final = 2
_PER: Final = NEIGHBOURHOOD // BLOCK
_PATIENCE: Final = 60.0
"""Seconds for a reference to say how large it is."""


class _Place(NamedTuple):
    """A neighbourhood of which blocks were read."""

    kind: int
    id: int
    number: int


@attrs.frozen
class RecorderStatistics:
    """What this process has recorded."""

    blocks: int


class Recorder:
    """Appends to the profile of a version. Thread-safe: a race records a block twice."""

    def __init__(self, path: Path, *, anew: bool) -> None:
        """``anew`` begins the profile, else what there is goes on; raises LocalIOError."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if anew else 0)
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise local_error(path, error) from error
        self._seen: dict[_Place, int] = {}  # a bit for each block
        self._blocks = 0

    def record(self, catalog: Catalog, node: Node, offset: int, length: int) -> None:
        """Bytes of a file or reference of ``catalog`` were read."""
        end = offset + length
        if node.remote:
            self._note(_REFERENCE, node.inode, offset, end)
            return
        for start, pack, at, size in catalog.slices(node, offset, end):
            first, last = max(offset, start), min(end, start + size)
            if first < last:
                self._note(_PACK, pack, at + first - start, at + last - start)

    def statistics(self) -> RecorderStatistics:
        """How much there is."""
        return RecorderStatistics(self._blocks)

    def close(self) -> None:
        """Let go of the file."""
        descriptor, self._descriptor = self._descriptor, -1  # a thread left alone may still come to record
        os.close(descriptor)

    def _note(self, kind: int, number: int, begin: int, end: int) -> None:
        for block in range(begin // BLOCK, -(-end // BLOCK)):
            index, bit = divmod(block, _PER)
            place = _Place(kind, number, index)
            seen = self._seen.get(place, 0)
            if not seen >> bit & 1:
                self._seen[place] = seen | 1 << bit
                self._blocks += 1
                with suppress(OSError):  # a full disk costs advice
                    os.write(self._descriptor, _RECORD.pack(kind, bit, 0, index, number))


class Replay:
    """Fetches what a profile names, in the background and in its order, from a thread of its own."""

    def __init__(self, path: Path, reader: ContentReader) -> None:
        self._runs = list(_runs(path))
        self._reader = reader
        self._stop = threading.Event()
        if self._runs:
            threading.Thread(target=self._work, name="artfs-replay", daemon=True).start()

    def close(self) -> None:
        """Ask for nothing more."""
        self._stop.set()

    def _work(self) -> None:
        asked = 0
        for place, first, end in self._runs:
            begin = place.number * _PER
            if self._stop.is_set() or not self._ask(place, begin + first, begin + end):
                break
            asked += 1
        log.info("%d of %d runs of blocks in the profile are fetched first", asked, len(self._runs))

    def _ask(self, place: _Place, first: int, end: int) -> bool:
        """Whether there is room for more."""
        try:
            if place.kind == _PACK:
                return self._reader.request_pack(place.id, first, end)
            return self._reader.request_reference(place.id, first, end, time.monotonic() + _PATIENCE)
        except ArtfsError as error:
            log.info("a block of the profile is passed over: %s", error)
            return True


def _runs(path: Path) -> Iterator[tuple[_Place, int, int]]:
    """Runs of blocks, none longer than a neighbourhood, in the order in which their neighbourhoods were first read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("the profile %s cannot be read: %s", path, error)
        return
    places: dict[_Place, int] = {}
    for kind, bit, _, index, number in _RECORD.iter_unpack(data[: len(data) // _RECORD.size * _RECORD.size]):
        if kind in {_PACK, _REFERENCE} and bit < _PER:
            place = _Place(kind, number, index)
            places[place] = places.get(place, 0) | 1 << bit
    for place, blocks in places.items():
        first = 0
        while blocks >> first:
            while not blocks >> first & 1:
                first += 1
            end = first
            while blocks >> end & 1:
                end += 1
            yield place, first, end
            first = end
