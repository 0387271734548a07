"""Versions as their readers see them: by name, by id, and in lists."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, or_, select

from artfs.errors import VersionNotFound
from artfs.names import DRAFT_PREFIX, CollectionName, VersionName, version_number
from artfs.registry import schema
from artfs.registry.namespace import get_collection, hint
from artfs.registry.rows import CollectionKind, MembershipRow, State, VersionRow, draft_alias, instant
from artfs.registry.schema import alias, membership, tag, version

_VIA: Final = schema.collection.alias("via")
_VIA_PROJECT: Final = schema.project.alias("via_project")
_VIA_ENTITY: Final = schema.entity.alias("via_entity")
OWN: Final = or_(membership.c.id.is_(None), membership.c.collection_id == version.c.collection_id)
"""Seen in its own sequence; holds for drafts and deleted versions too."""


def resolve(connection: Connection, name: VersionName) -> VersionRow:
    """The version that an alias, ``vN`` or ``draft-..`` names; raises VersionNotFound with a hint."""
    holder = get_collection(connection, name.collection_name, wanted=name)
    number = version_number(name.alias)
    if number is not None:
        here = membership.c.collection_id == holder.id
        # A number that was never given may be one that no database can hold.
        found = views(connection, here, membership.c.number == number) if number < holder.next_index else ()
    elif name.alias.startswith(DRAFT_PREFIX):
        found = views(
            connection,
            version.c.collection_id == holder.id,
            version.c.state == State.PENDING,
            version.c.digest.is_not(None),
            func.substr(version.c.id, 1, 8) == name.alias.removeprefix(DRAFT_PREFIX),
        )
    else:
        target = select(alias.c.membership_id).where(alias.c.collection_id == holder.id, alias.c.name == name.alias)
        found = views(connection, membership.c.id == target.scalar_subquery())
    if found:
        return found[0]
    if number is not None and number < holder.next_index:
        raise VersionNotFound(name=name, hint=": it was deleted or unlinked")
    raise VersionNotFound(name=name, hint=hint("alias", name.alias, _labels(connection, holder.id), str(holder.name)))


def get(connection: Connection, version_id: str, collection: CollectionName | None = None) -> VersionRow:
    """A version by id, in any state, as seen in ``collection`` (its own sequence); raises VersionNotFound."""
    seen: ColumnElement[bool] = OWN
    if collection is not None:
        holder = get_collection(connection, collection)
        seen = or_(
            membership.c.collection_id == holder.id,
            and_(membership.c.id.is_(None), version.c.collection_id == holder.id),
        )
    found = views(connection, version.c.id == version_id, seen)
    if not found:
        where = "" if collection is None else f" in {collection}"
        raise VersionNotFound(name=f"version {version_id}{where}", hint="")
    return found[0]


def versions(connection: Connection, collection: CollectionName) -> tuple[VersionRow, ...]:
    """The committed versions in a collection, newest first; raises VersionNotFound."""
    holder = get_collection(connection, collection)
    found = views(connection, membership.c.collection_id == holder.id)
    return tuple(sorted(found, key=lambda row: row.index or 0, reverse=True))


def memberships(connection: Connection, collection: CollectionName) -> tuple[MembershipRow, ...]:
    """What a listing of a collection shows, oldest first; raises VersionNotFound."""
    holder = get_collection(connection, collection)
    here = membership.c.collection_id == holder.id
    labels = _aliases(connection, here)
    found = connection.execute(select(membership).where(here).order_by(membership.c.number))
    return tuple(
        MembershipRow(r.id, r.number, r.version_id, labels.get(r.id, ()), instant(r.created_at)) for r in found
    )


def aliases(connection: Connection, collection: CollectionName) -> dict[str, int]:
    """Each alias in a collection, and the N of the ``vN`` it names; raises VersionNotFound."""
    holder = get_collection(connection, collection)
    found = connection.execute(
        select(alias.c.name, membership.c.number)
        .select_from(alias.join(membership, alias.c.membership_id == membership.c.id))
        .where(alias.c.collection_id == holder.id)
    )
    return {row.name: row.number for row in sorted(found)}


def links(connection: Connection, version_id: str) -> tuple[VersionRow, ...]:
    """A version as seen in each portfolio that it is linked to."""
    return views(connection, version.c.id == version_id, membership.c.collection_id != version.c.collection_id)


def drafts(connection: Connection, collection: CollectionName | None = None) -> tuple[VersionRow, ...]:
    """The drafts of one collection or of all, newest first."""
    where: list[ColumnElement[bool]] = [version.c.state == State.PENDING, version.c.digest.is_not(None)]
    if collection is not None:
        where.append(version.c.collection_id == get_collection(connection, collection).id)
    found = views(connection, *where)
    return tuple(sorted(found, key=lambda row: row.created_at, reverse=True))


def views(connection: Connection, *where: ColumnElement[bool]) -> tuple[VersionRow, ...]:
    """Versions with the membership each is seen by; conditions are on ``version`` and ``membership``."""
    rows = connection.execute(_viewed().where(*where)).all()
    if not rows:
        return ()
    if len(rows) == 1:
        labels = _aliases(connection, membership.c.id == rows[0].membership_id)
        tags = _tags(connection, tag.c.version_id == rows[0].id)
    else:
        seen = _viewed().where(*where)
        labels = _aliases(connection, membership.c.id.in_(seen.with_only_columns(membership.c.id)))
        tags = _tags(connection, tag.c.version_id.in_(seen.with_only_columns(version.c.id)))
    return tuple(_row(row, labels.get(row.membership_id, ()), tags.get(row.id, ())) for row in rows)


def content_equals(digest: str, tree_digest: str) -> ColumnElement[bool]:
    """Condition: a committed version holds exactly this content."""
    return and_(version.c.state == State.COMMITTED, version.c.digest == digest, version.c.tree_digest == tree_digest)


def find_content(
    connection: Connection,
    collection: CollectionName,
    digest: str,
    tree_digest: str,
    among: Collection[str] | None = None,
) -> VersionRow | None:
    """The committed version of a sequence that has this content, if any; raises VersionNotFound.

    ``among``: ids of those that count; None for all.
    """
    holder = get_collection(connection, collection)
    found = views(connection, version.c.collection_id == holder.id, content_equals(digest, tree_digest), OWN)
    # Versions of equal content differ in permissions, or were imported; the newest counts.
    found = tuple(row for row in found if among is None or row.id in among)
    return max(found, key=lambda row: row.index or 0, default=None)


def _viewed() -> Select[Any]:
    home = schema.collection
    return select(
        version,
        membership.c.id.label("membership_id"),
        membership.c.number.label("via_number"),
        membership.c.created_at.label("linked_at"),
        _VIA.c.name.label("via_collection"),
        _VIA.c.kind.label("via_kind"),
        _VIA_PROJECT.c.name.label("via_project"),
        _VIA_ENTITY.c.name.label("via_entity"),
        home.c.name.label("home_collection"),
        home.c.type.label("type"),
        home.c.ttl_seconds.label("home_ttl"),
        schema.project.c.name.label("home_project"),
        schema.entity.c.name.label("home_entity"),
    ).select_from(
        version.outerjoin(membership, membership.c.version_id == version.c.id)
        .join(_VIA, _VIA.c.id == func.coalesce(membership.c.collection_id, version.c.collection_id))
        .join(_VIA_PROJECT, _VIA_PROJECT.c.id == _VIA.c.project_id)
        .join(_VIA_ENTITY, _VIA_ENTITY.c.id == _VIA_PROJECT.c.entity_id)
        .join(home, home.c.id == version.c.collection_id)
        .join(schema.project, schema.project.c.id == home.c.project_id)
        .join(schema.entity, schema.entity.c.id == schema.project.c.entity_id)
    )


def _row(row: Row[Any], labels: tuple[str, ...], tags: tuple[str, ...]) -> VersionRow:
    own = draft_alias(row.id) if row.number is None else f"v{row.number}"
    number = row.number if row.membership_id is None else row.via_number
    ttl = row.home_ttl if row.ttl_seconds is None else row.ttl_seconds
    return VersionRow(
        id=row.id,
        state=State(row.state),
        type=row.type,
        name=VersionName(row.via_entity, row.via_project, row.via_collection, own if number is None else f"v{number}"),
        source_name=VersionName(row.home_entity, row.home_project, row.home_collection, own),
        collection_kind=CollectionKind(row.via_kind),
        membership_id=row.membership_id,
        index=number,
        source_index=row.number,
        digest=row.digest,
        tree_digest=row.tree_digest,
        file_count=row.file_count,
        size=row.size,
        stored_bytes=row.stored_bytes,
        catalog_key=row.catalog_key,
        catalog_sha256=row.catalog_sha256,
        catalog_size=row.catalog_size,
        description=row.description,
        metadata=json.loads(row.metadata),
        aliases=labels,
        tags=tags,
        ttl_seconds=ttl or None,
        ttl_inherited=row.ttl_seconds is None,
        origin=row.origin,
        base_id=row.base_id,
        run_id=row.run_id,
        client_id=row.client_id,
        created_at=instant(row.created_at),
        updated_at=instant(row.updated_at),
        linked_at=None if row.linked_at is None else instant(row.linked_at),
    )


def _aliases(connection: Connection, where: ColumnElement[bool]) -> dict[int, tuple[str, ...]]:
    joined = alias.join(membership, alias.c.membership_id == membership.c.id)
    return _grouped(connection, select(alias.c.membership_id, alias.c.name).select_from(joined).where(where))


def _tags(connection: Connection, where: ColumnElement[bool]) -> dict[str, tuple[str, ...]]:
    return _grouped(connection, select(tag.c.version_id, tag.c.name).where(where))


def _grouped(connection: Connection, pairs: Select[Any]) -> dict[Any, tuple[str, ...]]:
    groups: defaultdict[Any, list[str]] = defaultdict(list)
    for key, name in connection.execute(pairs):
        groups[key].append(name)
    return {key: tuple(sorted(names)) for key, names in groups.items()}


def _labels(connection: Connection, collection_id: int) -> Iterable[str]:
    yield from connection.scalars(select(alias.c.name).where(alias.c.collection_id == collection_id))
    newest = (
        select(membership.c.number)
        .where(membership.c.collection_id == collection_id)
        .order_by(membership.c.number.desc())
    )
    yield from (f"v{number}" for number in connection.scalars(newest.limit(5)))


def require_pending(connection: Connection, version_id: str) -> Row[Any]:
    """The row of a version that is being written or a draft; raises VersionNotFound if it is neither."""
    row = connection.execute(select(version).where(version.c.id == version_id)).first()
    if row is None or row.state != State.PENDING:
        hint = ": it was abandoned" if row is None else f": it is {row.state}"
        raise VersionNotFound(name=f"draft {version_id}", hint=hint)
    return row
