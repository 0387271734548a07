"""The file behind a media value: on the local disk, in an artifact (fetched when it is used), or at a remote URI."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import re
import shutil
import tempfile
import uuid
from typing import Final, Protocol

import attrs

from artfs.errors import SourceUnreadable
from artfs.media.artifact import Artifact, Entry

_DIGEST_DIGITS: Final = 20
"""Hexadecimal digits of the SHA-256 that W&B names the directory of a user's file by."""

_REMOTE: Final = re.compile(r"(gs|s3|https?)://")


class MediaFile(Protocol):
    """Where a value's bytes are."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the content in hexadecimal; of the URI where the content is remote."""

    def local_path(self) -> str:
        """A local file with the content."""

    def add_to(self, artifact: Artifact, directory: str) -> str:
        """Make the file an entry of ``artifact``, in ``directory`` if it has no place yet; returns the path."""


@attrs.frozen(slots=False)
class LocalFile:
    """A file on the disk: a user's, or one that a value wrote for itself."""

    path: str
    temporary: bool = False

    @functools.cached_property
    def sha256(self) -> str:
        """Computed once, when it is first asked for."""
        with open(self.path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def local_path(self) -> str:
        return self.path

    def add_to(self, artifact: Artifact, directory: str) -> str:
        known = artifact.get_added_local_path_name(self.path)
        if known is not None:
            return known
        basename = os.path.basename(self.path)
        if self.temporary:
            return artifact.add_file(self.path, f"{directory}/{basename}", is_tmp=True).path
        return artifact.add_file(self.path, f"{directory}/{self.sha256[:_DIGEST_DIGITS]}/{basename}").path


@attrs.frozen
class StoredFile:
    """An entry of an artifact, which another artifact takes over by reference."""

    entry: Entry
    sha256: str

    def local_path(self) -> str:
        return self.entry.download()

    def add_to(self, artifact: Artifact, directory: str) -> str:  # noqa: ARG002  # it keeps the place that it has
        path = self.entry.path
        present = artifact.manifest.get_entry_by_path(path)
        if present is None or present.digest != self.entry.digest:
            artifact.add_reference(self.entry.ref_url(), name=path)
        return path


@attrs.frozen
class RemoteFile:
    """A URI, which the artifact refers to."""

    uri: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.uri.encode()).hexdigest()

    def local_path(self) -> str:
        raise SourceUnreadable(path=self.uri, why="its content is remote; read it from an artifact that was logged")

    def add_to(self, artifact: Artifact, directory: str) -> str:
        name = f"{directory}/{self.sha256[:_DIGEST_DIGITS]}/{os.path.basename(self.uri)}"
        return artifact.add_reference(self.uri, name=name)[0].path


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether W&B takes ``path`` for a URI rather than a local file: gs, s3, http and https."""
    return isinstance(path, str) and _REMOTE.match(path) is not None


def user_file(path: str | os.PathLike[str]) -> LocalFile:
    """The file at ``path``; raises SourceUnreadable if there is none."""
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise SourceUnreadable(path=name, why="it is not a file")
    return LocalFile(name)


def temporary_path(suffix: str) -> str:
    """A new path, for a file that stays until the process ends: an artifact may be logged long after its values died.

    The name holds no dot but those of ``suffix``: W&B replaces what stands before the first dot by a digest.
    """
    return os.path.join(_temporary_directory(), uuid.uuid4().hex + suffix)


@functools.cache
def _temporary_directory() -> str:
    path = tempfile.mkdtemp(prefix="artfs-media-")
    atexit.register(_remove, path, os.getpid())
    return path


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child
        shutil.rmtree(path, ignore_errors=True)
