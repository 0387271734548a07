"""What ``-o`` may say, on the command line and in fstab."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from artfs.errors import InvalidInput

ENGINES = ("auto", "direct", "pyfuse3")
MOST_WORKERS = 64
"""More are of no use, and each has a descriptor of the connection, threads and caches of its own."""

MOST_SOURCE = 1024
"""Bytes of ``fsname=``: it shares one page with libfuse's other options, in which a comma or backslash is escaped."""


@attrs.frozen
class MountOptions:
    """How a tree is shown and served."""

    source: str = "artfs"
    """What the mount table shows as the device: the artifact's name."""
    read_only: bool = True
    allow_other: bool = False
    """Let other users in; they are then held to the permission bits."""
    exec: bool = True
    """Programs may be run from the mount."""
    uid: int | None = None
    """Owner shown; None = who mounts."""
    gid: int | None = None
    file_mode: int | None = None
    """Permission bits shown for every file; None = as stored."""
    dir_mode: int | None = None
    """Permission bits shown for every directory; None = as stored."""
    max_background: int = 256
    """Reads that the kernel keeps in flight (its default is 12); more wait in the kernel, also those that are cached.
    Set where the daemon is root."""
    read_ahead_kb: int = 1024
    """The kernel's readahead, which also cuts buffered reads into requests (its default is 128: 1.4 instead of
    2.5 GB/s measured from a warm cache). Set where the daemon is root."""
    engine: str = "auto"
    """Who speaks to the kernel: ``direct``, ``pyfuse3``, or ``auto``, which takes what fits."""
    workers: int | None = None
    """Processes that the direct engine serves with; None = one a core, at most 8."""
    wait: float = 60.0
    """Seconds that one request may wait for disk and network before it fails with EIO."""

    def fuse_options(self) -> set[str]:
        """The options of mount(2) and libfuse that make this mount."""
        # A comma would end the option, and pyfuse3 hands libfuse ASCII.
        source = self.source.encode("ascii", "replace").decode().replace("\\", r"\\").replace(",", r"\,")
        options = {f"fsname={source}", "subtype=artfs", "default_permissions", "nosuid", "nodev", "noatime"}
        options.add("ro" if self.read_only else "rw")
        if self.allow_other:
            options.add("allow_other")
        if not self.exec:
            options.add("noexec")
        return options


def _decimal(text: str) -> int:
    return _at_least(0, int(text))


def _positive(text: str) -> int:
    return _at_least(1, int(text))


def _permissions(text: str) -> int:
    bits = int(text, 8)
    if not 0 <= bits <= 0o777:
        raise ValueError(text)
    return bits


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 86400:
        raise ValueError(text)
    return seconds


def _at_least(least: int, number: int) -> int:
    if not least <= number < 2**31:
        raise ValueError(number)
    return number


def _source(text: str) -> str:
    if not 0 < len(text.encode(errors="replace")) <= MOST_SOURCE:
        raise ValueError(text)
    return text


def _engine(text: str) -> str:
    if text not in ENGINES:
        raise ValueError(text)
    return text


def _workers(text: str) -> int:
    number = _positive(text)
    if number > MOST_WORKERS:
        raise ValueError(text)
    return number


_VALUES: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    "uid": ("uid", _decimal, "a number"),
    "gid": ("gid", _decimal, "a number"),
    "file_mode": ("file_mode", _permissions, "an octal number up to 777"),
    "dir_mode": ("dir_mode", _permissions, "an octal number up to 777"),
    "max_background": ("max_background", _positive, "a positive number"),
    "read_ahead_kb": ("read_ahead_kb", _positive, "a positive number"),
    "wait": ("wait", _seconds, "a number of seconds"),
    "engine": ("engine", _engine, f"one of {', '.join(ENGINES)}"),
    "workers": ("workers", _workers, f"a number from 1 to {MOST_WORKERS}"),
    "fsname": ("source", _source, f"a name of at most {MOST_SOURCE} bytes"),
}
_FLAGS: Mapping[str, tuple[str, bool]] = {
    "allow_other": ("allow_other", True),
    "exec": ("exec", True),
    "noexec": ("exec", False),
}
# What mount(8) and fstab say to themselves, and what every artfs mount is anyway.
_IGNORED = frozenset(
    {
        "_netdev", "async", "auto", "default_permissions", "defaults", "group", "noatime", "noauto", "nodev",
        "nodiratime", "nofail", "nosuid", "nouser", "owner", "relatime", "ro", "user", "users",
    }
)  # fmt: skip
_IGNORED_PREFIXES = ("x-", "X-", "comment=", "user=", "subtype=", "uhelper=", "helper=")
_REFUSED: Mapping[str, str] = {
    "rw": "a version never changes; `artfs mount --writable` mounts a copy that can be committed",
    "suid": "an artifact must not bring setuid programs",
    "dev": "an artifact must not bring device nodes",
}


def parse_options(text: str, base: MountOptions | None = None, *, sloppy: bool = False) -> MountOptions:
    """The options in a comma-separated ``-o`` string, over ``base``. Later ones win.

    ``sloppy`` passes over unknown options, as ``mount -s`` asks. Raises ``InvalidInput`` naming the option.
    """
    changes: dict[str, Any] = {}
    for option in filter(None, text.split(",")):
        name, equals, value = option.partition("=")
        if option in _IGNORED or option.startswith(_IGNORED_PREFIXES):
            continue
        if option in _REFUSED:
            raise InvalidInput(f"mount option {option!r} is refused: {_REFUSED[option]}")
        if option in _FLAGS:
            field, setting = _FLAGS[option]
            changes[field] = setting
        elif equals and name in _VALUES:
            field, convert, wanted = _VALUES[name]
            try:
                changes[field] = convert(value)
            except ValueError:
                raise InvalidInput(f"mount option {option[:64]!r}: {name} must be {wanted}") from None
        elif not sloppy:
            known = ", ".join(sorted({*_FLAGS, *(f"{each}=" for each in _VALUES)}))
            raise InvalidInput(f"unknown mount option {option!r}; artfs knows {known}")
    return attrs.evolve(base or MountOptions(), **changes)
