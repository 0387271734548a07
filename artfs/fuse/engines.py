"""Which engine serves a mount."""

from __future__ import annotations

from typing import Final

from artfs.errors import MountFailed
from artfs.fuse.options import MountOptions

AUTO: Final = "direct"
"""What ``engine=auto`` takes for a read-only mount where the kernel has what the direct engine needs."""


def choose(options: MountOptions, mountpoint: str) -> str:
    """``direct`` or ``pyfuse3``. Raises ``MountFailed`` where ``direct`` is demanded and cannot be."""
    from artfs.fuse.direct.session import supported

    if options.engine == "auto":
        return AUTO if options.read_only and supported() else "pyfuse3"
    if options.engine == "direct":
        if not options.read_only:
            raise MountFailed(mountpoint=mountpoint, why="engine=direct serves read-only mounts only")
        if not supported():
            raise MountFailed(mountpoint=mountpoint, why="engine=direct needs Linux 5.4; mount with -o engine=pyfuse3")
    return options.engine
