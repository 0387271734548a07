"""A file system that programs can change: what ``Tree`` is for reading, with the operations of POSIX for writing.

As in ``Tree``: synchronous, thread-safe, told by ``deadline`` whether they may wait. Operations without one answer
from local disk in microseconds; ``sync_file`` and ``sync`` wait for the disk and belong in a thread.

All raise ``NotFound`` for an inode or name that does not exist, the ``Refused`` classes of ``artfs.errors`` where
POSIX names an errno, ``DiskFull``, and ``LocalIOError``.
"""

from __future__ import annotations

from typing import Protocol

from artfs.vfs.tree import Attributes, Tree


class WritableTree(Tree, Protocol):
    """A file system for reading and writing."""

    def create(self, parent: int, name: str, mode: int) -> Attributes:
        """A new empty file, opened once as by ``open``; raises AlreadyExists."""

    def make_directory(self, parent: int, name: str, mode: int) -> Attributes:
        """A new empty directory; raises AlreadyExists."""

    def make_symlink(self, parent: int, name: str, target: str) -> Attributes:
        """A new symlink; raises AlreadyExists."""

    def link(self, inode: int, parent: int, name: str) -> Attributes:
        """One more name for what is no directory; raises AlreadyExists, Refused."""

    def unlink(self, parent: int, name: str) -> None:
        """Remove a name; the content goes when the last name is gone and the last opener has released it."""

    def remove_directory(self, parent: int, name: str) -> None:
        """Remove an empty directory; raises DirectoryNotEmpty."""

    def rename(
        self, parent: int, name: str, new_parent: int, new_name: str, *, replace: bool = True, exchange: bool = False
    ) -> None:
        """Move a name, atomically; without ``replace`` raises AlreadyExists (``RENAME_NOREPLACE``), with ``exchange``
        both names must exist and change places (``RENAME_EXCHANGE``).
        """

    def set_attributes(
        self, inode: int, mode: int | None, size: int | None, mtime_ns: int | None, deadline: float | None
    ) -> Attributes:
        """Change what is not None. The size of a reference that nobody knows may have to be asked for."""

    def open(self, inode: int) -> None:
        """A program opened a file: its content stays until as many releases, even without a name."""

    def release(self, inode: int) -> None:
        """A program closed a file."""

    def write(self, inode: int, offset: int, data: bytes | memoryview, deadline: float | None) -> int:
        """Write at ``offset``; how many bytes were written."""

    def sync_file(self, inode: int, *, data_only: bool) -> None:
        """Return when a file and its name would outlive a power cut."""

    def sync(self) -> None:
        """Return when all changes of names and attributes would outlive a power cut."""
