"""Copying a version's files into a directory, through the cache: all of it, part of it, or exactly it."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

import attrs

from artfs.cache import Cache
from artfs.catalog import Catalog, Entry, Kind, Node
from artfs.catalog.layout import BLOCK
from artfs.config import Settings
from artfs.errors import (
    AccessDenied,
    ArtfsError,
    InvalidTarget,
    LocalIOError,
    MissingExtra,
    ReferenceChanged,
    ReferenceMissing,
    ReferenceUnsupported,
    Unavailable,
    VerificationFailed,
)
from artfs.versions.ingest import Progress
from artfs.versions.repository import Repository
from artfs.versions.write import Target

log = logging.getLogger(__name__)

_THREADS: Final = 8
_WAITING: Final = 64
"""Files handed to the threads before the first of them is done."""
_MISSING: Final = (ReferenceMissing, ReferenceUnsupported)
"""What ``allow_missing_references`` allows."""
_UNREADABLE: Final = (*_MISSING, ReferenceChanged, AccessDenied, MissingExtra, Unavailable)
"""What concerns one reference alone."""


@attrs.frozen
class Downloaded:
    """The outcome."""

    written: int
    """Files and links written."""
    kept: int
    """Files that were there already, with the right content."""
    missing: tuple[str, ...]
    """References that could not be read, where that was allowed."""


def download(
    repository: Repository,
    catalog: Catalog,
    root: str,
    *,
    prefix: str = "",
    path: str | None = None,
    allow_missing_references: bool = False,
    cache: Cache | None = None,
    progress: Progress = lambda _files, _size: None,
) -> Downloaded:
    """Copy what starts with ``prefix`` (all by default), or only ``path``, below ``root``.

    Other files there are left alone; a file with the right content is not written again. No symbolic link on the way
    is followed. A reference that cannot be read fails the download after everything else has been copied; one that is
    gone, or of a scheme that cannot be read, is told in the result where that is allowed. ``cache`` takes the place of
    the repository's.
    """
    target = Target(root)
    wanted = (entry for entry in catalog.leaves(path or "") if entry.path.startswith(prefix))
    try:
        return _Download(repository, catalog, target, cache, progress).run(wanted, allow_missing_references)
    finally:
        target.close()


class _Download:
    def __init__(
        self, repository: Repository, catalog: Catalog, target: Target, cache: Cache | None, progress: Progress
    ) -> None:
        self._catalog = catalog
        self._target = target
        self._progress = progress
        self._reader = repository.reader(catalog, cache)
        self._patience = repository.settings.read_deadline
        self._written = self._kept = 0
        self._unread: list[tuple[str, ArtfsError]] = []
        self._silent: dict[str, Unavailable] = {}

    def run(self, wanted: Iterable[Entry], allow_missing: bool) -> Downloaded:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="artfs-download") as pool:
            try:
                waiting: dict[Future[bool | None], Entry] = {}
                for entry in wanted:
                    waiting[pool.submit(self._copy, entry)] = entry
                    if len(waiting) >= _WAITING:
                        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                            self._settle(future, waiting.pop(future))
                for future, entry in waiting.items():
                    self._settle(future, entry)
            finally:
                pool.shutdown(cancel_futures=True)
        failures = [error for _, error in self._unread if not (allow_missing and isinstance(error, _MISSING))]
        for path, error in self._unread:
            if error not in failures[:1]:  # which the caller is told
                log.warning("%s", error if str(error).startswith(f"{path}: ") else f"{path}: {error}")
        if failures:
            raise failures[0]
        return Downloaded(self._written, self._kept, tuple(path for path, _ in self._unread))

    def _settle(self, future: Future[bool | None], entry: Entry) -> None:
        try:
            wrote = future.result()
        except _UNREADABLE as error:
            if entry.reference is None or entry.digest:
                raise  # its bytes are in the store
            self._unread.append((entry.path, error))
        else:
            self._written += wrote is True
            self._kept += wrote is False

    def _copy(self, entry: Entry) -> bool | None:
        """Whether something had to be written; None for a directory."""
        here = self._target.stat(entry.path)
        match entry.kind:
            case Kind.DIRECTORY:
                if here is None or not stat.S_ISDIR(here.st_mode):
                    self._target.directory(entry.path, entry.mode)
                return None
            case Kind.SYMLINK:
                if (
                    here is not None
                    and stat.S_ISLNK(here.st_mode)
                    and self._target.readlink(entry.path) == entry.target
                ):
                    return False
                self._target.symlink(entry.path, entry.target)
                return True
        node = self._catalog.resolve(entry.path)
        assert node is not None
        if here is not None and self._is_right(entry, node, here):
            self._progress(1, here.st_size)
            return False
        where = _host(entry)
        if where in self._silent:
            raise self._silent[where]
        try:
            self._target.write(entry.path, self._chunks(node), entry.mode, entry.mtime_ns)
        except Unavailable as error:
            if where:  # each reference there would take its whole deadline to fail
                self._silent.setdefault(where, error)
            raise
        self._progress(1, 0)
        return True

    def _is_right(self, entry: Entry, node: Node, here: os.stat_result) -> bool:
        """Whether the file that is there has the content. A reference's digest says nothing of its bytes: compare."""
        if not stat.S_ISREG(here.st_mode) or here.st_mode & 0o777 != entry.mode:
            return False
        if entry.digest:
            return here.st_size == entry.size and self._target.md5(entry.path) == entry.digest
        return here.st_size == node.size and here.st_mtime_ns == entry.mtime_ns != 0

    def _chunks(self, node: Node) -> Iterator[bytes | memoryview]:
        # A block at a time: 1 GiB from file to file took 0.5 to 1.0 CPU seconds so, 1.9 with 8 MiB in new memory each
        # time (AMD EPYC, Linux 6.18). Readahead keeps the network busy.
        offset = 0
        while data := self._reader.read(node, offset, BLOCK, time.monotonic() + self._patience):
            yield data
            offset += len(data)
            self._progress(0, len(data))


def _host(entry: Entry) -> str:
    """Where a reference's bytes live; nothing if they are in the store."""
    if entry.reference is None or entry.digest:
        return ""
    return "/".join(entry.reference.uri.split("/", 3)[:3])


def checkout(
    repository: Repository, catalog: Catalog, root: str, *, progress: Progress = lambda _files, _size: None
) -> Downloaded:
    """Make ``root`` hold exactly the version: delete every file that is not in it, and download the rest.

    Directories that are left empty go too, unless the version has them. Deleting comes first, as in W&B: a stranger
    may be in the way of a directory, or take the room. It does not begin where the store holds something that is
    needed and does not answer; then, and for a ``root`` that is, holds or lies in what artfs keeps, or holds a mount
    (InvalidTarget), nothing has been deleted. What is tried is the first file that has to come from the store.
    """
    _refuse_own_places(repository.settings, root)
    _refuse_mounts(catalog, root)
    target = Target(root)
    try:
        _try_reading(repository, catalog, target)
        for path in strangers(catalog, target.root):
            target.remove(path)
        for directory, _, _ in os.walk(target.root, topdown=False):
            path = os.path.relpath(directory, target.root)
            if path != "." and not _is_directory(catalog, path):
                target.remove_directory(path)
    finally:
        target.close()
    return download(repository, catalog, root, progress=progress)


def _refuse_own_places(settings: Settings, root: str) -> None:
    """Raises InvalidTarget where making ``root`` equal to a version would delete what artfs itself needs."""
    wanted = _real(root)
    for place in settings.directories:
        real = _real(place)
        # Beside its own files in the data directory there may be others: ARTFS_HOME may be where one works.
        within = wanted.is_relative_to(real) and place is not settings.data_dir
        if within or real.is_relative_to(wanted):
            raise InvalidTarget(directory=root, why=f"artfs keeps its own files in {place}")
    for file in settings.files:
        if _real(file).is_relative_to(wanted):
            raise InvalidTarget(directory=root, why=f"artfs's own {file} lies in it")


def _real(path: str | Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises for a loop of links


def _refuse_mounts(catalog: Catalog, root: str) -> None:
    """Raises InvalidTarget for a mount below ``root`` that would have to go: it would be emptied, and then stay."""
    for directory, directories, _ in os.walk(root):
        for place in (os.path.join(directory, name) for name in directories):
            if os.path.ismount(place) and not _is_directory(catalog, os.path.relpath(place, root)):
                raise InvalidTarget(directory=root, why=f"something is mounted on {place}")


def _try_reading(repository: Repository, catalog: Catalog, target: Target) -> None:
    """Read a little of the first file that has to come from the store, if there is one; raises what fetching raises."""
    reader = repository.reader(catalog)
    for entry in catalog.leaves():
        if entry.kind != Kind.FILE or not entry.size:
            continue
        here = target.stat(entry.path)
        if here is not None and (here.st_size, here.st_mtime_ns) == (entry.size, entry.mtime_ns):
            continue  # most likely right: hashing it to be sure can wait
        node = catalog.resolve(entry.path)
        assert node is not None
        if reader.cached(node) < entry.size:
            for offset in (0, entry.size - 1):
                reader.read(node, offset, 1, time.monotonic() + repository.settings.read_deadline)
            return


def verify(catalog: Catalog, root: str, *, progress: Progress = lambda _files, _size: None) -> None:
    """Compare a directory with the version; raises VerificationFailed that names every file that differs.

    References to bytes outside the store are not verified: their digests are not digests of their bytes.
    """
    if not os.path.isdir(root):
        problems = "it is no directory" if os.path.lexists(root) else "it does not exist; download the version first"
        raise VerificationFailed(root=root, name=catalog.name, problems=problems)
    target = Target(root)
    try:
        wrong = [*_wrong(catalog, target, progress), *(f"unexpected {p}" for p in strangers(catalog, target.root))]
    finally:
        target.close()
    if wrong:
        raise VerificationFailed(root=root, name=catalog.name, problems="; ".join(wrong))


def _wrong(catalog: Catalog, target: Target, progress: Progress) -> Iterator[str]:
    for entry in catalog.leaves():
        here = target.stat(entry.path)
        if here is None and entry.reference is not None and not entry.digest:
            continue  # W&B does not look at references either
        if here is None:
            yield f"missing {entry.path}"
            continue
        try:
            if not _is_same(entry, target, here):
                yield f"different {entry.path}"
        except LocalIOError as error:
            yield f"unreadable {entry.path} ({error.fields['why']})"
        progress(1, entry.size)


def _is_same(entry: Entry, target: Target, here: os.stat_result) -> bool:
    match entry.kind:
        case Kind.FILE | Kind.REFERENCE if entry.digest:
            same_size = stat.S_ISREG(here.st_mode) and here.st_size == entry.size
            return same_size and target.md5(entry.path) == entry.digest
        case Kind.SYMLINK:
            return stat.S_ISLNK(here.st_mode) and target.readlink(entry.path) == entry.target
        case Kind.DIRECTORY:
            return stat.S_ISDIR(here.st_mode)
        case _:
            return stat.S_ISREG(here.st_mode)


def strangers(catalog: Catalog, root: str) -> Iterator[str]:
    """The files and links below ``root`` that the version does not have, by path."""
    for directory, directories, files in os.walk(root):
        directories.sort()
        links = [name for name in directories if os.path.islink(os.path.join(directory, name))]
        for name in sorted([*files, *links]):
            path = os.path.relpath(os.path.join(directory, name), root)
            node = catalog.resolve(path)
            if node is None or node.kind == Kind.DIRECTORY:
                yield path


def _is_directory(catalog: Catalog, path: str) -> bool:
    node = catalog.resolve(path)
    return node is not None and node.kind == Kind.DIRECTORY
