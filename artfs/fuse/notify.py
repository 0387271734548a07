"""Tell systemd how the service fares (sd_notify(3)): one datagram of ``NAME=value`` lines."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)


def notify(**state: str | int) -> None:
    """Send e.g. ``READY=1, STATUS="serving"``; does nothing unless a service manager asked for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace
    message = "\n".join(f"{name}={value}" for name, value in state.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(message.encode(), address)
    except OSError as error:
        log.warning("cannot notify the service manager: %s", error)
