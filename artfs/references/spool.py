"""Whole objects from servers that cannot send ranges, streamed once into a local file and served from there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from artfs.errors import ArtfsError, DeadlineExceeded, DiskFull, LocalIOError

Stream = Callable[[Callable[[bytes], object], Callable[[], None]], None]
"""Writes a whole object: ``stream(write, restart)``; ``restart`` forgets what was written before a retry."""

KEEP: Final = 3600.0
"""Seconds that a spooled object stays after its last use: its slices are in the block cache by then."""
_POLL: Final = 0.01


class Spool:
    """A directory of objects, shared by threads and processes; each object is streamed by one of them.

    ``<name>.part`` grows from its start while its writer holds a flock on it, then becomes ``<name>``. Readers take
    what has arrived and wait for the rest, so nobody's deadline ends the transfer.
    """

    def __init__(self, directory: Path) -> None:
        """``directory`` is made when first needed."""
        self._directory = directory

    def has(self, name: str) -> bool:
        """Whether the object was begun here: complete, arriving, or left by a process that died."""
        return self._complete(name).exists() or self._partial(name).exists()

    def read(self, name: str, start: int, end: int, *, what: str, deadline: float, stream: Stream) -> bytes:
        """The bytes ``start`` to ``end``, fewer if the object ends before; begins ``stream`` if nobody has.

        Raises DeadlineExceeded, DiskFull, LocalIOError and what ``stream`` raises.
        """
        for path, whole in self._watch(name, what, deadline, stream):
            with contextlib.suppress(FileNotFoundError), path.open("rb", buffering=0) as file:
                if whole:
                    os.utime(file.fileno())
                data = os.pread(file.fileno(), end - start, start)
                # A part that was just renamed is complete under its other name; the next round finds it there.
                if whole or len(data) == end - start:
                    return data
        raise AssertionError("the watch ends by returning or raising")

    def size(self, name: str, *, what: str, deadline: float, stream: Stream) -> int:
        """How long the object is: known when all of it has arrived. Raises like ``read``."""
        for path, whole in self._watch(name, what, deadline, stream):
            if whole:
                with contextlib.suppress(FileNotFoundError):
                    return path.stat().st_size
        raise AssertionError("the watch ends by returning or raising")

    def _watch(self, name: str, what: str, deadline: float, stream: Stream) -> Iterator[tuple[Path, bool]]:
        """The path to look at, again and again, and whether it is whole; sees to it that somebody streams."""
        start = time.monotonic()
        writing: Future[None] | None = None
        while True:
            complete = self._complete(name)
            if complete.exists():
                yield complete, True
            elif writing is not None and writing.done() and (error := writing.exception()) is not None:
                raise error
            elif writing is None or writing.done():
                writing = self._begin(name, stream)
            yield self._partial(name), False
            if time.monotonic() > deadline:
                raise DeadlineExceeded(what=f"reading {what}", seconds=round(deadline - start, 1))
            time.sleep(_POLL)

    def _begin(self, name: str, stream: Stream) -> Future[None] | None:
        """Start the transfer in a thread of its own, unless somebody else is at it."""
        partial = self._partial(name)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _local(error, partial) from error
        if not _lock(fd, partial):
            os.close(fd)
            return None
        if self._complete(name).exists():
            partial.unlink()
            os.close(fd)
            return None
        # Before anyone looks: what a writer left behind may be zeros since the machine lost power.
        _restart(fd)
        writing: Future[None] = Future()
        # A daemon, so that a long transfer does not keep the interpreter from ending; the next process starts anew.
        threading.Thread(target=self._write, args=(fd, name, stream, writing), name="artfs-spool", daemon=True).start()
        return writing

    def _write(self, fd: int, name: str, stream: Stream, writing: Future[None]) -> None:
        try:
            self.clean(KEEP)
            stream(lambda piece: _write_all(fd, piece), lambda: _restart(fd))
            os.fsync(fd)
            self._partial(name).rename(self._complete(name))
            writing.set_result(None)
        except ArtfsError as error:  # before OSError: ReferenceMissing is both
            writing.set_exception(error)
        except OSError as error:
            writing.set_exception(_local(error, self._partial(name)))
        except Exception as error:  # noqa: BLE001  handed to the reader that began the transfer, and raised there
            writing.set_exception(error)
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # a forked child may still hold the description
            os.close(fd)

    def clean(self, age: float) -> None:
        """Remove what nobody has used for ``age`` seconds and nobody is writing."""
        paths = list(self._directory.iterdir()) if self._directory.exists() else []
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime < age:
                    continue
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    if _lock(fd, path):
                        path.unlink()
                finally:
                    os.close(fd)

    def _complete(self, name: str) -> Path:
        return self._directory / name

    def _partial(self, name: str) -> Path:
        return self._directory / f"{name}.part"


def _lock(fd: int, path: Path) -> bool:
    """Whether ``fd`` now holds the flock of the file that is at ``path``."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between open and lock the file may have been renamed or removed: then the lock says nothing.
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _restart(fd: int) -> None:
    os.ftruncate(fd, 0)
    os.lseek(fd, 0, os.SEEK_SET)


def _local(error: OSError, path: Path) -> ArtfsError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(where=path.parent, why=error.strerror)
    return LocalIOError(path=path, why=error.strerror)
