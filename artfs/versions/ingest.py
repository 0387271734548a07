"""From source files to catalog entries: hash what may have changed, store what is new.

Files are hashed by a few threads ahead of the one that packs them, in path order, so that packs and catalog come out
in that order. The data of small files waits in memory between the two, at most ``_AHEAD`` batches of it.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import itertools
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import attrs

from artfs.catalog import Entry, Extent, Kind
from artfs.catalog.layout import PACK_DATA
from artfs.digests import md5_base64, sha256
from artfs.errors import SourceChanged, SourceUnreadable
from artfs.versions.hashes import Hashed, Hashes
from artfs.versions.scan import SourceFile

_BATCH_BYTES = 8 << 20
_BATCH_FILES = 256
_WORKERS = 4
_AHEAD = 6

Progress = Callable[[int, int], None]
"""Told the files and the bytes that were taken in since it was last called."""


class Packs(Protocol):
    """Where extents go: the uploader of one version, with what the registry knows."""

    def claim(self, sha256s: Iterable[bytes]) -> dict[bytes, Extent]:
        """Those extents that are stored already, pinned for this version."""

    def add(self, digest: bytes, data: bytes | bytearray | memoryview) -> Extent:
        """Store an extent; ``data`` is copied."""


@attrs.frozen
class _Read:
    """A small file as a worker has left it."""

    file: SourceFile
    hashed: Hashed
    data: bytes | None
    """None where the memory of hashes had the file, so that it was not read."""


def ingest(files: Iterable[SourceFile | Entry], packs: Packs, hashes: Hashes, progress: Progress) -> Iterator[Entry]:
    """The catalog entries of ``files``, in their order, with every byte stored or on its way to the store.

    An ``Entry`` among them passes through as it is. Raises SourceChanged, SourceUnreadable, and what storing raises.
    """
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="artfs-hash") as pool:
        try:
            waiting: deque[Future[list[_Read | SourceFile | Entry]]] = deque()
            for batch in _batches(files):
                waiting.append(pool.submit(_read_batch, batch, hashes))
                if len(waiting) > _AHEAD:
                    yield from _store(waiting.popleft().result(), packs, hashes, pool, progress)
            while waiting:
                yield from _store(waiting.popleft().result(), packs, hashes, pool, progress)
        finally:
            pool.shutdown(cancel_futures=True)
            hashes.flush()


def _batches(files: Iterable[SourceFile | Entry]) -> Iterator[list[SourceFile | Entry]]:
    batch: list[SourceFile | Entry] = []
    size = 0
    for file in files:
        batch.append(file)
        size += file.size if isinstance(file, SourceFile) and file.size <= PACK_DATA else 0
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_FILES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read_batch(batch: list[SourceFile | Entry], hashes: Hashes) -> list[_Read | SourceFile | Entry]:
    """Hash the small files of a batch; what is no file, or too large for memory, passes through as it is."""
    return [
        _read(file, hashes)
        if isinstance(file, SourceFile) and file.kind is Kind.FILE and file.size <= PACK_DATA
        else file
        for file in batch
    ]


def _read(file: SourceFile, hashes: Hashes) -> _Read:
    known = hashes.get(file)
    if known is not None:
        return _Read(file, known, None)
    data = read_source(file)
    md5 = hashlib.md5(data, usedforsecurity=False).digest()
    hashed = Hashed(md5, (sha256(data),) if data else ())
    hashes.put(file, hashed)
    return _Read(file, hashed, data)


def read_source(file: SourceFile) -> bytes:
    """The whole of a small file; raises SourceChanged if it is not what stat said."""
    descriptor = _open(file)
    try:
        data = os.read(descriptor, file.size + 1)
        while len(data) < file.size and (more := os.read(descriptor, file.size + 1 - len(data))):
            data += more
        _check_unchanged(file, descriptor, len(data))
    except OSError as error:
        raise SourceUnreadable(path=file.source, why=error.strerror) from error
    finally:
        os.close(descriptor)
    return data


def _store(
    batch: list[_Read | SourceFile | Entry], packs: Packs, hashes: Hashes, pool: ThreadPoolExecutor, progress: Progress
) -> Iterator[Entry]:
    digests = {digest for item in batch if isinstance(item, _Read) for digest in item.hashed.extents}
    stored = packs.claim(digests) if digests else {}
    for item in batch:
        if isinstance(item, _Read):
            yield _store_small(item, packs, stored)
            progress(1, item.file.size)
        elif isinstance(item, Entry):
            yield item
            progress(1, 0)
        elif item.kind is Kind.FILE:
            yield _store_large(item, packs, hashes, pool, progress)
        else:
            yield Entry(item.path, item.kind, item.mode, item.mtime_ns, item.size, target=item.target)


def _store_small(item: _Read, packs: Packs, stored: dict[bytes, Extent]) -> Entry:
    file = item.file
    for digest in item.hashed.extents:
        if digest not in stored:
            data = item.data
            if data is None:  # known by its hash, but what was stored then is gone from the store
                data = read_source(file)
                if sha256(data) != digest:
                    raise SourceChanged(path=file.source)
            stored[digest] = packs.add(digest, data)
    return _entry(file, item.hashed.md5, tuple(stored[digest] for digest in item.hashed.extents))


def _store_large(file: SourceFile, packs: Packs, hashes: Hashes, pool: ThreadPoolExecutor, progress: Progress) -> Entry:
    known = hashes.get(file)
    if known is not None:
        stored = packs.claim(known.extents)
        if all(digest in stored for digest in known.extents):
            progress(1, file.size)
            return _entry(file, known.md5, tuple(stored[digest] for digest in known.extents))
    extents: list[Extent] = []
    digests: list[bytes] = []
    md5 = hashlib.md5(usedforsecurity=False)
    total = 0
    descriptor = _open(file)
    try:
        for data in _extents(descriptor, pool):
            # The two hashes run at the same time; MD5, the slower one, here.
            digest_soon = pool.submit(sha256, data)
            md5.update(data)
            digest = digest_soon.result()
            extents.append(packs.claim([digest]).get(digest) or packs.add(digest, data))
            digests.append(digest)
            total += len(data)
            progress(0, len(data))
        _check_unchanged(file, descriptor, total)
    except OSError as error:
        raise SourceUnreadable(path=file.source, why=error.strerror) from error
    finally:
        os.close(descriptor)
    hashes.put(file, Hashed(md5.digest(), tuple(digests)))
    progress(1, 0)
    return _entry(file, md5.digest(), tuple(extents))


def _extents(descriptor: int, pool: ThreadPoolExecutor) -> Iterator[memoryview]:
    """A large file, 64 MiB at a time, the next being read while one is hashed; each is valid until the next but one."""
    # Two buffers for the whole file: fresh ones would cost a page fault for every 4 KiB, a fifth of the CPU time.
    # Mapped, to begin with a page: the kernel's copy to a bytearray, 16 bytes further on, was seen to take ten times
    # as long.
    buffers = itertools.cycle([memoryview(mmap.mmap(-1, PACK_DATA)) for _ in range(2)])
    soon = pool.submit(_fill, next(buffers), descriptor)
    try:
        while data := soon.result():
            soon = pool.submit(_fill, next(buffers), descriptor)
            yield data
    finally:
        concurrent.futures.wait([soon])  # nobody reads from a descriptor that is closed


def _fill(buffer: memoryview, descriptor: int) -> memoryview:
    filled = 0
    while filled < len(buffer) and (count := os.readv(descriptor, [buffer[filled:]])):
        filled += count
    return buffer[:filled]


def _entry(file: SourceFile, md5: bytes, extents: tuple[Extent, ...]) -> Entry:
    return Entry(file.path, Kind.FILE, file.mode, file.mtime_ns, file.size, md5_base64(md5), extents=extents)


def _open(file: SourceFile) -> int:
    try:
        return os.open(file.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SourceUnreadable(path=file.source, why=error.strerror) from error


def _check_unchanged(file: SourceFile, descriptor: int, length: int) -> None:
    if length != file.size or not file.is_still(os.fstat(descriptor)):
        raise SourceChanged(path=file.source)
