"""What two people changed who began with one base."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import chain, islice
from typing import Final

from artfs.catalog import Catalog, Difference, diff
from artfs.errors import VersionNotFound
from artfs.names import LATEST, CollectionName
from artfs.registry import Registry, State, VersionRow
from artfs.staging.tree import StagingTree
from artfs.versions.repository import Repository

MOST: Final = 20
"""Paths that are named."""

Overlap = tuple[str, tuple[str, ...]]
"""The name of the latest version if that is not the base, and paths that were changed both in it and here."""


def latest_of(registry: Registry, collection: CollectionName) -> VersionRow | None:
    """The latest version of a collection, if it has any."""
    try:
        return registry.resolve(collection.at(LATEST))
    except VersionNotFound:
        return None


def overlap_of_area(repository: Repository, tree: StagingTree) -> Overlap:
    """That of a staging area."""
    registry, facts = repository.registry, tree.facts
    latest = latest_of(registry, CollectionName(*facts.collection.split("/")))
    if latest is None or latest.id == _base_version(registry, facts.base_id):
        return "", ()
    with closing(repository.catalog(latest)) as theirs:
        return str(latest.name), _common(_paths(tree.changes()), _paths(diff(tree.view.base, theirs)))


def overlap_of_draft(repository: Repository, draft: VersionRow) -> Overlap:
    """That of a draft; no path is named where the base has been deleted meanwhile."""
    registry = repository.registry
    latest = latest_of(registry, draft.source_name.collection_name)
    if latest is None or latest.id == draft.base_id:
        return "", ()
    with ExitStack() as opened:
        theirs, mine = (opened.enter_context(closing(repository.catalog(row))) for row in (latest, draft))
        if draft.base_id is None:
            return str(latest.name), _common(_leaves(mine), _leaves(theirs))
        try:
            base = opened.enter_context(closing(repository.catalog(registry.get(draft.base_id))))
        except VersionNotFound:
            return str(latest.name), ()
        return str(latest.name), _common(_paths(diff(base, mine)), _paths(diff(base, theirs)))


def _base_version(registry: Registry, version_id: str) -> str:
    """The committed version below a base: of a draft, what that was made from."""
    try:
        row = registry.get(version_id) if version_id else None
    except VersionNotFound:
        return version_id
    return row.base_id or "" if row is not None and row.state is State.PENDING else version_id


def _paths(differences: Iterable[Difference]) -> Iterator[str]:
    """Both of a rename: it clashes with a change of the file where that was, too."""
    for difference in differences:
        yield from filter(None, (difference.old_path, difference.path))


def _leaves(catalog: Catalog) -> Iterator[str]:
    return (leaf.path for leaf in catalog.leaves())


def _common(mine: Iterable[str], theirs: Iterable[str]) -> tuple[str, ...]:
    """Paths in both, the first few; one side waits in a temporary database, so memory does not grow with it."""
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        database.execute("CREATE TABLE mine (path PRIMARY KEY) WITHOUT ROWID")
        database.execute("BEGIN")
        database.executemany("INSERT OR IGNORE INTO mine VALUES (?)", ((path,) for path in mine))
        known = "DELETE FROM mine WHERE path=? RETURNING path"  # so that none is named twice
        rows = chain.from_iterable(database.execute(known, (path,)).fetchall() for path in theirs)
        return tuple(path for (path,) in islice(rows, MOST))
