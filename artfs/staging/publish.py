"""From a staging area to a draft or a version, and what stands in the way."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from typing import Final

import attrs

from artfs.catalog import Change
from artfs.errors import VersionNotFound
from artfs.faults import fault_point
from artfs.registry import Registry, State
from artfs.staging.area import Facts
from artfs.staging.entries import StagedEntries
from artfs.staging.overlap import overlap_of_area
from artfs.staging.tree import StagingTree
from artfs.versions.ingest import Progress, ingest
from artfs.versions.log import Labels
from artfs.versions.publication import Publication
from artfs.versions.repository import Repository

log = logging.getLogger(__name__)

NOTHING: Final = "nothing was changed, so there is no draft and no new version"


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
    """Paths that were changed both here and there, at most ``overlap.MOST``."""


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

    Raises BaseOutdated, InvalidPath, and what storing and the registry raise; then it can be done again.
    """
    facts, registry = tree.facts, repository.registry
    found = Counter(change.change for change in tree.changes())
    counts = Counts(found[Change.ADDED], found[Change.CHANGED] + found[Change.RENAMED], found[Change.REMOVED])
    replaced = _draft(registry, facts.base_id)
    if not found and (commit is None or replaced is None):
        return _nothing_changed(registry, facts, commit, counts)
    root = tree.attributes(1, None)
    publication.set_root(root.mode, root.mtime_ns)
    staged = StagedEntries(tree.view, tree, publication.packs, repository.settings.read_deadline)
    for entry in ingest(staged, publication.packs, repository.hashes, progress):
        publication.add(entry)
    fault_point("hashed")
    newer, overlap = overlap_of_area(repository, tree)
    if commit is None:
        done = publication.save_draft(replaces=replaced)
    else:
        done = publication.commit(
            aliases=commit.aliases,
            tags=commit.tags,
            description=commit.description,
            metadata=commit.metadata,
            require_latest=require_latest,
            permissions=True,
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


def _nothing_changed(registry: Registry, facts: Facts, commit: Labels | None, counts: Counts) -> Outcome:
    """No new version: the base gets the aliases that were asked for, and `latest` stays where others have taken it."""
    name = ""
    if commit is not None and commit.aliases and facts.base_id:
        with contextlib.suppress(VersionNotFound):  # deleted meanwhile
            name = str(registry.add_aliases(facts.base_id, commit.aliases).name)
    registry.abandon(facts.pending)
    return Outcome(name, created=False, committed=bool(name), counts=counts, stored_bytes=0)


def _draft(registry: Registry, version_id: str) -> str | None:
    """The id itself, if it is a draft that the new one takes the place of."""
    if not version_id:
        return None
    try:
        return version_id if registry.get(version_id).state is State.PENDING else None
    except VersionNotFound:
        return None
