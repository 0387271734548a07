"""From an exception to the errno that answers a request, and to one line in the log."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from cachetools import TTLCache

from artfs.errors import ArtfsError, DiskFull, MountFailed, local_error

log = logging.getLogger(__name__)

REPEATED = 10.0
"""Seconds for which the same failure of the same inode is not logged again: the kernel tries a failed readahead once
more, and programs try again."""

_CALLERS_FAULT = frozenset(
    {
        errno.EEXIST, errno.EFBIG, errno.EINVAL, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR,
        errno.ENOTEMPTY, errno.EPERM, errno.EROFS, errno.EXDEV,
    }
)  # fmt: skip
"""Answers to a question, not faults: not logged."""


class Failures:
    """What requests of one mount failed with."""

    def __init__(self, count: Callable[[int], None], news: Callable[[str], bool] = lambda _what: True) -> None:
        """Calls ``count`` with the errno of every answer that was logged or would have been.

        ``news`` says whether no other process of the mount has logged a failure in the last ``REPEATED`` seconds.
        """
        self._count = count
        self._news = news
        self._logged: TTLCache[tuple[str, int, str], None] = TTLCache(1024, REPEATED)

    def number(self, kind: str, inode: int, error: Exception) -> int:
        """Log what went wrong with a request, once, and return the errno that answers it."""
        foreseen = isinstance(error, ArtfsError | OSError) and bool(error.errno)
        number = int(error.errno) if foreseen else errno.EIO  # type: ignore[attr-defined]  # told by foreseen
        if number in _CALLERS_FAULT:
            return number
        self._count(number)
        text = str(error) or type(error).__name__
        key = (kind, inode, text)
        if key not in self._logged:
            self._logged[key] = None
            what = f"{kind} of inode {inode} failed: {text}"
            if self._news(what):
                log.error("%s", what, exc_info=None if foreseen else error)
        return number


def why_not_mounted(error: BaseException, mountpoint: str) -> ArtfsError:
    """What to say where making a mount, or its tree, met what nobody foresaw; a full disk is foreseen."""
    if isinstance(error, OSError):
        told = local_error(error.filename or f"the disk that the mount on {mountpoint} needs", error)
        if isinstance(told, DiskFull):
            return told
    return MountFailed(mountpoint=mountpoint, why=f"{type(error).__name__}: {error}")
