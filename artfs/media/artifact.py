"""What a media value needs of the artifact that it is written to or read from: no more than the documented methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from artfs.media.value import WBValue


class Entry(Protocol):
    """One file or reference of an artifact."""

    @property
    def path(self) -> str:
        """Its path in the artifact."""

    @property
    def digest(self) -> str:
        """Its digest, as the manifest has it."""

    def download(self) -> str:
        """The local path of its content, fetched if it is not there yet."""

    def ref_url(self) -> str:
        """The URI by which another artifact can refer to it."""


class Manifest(Protocol):
    """The entries of an artifact, those of one that is still being written included."""

    def get_entry_by_path(self, path: str, /) -> Entry | None:
        """The entry at ``path``, or None."""

    def get_entries_in_directory(self, directory: str, /) -> Iterable[Entry]:
        """The entries below ``directory``."""


class Artifact(Protocol):
    """An artifact, as far as media values use one."""

    @property
    def manifest(self) -> Manifest:
        """The entries so far."""

    def new_file(self, name: str, mode: str = ..., encoding: str | None = ...) -> AbstractContextManager[IO[Any]]:
        """A file to write, which becomes the entry ``name`` when it is closed."""

    def add_file(self, local_path: str, name: str | None = ..., is_tmp: bool | None = ...) -> Entry:
        """Add a file. With ``is_tmp`` the part of its name before the first dot becomes its digest's first 20 digits.

        A file added with ``is_tmp`` does not change and stays in place until the process ends.
        """

    def add_reference(self, uri: str, name: str | None = ...) -> Sequence[Entry]:
        """Add a reference to ``uri``, which may be another entry's ``ref_url()``."""

    def get_added_local_path_name(self, local_path: str) -> str | None:
        """The entry that ``local_path`` was added as, or None."""

    def get_path(self, name: str) -> Entry:
        """The entry ``name``; raises KeyError if there is none."""

    def get(self, name: str) -> WBValue | None:
        """The value stored as ``name``, or None."""
