"""What garbage collection asks of the registry.

Versions past their time to live are deleted. Packs go in two steps: ``condemn_packs`` marks what nothing pins, and
from then on no writer can pin it; after a grace period, in which readers that opened a version before finish,
``deletable_packs`` names it, the store deletes it, and ``forget_packs`` drops its row. Catalogs wait a grace period
likewise from when they were discarded. ``grace_seconds`` may be 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import ColumnElement, Connection, delete, exists, func, select, update

from artfs.registry import lookup, schema
from artfs.registry.lifecycle import delete_version, drop
from artfs.registry.packs import chunks, each
from artfs.registry.rows import State, VersionRow
from artfs.registry.schema import Now, discarded_catalog, extent, membership, pack, version, version_pack

_UNEXPIRING_PROJECTS: Final = "wandb-registry-%"  # what is linked there has no TTL, as W&B's documentation says


def expired_versions(connection: Connection) -> tuple[VersionRow, ...]:
    """The committed versions whose time to live has passed; registry-linked ones never are among them."""
    home, shelf = schema.collection, schema.collection.alias("shelf")
    ttl = func.coalesce(version.c.ttl_seconds, home.c.ttl_seconds)
    linked = (
        select(membership.c.id)
        .select_from(membership.join(shelf, shelf.c.id == membership.c.collection_id).join(schema.project))
        .where(membership.c.version_id == version.c.id, schema.project.c.name.like(_UNEXPIRING_PROJECTS))
    )
    expired = (
        select(version.c.id)
        .select_from(version.join(home))
        .where(version.c.state == State.COMMITTED, ttl > 0, version.c.created_at + ttl <= Now(), ~linked.exists())
    )
    return lookup.views(connection, version.c.id.in_(expired), lookup.OWN)


def delete_expired(connection: Connection) -> tuple[VersionRow, ...]:
    """Delete every version whose time to live has passed, aliases and all, and answer what they were."""
    found = expired_versions(connection)
    for seen in found:
        delete_version(connection, seen.id, delete_aliases=True)
    return found


def condemnable_packs(connection: Connection, grace_seconds: float) -> tuple[str, ...]:
    """The packs that ``condemn_packs`` would condemn now."""
    pinning = version_pack.c.version_id.not_in(select(version.c.id).where(_stale(grace_seconds)))
    return tuple(connection.scalars(select(pack.c.key).where(_unpinned(pinning)).order_by(pack.c.key)))


def condemn_packs(connection: Connection, grace_seconds: float) -> tuple[str, ...]:
    """Condemn every pack that neither a version nor anything being written relies on; their keys.

    What a ``log`` or a Python program began and has not renewed for ``grace_seconds`` is abandoned first. Drafts
    are not, nor what a mount began: somebody's edits wait behind it.
    """
    for version_id in connection.scalars(select(version.c.id).where(_stale(grace_seconds))).all():
        drop(connection, version_id, None)
    condemned = update(pack).where(_unpinned()).values(condemned_at=Now()).returning(pack.c.key)
    return tuple(sorted(connection.scalars(condemned)))


def deletable_packs(connection: Connection, grace_seconds: float) -> tuple[str, ...]:
    """Keys of packs condemned at least ``grace_seconds`` ago: they may be deleted from the store."""
    long_ago = pack.c.condemned_at <= Now() - grace_seconds
    return tuple(connection.scalars(select(pack.c.key).where(long_ago).order_by(pack.c.key)))


def forget_packs(connection: Connection, keys: Iterable[str]) -> None:
    """Drop condemned packs that are gone from the store; others are left alone."""
    for some in chunks(keys):
        connection.execute(delete(pack).where(pack.c.key.in_(some), pack.c.condemned_at.is_not(None)))
    connection.execute(delete(extent).where(extent.c.pack_id.not_in(select(pack.c.id))))


def deletable_catalogs(connection: Connection, grace_seconds: float) -> tuple[str, ...]:
    """Keys of catalogs discarded at least ``grace_seconds`` ago that no version refers to."""
    long_ago = discarded_catalog.c.discarded_at <= Now() - grace_seconds
    in_use = exists().where(version.c.catalog_key == discarded_catalog.c.key, version.c.state != State.DELETED)
    return tuple(connection.scalars(select(discarded_catalog.c.key).where(long_ago, ~in_use)))


def forget_catalogs(connection: Connection, keys: Iterable[str]) -> None:
    """Drop discarded catalogs that are gone from the store."""
    for some in chunks(keys):
        connection.execute(delete(discarded_catalog).where(discarded_catalog.c.key.in_(some)))


def known_catalogs(connection: Connection, keys: Iterable[str]) -> set[str]:
    """Those of the given catalog keys that a version refers to or that are discarded and not deleted yet."""
    wanted = list(keys)
    used = select(version.c.catalog_key).where(version.c.state != State.DELETED)
    return {
        *(row.catalog_key for row in each(connection, used, version.c.catalog_key, wanted)),
        *(row.key for row in each(connection, select(discarded_catalog), discarded_catalog.c.key, wanted)),
    }


def _stale(grace_seconds: float) -> ColumnElement[bool]:
    return (
        (version.c.state == State.PENDING)
        & version.c.digest.is_(None)
        & version.c.origin.in_(["log", "sdk"])
        & (version.c.renewed_at <= Now() - grace_seconds)
    )


def _unpinned(*pinning: ColumnElement[bool]) -> ColumnElement[bool]:
    return pack.c.condemned_at.is_(None) & ~exists().where(version_pack.c.pack_id == pack.c.id, *pinning)
