"""Garbage collection: deleting from the store what nothing needs any more, and nothing else.

Deleting a pack takes two runs. The first condemns, in a transaction of the registry: from then on nobody can come to
rely on it. A later one, a grace period after that, deletes the object and then forgets the row; so whoever opened a
version before it was deleted has that long to finish. A run that is interrupted anywhere is finished by the next one.

Objects that the registry has never heard of (an upload died before it could register them) are deleted by their age in
the store's own time. A pack is registered within ``REGISTER_WITHIN`` of being stored or not at all, so one that is
older than ``ORPHAN_AGE`` is not on its way any more.

Before anything else the records of versions are compared with the registry: if the store holds one that the registry
never had, the registry has lost something (an old backup, say), and what it does not know is not garbage.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, TypeVar

import attrs

from artfs.errors import Conflict, VersionNotFound
from artfs.registry import Registry, State, VersionRow
from artfs.store.backend import BATCH, StoredObject
from artfs.store.objects import ObjectStore
from artfs.store.records import PREFIX as RECORDS
from artfs.store.records import RECORD_NAME, record_key, write_record
from artfs.store.upload import REGISTER_WITHIN

log = logging.getLogger(__name__)

_T = TypeVar("_T")

ORPHAN_AGE: Final = 2 * REGISTER_WITHIN
"""Least age in seconds at which an unregistered object is garbage, and something being written that gives no sign of
life is abandoned, however short the grace period."""
_TIMEOUT: Final = 600.0
"""Seconds for one batch."""
_CLOCK: Final = "gc/clock"
_SKEW: Final = timedelta(minutes=5)
"""How far the clocks of store and registry may be apart without a changed version's record being missed."""


@attrs.frozen
class GcReport:
    """What was done, or with ``dry_run`` would be."""

    expired_versions: tuple[str, ...] = ()
    """Names of versions deleted because their time to live had passed."""
    condemned_packs: int = 0
    """Packs that a run after the grace period will delete."""
    deleted_packs: int = 0
    deleted_catalogs: int = 0
    deleted_orphans: int = 0
    """Packs and catalogs that the registry did not know."""
    deleted_bytes: int = 0
    """Bytes of the packs and orphans among them."""
    deleted_records: int = 0
    """Records of versions that are deleted."""
    written_records: int = 0
    """Records that were missing or out of date."""


def collect(registry: Registry, store: ObjectStore, grace: float, *, dry_run: bool = False) -> GcReport:
    """Delete expired versions, and what nothing has needed for ``grace`` seconds.

    May run beside anything, itself included. ``dry_run`` changes nothing, but for a small object by which it reads the
    store's clock. Raises Conflict if the store knows more than the registry.
    """
    records = _stale_records(registry, store)
    now = _store_time(store)
    expired = registry.expired_versions() if dry_run else registry.delete_expired()
    # The time asked for here is that after which something being written, which gives signs of life, counts as dead.
    dead_after = max(grace, ORPHAN_AGE)
    condemned = registry.condemnable_packs(dead_after) if dry_run else registry.condemn_packs(dead_after)
    packs = registry.deletable_packs(grace)
    packs_size = sum(row.size for row in registry.pack_checksums(packs).values())
    catalogs = registry.deletable_catalogs(grace)
    orphans = list(_orphans(registry, store, now, grace))
    outdated = 0
    if not dry_run:
        _delete(store, packs, registry.forget_packs)
        _delete(store, catalogs, registry.forget_catalogs)
        _delete(store, [orphan.key for orphan in orphans])
        _delete(store, records)
        store.sweep(dead_after)
    for version in _outdated(registry, store):
        outdated += 1
        if not dry_run:
            _write_record(store, version)
    return GcReport(
        expired_versions=tuple(str(version.name) for version in expired),
        condemned_packs=len(condemned),
        deleted_packs=len(packs),
        deleted_catalogs=len(catalogs),
        deleted_orphans=len(orphans),
        deleted_bytes=packs_size + sum(orphan.size for orphan in orphans),
        deleted_records=len(records),
        written_records=outdated,
    )


def _delete(store: ObjectStore, keys: Iterable[str], forget: Callable[[Iterable[str]], None] | None = None) -> None:
    """Delete, then forget, batch by batch: what is forgotten is gone."""
    for batch in _batches(keys):
        store.delete(batch, deadline=time.monotonic() + _TIMEOUT)
        if forget is not None:
            forget(batch)


def _orphans(registry: Registry, store: ObjectStore, now: datetime, grace: float) -> Iterator[StoredObject]:
    """Old packs and catalogs that the registry does not know."""
    before = now - timedelta(seconds=max(grace, ORPHAN_AGE))
    for prefix, known_among in ("packs", registry.known_packs), ("catalogs", registry.known_catalogs):
        for batch in _batches(found for found in store.list(prefix) if found.modified < before):
            known = known_among([found.key for found in batch])
            yield from (found for found in batch if found.key not in known)


def _stale_records(registry: Registry, store: ObjectStore) -> Sequence[str]:
    """Keys of records of what is deleted or unlinked; raises Conflict at a version that the registry never had."""
    current = {record_key(version) for version, _ in _versions(registry)}
    return [
        found.key for found in store.list(RECORDS) if found.key not in current and _is_stale(registry, store, found.key)
    ]


def _is_stale(registry: Registry, store: ObjectStore, key: str) -> bool:
    name = RECORD_NAME.fullmatch(key.rpartition("/")[2])
    if name is None:
        return False  # nothing of ours
    version_id = name["id"]
    try:
        version = registry.get(version_id)
    except VersionNotFound:
        raise Conflict(
            f"the store {store.url} holds {key}, a version that the registry never had: nothing is deleted; "
            "rebuild the registry from the store first"
        ) from None
    places = (version, *registry.links(version_id))
    return version.state is State.DELETED or all(record_key(place) != key for place in places)


def _outdated(registry: Registry, store: ObjectStore) -> Iterator[VersionRow]:
    """Committed versions whose record is missing, or older than their last change or their collection's."""
    stored = {found.key: found.modified for found in store.list(RECORDS)}
    for version, changed in _versions(registry):
        modified = stored.get(record_key(version))
        if modified is None or modified < changed + _SKEW:
            yield version


def _write_record(store: ObjectStore, version: VersionRow) -> None:
    """Write it; one version that cannot be written down does not keep the others from being collected."""
    try:
        write_record(store, version, deadline=time.monotonic() + _TIMEOUT)
    except (ValueError, TypeError, RecursionError) as error:
        log.warning("%s has no record in the store: %s", version.name, error)


def _versions(registry: Registry) -> Iterator[tuple[VersionRow, datetime]]:
    """Every committed version in every collection that shows it, and when either changed last."""
    for entity in registry.entities():
        for project in registry.projects(entity.name):
            for collection in registry.collections(entity.name, project.name):
                for version in registry.versions(collection.name):
                    yield version, max(version.updated_at, collection.changed_at)


def _store_time(store: ObjectStore) -> datetime:
    store.put(_CLOCK, b"", deadline=time.monotonic() + _TIMEOUT)
    return next(found.modified for found in store.list(_CLOCK.partition("/")[0]) if found.key == _CLOCK)


def _batches(items: Iterable[_T]) -> Iterator[list[_T]]:
    remaining = iter(items)
    while batch := list(islice(remaining, BATCH)):
        yield batch
