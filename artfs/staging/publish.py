"""From a staging area to a draft or a version, and what stands in the way."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Final

import attrs

from artfs.catalog import Catalog, Change, diff
from artfs.errors import VersionNotFound
from artfs.names import LATEST, CollectionName
from artfs.registry import Registry, State, VersionRow
from artfs.staging.entries import StagedEntries
from artfs.staging.faults import fault_point
from artfs.staging.tree import StagingTree
from artfs.versions.ingest import Progress, ingest
from artfs.versions.log import Labels
from artfs.versions.publication import Publication
from artfs.versions.repository import Repository

log = logging.getLogger(__name__)

OVERLAP: Final = 20
"""Paths that a report of an overlap names."""


@attrs.frozen
class Counts:
    """How many paths differ from the base."""

    added: int
    changed: int
    """Renames included."""
    removed: int


@attrs.frozen
class Outcome:
    """What became of a staging area."""

    name: str
    """Of the draft or version; empty where nothing had changed."""
    created: bool
    """False where the collection had this content already, or nothing had changed."""
    committed: bool
    counts: Counts
    stored_bytes: int
    newer: str = ""
    """The version that is the latest now, if that is not the base."""
    overlap: tuple[str, ...] = ()
    """Paths that were changed both here and there, at most ``OVERLAP``."""


def publish(
    repository: Repository,
    tree: StagingTree,
    publication: Publication,
    *,
    commit: Labels | None = None,
    require_latest: bool = False,
    progress: Progress = lambda _files, _size: None,
) -> Outcome:
    """Store what an area holds and make it a draft, or with ``commit`` a version. The area is left as it is.

    Raises BaseOutdated, and what storing and the registry raise; then it can be done again.
    """
    facts, registry = tree.facts, repository.registry
    found = Counter(change.change for change in tree.changes())
    counts = Counts(found[Change.ADDED], found[Change.CHANGED] + found[Change.RENAMED], found[Change.REMOVED])
    if not found and commit is None:
        registry.abandon(facts.pending)
        return Outcome("", created=False, committed=False, counts=counts, stored_bytes=0)
    root = tree.attributes(1, None)
    publication.set_root(root.mode, root.mtime_ns)
    staged = StagedEntries(tree.view, tree, publication.packs, repository.settings.read_deadline)
    for entry in ingest(staged, publication.packs, repository.hashes, progress):
        publication.add(entry)
    fault_point("hashed")
    newer, overlap = find_overlap(repository, tree)
    if commit is None:
        replaced = _draft(registry, facts.base_id)
        done = publication.save_draft(replaces=replaced)
    else:
        done = publication.commit(
            aliases=commit.aliases,
            tags=commit.tags,
            description=commit.description,
            metadata=commit.metadata,
            require_latest=require_latest,
        )
    fault_point("published")
    return Outcome(
        str(done.version.name),
        created=done.created,
        committed=commit is not None,
        counts=counts,
        stored_bytes=done.stored_bytes,
        newer=newer,
        overlap=overlap,
    )


def _draft(registry: Registry, version_id: str) -> str | None:
    """The id itself, if it is a draft that the new one takes the place of."""
    if not version_id:
        return None
    try:
        return version_id if registry.get(version_id).state is State.PENDING else None
    except VersionNotFound:
        return None


def latest_of(registry: Registry, collection: CollectionName) -> VersionRow | None:
    """The latest version of a collection, if it has any."""
    try:
        return registry.resolve(collection.at(LATEST))
    except VersionNotFound:
        return None


def find_overlap(repository: Repository, tree: StagingTree) -> tuple[str, tuple[str, ...]]:
    """The name of the latest version if it is not the base, and the paths changed both there and here."""
    facts = tree.facts
    latest = latest_of(repository.registry, CollectionName(*facts.collection.split("/")))
    base = _base_version(repository.registry, facts.base_id)
    if latest is None or latest.id == base:
        return "", ()
    theirs = repository.catalog(latest)
    try:
        return str(latest.name), tuple(islice(_both(tree, theirs), OVERLAP))
    finally:
        theirs.close()


def _base_version(registry: Registry, version_id: str) -> str:
    """The committed version below a base: of a draft, what that was made from."""
    try:
        row = registry.get(version_id) if version_id else None
    except VersionNotFound:
        return version_id
    return row.base_id or "" if row is not None and row.state is State.PENDING else version_id


def _both(tree: StagingTree, theirs: Catalog) -> Iterator[str]:
    mine = iter(tree.changes())
    others = iter(diff(tree.view.base, theirs))
    a, b = next(mine, None), next(others, None)
    while a is not None and b is not None:
        if a.path < b.path:
            a = next(mine, None)
        elif b.path < a.path:
            b = next(others, None)
        else:
            yield a.path
            a, b = next(mine, None), next(others, None)
