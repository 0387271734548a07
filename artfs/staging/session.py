"""Beginning a staging area, finding those that were left behind, and bringing them and drafts to an end."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs

from artfs.catalog import Catalog
from artfs.errors import ArtfsError, DraftInUse, DraftNeeded, NotFound, TypeRequired, VersionNotFound
from artfs.names import CollectionName, VersionName, check_type
from artfs.registry import Content, State, VersionRow
from artfs.staging.area import Area, Facts, areas, create_area, holder
from artfs.staging.overlap import latest_of
from artfs.staging.publish import Outcome, publish
from artfs.staging.tree import StagingTree
from artfs.versions.ingest import Progress
from artfs.versions.log import Labels
from artfs.versions.publication import Publication, Published, equal_versions
from artfs.versions.repository import Repository
from artfs.vfs.version import VersionTree

log = logging.getLogger(__name__)

_LEAST: Final = 4
"""Characters of an area's id that are enough to name it, if no other begins with them."""


@attrs.frozen
class Left:
    """A staging area as it lies on disk."""

    id: str
    path: Path
    facts: Facts
    process: int | None
    """The process that has it mounted; None: it was left behind."""


def begin(repository: Repository, name: VersionName, type_: str | None) -> tuple[Area, VersionTree | None]:
    """A new area over a version or draft, or over nothing where the collection does not exist yet.

    Raises VersionNotFound for a name that exists only in part (an alias of an existing collection), TypeRequired for a
    new collection without a type, TypeMismatch, DraftInUse.
    """
    registry = repository.registry
    collection = name.collection_name
    try:
        base: VersionRow | None = registry.resolve(name)
    except VersionNotFound:
        if latest_of(registry, collection) is not None or name.alias != "latest":
            raise
        base = None
    if base is None and type_ is None:
        raise TypeRequired(collection=collection)
    if base is not None and base.state is State.PENDING:
        _refuse_in_use(repository, base)
    kind = check_type(type_) if type_ is not None else base.type if base is not None else ""
    base_id = None if base is None else base.id
    home = collection if base is None else base.source_name.collection_name
    pending = registry.begin(home, kind, base=base_id, origin="mount")
    try:
        catalog = None if base is None else repository.catalog(base)
        facts = Facts(
            collection=str(home),
            type=kind,
            base="" if base is None else str(base.name),
            base_id=base_id or "",
            pending=pending,
            registry=registry.id,
            created=datetime.now(UTC).isoformat(),
        )
        area = create_area(repository.settings.staging_dir, facts, None if catalog is None else catalog.path)
    except BaseException:
        registry.abandon(pending)
        raise
    if base is None or catalog is None:
        return area, None
    return area, VersionTree(base, catalog, repository.reader(catalog))


def _refuse_in_use(repository: Repository, draft: VersionRow) -> None:
    for left in left_behind(repository):
        if left.facts.base_id == draft.id and left.process is not None:
            raise DraftInUse(draft=draft.name, process=left.process)


def left_behind(repository: Repository) -> Iterator[Left]:
    """Every staging area on this machine that belongs to the registry, by age, mounted or not."""
    registry = repository.registry.id
    return (left for left in left_here(repository.settings.staging_dir) if left.facts.registry == registry)


def left_here(staging_dir: Path) -> Iterator[Left]:
    """Every staging area in a directory, whatever its registry, which need not be in reach."""
    for path, facts in areas(staging_dir):
        yield Left(path.name, path, facts, holder(path))


def find(repository: Repository, text: str) -> Left | None:
    """The area whose id begins with ``text``, if there is exactly one."""
    if len(text) < _LEAST:
        return None
    found = [left for left in left_behind(repository) if left.id.startswith(text)]
    return found[0] if len(found) == 1 else None


def resume(repository: Repository, left: Left) -> tuple[StagingTree, Publication]:
    """Open an area that was left behind, for publishing; raises AreaInUse."""
    area = Area(left.path)
    try:
        facts = area.facts
        base = None
        if facts.base_id:
            catalog = Catalog(area.base_catalog, facts.base)
            base = VersionTree(repository.registry.get(facts.base_id), catalog, repository.reader(catalog))
        tree = StagingTree(area, base)
    except BaseException:
        area.close()
        raise
    try:
        return tree, _publication(repository, facts)
    except BaseException:
        tree.close()
        raise


def _publication(repository: Repository, facts: Facts) -> Publication:
    collection = CollectionName(*facts.collection.split("/"))
    try:
        repository.registry.renew(facts.pending)
        version_id: str | None = facts.pending
    except VersionNotFound:  # a registry that was rebuilt knows no drafts
        version_id = None
    base = None if version_id else facts.base_id or None
    return Publication(repository, collection, facts.type, origin="mount", base=base, version_id=version_id)


def commit_area(
    repository: Repository, left: Left, labels: Labels, *, require_latest: bool, progress: Progress
) -> Outcome:
    """Make a version of an area that was left behind, and delete the area."""
    tree, publication = resume(repository, left)
    try:
        with publication:
            outcome = publish(
                repository, tree, publication, commit=labels, require_latest=require_latest, progress=progress
            )
    finally:
        tree.close()
    Area(left.path).discard()
    return outcome


def commit_draft(
    repository: Repository, draft: VersionRow, labels: Labels, *, require_latest: bool = False
) -> Published:
    """Make a version of a draft; raises NotFound for what is no draft, DraftInUse, BaseOutdated, PacksCondemned."""
    if not draft.is_draft:
        raise NotFound(f"{draft.name} is no draft; `artfs drafts` lists them")
    _refuse_in_use(repository, draft)
    catalog = repository.catalog(draft)
    assert draft.digest is not None
    assert draft.tree_digest is not None
    with contextlib.closing(catalog):
        packs = [pack.key for pack in catalog.packs()]
        among = None
        if draft.origin == "mount":  # what is logged differs by its digests alone
            home = draft.source_name.collection_name
            among = equal_versions(repository, home, catalog, draft.digest, draft.tree_digest)
    assert draft.catalog_key is not None
    assert draft.catalog_sha256 is not None
    content = Content(
        draft.digest,
        draft.tree_digest,
        draft.file_count or 0,
        draft.size or 0,
        draft.catalog_key,
        draft.catalog_sha256,
        draft.catalog_size or 0,
        packs,
        draft.stored_bytes or 0,
    )
    committed = repository.registry.commit(
        draft.id,
        content,
        aliases=labels.aliases,
        description=labels.description,
        metadata=labels.metadata,
        tags=labels.tags,
        require_latest=require_latest,
        among=among,
    )
    assert committed is not None
    return Published(committed.version, committed.created, 0)


def discard_draft(repository: Repository, draft: VersionRow) -> None:
    """Delete a draft; raises NotFound for what is no draft, DraftInUse and DraftNeeded where it is staged on."""
    if not draft.is_draft:
        raise NotFound(f"{draft.name} is no draft; `artfs rm` deletes versions")
    _refuse_in_use(repository, draft)
    for left in left_behind(repository):
        if left.facts.base_id == draft.id:
            raise DraftNeeded(draft=draft.name, area=left.id)
    repository.registry.abandon(draft.id)


def discard_area(repository: Repository, left: Left) -> None:
    """Delete an area with everything that was written into it; raises AreaInUse."""
    area = Area(left.path)
    try:
        repository.registry.abandon(left.facts.pending)
    except ArtfsError as error:
        log.warning("the registry keeps a row of the discarded area: %s", error)
    area.discard()
