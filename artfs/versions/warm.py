"""Filling the cache with a version before anything reads it."""

from __future__ import annotations

import fnmatch
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from artfs.cache import Source
from artfs.catalog import Catalog, Entry, Kind
from artfs.catalog.layout import BLOCK, NEIGHBOURHOOD
from artfs.errors import DiskFull
from artfs.versions.content import ContentReader
from artfs.versions.ingest import Progress
from artfs.versions.repository import Repository

_THREADS: Final = 8
_AHEAD: Final = 32
"""Fetches handed to the threads before the first of them is done."""
_STEP: Final = NEIGHBOURHOOD // BLOCK


def warm(
    repository: Repository, catalog: Catalog, *, pattern: str = "*", progress: Progress = lambda _files, _size: None
) -> None:
    """Fetch every file and reference whose path matches ``pattern`` (as in a shell).

    Raises what fetching raises, and DiskFull if not all of it can be in the cache at once.
    """
    reader = repository.reader(catalog)
    cache = repository.cache
    patience = repository.settings.read_deadline
    limit = repository.settings.cache_limit
    wanted = 0

    def fetch(source: Source, step: int) -> None:
        first, end = step * _STEP, (step + 1) * _STEP
        deadline = time.monotonic() + patience
        start, stop = first * BLOCK, min(end * BLOCK, source.size)
        # The first byte brings the whole window in one request; the last one waits for all of it.
        for offset in {start, stop - 1}:
            cache.read(source, offset, 1, deadline, window=(first, end))
        if not cache.present(source, start, stop - start):
            raise DiskFull(where=cache.directory, why="what was fetched could not be kept")

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="artfs-warm") as pool:
        try:
            waiting: deque[Future[None]] = deque()
            last: tuple[str, int] | None = None
            for entry in catalog.leaves():
                if not fnmatch.fnmatchcase(entry.path, pattern) or entry.kind not in {Kind.FILE, Kind.REFERENCE}:
                    continue
                for source, step in _steps(catalog, reader, entry, time.monotonic() + patience):
                    if (source.name, step) != last:  # files lie in packs in path order: neighbours share a step
                        last = (source.name, step)
                        wanted += min(NEIGHBOURHOOD, source.size - step * NEIGHBOURHOOD)
                        if wanted > limit:
                            raise DiskFull(
                                where=cache.directory, why=f"its limit of {limit} bytes is less than is wanted"
                            )
                        waiting.append(pool.submit(fetch, source, step))
                    if len(waiting) > _AHEAD:
                        waiting.popleft().result()
                progress(1, entry.size)
            while waiting:
                waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _steps(catalog: Catalog, reader: ContentReader, entry: Entry, deadline: float) -> Iterator[tuple[Source, int]]:
    node = catalog.resolve(entry.path)
    assert node is not None
    size = reader.size(node, deadline)
    for piece in reader.pieces(node, 0, size or 0):
        for step in range(piece.offset // NEIGHBOURHOOD, -(-(piece.offset + piece.length) // NEIGHBOURHOOD)):
            yield piece.source, step
