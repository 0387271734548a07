"""Rebuilding a lost registry from the records, catalogs and packs in the store."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import attrs

from artfs.catalog import Catalog, PackInfo
from artfs.errors import ArtfsError
from artfs.registry import Registry, VersionRecord
from artfs.store import ObjectStore, claim_store, read_index, read_records
from artfs.versions.repository import Repository, fetch_catalog

log = logging.getLogger(__name__)

_TIMEOUT: Final = 600.0


@attrs.frozen
class Rebuilt:
    """The outcome."""

    versions: int
    """Versions and links that the registry has again."""
    lost: tuple[str, ...]
    """Names of those whose catalog or packs cannot be read; the log says why."""


def rebuild(repository: Repository) -> Rebuilt:
    """Put every version of the store into the registry that it lacks, and make the store this registry's.

    Names, aliases, numbers, tags and metadata come back as their last record has them; runs and drafts do not. May be
    repeated.
    """
    registry, store = repository.registry, repository.store
    claim_store(store, registry.id, deadline=time.monotonic() + _TIMEOUT, take_over=True)
    versions = 0
    lost = []
    known: set[str] = set()
    for record in read_records(store):
        try:
            registry.import_version(_with_packs(registry, store, record, known))
            versions += 1
        except ArtfsError as error:
            log.warning("%s cannot be rebuilt: %s", record.name, error)
            lost.append(str(record.name))
    return Rebuilt(versions, tuple(lost))


def _with_packs(registry: Registry, store: ObjectStore, record: VersionRecord, known: set[str]) -> VersionRecord:
    """The record with the packs that its catalog names, each of them registered."""
    if record.content is None:
        return record
    with TemporaryDirectory(prefix="artfs-rebuild-") as folder:
        path = Path(folder) / "catalog"
        fetch_catalog(store, record.content.catalog_key, record.content.catalog_sha256, path)
        catalog = Catalog(path, str(record.name))
        try:
            packs = list(catalog.packs())
        finally:
            catalog.close()
    for pack in packs:
        if pack.key not in known:
            _register(registry, store, pack)
            known.add(pack.key)
    return attrs.evolve(record, content=attrs.evolve(record.content, packs=[pack.key for pack in packs]))


def _register(registry: Registry, store: ObjectStore, pack: PackInfo) -> None:
    extents = read_index(store, pack.key, time.monotonic() + _TIMEOUT)
    registry.register_pack(None, pack.key, pack.size, pack.checksums, extents)
