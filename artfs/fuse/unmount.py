"""End a mount."""

from __future__ import annotations

import ctypes
import errno
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from artfs.errors import UnmountFailed
from artfs.fuse.mountpoint import FILESYSTEM_TYPE, canonical, mounted_on, served_as, users
from artfs.fuse.records import live_record

MNT_DETACH = 2  # umount2(2), sys/mount.h
UMOUNT_NOFOLLOW = 8
# A process that has just ended, or a df or an updatedb that passes by, holds a mount for some milliseconds without
# showing in /proc: busy with no user to name is asked again for this long.
_PASSING_S = 2.0


class Busy(Exception):
    """Something still uses the mount."""


def detach(mountpoint: str, *, lazy: bool) -> None:
    """Take a FUSE mount out of the name space; ``lazy`` also while it is in use.

    Root asks the kernel, others the setuid fusermount3. Raises ``Busy`` or ``UnmountFailed``; a directory on which
    nothing is mounted any more is success.
    """
    if os.geteuid() == 0:
        _umount2(mountpoint, lazy=lazy)
    else:
        _fusermount(mountpoint, lazy=lazy)


def _umount2(mountpoint: str, *, lazy: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)
    if libc.umount2(os.fsencode(mountpoint), flags) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EBUSY:
        raise Busy(mountpoint)
    if number not in (errno.EINVAL, errno.ENOENT):  # not a mount point, gone: nothing left to end
        raise UnmountFailed(mountpoint=mountpoint, why=os.strerror(number))


def _fusermount(mountpoint: str, *, lazy: bool) -> None:
    program = shutil.which("fusermount3")
    if program is None:
        raise UnmountFailed(mountpoint=mountpoint, why="fusermount3 is not in PATH; install the package fuse3")
    command = [program, "-u", *(["-z"] if lazy else []), "--", mountpoint]
    answer = subprocess.run(  # noqa: S603 - a fixed program and our own mount point
        command, capture_output=True, text=True, errors="replace", env={"LC_ALL": "C"}, check=False
    )
    if answer.returncode == 0 or mounted_on(mountpoint) is None:
        return
    why = answer.stderr.strip()
    if "busy" in why:
        raise Busy(mountpoint)
    raise UnmountFailed(mountpoint=mountpoint, why=why or f"fusermount3 exited with {answer.returncode}")


def unmount(path: str | os.PathLike[str], *, runtime_dir: Path, deadline: float, lazy: bool = False) -> None:
    """End the artfs mount on ``path`` and wait until its process has gone; clears a stale mount as well.

    ``lazy`` detaches a mount that is in use and does not wait: its process goes when the last user does. Raises
    ``UnmountFailed`` when it is busy (naming who uses it), not an artfs mount, or ``deadline`` (monotonic) passes.
    """
    mountpoint = canonical(path)
    entry = mounted_on(mountpoint)
    if entry is None:
        raise UnmountFailed(mountpoint=mountpoint, why="nothing is mounted there")
    if entry.type != FILESYSTEM_TYPE:
        raise UnmountFailed(
            mountpoint=mountpoint, why=f"{entry.source} ({entry.type}) is not an artfs mount; use umount"
        )
    known_as = served_as(runtime_dir, mountpoint)
    _detach_when_free(mountpoint, lazy=lazy, deadline=min(deadline, time.monotonic() + _PASSING_S))
    while not lazy and live_record(runtime_dir, known_as) is not None:
        if time.monotonic() > deadline:
            raise UnmountFailed(mountpoint=mountpoint, why="it is unmounted, but its process has not ended yet")
        time.sleep(0.01)


def _detach_when_free(mountpoint: str, *, lazy: bool, deadline: float) -> None:
    while True:
        try:
            return detach(mountpoint, lazy=lazy)
        except Busy:
            who = users(mountpoint)
            if who or time.monotonic() > deadline:
                named = f"in use by {', '.join(who)}" if who else "in use"
                hint = f"artfs umount --lazy {shlex.quote(mountpoint)}"
                raise UnmountFailed(
                    mountpoint=mountpoint, why=f"it is {named}; end that first, or detach it with: {hint}"
                ) from None
        time.sleep(0.02)
