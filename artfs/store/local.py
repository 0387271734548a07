"""A directory as an object store: ``file:///absolute/directory``.

Plain system calls rather than obstore's LocalStore: that one does not sync what it wrote, makes everything readable by
the world, tells errors apart only in prose, and hangs in the child of a process that used it before forking.
Objects are files named by their keys; one that is being written stands in ``.incoming`` until it is whole and synced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from artfs.errors import (
    AccessDenied,
    ArtfsError,
    BucketNotFound,
    DiskFull,
    LocalIOError,
    ObjectExists,
    ObjectNotFound,
)
from artfs.store.backend import StoredObject

if TYPE_CHECKING:
    from typing_extensions import Buffer

INCOMING = ".incoming"


class LocalBackend:
    """Objects in a directory that only its owner can enter. Thread-safe, and safe to use after a fork."""

    def __init__(self, root: Path, url: str) -> None:
        self._root = root
        self._url = url

    def create(self) -> None:
        """Make the directory, 0700; one that exists is left as it is."""
        with self._errors(""):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, key: str, buffers: Sequence[Buffer], *, overwrite: bool, seconds: float) -> None:
        del seconds  # a local disk is not waited for with a limit
        target = self._root / key
        with self._errors(key):
            # Never the root itself: it may be the mount point of a disk that is not there.
            (self._root / INCOMING).mkdir(mode=0o700, exist_ok=True)
            incoming = self._root / INCOMING / uuid.uuid4().hex
            try:
                with open(incoming, "xb", buffering=0, opener=_private) as file:
                    for buffer in buffers:
                        _write(file.fileno(), buffer)
                    os.fsync(file.fileno())
                self._make_parents(target)
                if overwrite:
                    incoming.replace(target)
                else:
                    os.link(incoming, target)
                _sync(target.parent)
            finally:
                incoming.unlink(missing_ok=True)

    def get(self, key: str, *, seconds: float) -> Buffer:
        del seconds
        with self._errors(key):
            return (self._root / key).read_bytes()

    def get_range(self, key: str, start: int, end: int, *, seconds: float) -> Buffer:
        del seconds
        with self._errors(key):
            descriptor = os.open(self._root / key, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(descriptor, end - start, start)
            finally:
                os.close(descriptor)

    def stream(self, key: str, start: int, end: int, room: memoryview, *, seconds: float) -> Iterator[memoryview]:
        del seconds
        with self._errors(key):
            descriptor = os.open(self._root / key, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while start < end:
                with self._errors(key):
                    got = os.preadv(descriptor, (room[: end - start],), start)
                if not got:
                    return
                yield room[:got]
                start += got
        finally:
            os.close(descriptor)

    def head(self, key: str, *, seconds: float) -> int | None:
        del seconds
        with contextlib.suppress(ObjectNotFound), self._errors(key):
            return (self._root / key).stat().st_size
        return None

    def delete(self, keys: Sequence[str], *, seconds: float) -> None:
        del seconds
        for key in keys:
            with self._errors(key), contextlib.suppress(FileNotFoundError):
                (self._root / key).unlink()
                # A pack's directory is shared by 1/256 of all packs; it stays for the next.

    def pages(self, prefix: str, after: str, *, seconds: float) -> Iterator[Sequence[StoredObject]]:
        del seconds, after  # nothing here is tried again
        with self._errors(""):
            self._root.stat()
        yield from self._walk(prefix)

    def sweep(self, age: float) -> int:
        removed = 0
        with self._errors(""):
            for left in (self._root / INCOMING).glob("*"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - left.stat().st_mtime > age:
                        left.unlink()
                        removed += 1
        return removed

    def _walk(self, directory: str) -> Iterator[Sequence[StoredObject]]:
        """One page a directory."""
        page, below = [], []
        with self._errors(directory), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for item in os.scandir(self._root / directory):
                key = f"{directory}/{item.name}" if directory else item.name
                if item.is_dir(follow_symlinks=False):
                    below.append(key)
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = item.stat()
                    page.append(StoredObject(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC)))
        yield page
        for key in below:
            if key != INCOMING:
                yield from self._walk(key)

    def _make_parents(self, target: Path) -> None:
        """The directories above ``target``, each entered durably in the one above it."""
        if target.parent.is_dir():
            return
        self._make_parents(target.parent)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        _sync(target.parent.parent)

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._translated(error, key) from error

    def _translated(self, error: OSError, key: str) -> ArtfsError:
        why = os.strerror(error.errno or errno.EIO)
        if isinstance(error, FileNotFoundError):
            return ObjectNotFound(key=key, store=self._url) if self._root.is_dir() else BucketNotFound(store=self._url)
        if isinstance(error, FileExistsError):
            return ObjectExists(key=key)
        if isinstance(error, PermissionError):
            return AccessDenied(what=f"the object store {self._url}", why=why)
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return DiskFull(where=f"the object store {self._url}", why=why)
        return LocalIOError(path=self._root / key, why=why)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write(descriptor: int, buffer: Buffer) -> None:
    rest = memoryview(buffer).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
