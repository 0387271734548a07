"""artfs on Linux FUSE: two engines and the life cycle of a mount. The only package that imports pyfuse3.

``operations`` and ``serve`` (pyfuse3, one process) import pyfuse3 and trio and are loaded in the process that serves;
``direct`` speaks the kernel's protocol itself, in several. What the command line needs before that is here.
"""

from artfs.fuse.daemon import mount_in_background, mount_in_foreground
from artfs.fuse.mountpoint import Mount, mounts, preflight
from artfs.fuse.options import MountOptions, parse_options
from artfs.fuse.unmount import unmount

__all__ = [
    "Mount",
    "MountOptions",
    "mount_in_background",
    "mount_in_foreground",
    "mounts",
    "parse_options",
    "preflight",
    "unmount",
]
