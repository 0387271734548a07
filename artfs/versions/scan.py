"""Walking a source directory in the order in which a catalog is built, one directory's names in memory at a time."""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from artfs.catalog import Kind, bounded_time
from artfs.errors import InvalidPattern, SourceMissing, SourceUnreadable
from artfs.names import check_part, check_path

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".artfsignore"
"""Patterns as in .gitignore, read from the top of the source; it is logged itself, as .gitignore is committed."""


_INT64: Final = 1 << 63


class Symlinks(enum.Enum):
    """What becomes of symbolic links in the source."""

    KEEP = "keep"
    """Relative links that stay inside the source stay links; the others are followed."""
    FOLLOW = "follow"
    """Every link is followed, as W&B does."""
    ERROR = "error"
    """Relative links that stay inside the source stay links; another is an error."""


@attrs.frozen
class SourceFile:
    """One path to be logged, and what stat said of it."""

    path: str
    """In the version."""
    source: str
    """On this machine."""
    kind: Kind
    mode: int
    size: int
    mtime_ns: int
    """Within ``bounded_time``."""
    identity: tuple[int, int, int] = (0, 0, 0)
    """Of ``identity_of``: with size and mtime, what tells that a file has not changed."""
    target: str = ""

    def is_still(self, status: os.stat_result) -> bool:
        """Whether a later stat says the same."""
        found = (status.st_size, bounded_time(status.st_mtime_ns), identity_of(status))
        return found == (self.size, self.mtime_ns, self.identity)


def identity_of(status: os.stat_result) -> tuple[int, int, int]:
    """Device, inode and ctime, as SQLite's signed 64 bits hold them.

    Inode numbers are unsigned, and overlayfs and network file systems use the highest bit.
    """
    return _signed(status.st_dev), _signed(status.st_ino), bounded_time(status.st_ctime_ns)


def _signed(number: int) -> int:
    return (number + _INT64) % (2 * _INT64) - _INT64


class Exclusion:
    """Which paths are left out: ``--exclude`` patterns and the source's ``.artfsignore``, in .gitignore's syntax."""

    def __init__(self, patterns: Iterable[str], root: str) -> None:
        lines: list[str] = []
        try:
            lines = Path(root, IGNORE_FILE).read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            pass  # most sources have none
        except OSError as error:
            raise SourceUnreadable(path=os.path.join(root, IGNORE_FILE), why=error.strerror) from error
        except UnicodeDecodeError as error:
            raise SourceUnreadable(path=os.path.join(root, IGNORE_FILE), why="it is not UTF-8") from error
        lines += patterns
        self._spec: GitIgnoreSpec | None = None
        if lines:
            self._spec = _spec(lines)

    def __call__(self, path: str) -> bool:
        """Whether ``path`` (relative to the source, directories with a slash at the end) is left out."""
        return self._spec is not None and self._spec.match_file(path)


def _spec(lines: list[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # most sources have nothing to leave out

    for line in lines:
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError as error:
            raise InvalidPattern(pattern=line) from error
    return GitIgnoreSpec.from_lines(lines)


def scan(
    root: str | os.PathLike[str],
    *,
    prefix: str = "",
    symlinks: Symlinks = Symlinks.KEEP,
    exclude: Iterable[str] = (),
) -> Iterator[SourceFile]:
    """Everything to be logged of a file or directory, in path order, directories just before what they hold.

    ``prefix`` is the path in the version under which a directory's content goes; for a single file, its whole path
    (default: its base name). Raises SourceUnreadable and InvalidPath, naming the path, and
    InvalidPattern.
    """
    top = os.fspath(root)
    status = _stat(top)
    if stat.S_ISDIR(status.st_mode):
        yield from _Scan(top, symlinks, Exclusion(exclude, top)).directory(top, "", prefix, [_identity(status)])
        return
    _refuse_special(top, status)
    yield _file(check_path(prefix or os.path.basename(top)), top, status)


class _Scan:
    def __init__(self, root: str, symlinks: Symlinks, excluded: Exclusion) -> None:
        self._root = root
        self._symlinks = symlinks
        self._excluded = excluded

    def directory(
        self, source: str, relative: str, prefix: str, ancestors: list[tuple[int, int]]
    ) -> Iterator[SourceFile]:
        """What lies beneath a directory at ``relative`` in the source and ``prefix`` in the version."""
        for key, name, status, target in sorted(self._list(source, relative), key=lambda item: item[0]):
            path = f"{prefix}/{name}" if prefix else name
            below = f"{relative}/{name}" if relative else name
            full = os.path.join(source, name)
            if target is not None:
                mtime_ns = bounded_time(status.st_mtime_ns)
                yield SourceFile(path, full, Kind.SYMLINK, 0o777, len(target), mtime_ns, target=target)
            elif stat.S_ISDIR(status.st_mode):
                check_path(path)
                mode = stat.S_IMODE(status.st_mode) & 0o777
                yield SourceFile(path, full, Kind.DIRECTORY, mode, 0, bounded_time(status.st_mtime_ns))
                if key.endswith("/"):
                    if _identity(status) in ancestors:
                        raise SourceUnreadable(path=full, why="it is a symbolic link to a directory that holds it")
                    yield from self.directory(full, below, path, [*ancestors, _identity(status)])
            else:
                _refuse_special(full, status)
                check_path(path)
                yield _file(path, full, status)

    def _list(self, source: str, relative: str) -> Iterator[tuple[str, str, os.stat_result, str | None]]:
        """Names with what stat says of them and where links that are kept lead; first of all the key to sort by.

        A directory that holds something sorts as if a slash followed its name: that is where its paths sort.
        """
        try:
            with os.scandir(source) as entries:
                for entry in entries:
                    below = f"{relative}/{entry.name}" if relative else entry.name
                    target = self._kept_target(entry, relative) if entry.is_symlink() else None
                    status = entry.stat(follow_symlinks=False) if target is not None else _stat(entry.path)
                    is_directory = stat.S_ISDIR(status.st_mode)
                    if self._excluded(f"{below}/" if is_directory else below):
                        continue
                    check_part(entry.name, below)
                    filled = is_directory and self._holds_something(entry.path, below)
                    yield (entry.name + "/" if filled else entry.name, entry.name, status, target)
        except SourceMissing:
            raise
        except OSError as error:
            raise SourceUnreadable(path=error.filename or source, why=error.strerror) from error

    def _holds_something(self, source: str, relative: str) -> bool:
        with os.scandir(source) as entries:
            return any(
                not self._excluded(f"{relative}/{entry.name}" + ("/" if entry.is_dir() else "")) for entry in entries
            )

    def _kept_target(self, entry: os.DirEntry[str], relative: str) -> str | None:
        """Where a link leads that stays a link; None if it is to be followed."""
        if self._symlinks is Symlinks.FOLLOW:
            return None
        target = os.readlink(entry.path)
        # Lexically: a link through a directory that is itself followed leads to the copy in the version.
        if not target.startswith("/") and _never_leaves(relative, target):
            return target
        if self._symlinks is Symlinks.ERROR:
            raise SourceUnreadable(path=entry.path, why=f"it is a symbolic link that leaves {self._root}")
        return None


def _never_leaves(relative: str, target: str) -> bool:
    depth = 0
    for part in f"{relative}/{target}".split("/"):
        if part == "..":
            depth -= 1
        elif part not in {"", "."}:
            depth += 1
        if depth < 0:
            return False
    return True


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except FileNotFoundError as error:
        why = "it is a symbolic link to nothing" if os.path.islink(path) else "it does not exist"
        raise SourceMissing(path=path, why=why) from error
    except OSError as error:
        raise SourceUnreadable(path=path, why=error.strerror) from error


def _refuse_special(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SourceUnreadable(path=path, why="it is neither a file nor a directory; leave it out with --exclude")


def _identity(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def _file(path: str, source: str, status: os.stat_result) -> SourceFile:
    return SourceFile(
        path,
        source,
        Kind.FILE,
        stat.S_IMODE(status.st_mode) & 0o777,
        status.st_size,
        bounded_time(status.st_mtime_ns),
        identity_of(status),
    )
