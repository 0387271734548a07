"""Packs and the extents in them: registering, deduplication, and what keeps packs alive.

A pack that a version relies on has a ``version_pack`` row. Pinning and condemning are both done by the registry's one
writer, so between looking an extent up and pinning its pack nothing can condemn it. A condemned pack never comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from artfs.errors import PacksCondemned
from artfs.registry.lookup import require_pending
from artfs.registry.rows import KnownExtent, PackRow
from artfs.registry.schema import Now, discarded_catalog, extent, pack, version_pack

_CHUNK: Final = 500  # values in one IN list: SQLite before 3.32 allows 999 parameters
_T = TypeVar("_T")


def register_pack(
    connection: Connection,
    version_id: str | None,
    key: str,
    size: int,
    checksums: bytes,
    extents: Sequence[KnownExtent],
) -> None:
    """Make a pack known that was just stored, pinned by the PENDING ``version_id``. May be repeated.

    None pins nothing: for rebuilding a lost registry. Content that is known elsewhere keeps its older place, unless
    that is condemned. Raises VersionNotFound if the version is not PENDING (any more), PacksCondemned if the pack is.
    """
    if version_id is not None:
        require_pending(connection, version_id)
    found = connection.execute(select(pack.c.id, pack.c.condemned_at).where(pack.c.key == key)).first()
    if found is not None and found.condemned_at is not None:
        raise PacksCondemned(count=1)
    if found is not None:
        pack_id = found.id
    else:
        row = insert(pack).values(key=key, size=size, checksums=checksums, registered_at=Now())
        pack_id = connection.execute(row.returning(pack.c.id)).scalar_one()
    new = {known.sha256: known for known in extents}
    held = {known.sha256 for known, _ in _live_extents(connection, list(new))}
    missing = [known for known in new.values() if known.sha256 not in held]
    for some in chunks(known.sha256 for known in missing):  # rows that point into condemned packs
        connection.execute(delete(extent).where(extent.c.sha256.in_(some)))
    if missing:
        connection.execute(
            insert(extent),
            [{"sha256": e.sha256, "pack_id": pack_id, "offset": e.offset, "length": e.length} for e in missing],
        )
    if version_id is not None:
        pin(connection, version_id, {pack_id})


def claim_extents(connection: Connection, version_id: str, sha256s: Sequence[bytes]) -> dict[bytes, KnownExtent]:
    """Those of the given extents that are stored, their packs pinned by the PENDING ``version_id``.

    Raises VersionNotFound if the version is not PENDING (any more).
    """
    require_pending(connection, version_id)
    found = list(_live_extents(connection, list(dict.fromkeys(sha256s))))
    pin(connection, version_id, {pack_id for _, pack_id in found})
    return {known.sha256: known for known, _ in found}


def pack_checksums(connection: Connection, keys: Iterable[str]) -> dict[str, PackRow]:
    """Those of the given packs that the registry knows."""
    wanted = select(pack.c.key, pack.c.size, pack.c.checksums)
    return {row.key: PackRow(*row) for row in each(connection, wanted, pack.c.key, keys)}


def known_packs(connection: Connection, keys: Iterable[str]) -> set[str]:
    """Those of the given pack keys that the registry knows, condemned ones included."""
    return {row.key for row in each(connection, select(pack.c.key), pack.c.key, keys)}


def pin(connection: Connection, version_id: str, pack_ids: Iterable[int]) -> None:
    """Keep packs for a version; those it has already are skipped."""
    held = select(version_pack.c.pack_id).where(version_pack.c.version_id == version_id)
    new = set(pack_ids).difference(connection.scalars(held))
    if new:
        rows = [{"version_id": version_id, "pack_id": pack_id} for pack_id in sorted(new)]
        connection.execute(insert(version_pack), rows)


def pin_exactly(connection: Connection, version_id: str, keys: Iterable[str]) -> None:
    """Keep these packs for a version and no others; raises PacksCondemned if any is condemned or gone."""
    wanted = set(keys)
    live = select(pack.c.key, pack.c.id).where(pack.c.condemned_at.is_(None))
    found = {row.id for row in each(connection, live, pack.c.key, wanted)}
    if len(found) < len(wanted):
        raise PacksCondemned(count=len(wanted) - len(found))
    unpin(connection, version_id)
    pin(connection, version_id, found)


def pin_as(connection: Connection, version_id: str, other_id: str) -> None:
    """Keep for a version what another one keeps."""
    held = select(version_pack.c.pack_id).where(version_pack.c.version_id == other_id)
    pin(connection, version_id, connection.scalars(held).all())


def unpin(connection: Connection, version_id: str) -> None:
    """Keep nothing for a version."""
    connection.execute(delete(version_pack).where(version_pack.c.version_id == version_id))


def discard_catalog(connection: Connection, key: str | None) -> None:
    """Have a catalog deleted from the store later on, if nothing else refers to it then."""
    known = select(discarded_catalog.c.key).where(discarded_catalog.c.key == key)
    if key is not None and connection.scalar(known) is None:
        connection.execute(insert(discarded_catalog).values(key=key, discarded_at=Now()))


def _live_extents(connection: Connection, sha256s: Sequence[bytes]) -> Iterator[tuple[KnownExtent, int]]:
    joined = (
        select(extent, pack.c.key)
        .select_from(extent.join(pack, pack.c.id == extent.c.pack_id))
        .where(pack.c.condemned_at.is_(None))
    )
    for row in each(connection, joined, extent.c.sha256, sha256s):
        yield KnownExtent(row.sha256, row.key, row.offset, row.length), row.pack_id


def each(connection: Connection, query: Any, column: ColumnElement[Any], values: Iterable[Any]) -> Iterator[Any]:
    """The rows of a query whose column is among the values, however many they are."""
    for some in chunks(values):
        yield from connection.execute(query.where(column.in_(some)))


def chunks(values: Iterable[_T]) -> Iterator[list[_T]]:
    """The values in lists that fit into one statement."""
    remaining = iter(values)
    while some := list(islice(remaining, _CHUNK)):
        yield some
