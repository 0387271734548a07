"""Filling the cache with a version before anything reads it."""

from __future__ import annotations

import fnmatch
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from artfs.cache import Source
from artfs.catalog import Catalog, Kind, Node
from artfs.catalog.layout import BLOCK, NEIGHBOURHOOD
from artfs.errors import DiskFull, NotFound, PathNotFound
from artfs.versions.content import ContentReader
from artfs.versions.ingest import Progress
from artfs.versions.repository import Repository

_ALL: Final = "*"
_THREADS: Final = 8
_AHEAD: Final = 32
"""Fetches handed to the threads before the first of them is done."""
_STEP: Final = NEIGHBOURHOOD // BLOCK


def warm(
    repository: Repository,
    catalog: Catalog,
    *,
    pattern: str = _ALL,
    order: Iterable[str] | None = None,
    progress: Progress = lambda _files, _size: None,
) -> int:
    """Fetch every file and reference whose path matches ``pattern`` (as in a shell), and answer how many there are.

    With ``order``, paths in the version, only these and in that order: what a job reads first is there first.
    Raises what fetching raises, PathNotFound for a path of ``order`` that is no file of the version, NotFound where no
    path matches, and DiskFull if not all of it can be in the cache at once.
    """
    reader = repository.reader(catalog)
    cache = repository.cache
    patience = repository.settings.read_deadline
    limit = repository.settings.cache_limit
    wanted = matches = 0

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
            asked: set[tuple[str, int]] = set()  # one for 8 MiB, however many files lie there
            nodes = _every(catalog) if order is None else _ordered(catalog, order)
            for path, node in nodes:
                if not fnmatch.fnmatchcase(path, pattern):
                    continue
                matches += 1
                for source, step in _steps(reader, node, time.monotonic() + patience):
                    if (source.name, step) not in asked:
                        asked.add((source.name, step))
                        wanted += min(NEIGHBOURHOOD, source.size - step * NEIGHBOURHOOD)
                        if wanted > limit:
                            raise DiskFull(
                                where=cache.directory, why=f"its limit of {limit} bytes is less than is wanted"
                            )
                        waiting.append(pool.submit(fetch, source, step))
                    if len(waiting) > _AHEAD:
                        waiting.popleft().result()
                progress(1, node.size or 0)
            while waiting:
                waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
    if not matches and pattern != _ALL:
        raise NotFound(f"no file of {catalog.name} matches {pattern!r}")
    return matches


def _every(catalog: Catalog) -> Iterator[tuple[str, Node]]:
    for entry in catalog.leaves():
        if entry.kind in {Kind.FILE, Kind.REFERENCE}:
            node = catalog.resolve(entry.path)
            assert node is not None
            yield entry.path, node


def _ordered(catalog: Catalog, order: Iterable[str]) -> Iterator[tuple[str, Node]]:
    for path in order:
        node = catalog.resolve(path)
        if node is None or node.kind not in {Kind.FILE, Kind.REFERENCE}:
            raise PathNotFound(path=path, name=catalog.name)
        yield path, node


def _steps(reader: ContentReader, node: Node, deadline: float) -> Iterator[tuple[Source, int]]:
    for piece in reader.pieces(node, 0, reader.settle(node, deadline)):
        for step in range(piece.offset // NEIGHBOURHOOD, -(-(piece.offset + piece.length) // NEIGHBOURHOOD)):
            yield piece.source, step
