"""Versions in collections: numbers, aliases and links.

``latest`` is an alias like others, except that commits and links always move it, and that when the membership it
names goes away it passes to the one with the highest number that is left in the collection.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from artfs.errors import NotCommitted, RegistryFull, VersionNotFound
from artfs.names import LATEST, CollectionName, check_alias
from artfs.registry import lookup
from artfs.registry.namespace import ensure_collection, get_collection, touch
from artfs.registry.rows import CollectionKind, State, VersionRow
from artfs.registry.schema import MEMBERSHIP_LIMIT, Now, alias, collection, membership


def next_number(connection: Connection, collection_id: int) -> int:
    """The N of the collection's next ``vN``; every call answers another."""
    counted = update(collection).where(collection.c.id == collection_id)
    counted = counted.values(next_number=collection.c.next_number + 1)
    following: int = connection.execute(counted.returning(collection.c.next_number)).scalar_one()
    return following - 1


def add_membership(connection: Connection, collection_id: int, version_id: str, number: int) -> int:
    """Put a version into a collection; the membership's id. Raises RegistryFull."""
    row = insert(membership).values(collection_id=collection_id, version_id=version_id, number=number, created_at=Now())
    key: int = connection.execute(row.returning(membership.c.id)).scalar_one()
    if key >= MEMBERSHIP_LIMIT:
        raise RegistryFull(limit=MEMBERSHIP_LIMIT - 1)
    return key


def give_aliases(connection: Connection, collection_id: int, membership_id: int, names: Iterable[str]) -> None:
    """Have aliases name this membership, whatever they named before."""
    wanted = {check_alias(name) for name in names}
    connection.execute(delete(alias).where(alias.c.collection_id == collection_id, alias.c.name.in_(wanted)))
    if wanted:
        rows = [
            {"collection_id": collection_id, "name": name, "membership_id": membership_id} for name in sorted(wanted)
        ]
        connection.execute(insert(alias), rows)
    touch(connection, collection_id)


def add_aliases(
    connection: Connection, version_id: str, names: Iterable[str], collection: CollectionName | None = None
) -> VersionRow:
    """Give a version aliases in a collection it is in (its own sequence); other versions there lose them.

    Raises InvalidName, VersionNotFound, NotCommitted.
    """
    seen, collection_id, membership_id = _seen(connection, version_id, collection)
    give_aliases(connection, collection_id, membership_id, names)
    return lookup.get(connection, version_id, seen.name.collection_name)


def remove_aliases(
    connection: Connection, version_id: str, names: Iterable[str], collection: CollectionName | None = None
) -> VersionRow:
    """Take aliases from a version in a collection it is in (its own sequence); those it has not are no error.

    Raises VersionNotFound, NotCommitted.
    """
    seen, collection_id, membership_id = _seen(connection, version_id, collection)
    connection.execute(delete(alias).where(alias.c.membership_id == membership_id, alias.c.name.in_(list(names))))
    touch(connection, collection_id)
    return lookup.get(connection, version_id, seen.name.collection_name)


def set_aliases(
    connection: Connection, version_id: str, names: Iterable[str], collection: CollectionName | None = None
) -> VersionRow:
    """Give a version exactly these aliases in a collection it is in (its own sequence).

    ``latest`` goes like any other when it is not among them. Raises InvalidName, VersionNotFound, NotCommitted.
    """
    seen, collection_id, membership_id = _seen(connection, version_id, collection)
    connection.execute(delete(alias).where(alias.c.membership_id == membership_id))
    give_aliases(connection, collection_id, membership_id, names)
    return lookup.get(connection, version_id, seen.name.collection_name)


def link(connection: Connection, version_id: str, target: CollectionName, aliases: Iterable[str] = ()) -> VersionRow:
    """Link a committed version to a portfolio, made if needed; the version as seen there.

    The link gets the portfolio's next number, the aliases and ``latest``. A version that is linked already keeps its
    number there. Raises InvalidName, VersionNotFound, NotCommitted, KindMismatch, TypeMismatch.
    """
    source = _committed(lookup.get(connection, version_id))
    portfolio = ensure_collection(connection, target, source.type, CollectionKind.PORTFOLIO)
    held = select(membership.c.id).where(
        membership.c.collection_id == portfolio.id, membership.c.version_id == version_id
    )
    membership_id = connection.scalar(held)
    if membership_id is None:
        number = next_number(connection, portfolio.id)
        membership_id = add_membership(connection, portfolio.id, version_id, number)
    give_aliases(connection, portfolio.id, membership_id, {*aliases, LATEST})
    return lookup.get(connection, version_id, target)


def unlink(connection: Connection, version_id: str, target: CollectionName) -> None:
    """Take a version out of a portfolio, with its aliases there; raises VersionNotFound if it is not linked there."""
    seen = lookup.get(connection, version_id, target)
    if not seen.is_link:
        raise VersionNotFound(name=f"a link to {seen.source_name}", hint=": it is the version itself")
    drop_memberships(connection, membership.c.id == seen.membership_id)


def drop_memberships(connection: Connection, where: ColumnElement[bool]) -> None:
    """Take versions out of collections; ``latest`` passes on."""
    for gone in connection.execute(select(membership).where(where)).all():
        was_latest = connection.scalar(
            select(alias.c.name).where(alias.c.membership_id == gone.id, alias.c.name == LATEST)
        )
        connection.execute(delete(membership).where(membership.c.id == gone.id))  # its aliases go with it
        newest = connection.scalar(
            select(membership.c.id)
            .where(membership.c.collection_id == gone.collection_id)
            .order_by(membership.c.number.desc())
            .limit(1)
        )
        if was_latest and newest is not None:
            give_aliases(connection, gone.collection_id, newest, {LATEST})
        touch(connection, gone.collection_id)


def _seen(connection: Connection, version_id: str, in_collection: CollectionName | None) -> tuple[VersionRow, int, int]:
    seen = _committed(lookup.get(connection, version_id, in_collection))
    assert seen.membership_id is not None  # it is committed
    return seen, get_collection(connection, seen.name.collection_name).id, seen.membership_id


def _committed(seen: VersionRow) -> VersionRow:
    if seen.state is not State.COMMITTED:
        raise NotCommitted(name=seen.name, state=seen.state)
    return seen
