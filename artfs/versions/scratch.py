"""Room for what is being written, that a dead process does not keep."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from artfs.errors import local_error

_PREFIX: Final = "publish-"
_YOUNG: Final = 60.0
"""Seconds in which a new directory gets its lock."""


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A new directory below ``parent``, removed at the end; those of processes that were killed go now.

    Whoever uses one holds a lock on it. Raises DiskFull, LocalIOError.
    """
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(parent)
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise local_error(parent, error, what="a directory for the catalog") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


def _sweep(parent: Path) -> None:
    for directory in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, or somebody else is removing it
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if time.time() - os.fstat(descriptor).st_mtime > _YOUNG:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(directory)
            finally:
                os.close(descriptor)
