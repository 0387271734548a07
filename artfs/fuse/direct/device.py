"""/dev/fuse: descriptors of a connection, and what is written to them."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import select
import struct
from typing import TYPE_CHECKING, Final

from artfs.fuse.direct.protocol import IOC_CLONE, NOTIFY_RESEND, OUT_HEADER, error_reply

if TYPE_CHECKING:
    from artfs.fuse.direct.dispatch import Reply

log = logging.getLogger(__name__)

PATH: Final = "/dev/fuse"
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ECONNABORTED})
"""The request has been answered or queued again, or the mount has ended: nobody waits for this reply."""


def open_device() -> int:
    """A descriptor that belongs to no connection yet."""
    return os.open(PATH, os.O_RDWR | os.O_CLOEXEC)


def connect(device: int, connection: int) -> None:
    """Make ``device`` another way to the connection of ``connection``, in all processes that inherited it.

    A request is answered on the device on which it was read.
    """
    fcntl.ioctl(device, IOC_CLONE, struct.pack("I", connection))


def reply(device: int, parts: Reply) -> None:
    """Answer a request, unless nobody waits for it any more."""
    try:
        os.writev(device, parts)
    except OSError as error:
        if error.errno in _GONE:
            return
        length, _, unique = OUT_HEADER.unpack_from(parts[0])
        log.error("the kernel takes no reply of %d bytes: %s", length, error.strerror)  # noqa: TRY400 - all there is
        fail(device, unique, errno.EIO)


def fail(device: int, unique: int, number: int) -> bool:
    """Answer a request with an errno; whether somebody waited for it on this device."""
    try:
        os.write(device, error_reply(unique, number))
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return False
    return True


def resend(device: int) -> None:
    """Have the kernel queue again what was read and not answered, on whatever device (Linux 6.9)."""
    os.write(device, OUT_HEADER.pack(OUT_HEADER.size, NOTIFY_RESEND, 0))


def ended(device: int) -> bool:
    """Whether the connection is over: unmounted, and nobody uses what was detached."""
    connection = select.poll()
    connection.register(device, 0)  # only POLLERR
    return bool(connection.poll(0))
