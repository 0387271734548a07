"""Logging a file or directory as a new version of a collection."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from artfs.errors import PacksCondemned, SourceUnreadable, TypeRequired, VersionNotFound
from artfs.names import CollectionName, check_alias, check_tag, check_text, check_type
from artfs.registry import INHERIT, Ttl
from artfs.versions.ingest import Progress, ingest
from artfs.versions.publication import Publication, Published
from artfs.versions.repository import Repository
from artfs.versions.scan import Symlinks, scan

log = logging.getLogger(__name__)

_RETRIES: Final = 2


@attrs.frozen
class Labels:
    """What goes with the content of a new version; checked when it is made: raises InvalidName, InvalidText."""

    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    description: str | None = None
    metadata: Mapping[str, Any] | None = None
    ttl: Ttl = INHERIT

    def __attrs_post_init__(self) -> None:
        for alias in self.aliases:
            check_alias(alias)
        for tag in self.tags:
            check_tag(tag)
        if self.description is not None:
            check_text("description", self.description)


def log_path(
    repository: Repository,
    source: str | os.PathLike[str],
    collection: CollectionName,
    type_: str | None,
    *,
    labels: Labels = Labels(),
    symlinks: Symlinks = Symlinks.KEEP,
    exclude: Sequence[str] = (),
    progress: Progress = lambda _files, _size: None,
) -> Published:
    """Log everything in ``source`` as the next version of ``collection``.

    Content that a version of the collection has already makes no new version: its aliases move there. No ``type_``:
    that of the collection. Raises TypeRequired where there is none yet, TypeMismatch, SourceUnreadable, SourceChanged,
    InvalidPath, InvalidPattern, and what the store and the registry raise; then nothing is visible, and what reached
    the store is found by the next try.
    """
    type_ = _type_of(repository, collection) if type_ is None else check_type(type_)
    for _ in range(_RETRIES):
        try:
            return _log_once(repository, source, collection, type_, labels, symlinks, exclude, progress)
        except PacksCondemned as error:
            # The version was abandoned, as after hours of sleep, and garbage collection took what it had claimed.
            log.info("%s", error)
    return _log_once(repository, source, collection, type_, labels, symlinks, exclude, progress)


def _type_of(repository: Repository, collection: CollectionName) -> str:
    try:
        return repository.registry.collection(collection).type
    except VersionNotFound as error:
        raise TypeRequired(collection=collection) from error


def _log_once(
    repository: Repository,
    source: str | os.PathLike[str],
    collection: CollectionName,
    type_: str,
    labels: Labels,
    symlinks: Symlinks,
    exclude: Iterable[str],
    progress: Progress,
) -> Published:
    try:
        status = os.stat(source)
    except OSError as error:
        raise SourceUnreadable(path=os.fspath(source), why=error.strerror) from error
    with Publication(repository, collection, type_, origin="log") as publication:
        if stat.S_ISDIR(status.st_mode):
            publication.set_root(stat.S_IMODE(status.st_mode), status.st_mtime_ns)
        files = scan(os.path.abspath(source), symlinks=symlinks, exclude=exclude)
        for entry in ingest(files, publication.packs, repository.hashes, progress):
            publication.add(entry)
        return publication.commit(
            aliases=labels.aliases,
            tags=labels.tags,
            description=labels.description,
            metadata=labels.metadata,
            ttl=labels.ttl,
        )
