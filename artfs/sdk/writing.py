"""Filling an artifact: the ``add`` family, ``new_file`` and ``remove``."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Literal, cast

import attrs

from artfs.catalog import Entry, Kind, Reference
from artfs.digests import md5_raw
from artfs.errors import (
    ArtifactFinalizedError,
    InvalidInput,
    InvalidReference,
    PathConflict,
    PathNotFound,
    SourceUnreadable,
)
from artfs.names import check_path
from artfs.references import ARTIFACT_SCHEMES, scheme_of
from artfs.sdk import session
from artfs.sdk.attributes import Attributes, not_finalized
from artfs.sdk.draft import Row, entry_row, file_row, hash_file
from artfs.sdk.entry import ARTIFACT_SCHEME, CLIENT_SCHEME, ArtifactManifestEntry, of_row
from artfs.versions.scan import Symlinks, scan

if TYPE_CHECKING:
    from artfs.media import WBValue
    from artfs.sdk.artifact import Artifact

StrPath = str | os.PathLike[str]
Policy = Literal["mutable", "immutable"]

_TMP_DIGITS = 20
"""Hexadecimal digits of the digest that ``is_tmp`` names a file by."""


class Writing(Attributes):
    """What changes the contents of a draft; every method raises ArtifactFinalizedError once it is logged."""

    @not_finalized
    def add_file(
        self,
        local_path: StrPath,
        name: StrPath | None = None,
        is_tmp: bool | None = False,
        skip_cache: bool | None = False,  # noqa: ARG002 - W&B's: uploading puts nothing into the cache here
        policy: Policy | None = "mutable",
        overwrite: bool = False,
    ) -> ArtifactManifestEntry:
        """Add a local file under ``name`` (its base name).

        The file is read when the artifact is logged, not copied now: if it changed by then, logging raises
        SourceChanged. ``is_tmp``: its digest replaces the part of the name before the first dot. ``policy``: W&B's,
        both mean the same here. ``overwrite``: replace what is there under that name; else other content there raises
        PathConflict. Raises SourceUnreadable, InvalidPath; all three are ValueErrors.
        """
        _check_policy(policy)
        path = os.fspath(local_path)
        if not os.path.isfile(path):
            raise SourceUnreadable(path=path, why="Path is not a file")
        (file,) = scan(path, prefix=check_path(_text(name) if name else os.path.basename(path)))
        digest = None
        if is_tmp:
            digest = hash_file(file)
            directory, _, base = file.path.rpartition("/")
            renamed = ".".join([md5_raw(digest).hex()[:_TMP_DIGITS], *base.split(".")[1:]])
            file = attrs.evolve(file, path=f"{directory}/{renamed}" if directory else renamed)
        return self._entry(self.draft.add(file_row(file, digest), overwrite=overwrite))

    @not_finalized
    def add_dir(
        self,
        local_path: StrPath,
        name: StrPath | None = None,
        skip_cache: bool | None = False,  # noqa: ARG002 - as in add_file
        policy: Policy | None = "mutable",
        merge: bool = False,
        symlinks: Literal["follow", "keep", "error"] = "follow",
    ) -> None:
        """Add everything in a local directory, at the root of the artifact or below ``name``.

        Symbolic links are followed, as W&B does, unless ``symlinks`` says otherwise (as ``artfs log --symlinks``).
        What a ``.artfsignore`` in the directory names is left out. ``merge``: replace files that are there already
        with other content. Raises what ``add_file`` raises, and SourceMissing for a link to nothing.
        """
        _check_policy(policy)
        path = os.fspath(local_path)
        if not os.path.isdir(path):
            raise SourceUnreadable(path=path, why="Path is not a directory")
        text = _text(name or "")
        prefix = "" if text in {"", ".", "./"} else check_path(text)
        self.draft.add_tree(scan(path, prefix=prefix, symlinks=Symlinks(symlinks)), overwrite=merge)

    @contextlib.contextmanager
    @not_finalized
    def new_file(
        self, name: str, mode: str = "x", encoding: str | None = None, policy: Policy | None = "mutable"
    ) -> Iterator[IO[Any]]:
        """Open a new temporary file, which is added as ``name`` when it is closed without an exception.

        ``mode`` "x" (and "xb") raises ValueError (InvalidInput) if there is such a file already, "w" replaces it, "a"
        goes on with one that was made so. What is there already stays as it is until then.
        """
        _check_policy(policy)
        path = check_path(name)
        if "r" in mode:
            raise InvalidInput(f"mode {mode!r} does not make a file; use 'x', 'w' or 'a'")
        files, unfinished = self._new_files()
        file = Path(files, path)
        if "x" in mode and file.exists():
            raise InvalidInput(f"File with name {name!r} already exists at {str(file)!r}")
        # Written somewhere else: until it is whole, what it replaces must not be touched.
        directory = tempfile.mkdtemp(dir=unfinished)
        written = Path(directory, file.name)
        try:
            if "a" in mode and file.exists():
                shutil.copyfile(file, written)
            with written.open(mode, encoding=encoding) as stream:
                yield stream
            if self.is_final:
                raise ArtifactFinalizedError(name="new_file")
            _move(written, file, path, exclusive="x" in mode)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        self.add_file(str(file), name=path, policy=policy, overwrite="x" not in mode)

    def _new_files(self) -> tuple[str, str]:
        """Where ``new_file`` keeps what it made, until it is logged or nobody wants it, and where it makes it."""
        with self._opening:
            if self._files is None:
                self._directory = tempfile.mkdtemp(prefix="artfs-artifact-")
                self._files = weakref.finalize(self, _remove, self._directory, os.getpid())
            places = f"{self._directory}/files", f"{self._directory}/unfinished"
            for place in places:
                os.makedirs(place, exist_ok=True)
        return places

    @not_finalized
    def add_reference(
        self,
        uri: ArtifactManifestEntry | str,
        name: StrPath | None = None,
        checksum: bool = True,
        max_objects: int | None = None,
    ) -> Sequence[ArtifactManifestEntry]:
        """Add a reference to bytes that live elsewhere, or to everything below a directory or bucket prefix.

        ``uri``: http(s), s3, gs, Azure blob, file, any other (then ``name`` is needed), or the entry of another
        artifact, whose bytes then live on with this one. ``checksum=False`` asks nobody: the digest is the URI.
        ``max_objects``: 10,000,000 by default; more raise InvalidReference. Raises also InvalidPath, PathConflict (all
        ValueErrors), ReferenceMissing, AccessDenied, Unavailable, MissingExtra.
        """
        text = uri.ref_url() if isinstance(uri, ArtifactManifestEntry) else str(uri)
        path = None if name is None else _text(name)
        if scheme_of(text) in ARTIFACT_SCHEMES:
            return [self._entry(self.draft.add(self._artifact_reference(text, path)))]
        expanded = self.repository.references.expand(text, path, checksum=checksum, max_objects=max_objects)
        rows = [entry_row(entry) for entry in expanded]  # all of them, or none where one cannot be told
        return [self._entry(self.draft.add(row)) for row in rows]

    @not_finalized
    def add(self, obj: WBValue, name: StrPath, overwrite: bool = False) -> ArtifactManifestEntry:
        """Add a media value (Table, Image, ...) as ``<name>.<type>.json`` with the files that it speaks of.

        Raises TypeError (InvalidMedia) for what is none.
        """
        from artfs.media import add_value

        path = add_value(cast("Artifact", self), obj, _text(name), overwrite=overwrite)
        entry = self.manifest.get_entry_by_path(path)
        assert entry is not None
        return entry

    def __setitem__(self, name: str, item: WBValue) -> ArtifactManifestEntry:
        """Add a media value and answer its entry: ``add(item, name)``."""
        return self.add(item, name)

    @not_finalized
    def remove(self, item: StrPath | ArtifactManifestEntry) -> None:
        """Remove an entry, or everything in a directory; raises EntryNotFound (a FileNotFoundError)."""
        path = item.path if isinstance(item, ArtifactManifestEntry) else str(PurePosixPath(_text(item)))
        self.draft.remove(path)

    def get_added_local_path_name(self, local_path: str) -> str | None:
        """The name under which a local file was added; None if it was not, and once the artifact is logged."""
        return None if self._draft is None else self._draft.local(local_path)

    def resolve_client_references(self) -> None:
        """Make references to artifacts that were not logged when they were added what they are now.

        Raises InvalidReference if one still is not.
        """
        self.draft.resolve(CLIENT_SCHEME, lambda row: self._artifact_reference(row.ref or "", row.path, final=True))

    def _entry(self, row: Row) -> ArtifactManifestEntry:
        return of_row(row, cast("Artifact", self))

    def _artifact_reference(self, uri: str, name: str | None, *, final: bool = False) -> Row:
        """The row of a reference to another artifact's entry: its extents, or where its bytes live elsewhere."""
        identity, _, path = uri.partition("://")[2].partition("/")
        where = check_path(name or path.rpartition("/")[2])
        target = session.by_client_id.get(identity)
        if target is not None and final and target.is_being_logged:
            target.wait()
        if target is not None and not target.is_logged:
            if final:
                raise InvalidReference(uri=uri, why=f"artifact {target.name} was not logged; log it first")
            entry = target.manifest.get_entry_by_path(path)
            if entry is None:
                raise PathNotFound(path=path, name=target.name)
            return Row(where, Kind.REFERENCE, size=entry.size, digest=entry.digest, ref=uri)
        version = self.repository.registry.get(identity if target is None or target.id is None else target.id)
        catalog = self.repository.catalog(version)
        try:
            node = catalog.resolve(path)
            if node is None or node.kind not in {Kind.FILE, Kind.REFERENCE}:
                raise PathNotFound(path=path, name=version.name)
            found = next(catalog.entries(path))
        finally:
            catalog.close()
        return entry_row(_referring(attrs.evolve(found, path=where), f"{ARTIFACT_SCHEME}://{version.id}/{path}"))


def _referring(found: Entry, uri: str) -> Entry:
    """A reference to an entry; to a reference, what that one refers to."""
    if found.reference is not None:
        return found
    return attrs.evolve(found, kind=Kind.REFERENCE, reference=Reference(uri, found.digest, found.size))


def _remove(directory: str, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child
        shutil.rmtree(directory, ignore_errors=True)


def _move(written: Path, file: Path, path: str, *, exclusive: bool) -> None:
    """Give a file its place; raises PathConflict, and InvalidInput where ``exclusive`` and another was faster."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not exclusive:
            written.replace(file)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise PathConflict(path=path, a="a file", b="a directory") from None
    if exclusive:
        try:
            os.link(written, file)
        except FileExistsError:
            raise InvalidInput(f"File with name {path!r} already exists at {str(file)!r}") from None


def _text(path: StrPath) -> str:
    return os.fspath(path)


def _check_policy(policy: str | None) -> None:
    if policy not in {None, "mutable", "immutable"}:
        raise InvalidInput(f"Invalid policy {policy!r}. Policy may only be `mutable` or `immutable`.")
