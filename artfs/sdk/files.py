"""The files of a logged artifact, a page at a time."""

from __future__ import annotations

import itertools
import mimetypes
import os
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, overload

import attrs

from artfs.errors import InvalidInput
from artfs.sdk.entry import ArtifactManifestEntry

if TYPE_CHECKING:
    from artfs.sdk.artifact import Artifact


@attrs.frozen
class File:
    """A file or reference of a logged artifact."""

    _entry: ArtifactManifestEntry

    @property
    def name(self) -> str:
        """Its path in the artifact."""
        return self._entry.path

    @property
    def size(self) -> int:
        """Bytes; 0 where a reference's is unknown."""
        return self._entry.size or 0

    @property
    def digest(self) -> str:
        """As in the manifest."""
        return self._entry.digest

    @property
    def md5(self) -> str:
        """The digest, by another name."""
        return self._entry.digest

    @property
    def mimetype(self) -> str | None:
        """What its name says of its type."""
        return mimetypes.guess_type(self.name)[0]

    @property
    def url(self) -> str:
        """URI of the entry."""
        return self._entry.ref_url()

    @property
    def direct_url(self) -> str:
        """Where its bytes are: the URI of a reference, else the entry's."""
        return self._entry.ref or self._entry.ref_url()

    def download(self, root: str | os.PathLike[str] = ".", replace: bool = False, exist_ok: bool = False) -> IO[str]:
        """Copy it below ``root`` and open it for reading.

        If there is such a file already: ``replace`` writes it anew unless it is right, ``exist_ok`` takes it as it is;
        else ValueError (InvalidInput).
        """
        path = os.path.join(root, self.name)
        if os.path.exists(path) and not replace:
            if not exist_ok:
                raise InvalidInput(f"File already exists: {path}; pass replace=True or exist_ok=True")
        else:
            self._entry.download(root)
        return open(path, encoding="utf-8")

    def __repr__(self) -> str:
        return f"<File {self.name} ({self.mimetype})>"


class ArtifactFiles:
    """An iterator over ``File`` objects; ``len`` and indexing work too."""

    def __init__(self, artifact: Artifact, names: Sequence[str] | None, per_page: int, start: str | None) -> None:
        """``names``: only these paths; ``start``: the ``cursor`` of another one to go on from."""
        self._artifact = artifact
        self._names = None if names is None else sorted(set(names))
        self.per_page = per_page
        self.cursor = start
        """The path that was answered last."""
        self._iterator = self._files(start)

    def __iter__(self) -> Iterator[File]:
        return self._files(None)

    def __next__(self) -> File:
        file = next(self._iterator)
        self.cursor = file.name
        return file

    def __len__(self) -> int:
        if self._names is None:
            return len(self._artifact.manifest)
        return sum(1 for _ in self._files(None))

    @overload
    def __getitem__(self, index: int) -> File: ...

    @overload
    def __getitem__(self, index: slice) -> list[File]: ...

    def __getitem__(self, index: int | slice) -> File | list[File]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step > 0:
                return list(itertools.islice(self._files(None), start, stop, step))
            return [self[position] for position in range(start, stop, step)]
        position = index + len(self) if index < 0 else index
        for file in itertools.islice(self._files(None), max(position, 0), None):
            if position >= 0:
                return file
        raise IndexError(index)

    def __repr__(self) -> str:
        return f"<ArtifactFiles {self._artifact.name} ({len(self)})>"

    def _files(self, after: str | None) -> Iterator[File]:
        entries = self._artifact.manifest.entries
        names = self._names
        found = entries.values() if names is None else (entries[name] for name in names if name in entries)
        return (File(entry) for entry in found if after is None or entry.path > after)
