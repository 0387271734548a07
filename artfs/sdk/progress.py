"""How far a long call has come, on standard error where that is a terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

_FIRST: Final = 1.0
"""Seconds before the first line: short calls say nothing."""
_EVERY: Final = 0.2


@contextlib.contextmanager
def progress(verb: str, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
    """A function to call with more files and more bytes, from any thread. Silent where nobody looks."""
    if not sys.stderr.isatty():
        yield lambda _files, _size: None
        return
    lock = threading.Lock()
    began = time.monotonic()
    files = size = 0
    shown = began + _FIRST - _EVERY

    def report(more_files: int, more_size: int) -> None:
        nonlocal files, size, shown
        with lock:
            files, size = files + more_files, size + more_size
            now = time.monotonic()
            if now - shown < _EVERY:
                return
            shown = now
            part = f" ({100 * size // total} %)" if total else ""
            rate = size / max(now - began, 0.001) / 1e6
            print(f"\r\x1b[Kartfs: {verb} {files} files, {size / 1e6:.1f} MB{part}, {rate:.0f} MB/s",
                  end="", file=sys.stderr, flush=True)  # fmt: skip

    try:
        yield report
    finally:
        if shown > began + _FIRST:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
