"""One version for all processes of a mount, whenever they are started."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable

from artfs.registry import VersionRow


class Pin:
    """What a name was when the mount began, in memory that processes forked later share.

    An alias may move while a mount lasts: a process that replaces another must show what the others show. It also need
    not reach the registry.
    """

    __slots__ = ("_descriptor",)

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("artfs-pin", os.MFD_CLOEXEC)

    @property
    def known(self) -> bool:
        """Whether some process has asked before."""
        return os.fstat(self._descriptor).st_size > 0

    def version(self, resolve: Callable[[], VersionRow]) -> VersionRow:
        """What ``resolve`` says to the first process that asks. The others must be started after its answer."""
        size = os.fstat(self._descriptor).st_size
        if size:
            pinned: VersionRow = pickle.loads(os.pread(self._descriptor, size, 0))  # noqa: S301 - our own memory
            return pinned
        version = resolve()
        os.pwrite(self._descriptor, pickle.dumps(version), 0)
        return version
