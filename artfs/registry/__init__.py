"""The registry: which versions exist, under which names, made of which packs.

``Registry`` composes the operations of this package's modules, each a function of an open connection, into
transactions: read operations see one snapshot, write operations happen entirely or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import Connection, select

from artfs.registry import gc, lifecycle, lineage, linking, lookup, namespace, packs
from artfs.registry.connection import Database, RegistryStatistics
from artfs.registry.rows import (
    INHERIT,
    KEEP,
    CollectionKind,
    CollectionRow,
    Committed,
    Content,
    EntityRow,
    KnownExtent,
    MembershipRow,
    PackRow,
    ProjectRow,
    RunRow,
    State,
    Ttl,
    VersionRecord,
    VersionRow,
    draft_alias,
    instant,
)
from artfs.registry.schema import Now

__all__ = [
    "INHERIT",
    "KEEP",
    "CollectionKind",
    "CollectionRow",
    "Committed",
    "Content",
    "EntityRow",
    "KnownExtent",
    "MembershipRow",
    "PackRow",
    "ProjectRow",
    "Registry",
    "RegistryStatistics",
    "RunRow",
    "State",
    "Ttl",
    "VersionRecord",
    "VersionRow",
    "draft_alias",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _reads(operation: Callable[Concatenate[Connection, _P], _R]) -> Callable[Concatenate[Registry, _P], _R]:
    @wraps(operation)
    def method(self: Registry, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with self.database.read() as connection:
            return operation(connection, *args, **kwargs)

    return method


def _writes(operation: Callable[Concatenate[Connection, _P], _R]) -> Callable[Concatenate[Registry, _P], _R]:
    @wraps(operation)
    def method(self: Registry, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with self.database.write() as connection:
            return operation(connection, *args, **kwargs)

    return method


class Registry:
    """An open registry; thread-safe, and usable in a forked child.

    Every operation takes the arguments of the function it is made of, less the connection, and may also raise
    RegistryUnavailable and (writing) DiskFull. Names are taken as valid: parse them with ``artfs.names``.
    """

    id: str
    """uuid4 hex, given when the registry was created; the store carries it too."""

    def __init__(self, database: Database, registry_id: str) -> None:
        self.database = database
        self.id = registry_id

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        """Open the registry at a SQLAlchemy URL (``sqlite:////path`` or ``postgresql://..``).

        ``create`` makes a new one where there is none, and upgrades one of an older artfs. Raises ConfigurationError,
        SchemaMismatch, RegistryUnavailable, LocalIOError, MissingExtra.
        """
        database = Database(url)
        try:
            return cls(database, database.prepare(create=create))
        except BaseException:
            database.close()
            raise

    @property
    def url_redacted(self) -> str:
        """Where it is, without secrets."""
        return self.database.redacted

    def now(self) -> datetime:
        """The database's time, UTC."""
        with self.database.read() as connection:
            return instant(connection.execute(select(Now())).scalar_one())

    def statistics(self) -> RegistryStatistics:
        """Counts since it was opened."""
        return self.database.statistics()

    def close(self) -> None:
        """Close its connections."""
        self.database.close()

    # -- writing a version
    begin = _writes(lifecycle.begin)
    renew = _writes(lifecycle.renew)
    register_pack = _writes(packs.register_pack)
    claim_extents = _writes(packs.claim_extents)
    pack_checksums = _reads(packs.pack_checksums)
    find_content = _reads(lookup.find_content)
    commit = _writes(lifecycle.commit)
    save_draft = _writes(lifecycle.save_draft)
    abandon = _writes(lifecycle.abandon)

    # -- reading
    resolve = _reads(lookup.resolve)
    get = _reads(lookup.get)
    versions = _reads(lookup.versions)
    drafts = _reads(lookup.drafts)
    links = _reads(lookup.links)
    entities = _reads(namespace.entities)
    projects = _reads(namespace.projects)
    collections = _reads(namespace.collections)
    collection = _reads(namespace.get_collection)
    memberships = _reads(lookup.memberships)
    aliases = _reads(lookup.aliases)

    # -- managing
    add_aliases = _writes(linking.add_aliases)
    remove_aliases = _writes(linking.remove_aliases)
    set_aliases = _writes(linking.set_aliases)
    link = _writes(linking.link)
    unlink = _writes(linking.unlink)
    change_tags = _writes(lifecycle.change_tags)
    update_version = _writes(lifecycle.update_version)
    update_collection = _writes(namespace.update_collection)
    delete_version = _writes(lifecycle.delete_version)
    import_version = _writes(lifecycle.import_version)

    # -- runs
    create_run = _writes(lineage.create_run)
    finish_run = _writes(lineage.finish_run)
    run = _reads(lineage.get_run)
    runs = _reads(lineage.runs)
    record_input = _writes(lineage.record_input)
    record_output = _writes(lineage.record_output)
    run_inputs = _reads(lineage.run_inputs)
    run_outputs = _reads(lineage.run_outputs)
    logged_by = _reads(lineage.logged_by)
    used_by = _reads(lineage.used_by)

    # -- garbage collection
    expired_versions = _reads(gc.expired_versions)
    delete_expired = _writes(gc.delete_expired)
    condemnable_packs = _reads(gc.condemnable_packs)
    condemn_packs = _writes(gc.condemn_packs)
    deletable_packs = _reads(gc.deletable_packs)
    forget_packs = _writes(gc.forget_packs)
    known_packs = _reads(packs.known_packs)
    deletable_catalogs = _reads(gc.deletable_catalogs)
    forget_catalogs = _writes(gc.forget_catalogs)
    known_catalogs = _reads(gc.known_catalogs)
