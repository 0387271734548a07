"""The life of a version: begun, saved as a draft, committed, changed in what may change, deleted.

PENDING --commit--> COMMITTED --delete_version--> DELETED;  PENDING --abandon, or commit of known content--> no row.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, update

from artfs.errors import AliasesExist, BaseOutdated, InvalidMetadata, VersionInUse, VersionNotFound
from artfs.names import LATEST, CollectionName, check_tag, check_text
from artfs.registry import lineage, lookup, packs
from artfs.registry.linking import add_membership, drop_memberships, give_aliases, next_number
from artfs.registry.lookup import require_pending
from artfs.registry.namespace import ensure_collection
from artfs.registry.rows import (
    INHERIT,
    KEEP,
    CollectionKind,
    Committed,
    Content,
    Keep,
    Origin,
    State,
    Ttl,
    VersionRecord,
    VersionRow,
)
from artfs.registry.schema import Now, alias, collection, membership, tag, version

_NEVER: Final = 0  # version.ttl_seconds of a version that never expires


# -- writing ----------------------------------------------------------------------------------------------------------


def begin(
    connection: Connection,
    collection: CollectionName,
    type: str,  # noqa: A002 - the word of the whole domain
    *,
    base: str | None = None,
    origin: Origin,
    run: str | None = None,
    client_id: str | None = None,
) -> str:
    """Begin a version and answer its id; what leads to it is created as needed.

    From now until commit or abandon it pins the packs of ``base`` (a version's id) and those that are registered or
    claimed for it. ``run`` is the id of the run that will have logged it. Raises TypeMismatch, KindMismatch,
    VersionNotFound (no such base), NotFound (no such run).
    """
    if run is not None:
        lineage.get_run(connection, run)
    holder = ensure_collection(connection, collection, type, CollectionKind.SEQUENCE)
    if base is not None and lookup.get(connection, base).state is State.DELETED:
        raise VersionNotFound(name=f"base {base}", hint=": it was deleted")
    version_id = _fresh_id(connection)
    connection.execute(
        insert(version).values(
            id=version_id,
            collection_id=holder.id,
            state=State.PENDING,
            origin=origin,
            base_id=base,
            run_id=run,
            client_id=client_id,
            metadata="{}",
            created_at=Now(),
            updated_at=Now(),
            renewed_at=Now(),
        )
    )
    if base is not None:
        packs.pin_as(connection, version_id, base)
    return version_id


def renew(connection: Connection, version_id: str) -> None:
    """Show that the writer of a PENDING version lives; raises VersionNotFound if it was abandoned meanwhile."""
    require_pending(connection, version_id)
    connection.execute(update(version).where(version.c.id == version_id).values(renewed_at=Now()))


def save_draft(
    connection: Connection,
    version_id: str,
    content: Content,
    *,
    replaces: str | None = None,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> VersionRow:
    """Make a PENDING version a draft that can be resolved, mounted and committed.

    ``replaces`` is a draft that goes away in the same transaction; the new one takes over its base. It stays if it
    was committed meanwhile. None leaves description and metadata as they are. Raises VersionNotFound,
    PacksCondemned, InvalidMetadata.
    """
    row = require_pending(connection, version_id)
    _store(connection, row.id, content, description, metadata, KEEP)
    old = connection.execute(select(version).where(version.c.id == replaces, version.c.state == State.PENDING)).first()
    if old is not None:
        connection.execute(update(version).where(version.c.id == row.id).values(base_id=old.base_id))
        drop(connection, old.id, old.catalog_key)
    return lookup.get(connection, row.id)


def commit(
    connection: Connection,
    version_id: str,
    content: Content,
    *,
    aliases: Sequence[str] = (),
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    tags: Iterable[str] = (),
    ttl: Ttl | Keep = KEEP,
    require_latest: bool = False,
    only_known: bool = False,
    among: Collection[str] | None = None,
) -> Committed | None:
    """Make a PENDING version or draft visible, with its number, ``aliases`` and ``latest``.

    If a version of the collection has this content, none is made: the aliases move to that one and the PENDING row
    goes. What a draft was saved with stays where an argument is None, empty or KEEP. Repeating a commit that went
    through answers it again. ``require_latest`` refuses unless the base is what ``latest`` names (or both are
    nothing). With ``only_known`` nothing happens, and the answer is None, unless the content is known: so a catalog
    need not be stored to learn that. ``among`` are the ids of the versions that can be equal, None for all. Raises
    VersionNotFound (abandoned), PacksCondemned, BaseOutdated, InvalidName, InvalidMetadata, RegistryFull; then the
    version is still PENDING.
    """
    again = connection.execute(
        select(version.c.id).where(
            version.c.id == version_id, lookup.content_equals(content.digest, content.tree_digest)
        )
    ).first()
    if again is not None:
        return Committed(lookup.get(connection, version_id), created=True)
    row = require_pending(connection, version_id)
    name = lookup.get(connection, version_id).source_name.collection_name
    if require_latest:
        _check_latest(connection, row.collection_id, row.base_id, name)

    existing = lookup.find_content(connection, name, content.digest, content.tree_digest, among)
    if existing is None and only_known:
        return None
    if existing is not None:
        assert existing.membership_id is not None  # it is committed
        give_aliases(connection, row.collection_id, existing.membership_id, {*aliases, LATEST})
        if row.run_id is not None:
            lineage.record_output(connection, row.run_id, existing.id)
        packs.discard_catalog(connection, content.catalog_key)
        drop(connection, version_id, row.catalog_key)
        return Committed(lookup.get(connection, existing.id), created=False)

    _store(connection, version_id, content, description, metadata, ttl)
    number = next_number(connection, row.collection_id)
    connection.execute(update(version).where(version.c.id == version_id).values(state=State.COMMITTED, number=number))
    membership_id = add_membership(connection, row.collection_id, version_id, number)
    give_aliases(connection, row.collection_id, membership_id, {*aliases, LATEST})
    _add_tags(connection, version_id, tags)
    if row.run_id is not None:
        lineage.record_output(connection, row.run_id, version_id)
    return Committed(lookup.get(connection, version_id), created=True)


def abandon(connection: Connection, version_id: str) -> None:
    """Give up a PENDING version or discard a draft; one that is gone already is no error.

    Raises VersionInUse if it was committed.
    """
    row = connection.execute(select(version).where(version.c.id == version_id)).first()
    if row is None:
        return
    if row.state != State.PENDING:
        raise VersionInUse(name=lookup.get(connection, version_id).name, why=f"it is {row.state}, not a draft")
    drop(connection, version_id, row.catalog_key)


# -- managing ---------------------------------------------------------------------------------------------------------


def update_version(
    connection: Connection,
    version_id: str,
    *,
    description: str | Keep | None = KEEP,
    metadata: Mapping[str, Any] | Keep = KEEP,
    ttl: Ttl | Keep = KEEP,
) -> VersionRow:
    """Change what may change of a version or draft; raises VersionNotFound, InvalidMetadata, InvalidText."""
    seen = lookup.get(connection, version_id)
    values: dict[str, Any] = {"updated_at": Now(), **_ttl(ttl)}
    if description is not KEEP:
        values["description"] = _description(description)
    if metadata is not KEEP:
        values["metadata"] = _json(metadata)
    connection.execute(update(version).where(version.c.id == seen.id).values(**values))
    return lookup.get(connection, version_id)


def change_tags(
    connection: Connection, version_id: str, added: Iterable[str], removed: Iterable[str] = ()
) -> VersionRow:
    """Give a version some tags and take others; raises InvalidName, VersionNotFound."""
    seen = lookup.get(connection, version_id)
    _add_tags(connection, version_id, added)
    connection.execute(delete(tag).where(tag.c.version_id == seen.id, tag.c.name.in_(list(removed))))
    connection.execute(update(version).where(version.c.id == seen.id).values(updated_at=Now()))
    return lookup.get(connection, version_id)


def delete_version(connection: Connection, version_id: str, *, delete_aliases: bool = False) -> VersionRow:
    """Delete a committed version and every link to it; its number is never given again.

    Refuses with AliasesExist while it has any alias (``latest`` counts), in its sequence or in a portfolio, unless
    ``delete_aliases``. Where it had ``latest``, the version with the highest number that is left gets it. Content
    that other versions share stays. Raises VersionNotFound; VersionInUse for a draft (abandon it).
    """
    seen = lookup.get(connection, version_id)
    if seen.state is State.DELETED:
        raise VersionNotFound(name=seen.name, hint=": it was deleted")
    if seen.state is State.PENDING:
        raise VersionInUse(name=seen.name, why="it is a draft; discard it instead")
    held = [str(view.name.collection_name.at(name)) for view in _views(connection, seen) for name in view.aliases]
    if held and not delete_aliases:
        raise AliasesExist(name=seen.name, aliases=", ".join(held))
    drop_memberships(connection, membership.c.version_id == version_id)
    packs.unpin(connection, version_id)
    packs.discard_catalog(connection, seen.catalog_key)
    gone = update(version).where(version.c.id == version_id)
    connection.execute(gone.values(state=State.DELETED, deleted_at=Now()))
    return lookup.get(connection, version_id)


def import_version(connection: Connection, record: VersionRecord) -> VersionRow:
    """Put a version or link back from its record, with the id, number and time it had; may be repeated.

    Aliases go to the highest number that claims them. Packs must have been registered. Raises PacksCondemned (packs
    missing), TypeMismatch, KindMismatch, VersionNotFound (link to a version that was not imported).
    """
    holder = ensure_collection(connection, record.name.collection_name, record.type, record.kind)
    number = int(record.name.alias.removeprefix("v"))
    held = connection.scalar(
        select(membership.c.id).where(membership.c.collection_id == holder.id, membership.c.version_id == record.id)
    )
    if held is None:
        if record.kind is CollectionKind.PORTFOLIO:
            lookup.get(connection, record.id)
        else:
            _import_row(connection, record, holder.id, number)
        held = add_membership(connection, holder.id, record.id, number)
        counter = update(collection).where(collection.c.id == holder.id, collection.c.next_number <= number)
        connection.execute(counter.values(next_number=number + 1))
    higher = (
        select(alias.c.name).join(membership).where(alias.c.collection_id == holder.id, membership.c.number > number)
    )
    give_aliases(connection, holder.id, held, set(record.aliases).difference(connection.scalars(higher)))
    return lookup.get(connection, record.id, record.name.collection_name)


def _fresh_id(connection: Connection) -> str:
    while True:
        version_id = uuid.uuid4().hex
        # Drafts are named by the first 8 digits.
        prefix = func.substr(version.c.id, 1, 8) == version_id[:8]
        if connection.scalar(select(version.c.id).where(version.c.state == State.PENDING, prefix)) is None:
            return version_id


def _store(
    connection: Connection,
    version_id: str,
    content: Content,
    description: str | None,
    metadata: Mapping[str, Any] | None,
    ttl: Ttl | Keep,
) -> None:
    packs.pin_exactly(connection, version_id, content.packs)
    values: dict[str, Any] = {**_columns(content), **_ttl(ttl), "created_at": Now(), "updated_at": Now()}
    if description is not None:
        values["description"] = _description(description)
    if metadata is not None:
        values["metadata"] = _json(metadata)
    connection.execute(update(version).where(version.c.id == version_id).values(**values))


def _import_row(connection: Connection, record: VersionRecord, collection_id: int, number: int) -> None:
    if record.content is None:
        raise InvalidMetadata(why=f"the record of {record.name} has no content")
    created = record.created_at.timestamp()
    connection.execute(
        insert(version).values(
            id=record.id,
            collection_id=collection_id,
            state=State.COMMITTED,
            number=number,
            origin="import",
            base_id=record.base_id,
            description=record.description,
            metadata=_json(record.metadata),
            created_at=created,
            updated_at=created,
            renewed_at=created,
            **_columns(record.content),
            **_ttl(record.ttl),
        )
    )
    packs.pin_exactly(connection, record.id, record.content.packs)
    _add_tags(connection, record.id, record.tags)


def _columns(content: Content) -> dict[str, Any]:
    return {
        "digest": content.digest,
        "tree_digest": content.tree_digest,
        "file_count": content.file_count,
        "size": content.size,
        "stored_bytes": content.stored_bytes,
        "catalog_key": content.catalog_key,
        "catalog_sha256": content.catalog_sha256,
        "catalog_size": content.catalog_size,
    }


def _ttl(ttl: Ttl | Keep) -> dict[str, Any]:
    if ttl is KEEP:
        return {}
    if ttl is INHERIT:
        return {"ttl_seconds": None}
    return {"ttl_seconds": _NEVER if ttl is None else ttl}


def _description(text: str | None) -> str | None:
    return None if text is None else check_text("description", text)


def _json(metadata: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(metadata), allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InvalidMetadata(why=str(error)) from error


def _add_tags(connection: Connection, version_id: str, tags: Iterable[str]) -> None:
    held = connection.scalars(select(tag.c.name).where(tag.c.version_id == version_id))
    new = {check_tag(name) for name in tags}.difference(held)
    if new:
        connection.execute(insert(tag), [{"version_id": version_id, "name": name} for name in sorted(new)])


def _views(connection: Connection, seen: VersionRow) -> tuple[VersionRow, ...]:
    return (seen, *lookup.links(connection, seen.id))


def _check_latest(connection: Connection, collection_id: int, base_id: str | None, name: CollectionName) -> None:
    joined = select(membership.c.version_id, membership.c.number).join(alias)
    latest = connection.execute(joined.where(alias.c.collection_id == collection_id, alias.c.name == LATEST)).first()
    if (None if latest is None else latest.version_id) != base_id:
        raise BaseOutdated(collection=name, latest="no version" if latest is None else f"v{latest.number}")


def drop(connection: Connection, version_id: str, catalog_key: str | None) -> None:
    """Remove a PENDING row and what it pins."""
    packs.discard_catalog(connection, catalog_key)
    connection.execute(delete(version).where(version.c.id == version_id))
