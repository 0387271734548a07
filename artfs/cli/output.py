"""How commands print: sizes, times, JSON, progress."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import click

from artfs.errors import ArtfsError

_EVERY_TERMINAL: Final = 0.1
_EVERY_PLAIN: Final = 5.0
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")


def json_option(function: _F) -> _F:
    """The option ``--json`` of every command that prints data."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def print_json(value: Any) -> None:
    """One JSON document."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
    click.echo(text.encode(errors="backslashreplace").decode())  # of a lone surrogate, that is JSON's own escape


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def size(count: float | None) -> str:
    """Bytes for people, in powers of 1024."""
    if count is None:
        return "?"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def count(number: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """``text`` with Python's escapes for what a terminal would obey: control characters, but line ends and tabs."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def moment(when: datetime) -> str:
    """A time for people, in the local zone."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def table(rows: Iterable[Sequence[str]]) -> None:
    """Columns, each as wide as its widest cell, the last as it comes."""
    lines = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)][:-1]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=True)]
        click.echo("  ".join([*cells, line[-1]]))


def each(items: Iterable[_T], act: Callable[[_T], None]) -> None:
    """Do something with every item, whatever became of those before it; the last failure is raised, others are said."""
    failure: ArtfsError | None = None
    for item in items:
        try:
            act(item)
        except ArtfsError as error:
            if failure is not None:
                click.echo(f"artfs: {failure}", err=True)
            failure = error
    if failure is not None:
        raise failure


class Progress:
    """Files and bytes as they go by: a line that renews itself on a terminal, a line every 5 s elsewhere.

    Called from any thread; on standard error, so that standard output stays clean.
    """

    def __init__(self, verb: str, total: int | None = None) -> None:
        self._verb = verb
        self._total = total
        self._files = 0
        self._bytes = 0
        self._began = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._lock = threading.Lock()

    def __call__(self, files: int, bytes_: int) -> None:
        """Take note of ``files`` more files and ``bytes_`` more bytes."""
        with self._lock:
            self._files += files
            self._bytes += bytes_
            now = time.monotonic()
            if now - self._shown >= (_EVERY_TERMINAL if self._terminal else _EVERY_PLAIN):
                self._shown = now
                self._show(now)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal:
            click.echo("\r\x1b[K", nl=False, err=True)

    def _show(self, now: float) -> None:
        rate = self._bytes / max(now - self._began, 0.001)
        part = f" ({100 * self._bytes // self._total} %)" if self._total else ""
        line = f"{self._verb} {count(self._files, 'file')}, {size(self._bytes)}{part}, {size(rate)}/s"
        click.echo(f"\r\x1b[K{line}" if self._terminal else line, nl=not self._terminal, err=True)
