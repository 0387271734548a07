"""Mount points: what is mounted where, who uses it, and whether artfs can mount there."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import attrs

from artfs.errors import InvalidInput, MountFailed
from artfs.fuse.options import MountOptions
from artfs.fuse.records import Record, live_record, live_record_of

FILESYSTEM_TYPE = "fuse.artfs"
CAP_SYS_ADMIN = 21  # linux/capability.h


@attrs.frozen
class MountEntry:
    """A line of ``/proc/self/mountinfo`` (proc_pid_mountinfo(5))."""

    mountpoint: str
    type: str
    source: str
    read_only: bool
    device: int
    """``st_dev`` of what is mounted."""


@attrs.frozen
class Mount:
    """An artfs mount."""

    mountpoint: str
    source: str
    pid: int | None
    """The process that serves it; None when it is gone or another user's."""
    started: float | None
    """Seconds since the epoch."""
    stale: bool
    """The process that served it is gone: every access fails with ENOTCONN until it is unmounted."""


def mount_table() -> Iterator[MountEntry]:
    """Everything mounted in this mount namespace, what is on top of the same directory last."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields, _, tail = line.rstrip("\n").partition(" - ")
            kind, source = tail.split(" ")[:2]
            numbers, _, place, options = fields.split(" ")[2:6]
            major, _, minor = numbers.partition(":")
            device = os.makedev(int(major), int(minor))
            yield MountEntry(_unescape(place), kind, _unescape(source), "ro" in options.split(","), device)


def mounted_on(mountpoint: str) -> MountEntry | None:
    """What is mounted on a directory, the top one; never touches the directory itself."""
    found = None
    for entry in mount_table():
        if entry.mountpoint == mountpoint:
            found = entry
    return found


def device_number(mountpoint: str) -> int | None:
    """``st_dev`` of what is mounted on a directory, without asking it."""
    entry = mounted_on(mountpoint)
    return None if entry is None else entry.device


def record_of(runtime_dir: Path, entry: MountEntry) -> Record | None:
    """What the process behind a mount says of itself, also where a directory above the mount point was renamed."""
    return live_record(runtime_dir, entry.mountpoint) or live_record_of(runtime_dir, entry.device)


def served_as(runtime_dir: Path, path: str | os.PathLike[str]) -> str:
    """The mount point under which its process knows what is mounted on a directory; else the directory, canonical."""
    mountpoint = canonical(path)
    entry = mounted_on(mountpoint)
    record = None if entry is None or entry.type != FILESYSTEM_TYPE else record_of(runtime_dir, entry)
    return mountpoint if record is None else record.mountpoint


def canonical(path: str | os.PathLike[str]) -> str:
    """The path as the mount table spells it. A mount point is not touched: what serves it may hang."""
    if not os.fspath(path):
        raise InvalidInput("the path of a mount point is empty")
    absolute = os.path.abspath(path)
    parent, name = os.path.split(absolute)
    resolved = os.path.join(os.path.realpath(parent), name) if name else absolute
    return resolved if mounted_on(resolved) else os.path.realpath(absolute)


def mounts(runtime_dir: Path) -> list[Mount]:
    """Every artfs mount in this mount namespace, with its process where that is the caller's."""
    found = []
    for entry in mount_table():
        if entry.type != FILESYSTEM_TYPE:
            continue
        record = record_of(runtime_dir, entry)
        found.append(
            Mount(
                mountpoint=entry.mountpoint,
                source=entry.source,
                pid=record.pid if record else None,
                started=record.started if record else None,
                stale=record is None and is_stale(entry.mountpoint),
            )
        )
    return found


def is_stale(mountpoint: str) -> bool:
    """Whether the process behind an artfs mount point is gone."""
    try:
        os.statvfs(mountpoint)  # stat would be answered from the kernel's cache
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def is_adoptable(path: str | os.PathLike[str]) -> bool:
    """Whether there is an artfs mount on a directory that still answers."""
    mountpoint = canonical(path)
    entry = mounted_on(mountpoint)
    if entry is None or entry.type != FILESYSTEM_TYPE:
        return False
    return not is_stale(mountpoint)


def users(mountpoint: str, limit: int = 5) -> list[str]:
    """Processes that keep a mount busy, as ``name (pid)``: as many as we may see, at most ``limit``."""
    found: list[str] = []
    below = mountpoint.rstrip("/") + "/"
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        if any(path == mountpoint or path.startswith(below) for path in _open_paths(process)):
            try:
                name = (process / "comm").read_text(errors="replace").strip()
            except OSError:
                continue  # it has just ended
            found.append(f"{name} ({process.name})")
            if len(found) == limit:
                break
    return found


def _open_paths(process: Path) -> Iterator[str]:
    # Links are read, not followed: what they lead to may hang.
    links = [process / "cwd", process / "root", process / "exe"]
    with contextlib.suppress(OSError):  # another user's process, or it has just ended
        links += (process / "fd").iterdir()
    for link in links:
        try:
            yield os.readlink(link)
        except OSError:
            continue
    try:
        with open(process / "maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                fields = line.rstrip("\n").split(None, 5)
                if len(fields) == 6:
                    yield fields[5]
    except OSError:
        return


def preflight(path: str | os.PathLike[str], options: MountOptions) -> str:
    """Check that artfs can mount on ``path``; its canonical form. Raises ``MountFailed`` saying what to do."""
    mountpoint = canonical(path)
    why = _obstacle(mountpoint) or _fuse_obstacle(options)
    if why:
        raise MountFailed(mountpoint=mountpoint, why=why)
    return mountpoint


def _obstacle(mountpoint: str) -> str | None:
    entry = mounted_on(mountpoint)
    if entry is not None:
        if entry.type == FILESYSTEM_TYPE and is_stale(mountpoint):
            cure = f"artfs umount {shlex.quote(mountpoint)}"
            return f"a mount whose process is gone is still there; clear it with: {cure}"
        return f"{entry.source} ({entry.type}) is already mounted there"
    try:
        with os.scandir(mountpoint) as content:
            empty = next(content, None) is None
    except FileNotFoundError:
        return f"it does not exist; create it with: mkdir -p {shlex.quote(mountpoint)}"
    except NotADirectoryError:
        return "it is not a directory"
    except PermissionError:
        return "no permission to read it"
    except OSError as error:
        return str(error.strerror)
    if not empty:
        return "it is not empty; mount on an empty directory, so that nothing is hidden"
    if not os.access(mountpoint, os.W_OK | os.X_OK):
        return "no permission to write to it, which mounting needs"
    return None


def _fuse_obstacle(options: MountOptions) -> str | None:
    if not os.path.exists("/dev/fuse"):
        return (
            "there is no /dev/fuse; load the fuse module (modprobe fuse), or run the container with "
            "--device /dev/fuse --cap-add SYS_ADMIN"
        )
    if os.geteuid() == 0:
        if not _capable(CAP_SYS_ADMIN):
            return "root lacks CAP_SYS_ADMIN here; run the container with --device /dev/fuse --cap-add SYS_ADMIN"
        return None
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no permission to use /dev/fuse; ask the administrator for: chmod 666 /dev/fuse"
    if shutil.which("fusermount3") is None:
        return "fusermount3 is not in PATH; install the package fuse3, or mount as root"
    if options.allow_other and not _user_allow_other():
        return "allow_other needs the line user_allow_other in /etc/fuse.conf"
    return None


def _capable(capability: int) -> bool:
    status = Path("/proc/self/status").read_text()
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> capability & 1)


def _user_allow_other() -> bool:
    try:
        with open("/etc/fuse.conf", encoding="utf-8", errors="replace") as configuration:
            return any(line.strip() == "user_allow_other" for line in configuration)
    except OSError:
        return False


def _unescape(field: str) -> str:
    if "\\" not in field:
        return field
    raw = field.encode("utf-8", "surrogateescape")
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), raw))
