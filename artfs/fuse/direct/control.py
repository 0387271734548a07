"""How a mount outlives its supervisor: every worker hands its descriptors to a new one that asks.

A worker listens on the unix socket ``RUNTIME_DIR/mounts/<mount>.<index>.socket`` and answers whoever connects, if it
is the same user or root, with one line of JSON and two descriptors: its device and the board.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from artfs.fuse.records import stem

log = logging.getLogger(__name__)

_PATIENCE: Final = 5.0
"""Seconds for a worker to answer."""


@attrs.frozen
class Handed:
    """What a worker handed over."""

    index: int
    pid: int
    device: int
    board: int


def listen(runtime_dir: Path, mountpoint: str, index: int) -> socket.socket:
    """The socket of a worker; that of its predecessor is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with _directory(runtime_dir) as (directory, short):
        name = f"{stem(mountpoint)}.{index}.socket"
        (directory / name).unlink(missing_ok=True)
        listener.bind(f"{short}/{name}")
    listener.listen(1)
    return listener


def hand_over(listener: socket.socket, index: int, device: int, board: int) -> None:
    """Serve the socket, for ever."""
    while True:
        caller, _ = listener.accept()
        with caller:
            try:
                if _peer(caller)[1] in {0, os.geteuid()}:
                    text = json.dumps({"index": index, "pid": os.getpid()}).encode()
                    socket.send_fds(caller, [text], [device, board])
            except OSError as error:
                log.debug("a caller on the control socket is gone: %s", error)


def collect(runtime_dir: Path, mountpoint: str) -> list[Handed]:
    """What the workers of a mount hand over, those that are alive."""
    found = []
    with _directory(runtime_dir) as (directory, short):
        for path in sorted(directory.glob(f"{stem(mountpoint)}.*.socket")):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(_PATIENCE)
                try:
                    channel.connect(f"{short}/{path.name}")
                    text, descriptors, _, _ = socket.recv_fds(channel, 4096, 2)
                except OSError:  # its worker is dead
                    continue
                if len(descriptors) == 2:
                    said = json.loads(text)
                    found.append(Handed(int(said["index"]), int(said["pid"]), *descriptors))
    return found


def clear(runtime_dir: Path, mountpoint: str) -> None:
    """Remove the sockets of a mount."""
    for path in (runtime_dir / "mounts").glob(f"{stem(mountpoint)}.*.socket"):
        path.unlink(missing_ok=True)


def _peer(channel: socket.socket) -> tuple[int, int, int]:
    """Process, user and group at the other end."""
    pid, uid, gid = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid


@contextlib.contextmanager
def _directory(runtime_dir: Path) -> Iterator[tuple[Path, str]]:
    """The directory of the sockets, and a short name for it: an address has 107 bytes."""
    directory = runtime_dir / "mounts"
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield directory, f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
