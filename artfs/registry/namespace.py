"""Entities, projects and collections: finding, creating and listing them, and hints when a name leads nowhere."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Row, Select, Table, exists, insert, select, update

from artfs.errors import KindMismatch, TypeMismatch, VersionNotFound
from artfs.names import CollectionName, check_text
from artfs.registry import schema
from artfs.registry.rows import CollectionKind, CollectionRow, EntityRow, ProjectRow, State, instant
from artfs.registry.schema import Now, collection, entity, project

_HINTS: Final = 5
"""Names that a hint lists at most."""
_Named = TypeVar("_Named", EntityRow, ProjectRow)


def entities(connection: Connection) -> tuple[EntityRow, ...]:
    """Every entity, by name."""
    found = connection.execute(select(entity))
    return _by_name(EntityRow(r.id, r.name, instant(r.created_at), instant(r.changed_at)) for r in found)


def projects(connection: Connection, in_entity: str) -> tuple[ProjectRow, ...]:
    """Every project of an entity, by name; raises VersionNotFound if there is no such entity."""
    owner = _entity(connection, in_entity, wanted=in_entity)
    found = connection.execute(select(project).where(project.c.entity_id == owner))
    return _by_name(ProjectRow(r.id, in_entity, r.name, instant(r.created_at), instant(r.changed_at)) for r in found)


def collections(connection: Connection, in_entity: str, in_project: str) -> tuple[CollectionRow, ...]:
    """The collections of a project that ever held a version, by name; raises VersionNotFound."""
    wanted = f"{in_entity}/{in_project}"
    owner = _project(connection, _entity(connection, in_entity, wanted), in_entity, in_project, wanted)
    found = connection.execute(_collections().where(collection.c.project_id == owner, collection.c.next_number > 0))
    return tuple(sorted(map(_collection_row, found), key=lambda row: row.name))


def find_collection(connection: Connection, name: CollectionName) -> CollectionRow | None:
    """The collection of that name, if there is one."""
    found = connection.execute(
        _collections().where(
            entity.c.name == name.entity, project.c.name == name.project, collection.c.name == name.collection
        )
    ).first()
    return None if found is None else _collection_row(found)


def get_collection(connection: Connection, name: CollectionName, wanted: object = None) -> CollectionRow:
    """The collection of that name; raises VersionNotFound for ``wanted`` (the name itself) with a hint."""
    found = find_collection(connection, name)
    if found is not None:
        return found
    wanted = wanted or name
    level = f"{name.entity}/{name.project}"
    parent = _project(connection, _entity(connection, name.entity, wanted), name.entity, name.project, wanted)
    listed = select(collection.c.name).where(collection.c.project_id == parent, collection.c.next_number > 0)
    names = connection.scalars(listed)
    raise VersionNotFound(name=wanted, hint=hint("collection", name.collection, names, level))


def update_collection(
    connection: Connection, name: CollectionName, *, description: str | None, ttl_seconds: int | None
) -> CollectionRow:
    """Set a collection's description and the TTL (None: none) that its versions inherit.

    Raises VersionNotFound, InvalidText.
    """
    if description is not None:
        check_text("description", description)
    found = get_collection(connection, name)
    values = {"description": description, "ttl_seconds": ttl_seconds}
    connection.execute(update(collection).where(collection.c.id == found.id).values(**values))
    return get_collection(connection, name)


def ensure_collection(connection: Connection, name: CollectionName, type_: str, kind: CollectionKind) -> CollectionRow:
    """The collection of that name, created with what leads to it if needed; raises TypeMismatch, KindMismatch.

    A collection that never held anything (a ``log`` that failed) takes the type and kind that are asked for now.
    """
    found = find_collection(connection, name)
    if found is None:
        parent = ensure_project(connection, name.entity, name.project)
        connection.execute(
            insert(collection).values(
                project_id=parent,
                name=name.collection,
                kind=kind,
                type=type_,
                next_number=0,
                created_at=Now(),
                changed_at=Now(),
            )
        )
        return get_collection(connection, name)
    if (found.kind, found.type) == (kind, type_):
        return found
    if found.next_index == 0 and not _being_written(connection, found.id):
        connection.execute(update(collection).where(collection.c.id == found.id).values(kind=kind, type=type_))
        return get_collection(connection, name)
    if found.kind != kind:
        why = "link versions to it" if found.kind is CollectionKind.PORTFOLIO else "it cannot hold links"
        raise KindMismatch(collection=name, existing=found.kind, why=why)
    raise TypeMismatch(collection=name, existing=found.type, given=type_)


def ensure_project(connection: Connection, in_entity: str, name: str) -> int:
    """The id of a project, created with its entity if needed."""
    owner = connection.scalar(select(entity.c.id).where(entity.c.name == in_entity))
    if owner is None:
        owner = _insert(connection, entity, name=in_entity)
    found: int | None = connection.scalar(
        select(project.c.id).where(project.c.entity_id == owner, project.c.name == name)
    )
    if found is None:
        found = _insert(connection, project, entity_id=owner, name=name)
        connection.execute(update(entity).where(entity.c.id == owner).values(changed_at=Now()))
    return found


def get_project(connection: Connection, in_entity: str, name: str) -> int:
    """The id of a project; raises VersionNotFound."""
    wanted = f"{in_entity}/{name}"
    return _project(connection, _entity(connection, in_entity, wanted), in_entity, name, wanted)


def touch(connection: Connection, collection_id: int) -> None:
    """Move the change times of a collection and its project: a membership or an alias in it changed."""
    owner = connection.scalar(
        update(collection)
        .where(collection.c.id == collection_id)
        .values(changed_at=Now())
        .returning(collection.c.project_id)
    )
    connection.execute(update(project).where(project.c.id == owner).values(changed_at=Now()))


def hint(level: str, missing: str, names: Iterable[str], where: str) -> str:
    """The end of a "does not exist" sentence: what is missing, and names close to it or else what there is."""
    known = sorted(names)
    near = get_close_matches(missing, known, n=_HINTS)
    if near:
        rest = "did you mean " + " or ".join(near) + "?"
    elif known:
        rest = f"{where} has " + ", ".join(known[:_HINTS]) + (", ..." if len(known) > _HINTS else "")
    else:
        rest = f"{where} is empty"
    return f": no {level} {missing!r}; {rest}"


def _entity(connection: Connection, name: str, wanted: object) -> int:
    found: int | None = connection.scalar(select(entity.c.id).where(entity.c.name == name))
    if found is None:
        names = connection.scalars(select(entity.c.name))
        raise VersionNotFound(name=wanted, hint=hint("entity", name, names, "the registry"))
    return found


def _project(connection: Connection, owner: int, in_entity: str, name: str, wanted: object) -> int:
    listed = select(project.c.id).where(project.c.entity_id == owner, project.c.name == name)
    found: int | None = connection.scalar(listed)
    if found is None:
        names = connection.scalars(select(project.c.name).where(project.c.entity_id == owner))
        raise VersionNotFound(name=wanted, hint=hint("project", name, names, in_entity))
    return found


def _being_written(connection: Connection, collection_id: int) -> bool:
    pending = exists().where(schema.version.c.collection_id == collection_id, schema.version.c.state == State.PENDING)
    return bool(connection.scalar(select(pending)))


def _insert(connection: Connection, table: Table, **values: object) -> int:
    key: int = connection.execute(
        insert(table).values(created_at=Now(), changed_at=Now(), **values).returning(table.c.id)
    ).scalar_one()
    return key


def _collections() -> Select[Any]:
    return select(collection, entity.c.name.label("entity_name"), project.c.name.label("project_name")).select_from(
        collection.join(project).join(entity)
    )


def _collection_row(row: Row[Any]) -> CollectionRow:
    return CollectionRow(
        id=row.id,
        name=CollectionName(row.entity_name, row.project_name, row.name),
        kind=CollectionKind(row.kind),
        type=row.type,
        description=row.description,
        ttl_seconds=row.ttl_seconds,
        next_index=row.next_number,
        created_at=instant(row.created_at),
        changed_at=instant(row.changed_at),
    )


def _by_name(rows: Iterable[_Named]) -> tuple[_Named, ...]:
    # Sorted here, by code point: a PostgreSQL collation would order otherwise.
    return tuple(sorted(rows, key=lambda row: row.name))
