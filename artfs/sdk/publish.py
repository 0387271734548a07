"""From a draft to a version: what runs in the background after ``log_artifact``."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import Final

import attrs

from artfs.catalog import Entry
from artfs.errors import BaseOutdated, PacksCondemned, SourceChanged, VersionNotFound
from artfs.names import LATEST, CollectionName
from artfs.registry import VersionRow
from artfs.sdk.draft import Draft
from artfs.versions.ingest import Progress, ingest
from artfs.versions.log import Labels
from artfs.versions.publication import Publication, Published
from artfs.versions.repository import Repository
from artfs.versions.scan import SourceFile

log = logging.getLogger(__name__)

_RETRIES: Final = 8
"""Times that logging begins again because garbage collection, or another incremental artifact, was faster."""
_PART: Final = "part of "
"""What stands before the distributed id as the client id of a part that waits for the others."""


@attrs.frozen
class Plan:
    """What is to become of a draft."""

    repository: Repository
    draft: Draft
    collection: CollectionName
    type: str
    labels: Labels
    run: str | None
    client_id: str
    base: str | None = None
    """Id of the version that the draft was made of."""
    incremental: bool = False
    distributed_id: str | None = None
    progress: Progress = lambda _files, _size: None


def publish(plan: Plan) -> Published:
    """Log a draft; raises what ``log_path`` raises, and SourceChanged for a file that is not what was added."""
    for _ in range(_RETRIES):
        try:
            return _publish_once(plan)
        except (PacksCondemned, BaseOutdated) as error:
            log.info("%s", error)
    return _publish_once(plan)


def _publish_once(plan: Plan) -> Published:
    registry = plan.repository.registry
    base = plan.base
    parts = _parts(plan)
    for part in parts:
        _merge(plan, part)
    if plan.incremental:
        latest = _latest(plan)
        base = None if latest is None else latest.id
        if latest is not None:
            _merge(plan, latest, inherited=True)
    with _filled(plan, base, plan.client_id) as publication:
        labels = plan.labels
        published = publication.commit(
            aliases=labels.aliases,
            description=labels.description,
            metadata=labels.metadata,
            tags=labels.tags,
            ttl=labels.ttl,
            require_latest=plan.incremental,
        )
    for part in parts:
        registry.abandon(part.id)
    if not published.created:
        log.info("Artifact %r already exists with the same content. No new version was created.", plan.collection)
    return published


def publish_part(plan: Plan) -> Published:
    """Store a draft as one part of a distributed artifact, which waits for ``publish`` of the last one."""
    with _filled(plan, None, _PART + str(plan.distributed_id)) as publication:
        return publication.save_draft(description=plan.labels.description, metadata=plan.labels.metadata)


def _filled(plan: Plan, base: str | None, client_id: str) -> Publication:
    """A publication that holds the draft."""
    publication = Publication(
        plan.repository, plan.collection, plan.type, origin="sdk", base=base, run=plan.run, client_id=client_id
    )
    try:
        expected: deque[str | None] = deque()  # digests in the order of the entries: ingest keeps it
        items = _noting(plan.draft, expected)
        for entry in ingest(items, publication.packs, plan.repository.hashes, plan.progress):
            wanted = expected.popleft()
            if wanted is not None and wanted != entry.digest:
                raise SourceChanged(path=entry.path)
            publication.add(entry)
    except BaseException as error:
        publication.__exit__(type(error), error, error.__traceback__)
        raise
    return publication


def _noting(draft: Draft, expected: deque[str | None]) -> Iterator[SourceFile | Entry]:
    for item, digest in draft.items():
        expected.append(digest)
        yield item


def _latest(plan: Plan) -> VersionRow | None:
    try:
        return plan.repository.registry.resolve(plan.collection.at(LATEST))
    except VersionNotFound:
        return None


def _parts(plan: Plan) -> list[VersionRow]:
    """The parts that wait to be joined, the newest first: what it holds wins."""
    if plan.distributed_id is None:
        return []
    try:
        drafts = plan.repository.registry.drafts(plan.collection)
    except VersionNotFound:
        return []
    return [draft for draft in drafts if draft.client_id == _PART + plan.distributed_id]


def _merge(plan: Plan, version: VersionRow, *, inherited: bool = False) -> None:
    catalog = plan.repository.catalog(version)
    try:
        plan.draft.merge(catalog, inherited=inherited)
    finally:
        catalog.close()
