"""Standard streams as they come from cron, from daemons and from pipes whose reader goes away."""

from __future__ import annotations

import codecs
import os
import sys
from typing import TextIO, cast

_ERRORS = "artfs.escape"


def open_standard_streams() -> None:
    """Have all three, at ``/dev/null`` where they were closed.

    Otherwise the next file, or the pipe to a daemon, would be descriptor 0, 1 or 2, and get what is printed.
    """
    for descriptor in range(3):
        if not _is_open(descriptor):
            opened = os.open(os.devnull, os.O_RDWR)
            assert opened == descriptor, "the lowest that is free"
            os.set_inheritable(descriptor, True)  # as standard streams are
    sys.stdin = sys.stdin or _stream(0, "r")
    sys.stdout = sys.stdout or _stream(1, "w")
    sys.stderr = sys.stderr or _stream(2, "w")
    codecs.register_error(_ERRORS, _escape)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors=_ERRORS)  # type: ignore[union-attr]  # typed as TextIO, made as TextIOWrapper


def flush_standard_streams() -> None:
    """Write what is buffered. What cannot be written is dropped: Python would try again, and exit with 120."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _stream(descriptor: int, mode: str) -> TextIO:
    return cast("TextIO", open(descriptor, mode, encoding="utf-8", closefd=False))


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """The byte that a lone surrogate stands for in a file's name, and Python's escape for what a terminal lacks."""
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return character.encode("ascii", "backslashreplace"), error.start + 1
