"""Fetching ahead for a program that knows what it will read next."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Final

_ATTRIBUTE: Final = "user.artfs.prefetch"
"""What a mount answers, and takes as the wish to have the file fetched."""
_ON_NO_MOUNT: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP})


def prefetch(paths: Iterable[str | os.PathLike[str]]) -> int:
    """Have the files at ``paths`` fetched into the cache in the background, in this order; returns at once.

    For a loader that knows its next samples: call it a few batches ahead, and reading them will not wait. It costs one
    request to the mount a file, and keeps nothing in the calling process, so forked workers may call it
    too. What cannot be fetched is left to whoever reads it to find out.

    A path on no artfs mount, or on a writable one, is read ahead by the kernel instead (``POSIX_FADV_WILLNEED``), so a
    loader does the same with an ordinary directory. A directory is passed over: list it for its files.

    Returns how many files an artfs mount took. Raises what looking up a path raises: FileNotFoundError, OSError.
    """
    taken = 0
    for path in paths:
        try:
            os.getxattr(path, _ATTRIBUTE)
        except OSError as error:
            if error.errno not in _ON_NO_MOUNT:
                raise
            _advise(path)
        else:
            taken += 1
    return taken


def _advise(path: str | os.PathLike[str]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hold it up
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
    except OSError as error:
        if error.errno not in {errno.ESPIPE, errno.EINVAL}:  # of what is no file
            raise
    finally:
        os.close(descriptor)
