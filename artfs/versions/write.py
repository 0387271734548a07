"""Writing files below a directory without ever leaving it: no symbolic link is followed, no half file is left."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from typing import Final

from artfs.digests import md5_base64
from artfs.errors import ArtfsError, DiskFull, InvalidTarget, LocalIOError, local_error

_TRIES: Final = 8
"""Of entering a directory that other threads are making, too."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Target:
    """A directory to write below. Paths are relative; a link on the way to one is replaced, never followed.

    Every method raises LocalIOError that names the path, and DiskFull.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Use ``root``, made if absent. Raises InvalidTarget for an empty name: it would be the working directory."""
        if not os.fspath(root):
            raise InvalidTarget(directory="", why="the name is empty; write . for the working directory")
        self.root = os.path.abspath(root)
        try:
            os.makedirs(self.root, exist_ok=True)
            self._descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._mapped("", error) from error

    def close(self) -> None:
        """Close the directory."""
        os.close(self._descriptor)

    def stat(self, path: str) -> os.stat_result | None:
        """What lies at ``path``, not following it; None for nothing, or if a link or file is on the way."""
        try:
            with self._parent(path, make=False) as (parent, name):
                return os.stat(name, dir_fd=parent, follow_symlinks=False)
        except LocalIOError:
            return None

    def md5(self, path: str) -> str:
        """The entry digest (base64 of the MD5) of the file at ``path``."""
        with self._parent(path, make=False) as (parent, name):
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                return md5_base64(hashlib.file_digest(file, "md5").digest())

    def readlink(self, path: str) -> str:
        """Where the link at ``path`` leads."""
        with self._parent(path, make=False) as (parent, name):
            return os.readlink(name, dir_fd=parent)

    def write(self, path: str, data: Iterable[bytes | memoryview], mode: int, mtime_ns: int) -> None:
        """Put a file at ``path``, whole or not at all, in place of what was there."""
        with self._parent(path, make=True) as (parent, name), self._fresh(parent) as fresh:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(fresh, flags, 0o600, dir_fd=parent)
            try:
                for chunk in data:
                    view = memoryview(chunk)
                    while view:
                        view = view[os.write(descriptor, view) :]
                os.fchmod(descriptor, mode)
                os.utime(descriptor, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(descriptor)
            os.replace(fresh, name, src_dir_fd=parent, dst_dir_fd=parent)

    def symlink(self, path: str, target: str) -> None:
        """Put a symbolic link at ``path``."""
        with self._parent(path, make=True) as (parent, name), self._fresh(parent) as fresh:
            os.symlink(target, fresh, dir_fd=parent)
            os.replace(fresh, name, src_dir_fd=parent, dst_dir_fd=parent)

    def directory(self, path: str, mode: int) -> None:
        """Have a directory at ``path``."""
        with self._parent(f"{path}/.", make=True) as (directory, _):
            os.fchmod(directory, mode | stat.S_IRWXU)

    def remove(self, path: str) -> None:
        """Remove the file or link at ``path``."""
        with self._parent(path, make=False) as (parent, name):
            os.unlink(name, dir_fd=parent)

    def remove_directory(self, path: str) -> None:
        """Remove the directory at ``path`` if it is empty."""
        with self._parent(path, make=False) as (parent, name):
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise

    @contextlib.contextmanager
    def _parent(self, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
        """A descriptor of the directory that ``path`` is in, and the name in it; faults inside are mapped too."""
        *parts, name = path.split("/")
        try:
            here = os.dup(self._descriptor)
            try:
                for part in parts:
                    below = _enter(here, part, make=make)
                    os.close(here)
                    here = below
                yield here, name
            finally:
                os.close(here)
        except ArtfsError:  # of where the bytes come from; some are an OSError, too
            raise
        except OSError as error:
            raise self._mapped(path, error) from error

    @contextlib.contextmanager
    def _fresh(self, parent: int) -> Iterator[str]:
        """A hidden name, short, and not to be guessed by who shares the directory; gone afterwards."""
        name = f".artfs-{secrets.token_hex(8)}"
        try:
            yield name
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)
            raise

    def _mapped(self, path: str, error: OSError) -> DiskFull | LocalIOError:
        return local_error(os.path.join(self.root, path), error, what="it")


def _enter(here: int, part: str, *, make: bool) -> int:
    """Open a directory, made if absent; a link in its place is removed first, a file of the user's stays."""
    for tries_left in reversed(range(_TRIES)):
        try:
            return os.open(part, _DIRECTORY, dir_fd=here)
        except OSError as error:
            if not make or not tries_left or error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise
            # Other threads may be at the same place: what they were faster with is no fault.
            with contextlib.suppress(FileNotFoundError, FileExistsError, IsADirectoryError):
                if error.errno == errno.ENOENT:
                    os.mkdir(part, dir_fd=here)
                elif stat.S_ISLNK(mode := os.stat(part, dir_fd=here, follow_symlinks=False).st_mode):
                    os.unlink(part, dir_fd=here)
                elif not stat.S_ISDIR(mode):
                    raise
    raise AssertionError("the last try returns or raises")
