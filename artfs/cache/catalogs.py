"""Decompressed catalogs: one file each under its hash, made once for all processes."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from artfs.cache.eviction import Eviction
from artfs.cache.locks import locked
from artfs.cache.part import RENEWAL, make_private
from artfs.errors import ArtfsError, DeadlineExceeded, DiskFull, InvalidInput, LocalIOError

PATIENCE: Final = 300.0
"""Seconds to wait for another process that is making the same catalog, unless the caller says otherwise."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Catalogs:
    """Files ``catalogs/<sha256>``. Thread-safe."""

    def __init__(self, directory: Path, eviction: Eviction) -> None:
        self._directory = directory
        self._eviction = eviction

    def get(self, sha256_hex: str, load: Callable[[Path], None], deadline: float | None = None) -> Path:
        """The catalog's file; if it is absent, ``load`` writes it to the path it is given.

        Eviction may take the file at any time after; whoever has opened it keeps it. Raises what ``load`` raises,
        LocalIOError, DiskFull, and DeadlineExceeded when another process takes longer than ``deadline`` to make it.
        """
        if len(sha256_hex) != 64 or not set(sha256_hex) <= set("0123456789abcdef"):
            raise InvalidInput(f"{sha256_hex!r} is not a SHA-256 in hexadecimal")
        path = self._directory / "catalogs" / sha256_hex
        if _renewed(path):
            return path
        began = time.monotonic()
        deadline = began + PATIENCE if deadline is None else deadline
        try:
            make_private(self._directory, path.parent, self._directory / "tmp")
            # One file serves all catalogs: the byte that stands for one need not exist.
            byte = int(sha256_hex[:15], 16)
            # Descriptors exclude each other within a process, too, so this is the single flight of threads as well.
            with locked(self._directory / "catalogs.lock", byte, deadline) as held:
                if not held:
                    raise DeadlineExceeded(what="another process's load of this catalog", seconds=deadline - began)
                if not _renewed(path):
                    self._make(path, load)
        except ArtfsError:
            # Some are OSErrors, too, and say more than what follows.
            raise
        except OSError as error:
            if error.errno in _FULL:
                raise DiskFull(where=self._directory, why="a catalog does not fit") from error
            raise LocalIOError(path=self._directory, why=error.strerror or error) from error
        return path

    def _make(self, path: Path, load: Callable[[Path], None]) -> None:
        try:
            size = self._publish(path, load)
        except (OSError, DiskFull) as error:
            if not isinstance(error, DiskFull) and error.errno not in _FULL:
                raise
            # How much is missing nobody knows yet; a catalog of a million entries takes 100 MB.
            if not self._eviction.evict(room=128 << 20):
                raise
            size = self._publish(path, load)
        self._eviction.grown(size)

    def _publish(self, path: Path, load: Callable[[Path], None]) -> int:
        temporary = self._directory / "tmp" / f"{path.name}.{uuid.uuid4().hex}"
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.close(fd)
        try:
            load(temporary)
            with open(temporary, "rb") as file:
                # Nobody checks a catalog again, so its bytes must not be lost to a crash that its name survives.
                os.fsync(file.fileno())
                size = os.fstat(file.fileno()).st_size
            os.rename(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        return size


def _renewed(path: Path) -> bool:
    """Whether the file exists; if so, eviction knows that it is in use."""
    try:
        if time.time() - os.stat(path).st_mtime >= RENEWAL:
            os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:
        # A read-only cache: it is there, which is what matters. In another user's directory nothing is.
        return os.access(path, os.R_OK)
    return True
