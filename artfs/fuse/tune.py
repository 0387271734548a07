"""Settings of a mounted file system that pyfuse3 cannot negotiate; root sets them from outside, others do without."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from artfs.fuse.options import MountOptions
from artfs.fuse.unmount import detach

log = logging.getLogger(__name__)

NEVER_CONGESTED = 65535
CONTROL = Path("/sys/fs/fuse/connections")


def tune(device: int, options: MountOptions) -> None:
    """Raise readahead and background requests of the FUSE mount with ``st_dev`` ``device``, as far as we may.

    When more than 9 reads are in flight, the kernel by default calls that congestion: further reads are fetched page by
    page instead of read ahead, in requests that a killed reader has to sit out. With a threshold out of reach they
    queue whole, and killable.
    """
    major, minor = os.major(device), os.minor(device)
    _set(Path(f"/sys/class/bdi/{major}:{minor}/read_ahead_kb"), options.read_ahead_kb)
    try:
        with _control() as control:
            _set(control / str(minor) / "max_background", options.max_background)
            _set(control / str(minor) / "congestion_threshold", NEVER_CONGESTED)
    except OSError as error:
        log.debug("cannot reach the FUSE control file system: %s", error)


def _set(path: Path, value: int) -> None:
    try:
        path.write_text(f"{value}\n")
    except OSError as error:
        log.debug("cannot set %s to %d: %s", path, value, error.strerror)


@contextlib.contextmanager
def _control() -> Iterator[Path]:
    """The FUSE control file system: where systemd mounts it, else (containers) mounted for a moment."""
    if os.path.ismount(CONTROL) or os.geteuid() != 0:
        yield CONTROL
        return
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory(prefix="artfs-fusectl-") as private:
        if libc.mount(b"fusectl", os.fsencode(private), b"fusectl", 0, None) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            yield Path(private)
        finally:
            detach(private, lazy=True)
