"""How a mount ends, whichever engine serves it."""

from __future__ import annotations

import logging
import signal
import threading

from artfs.fuse.mountpoint import FILESYSTEM_TYPE, mounted_on, users
from artfs.fuse.unmount import Busy, detach
from artfs.vfs.tree import Tree

log = logging.getLogger(__name__)

DRAIN = 1.0
"""Seconds that requests still in threads get before the tree is closed under them."""


def ending_signals() -> list[signal.Signals]:
    """Signals that unmount; not SIGHUP where nohup(1) has it ignored."""
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if nohup else [signal.SIGHUP])]


def toggle_debug() -> None:
    """Turn debug logging of this process on or off."""
    root = logging.getLogger()
    root.setLevel(logging.INFO if root.level == logging.DEBUG else logging.DEBUG)
    log.info("logging at level %s", logging.getLevelName(root.level))


def is_mounted(mountpoint: str) -> bool:
    """Whether an artfs mount is there."""
    entry = mounted_on(mountpoint)
    return entry is not None and entry.type == FILESYSTEM_TYPE


def unmount_or_detach(mountpoint: str) -> None:
    """Unmount, or detach what is in use. Raises ``UnmountFailed``."""
    if not is_mounted(mountpoint):
        return
    try:
        detach(mountpoint, lazy=False)
    except Busy:
        log.warning("%s is in use by %s: detached", mountpoint, ", ".join(users(mountpoint)) or "somebody")
        detach(mountpoint, lazy=True)


def close_tree(tree: Tree, seconds: float) -> None:
    """Close the tree, and do not wait for a network that hangs."""
    failures: list[Exception] = []

    def close() -> None:
        try:
            tree.close()
        except Exception as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    closer = threading.Thread(target=close, name="close", daemon=True)
    closer.start()
    closer.join(seconds)
    if closer.is_alive():
        log.warning("the tree was not closed within %g s: left alone", seconds)
    if failures:
        raise failures[0]
