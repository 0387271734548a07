"""Mount, and agree with the kernel on how to talk."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from typing import Final

import attrs

from artfs.errors import MountFailed
from artfs.fuse.direct import device
from artfs.fuse.direct.protocol import (
    FLAGS2,
    HEADER_SIZE,
    IN_HEADER,
    INIT_IN,
    INIT_OUT,
    LEAST_MINOR,
    MAJOR,
    MIN_READ_BUFFER,
    MINOR,
    MOST_PAGES,
    OUT_HEADER,
    Flag,
    Opcode,
)
from artfs.fuse.ending import unmount_or_detach
from artfs.fuse.kernel import kernel_version
from artfs.fuse.mountpoint import FILESYSTEM_TYPE
from artfs.fuse.options import MountOptions
from artfs.fuse.tune import NEVER_CONGESTED

LEAST_KERNEL: Final = (5, 4)
"""The first with ``LEAST_MINOR``."""
RESENDING_KERNEL: Final = (6, 9)
WANTED: Final = (
    Flag.ASYNC_READ
    | Flag.ASYNC_DIO
    | Flag.PARALLEL_DIROPS
    | Flag.NO_OPEN_SUPPORT
    | Flag.NO_OPENDIR_SUPPORT
    | Flag.DO_READDIRPLUS
    | Flag.CACHE_SYMLINKS
    | Flag.MAX_PAGES
    | Flag.HAS_RESEND
)
"""READDIRPLUS always, not as the kernel sees fit: who lists a data set opens its files next. No EXPORT_SUPPORT: a tree
does not know parents. No AUTO_INVAL_DATA: content never changes."""
MAX_WRITE: Final = 4096
"""The least there is. Nothing is written; it decides how large a buffer requests are read into."""

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME = 1, 2, 4, 8, 1024  # sys/mount.h


def supported() -> bool:
    """Whether the kernel has what this engine needs."""
    return kernel_version() >= LEAST_KERNEL


def resends() -> bool:
    """Whether the kernel can send requests again: of a connection that somebody else negotiated."""
    return kernel_version() >= RESENDING_KERNEL


@attrs.frozen
class Connection:
    """A mounted file system and its descriptor, from which no worker reads: replies go where requests came from."""

    descriptor: int
    resends: bool
    """The kernel can queue again what a dead worker had read."""


def mount(mountpoint: str, options: MountOptions) -> Connection:
    """A new file system on a canonical path, by root itself, for others by fusermount3. Raises ``MountFailed``."""
    try:
        descriptor = (_mount if os.geteuid() == 0 else _fusermount)(mountpoint, options)
    except OSError as error:
        why = f"mounting file system type {FILESYSTEM_TYPE}: {error.strerror}"
        raise MountFailed(mountpoint=mountpoint, why=why) from error
    try:
        return Connection(descriptor, _negotiate(descriptor, mountpoint, options))
    except BaseException:
        unmount_or_detach(mountpoint)
        os.close(descriptor)
        raise


def _mount(mountpoint: str, options: MountOptions) -> int:
    descriptor = device.open_device()
    details = f"fd={descriptor},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()},default_permissions"
    if options.allow_other:
        details += ",allow_other"
    flags = MS_NOSUID | MS_NODEV | MS_NOATIME | (MS_RDONLY if options.read_only else 0)
    if not options.exec:
        flags |= MS_NOEXEC
    libc = ctypes.CDLL(None, use_errno=True)
    source, target = os.fsencode(options.source), os.fsencode(mountpoint)
    if libc.mount(source, target, FILESYSTEM_TYPE.encode(), flags, details.encode()) != 0:
        os.close(descriptor)
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def _fusermount(mountpoint: str, options: MountOptions) -> int:
    """The setuid helper mounts, and passes the descriptor over the socket that _FUSE_COMMFD names."""
    program = shutil.which("fusermount3")
    if program is None:
        raise MountFailed(mountpoint=mountpoint, why="fusermount3 is not in PATH; install the package fuse3")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [program, "-o", ",".join(sorted(options.fuse_options())), "--", mountpoint]
        answer = subprocess.run(  # noqa: S603 - a fixed program and our own mount point
            command,
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno()), "LC_ALL": "C"},
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        theirs.close()
        if answer.returncode == 0:
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
            if descriptors:
                os.set_inheritable(descriptors[0], False)
                return descriptors[0]
    why = answer.stderr.strip() or f"fusermount3 exited with {answer.returncode}"
    raise MountFailed(mountpoint=mountpoint, why=why)


def _negotiate(descriptor: int, mountpoint: str, options: MountOptions) -> bool:
    """Answer INIT, the first request of a connection; whether the kernel can send requests again."""
    message = os.read(descriptor, MIN_READ_BUFFER)
    _, opcode, unique, *_ = IN_HEADER.unpack_from(message)
    major, minor, readahead, flags = INIT_IN.unpack_from(message, HEADER_SIZE)
    if opcode != Opcode.INIT or major != MAJOR or minor < LEAST_MINOR:
        why = f"the kernel speaks FUSE {major}.{minor}, and this engine 7.{LEAST_MINOR}; mount with -o engine=pyfuse3"
        raise MountFailed(mountpoint=mountpoint, why=why)
    if flags & Flag.INIT_EXT:
        flags |= FLAGS2.unpack_from(message, HEADER_SIZE + INIT_IN.size)[0] << 32
    agreed = flags & (WANTED | Flag.INIT_EXT)
    content = INIT_OUT.pack(
        MAJOR,
        min(minor, MINOR),
        readahead,  # a reply can only lower it; ``tune`` raises it
        agreed & 0xFFFFFFFF,
        min(options.max_background, NEVER_CONGESTED),
        NEVER_CONGESTED,
        MAX_WRITE,
        1,  # times in nanoseconds
        MOST_PAGES,
        0,
        agreed >> 32,
        b"",
    )
    os.write(descriptor, OUT_HEADER.pack(OUT_HEADER.size + len(content), 0, unique) + content)
    return bool(agreed & Flag.HAS_RESEND)
