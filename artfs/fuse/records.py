"""Which process serves which mount point: one small locked file a mount.

The file is ``RUNTIME_DIR/mounts/<first 16 hex digits of the SHA-256 of the mount point>.json`` with the fields of
``Record``. Its process holds an flock on it for life, so a record whose lock is free belongs to a process that is
gone: no guessing from process ids, which are re-used.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from pathlib import Path

import attrs

from artfs.errors import LocalIOError, MountFailed


@attrs.frozen
class Record:
    """What the process that serves a mount says of itself."""

    pid: int
    mountpoint: str
    source: str
    started: float
    """Seconds since the epoch."""
    device: int | None = None
    """``st_dev`` of what is mounted, by which it is found where a directory above it was renamed; None before."""


class Claim:
    """This process's right to serve one mount point, until ``release`` or death."""

    __slots__ = ("_descriptor", "_path", "_record")

    def __init__(self, runtime_dir: Path, mountpoint: str, source: str) -> None:
        """Raises ``MountFailed`` when another process serves ``mountpoint``, ``LocalIOError`` on a bad directory."""
        self._path = _path(runtime_dir, mountpoint)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = self._lock(mountpoint)
        except OSError as error:
            raise LocalIOError(path=self._path, why=error.strerror) from error
        self._record = Record(os.getpid(), mountpoint, source, time.time())
        self._write()

    def mounted(self, device: int | None) -> None:
        """Note what has been mounted."""
        self._record = attrs.evolve(self._record, device=device)
        self._write()

    def _write(self) -> None:
        # One write, so that who reads meanwhile finds the old record or the new; what is left of a longer one is blank.
        text = json.dumps(attrs.asdict(self._record)).encode()
        os.pwrite(self._descriptor, text.ljust(os.fstat(self._descriptor).st_size), 0)

    def _lock(self, mountpoint: str) -> int:
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise MountFailed(
                    mountpoint=mountpoint,
                    why="another artfs process serves it, is about to, or waits for the last user of what was detached",
                ) from None
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)  # its last owner removed it between our open and our lock

    def forget(self) -> None:
        """In a forked child: the claim stays its parent's alone, and ends with it."""
        os.close(self._descriptor)

    def release(self) -> None:
        """Let go of the mount point."""
        self._path.unlink(missing_ok=True)  # before the lock goes: afterwards it may be somebody else's
        os.close(self._descriptor)


def live_record(runtime_dir: Path, mountpoint: str) -> Record | None:
    """The record of the process that serves ``mountpoint``; None when there is none or it is gone."""
    return _live(_path(runtime_dir, mountpoint))


def live_record_of(runtime_dir: Path, device: int) -> Record | None:
    """The same by what is mounted, wherever it is now."""
    records = (_live(path) for path in (runtime_dir / "mounts").glob("*.json"))
    return next((record for record in records if record is not None and record.device == device), None)


def _live(path: Path) -> Record | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # no such mount of ours, or somebody else's directory
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 65536, 0)
        try:
            return Record(**json.loads(text))
        except (ValueError, TypeError):  # locked, and not written yet
            return None
    else:
        return None
    finally:
        os.close(descriptor)


def stem(mountpoint: str) -> str:
    """What the files of a mount are called."""
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]


def _path(runtime_dir: Path, mountpoint: str) -> Path:
    return runtime_dir / "mounts" / f"{stem(mountpoint)}.json"
