"""Using a logged artifact: its entries, its files on the local disk, its media values."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from artfs.cache import Cache
from artfs.errors import EntryNotFound, InvalidInput, InvalidPath, VersionNotFound
from artfs.names import check_path
from artfs.registry import State
from artfs.sdk.attributes import logged
from artfs.sdk.entry import ARTIFACT_SCHEME, ArtifactManifestEntry
from artfs.sdk.files import ArtifactFiles
from artfs.sdk.progress import progress
from artfs.sdk.writing import StrPath, Writing
from artfs.versions.download import checkout, download, verify

if TYPE_CHECKING:
    from artfs.media import WBValue
    from artfs.sdk.artifact import Artifact

log = logging.getLogger(__name__)

_PASSING_CACHE: Final = 256 << 20
"""Most bytes on disk at a time of what a download with ``skip_cache`` fetches."""


class Reading(Writing):
    """What reads a version; every method raises ArtifactNotLoggedError before there is one."""

    @logged
    def get_entry(self, name: StrPath) -> ArtifactManifestEntry:
        """The entry ``name``, or the one of a media value added under that name.

        Raises EntryNotFound, a KeyError.
        """
        text = os.fspath(name)
        try:
            found = self.manifest.get_entry_by_path(check_path(text)) or self._value_entry(text)
        except InvalidPath:
            found = None
        if found is None:
            raise EntryNotFound(f"Path not contained in artifact: {text!r} is not in {self.name}")
        return found

    @logged
    def get_path(self, name: StrPath) -> ArtifactManifestEntry:
        """The same, by its former name."""
        return self.get_entry(name)

    @logged
    def get(self, name: str) -> WBValue | None:
        """The media value added as ``name``; None if there is none. Raises InvalidMedia, MissingExtra."""
        from artfs.media import get_value

        return get_value(cast("Artifact", self), name)

    @logged
    def __getitem__(self, name: str) -> WBValue | None:
        """The media value added as ``name``: ``get(name)``."""
        return self.get(name)

    @logged
    def files(self, names: Sequence[str] | None = None, per_page: int = 50, start: str | None = None) -> ArtifactFiles:
        """Iterate over the files (those of ``names``), read ``per_page`` at a time.

        ``start``: the ``cursor`` of an iteration to go on with.
        """
        return ArtifactFiles(cast("Artifact", self), names, per_page, start)

    @logged
    def download(
        self,
        root: StrPath | None = None,
        recursive: bool = False,
        allow_missing_references: bool = False,
        skip_cache: bool | None = None,
        path_prefix: StrPath | None = None,
        multipart: bool | None = None,  # noqa: ARG002 - W&B's: ranges are always fetched in parallel
    ) -> str:
        """Copy the contents into ``root`` (``./artifacts/<source_name>``), and answer it.

        Other files there are left alone, and files that are right already are not written again: every file's digest
        is compared. Every byte from the store is checked. What is in the cache already is not fetched. A reference
        that cannot be read fails the download after everything else was copied; ``allow_missing_references`` allows
        that some are gone or of a scheme that cannot be read.
        ``recursive``: also download whole artifacts that entries refer to, each to its own default directory.
        ``skip_cache``: leave nothing in the cache. ``path_prefix``: only paths that begin with it.
        """
        target = self._root(root)
        with self._cache(skip_cache=bool(skip_cache)) as cache, progress("downloaded", self.size) as report:
            download(
                self.repository,
                self.catalog(),
                target,
                prefix="" if path_prefix is None else os.fspath(path_prefix),
                allow_missing_references=allow_missing_references,
                cache=cache,
                progress=report,
            )
        if recursive:
            for artifact in self._dependencies():
                artifact.download(allow_missing_references=allow_missing_references, skip_cache=skip_cache)
        return target

    @logged
    def checkout(self, root: StrPath | None = None) -> str:
        """Make ``root`` (``./artifacts/<collection>``) hold exactly the contents, and answer it.

        DELETES every file in it that is not in the artifact.
        """
        target = self._root(root, version=False)
        with progress("checked out", self.size) as report:
            checkout(self.repository, self.catalog(), target, progress=report)
        return target

    @logged
    def verify(self, root: StrPath | None = None) -> None:
        """Compare a directory with the manifest; raises VerificationFailed (a ValueError) that names every difference.

        Without ``root`` the default directory of ``download`` is verified; if it does not exist the artifact is
        downloaded first. References to bytes outside the store are not verified.
        """
        target = self._root(root)
        if root is None and not os.path.isdir(target):
            self.download()
        with progress("verified", self.size) as report:
            verify(self.catalog(), target, progress=report)

    @logged
    def file(self, root: StrPath | None = None) -> str:
        """Download the one file of the artifact into ``root`` (``./artifacts/<name>``) and answer its path.

        Raises ValueError (InvalidInput) unless there is exactly one.
        """
        entries = self.manifest.entries
        if len(entries) != 1:
            raise InvalidInput(
                f"This artifact contains {len(entries)} files, call `.download()` to get all files or call "
                '`.get_entry("filename").download()`'
            )
        return next(iter(entries.values())).download(root or _default_root(self.name))

    @logged
    def download_entry(self, path: str, root: StrPath | None = None, *, skip_cache: bool = False) -> str:
        """Copy one entry below ``root`` and answer the file's path."""
        target = self._root(root)
        with self._cache(skip_cache=skip_cache) as cache:
            download(self.repository, self.catalog(), target, path=path, cache=cache)
        return os.path.join(target, path)

    def _value_entry(self, name: str) -> ArtifactManifestEntry | None:
        from artfs.media import value_path

        path = value_path(cast("Artifact", self), name)
        return None if path is None else self.manifest.get_entry_by_path(path)

    def _root(self, root: StrPath | None, *, version: bool = True) -> str:
        if root is not None:
            return os.fspath(root)
        return _default_root(self.source_name if version else self.version_row.source_name.collection)

    def _dependencies(self) -> Iterator[Artifact]:
        """The artifacts that entries refer to, each once, but for those that were deleted."""
        seen = {self.id}
        for entry in self.manifest.entries.values():
            scheme, _, rest = (entry.ref or "").partition("://")
            identity = rest.partition("/")[0]
            if scheme == ARTIFACT_SCHEME and identity not in seen:
                seen.add(identity)
                try:
                    version = self.repository.registry.get(identity)
                except VersionNotFound:
                    version = None
                if version is not None and version.state is not State.DELETED:
                    yield cast("Artifact", self.of_version(self.repository, version))
                else:
                    log.warning("what %s refers to was deleted: of that artifact the entry alone is here", entry.path)

    @contextlib.contextmanager
    def _cache(self, *, skip_cache: bool) -> Iterator[Cache | None]:
        if not skip_cache:
            yield None
            return
        settings = self.repository.settings
        settings.cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="passing-", dir=settings.cache_dir) as directory:
            cache = Cache(Path(directory), limit=_PASSING_CACHE, free=settings.cache_free)
            try:
                yield cache
            finally:
                cache.close()


def _default_root(name: str) -> str:
    """Below ``$ARTFS_ARTIFACT_DIR``, ``$WANDB_ARTIFACT_DIR`` or ``./artifacts``."""
    top = os.environ.get("ARTFS_ARTIFACT_DIR") or os.environ.get("WANDB_ARTIFACT_DIR") or os.path.join(".", "artifacts")
    return os.path.join(top, name)
