"""What the registry takes and answers: frozen values, detached from the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any, Final, Literal, TypeAlias

import attrs

from artfs.names import DRAFT_PREFIX, CollectionName, VersionName


class State(StrEnum):
    """Of a version; the words are W&B's."""

    PENDING = "PENDING"
    COMMITTED = "COMMITTED"
    DELETED = "DELETED"


class CollectionKind(StrEnum):
    """A sequence owns versions, a portfolio links to them."""

    SEQUENCE = "sequence"
    PORTFOLIO = "portfolio"


class Special(Enum):
    """Arguments that are not values."""

    KEEP = "keep"
    INHERIT = "inherit"


KEEP: Final = Special.KEEP
"""Leave as it is."""
INHERIT: Final = Special.INHERIT
"""Time to live of a version: its collection's default."""

Keep: TypeAlias = Literal[Special.KEEP]
Ttl: TypeAlias = int | Literal[Special.INHERIT] | None
"""Seconds from commit to expiry; None: never expires; INHERIT: as the collection says."""
Origin: TypeAlias = Literal["log", "sdk", "mount"]


def instant(seconds: float) -> datetime:
    """A time of the registry as UTC datetime."""
    return datetime.fromtimestamp(seconds, UTC)


def draft_alias(version_id: str) -> str:
    """What stands in place of an alias in the name of a draft."""
    return DRAFT_PREFIX + version_id[:8]


@attrs.frozen
class Content:
    """What a version holds, once its packs and its catalog are in the store."""

    digest: str
    tree_digest: str
    file_count: int
    size: int
    catalog_key: str
    """In the store; like a pack's, unique to one upload: garbage collection may be deleting an equal, older one."""
    catalog_sha256: str
    catalog_size: int
    packs: Iterable[str]
    """Keys of every pack that the catalog names."""
    stored_bytes: int = 0
    """Bytes that were new to the store."""


@attrs.frozen
class KnownExtent:
    """Content that is in the store."""

    sha256: bytes
    pack: str
    offset: int
    length: int


@attrs.frozen
class PackRow:
    """A pack in the store."""

    key: str
    size: int
    """Bytes of data."""
    checksums: bytes
    """XXH3-64 of each block, 8 bytes little-endian each."""


@attrs.frozen
class EntityRow:
    """An entity; ``changed_at`` moves when a project appears in it."""

    id: int
    name: str
    created_at: datetime
    changed_at: datetime


@attrs.frozen
class ProjectRow:
    """A project; ``changed_at`` moves when a version, link or alias in it appears or goes."""

    id: int
    entity: str
    name: str
    created_at: datetime
    changed_at: datetime


@attrs.frozen
class CollectionRow:
    """A collection; ``changed_at`` moves when a version, link or alias in it appears or goes."""

    id: int
    name: CollectionName
    kind: CollectionKind
    type: str
    description: str | None
    ttl_seconds: int | None
    next_index: int
    created_at: datetime
    changed_at: datetime


@attrs.frozen
class MembershipRow:
    """A committed version in a collection, as a listing needs it."""

    membership_id: int
    """Below 2**24, never re-used."""
    index: int
    version_id: str
    aliases: tuple[str, ...]
    created_at: datetime
    """When it was committed or linked."""


@attrs.frozen
class VersionRow:
    """A version as seen in one collection: its own sequence, or a portfolio it is linked to."""

    id: str
    state: State
    type: str
    name: VersionName
    """In the collection by which it was found; the alias is ``vN``, or ``draft-..`` for a draft."""
    source_name: VersionName
    """In its own sequence."""
    collection_kind: CollectionKind
    membership_id: int | None
    """None unless COMMITTED."""
    index: int | None
    """N of ``vN`` in the collection by which it was found; None for a draft."""
    source_index: int | None
    digest: str | None
    """None, like all up to ``catalog_size``, while the version is being written."""
    tree_digest: str | None
    file_count: int | None
    size: int | None
    stored_bytes: int | None
    catalog_key: str | None
    catalog_sha256: str | None
    catalog_size: int | None
    description: str | None
    metadata: Mapping[str, Any]
    aliases: tuple[str, ...]
    """Those in the collection by which it was found."""
    tags: tuple[str, ...]
    ttl_seconds: int | None
    """In force, be it the version's own or the collection's; None: never expires."""
    ttl_inherited: bool
    origin: str
    base_id: str | None
    run_id: str | None
    client_id: str | None
    created_at: datetime
    updated_at: datetime
    linked_at: datetime | None
    """When it came into the collection by which it was found."""

    @property
    def is_draft(self) -> bool:
        """Whether it is complete but not committed."""
        return self.state is State.PENDING and self.digest is not None

    @property
    def is_link(self) -> bool:
        """Whether it was found by a portfolio."""
        return self.name != self.source_name


@attrs.frozen
class Committed:
    """The outcome of a commit."""

    version: VersionRow
    created: bool
    """False: the collection already had this content, ``version`` is the one that has it."""


@attrs.frozen
class VersionRecord:
    """A committed version, or a link to one, as the JSON records in the store preserve it."""

    id: str
    name: VersionName
    """The alias is ``vN``."""
    kind: CollectionKind
    """PORTFOLIO: ``id`` is linked there, and content to tags are not looked at."""
    type: str
    aliases: tuple[str, ...]
    created_at: datetime
    content: Content | None = None
    description: str | None = None
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    tags: tuple[str, ...] = ()
    ttl: Ttl = INHERIT
    base_id: str | None = None


@attrs.frozen
class RunRow:
    """A run: what logged or used versions."""

    id: str
    entity: str
    project: str
    name: str
    job_type: str | None
    config: Mapping[str, Any]
    state: str
    created_at: datetime
    finished_at: datetime | None
