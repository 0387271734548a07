"""The local files of a staging area: written bytes, one sparse file an inode, named by the inode in hexadecimal.

A file's descriptor is open while a program has the file open, or while an operation runs on it: as many descriptors
as the programs have, no more. A file whose inode is gone is unlinked only after that removal is safe from a power
cut: else the power cut might bring the name back and not the bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import attrs

from artfs.errors import DiskFull, FileTooLarge, LocalIOError, NotFound, TooManyOpenFiles


@attrs.define(eq=False)
class OpenFile:
    """An inode that programs or operations are using."""

    inode: int
    users: int = 0
    descriptor: int | None = None
    """Of the local file; None while nobody needed it or there is none."""
    shown: int | None = None
    """``inode.shown`` of the schema, known while ``descriptor`` is."""
    removed: bool = False
    """Its last name is gone: the last user takes the content along."""
    lock: threading.Lock = attrs.field(factory=threading.Lock)
    """Held while bytes or size change."""


class LocalFiles:
    """The directory ``data`` of an area, and the files in use. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._prefix = f"{directory}/"
        self._lock = threading.Lock()
        self._open: dict[int, OpenFile] = {}
        self._doomed: deque[int] = deque()
        self.doomed_bytes = 0
        """About what unlinking them will free."""

    def acquire(self, inode: int) -> OpenFile:
        """One more user of the inode."""
        with self._lock:
            file = self._open.get(inode)
            if file is None:
                file = self._open[inode] = OpenFile(inode)
            file.users += 1
            return file

    def release(self, inode: int) -> bool:
        """One user less; whether it was the last one of a removed file."""
        with self._lock:
            file = self._open[inode]
            file.users -= 1
            if file.users:
                return False
            del self._open[inode]
            if file.descriptor is not None:
                os.close(file.descriptor)
            return file.removed

    def remove_when_released(self, inode: int) -> bool:
        """Whether somebody uses the inode, who will then find it removed."""
        with self._lock:
            file = self._open.get(inode)
            if file is not None:
                file.removed = True
            return file is not None

    def is_open(self, inode: int) -> bool:
        """Whether anybody uses the inode."""
        with self._lock:
            return inode in self._open

    def in_use(self) -> int:
        """Inodes that are open now."""
        return len(self._open)

    def create(self, inode: int, size: int) -> int:
        """A new local file of ``size`` zeros (a hole) and its descriptor; what a crash left there is overwritten."""
        with self._errors(inode):
            descriptor = os.open(self.path(inode), os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                if size:
                    os.ftruncate(descriptor, size)
            except BaseException:
                os.close(descriptor)
                os.unlink(self.path(inode))
                raise
            return descriptor

    def open(self, inode: int) -> int:
        """A descriptor for reading and writing."""
        with self._errors(inode):
            return os.open(self.path(inode), os.O_RDWR | os.O_CLOEXEC)

    def stat(self, inode: int) -> os.stat_result:
        """Size and times of the local file; raises NotFound when it has been removed."""
        try:
            return os.stat(self.path(inode))
        except FileNotFoundError:
            raise NotFound(what="inode", name=inode) from None

    def set_mtime(self, inode: int, mtime_ns: int) -> None:
        """Give the local file a modification time."""
        with self._errors(inode):
            os.utime(self.path(inode), ns=(mtime_ns, mtime_ns))

    def doom(self, inode: int) -> None:
        """Unlink the local file after the next sync."""
        with contextlib.suppress(FileNotFoundError):
            self.doomed_bytes += os.stat(self.path(inode)).st_blocks * 512
        self._doomed.append(inode)

    @property
    def waiting(self) -> int:
        """How many files wait to be unlinked."""
        return len(self._doomed)

    def doomed(self) -> list[int]:
        """The files that wait to be unlinked, to be given to ``unlink`` once the database is synced."""
        return list(self._doomed)

    def unlink(self, inodes: list[int]) -> None:
        """Remove local files that nothing refers to."""
        self.doomed_bytes = 0
        for inode in inodes:
            self._doomed.popleft()
            with self._errors(inode):
                try:
                    os.unlink(self.path(inode))
                except FileNotFoundError:
                    continue

    def inodes(self) -> Iterator[int]:
        """Every local file there is."""
        with os.scandir(self.directory) as entries:
            for entry in entries:
                yield int(entry.name, 16)

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            for file in self._open.values():
                if file.descriptor is not None:
                    os.close(file.descriptor)
            self._open.clear()

    def path(self, inode: int) -> str:
        """Where the local file of an inode is."""
        return f"{self._prefix}{inode:x}"

    @contextlib.contextmanager
    def _errors(self, inode: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise local_error(Path(self.path(inode)), error) from error


def local_error(path: Path, error: OSError) -> DiskFull | FileTooLarge | LocalIOError:
    """What went wrong with a local file."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(where=path.parent, why="the local disk is full")
    if error.errno == errno.EFBIG:
        return FileTooLarge(name=str(path))
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return TooManyOpenFiles(path=path)
    return LocalIOError(path=path, why=error.strerror)
