"""The registry's tables: the canonical reference of its schema.

Conventions, the same on SQLite and PostgreSQL:

* Times are seconds since 1970-01-01 UTC as double precision, always taken from the database's clock (``Now``), so
  that grace periods and TTLs are plain subtraction and hosts with wrong clocks do no harm.
* Integer keys are AUTOINCREMENT / sequences: a mount builds inode numbers from some of them, so none is ever given
  out twice, whatever is deleted.
* Every writer holds the registry's one write lock (``connection.Database.write``). Read-then-write inside a
  transaction is therefore free of races, and no statement here needs a dialect's own upsert.

A change here needs a revision in ``migrations/versions`` and ``HEAD`` moved to it; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

HEAD: Final = "0001"
"""The revision in ``migrations/versions`` that this module describes."""
REVISION_TABLE: Final = "schema_revision"
"""Alembic's table, under a name of its own so that other applications may share a PostgreSQL database."""
MEMBERSHIP_LIMIT: Final = 1 << 24
"""Membership ids stay below it: a namespace mount has 24 bits for them in an inode number."""


class Now(FunctionElement[float]):
    """The database's clock: seconds since 1970-01-01 UTC, to the millisecond on SQLite."""

    type = Double()
    inherit_cache = True


@compiles(Now, "sqlite")
def _now_sqlite(_element: Now, _compiler: SQLCompiler, **_options: object) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(Now, "postgresql")
def _now_postgresql(_element: Now, _compiler: SQLCompiler, **_options: object) -> str:
    # clock_timestamp(), not now(): the latter is the time at which the transaction began to wait for the write lock.
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


def _partial_index(name: str, column: str, condition: str) -> Index:
    # Partial on PostgreSQL too, which the revision that makes it says: said here, SQLAlchemy would load that dialect
    # into every process (0.1 of the 0.8 s of `artfs ls`).
    return Index(name, column, sqlite_where=text(condition))


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

registry = Table(
    "registry",
    metadata,
    Column("id", Text, primary_key=True),  # uuid4 hex, written once; the store carries it too. One row.
    Column("created_at", Double, nullable=False),
)

# -- names ----------------------------------------------------------------------------------------------------------
# Rows of these three tables are never deleted.

entity = Table(
    "entity",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),  # last time a project appeared in it
    sqlite_autoincrement=True,
)

project = Table(
    "project",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("entity_id", ForeignKey("entity.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),  # last time a membership or alias in any of its collections changed
    UniqueConstraint("entity_id", "name"),
    sqlite_autoincrement=True,
)

collection = Table(
    "collection",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),  # 'sequence': owns versions; 'portfolio': links to versions of sequences
    # Every version in it has this type. It may still change while next_number is 0 and nothing is PENDING.
    Column("type", Text, nullable=False),
    Column("description", Text),
    Column("ttl_seconds", BigInteger),  # for versions that set none themselves; NULL: they never expire
    # The number that the next membership gets (v0, v1, ..). Only grows: numbers are never re-used. While it is 0 the
    # collection has never held anything, and listings leave it out.
    Column("next_number", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),  # last time a membership or alias in it changed
    UniqueConstraint("project_id", "name"),
    CheckConstraint("kind IN ('sequence', 'portfolio')", name="kind"),
    sqlite_autoincrement=True,
)

# -- versions -------------------------------------------------------------------------------------------------------

run = Table(
    "run",
    metadata,
    Column("id", Text, primary_key=True),  # 8 characters of [0-9a-z], as W&B's, or what the caller chose
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("job_type", Text),
    Column("config", Text, nullable=False),  # JSON object
    Column("state", Text, nullable=False),  # running, then finished, failed or crashed
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Index(None, "project_id"),
)

# PENDING:   being written (digest NULL) or a draft (digest set). Pins packs through version_pack.
# COMMITTED: has a number and a membership in its sequence.
# DELETED:   keeps number and names for lineage; has no membership, alias or version_pack row, and never comes back.
# A PENDING row that is abandoned, or turns out equal to an existing version, is deleted outright.
version = Table(
    "version",
    metadata,
    Column("id", Text, primary_key=True),  # uuid4 hex; W&B's artifact id
    Column("collection_id", ForeignKey("collection.id"), nullable=False),  # its sequence
    Column("state", Text, nullable=False),
    Column("number", Integer),  # N of vN in its sequence, from collection.next_number at commit
    Column("origin", Text, nullable=False),  # who writes it: 'log', 'sdk' (both renew a heartbeat), 'mount'; 'import'
    Column("base_id", Text),  # the version it was derived from; no foreign key: a draft may be gone by now
    Column("run_id", ForeignKey("run.id")),  # the run that writes it
    Column("client_id", Text),  # the SDK's own id of the artifact before it was logged
    Column("digest", Text),  # W&B's digest; NULL, like all up to catalog_size, until there is content
    Column("tree_digest", Text),
    Column("file_count", BigInteger),
    Column("size", BigInteger),  # bytes of all entries
    Column("stored_bytes", BigInteger),  # bytes that this version added to the store
    Column("catalog_key", Text),
    Column("catalog_sha256", Text),  # hex, of the catalog before compression
    Column("catalog_size", BigInteger),
    Column("description", Text),
    Column("metadata", Text, nullable=False),  # JSON object
    Column("ttl_seconds", BigInteger),  # NULL: the collection's; 0: never expires
    Column("created_at", Double, nullable=False),  # begin, then the last save as a draft, then commit
    Column("updated_at", Double, nullable=False),  # commit, or the last change of description, metadata, TTL, tags
    Column("renewed_at", Double, nullable=False),  # heartbeat of the writer of a PENDING row
    Column("deleted_at", Double),
    UniqueConstraint("collection_id", "number"),
    CheckConstraint("state IN ('PENDING', 'COMMITTED', 'DELETED')", name="state"),
    CheckConstraint("(state = 'PENDING') = (number IS NULL)", name="number"),
    CheckConstraint("state = 'PENDING' OR digest IS NOT NULL", name="content"),
    Index(None, "collection_id", "digest"),
    Index(None, "catalog_key"),
    _partial_index("ix_version_pending", "renewed_at", "state = 'PENDING'"),
)

# A version in a collection: in its own sequence from commit on, and in each portfolio it is linked to.
membership = Table(
    "membership",
    metadata,
    Column("id", Integer, primary_key=True),  # below MEMBERSHIP_LIMIT
    Column("collection_id", ForeignKey("collection.id"), nullable=False),
    Column("version_id", ForeignKey("version.id"), nullable=False),
    Column("number", Integer, nullable=False),  # N of vN in this collection
    Column("created_at", Double, nullable=False),  # commit or link
    UniqueConstraint("collection_id", "number"),
    UniqueConstraint("version_id", "collection_id"),
    sqlite_autoincrement=True,
)

alias = Table(
    "alias",
    metadata,
    Column("collection_id", ForeignKey("collection.id"), primary_key=True),
    Column("name", Text, primary_key=True),  # never shaped like vN
    Column("membership_id", ForeignKey("membership.id", ondelete="CASCADE"), nullable=False),
    Index(None, "membership_id"),
    sqlite_with_rowid=False,
)

tag = Table(
    "tag",
    metadata,
    Column("version_id", ForeignKey("version.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    sqlite_with_rowid=False,
)

# Lineage. Inputs and outputs outlive the deletion of a version.
run_version = Table(
    "run_version",
    metadata,
    Column("run_id", ForeignKey("run.id"), primary_key=True),
    Column("version_id", ForeignKey("version.id", ondelete="CASCADE"), primary_key=True),
    Column("relation", Text, primary_key=True),  # 'input' or 'output'
    Column("created_at", Double, nullable=False),  # when it was first recorded
    CheckConstraint("relation IN ('input', 'output')", name="relation"),
    Index(None, "version_id"),
    sqlite_with_rowid=False,
)

# -- the store --------------------------------------------------------------------------------------------------------

pack = Table(
    "pack",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", Text, nullable=False, unique=True),  # in the store; unique to one upload
    Column("size", BigInteger, nullable=False),  # bytes of data, without index and footer
    Column("checksums", LargeBinary, nullable=False),  # XXH3-64 of each block of 1 MiB, 8 bytes little-endian each
    Column("registered_at", Double, nullable=False),
    # When garbage collection found it unreferenced. It is never used again, and deleted a grace period later.
    Column("condemned_at", Double),
    _partial_index("ix_pack_condemned", "condemned_at", "condemned_at IS NOT NULL"),
    sqlite_autoincrement=True,
)

# Where content with a given SHA-256 is stored. One row an extent that anyone ever stored, so it is kept compact: no
# rowid, no foreign key and no index on pack_id (it would double the table; only forgetting packs would use it, and
# that scans once). A row whose pack is gone means nothing and is swept with the next forgotten packs.
extent = Table(
    "extent",
    metadata,
    Column("sha256", LargeBinary, primary_key=True),
    Column("pack_id", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# What keeps a pack alive: rows exist for COMMITTED versions (exactly the packs of their catalog) and for PENDING ones
# (those of the base, and all that was stored or claimed for it), and for no others.
version_pack = Table(
    "version_pack",
    metadata,
    Column("version_id", ForeignKey("version.id", ondelete="CASCADE"), primary_key=True),
    Column("pack_id", ForeignKey("pack.id"), primary_key=True),
    Index(None, "pack_id"),
    sqlite_with_rowid=False,
)

# Catalogs of versions that were deleted, abandoned or found equal to another: to be deleted from the store.
discarded_catalog = Table(
    "discarded_catalog",
    metadata,
    Column("key", Text, primary_key=True),
    Column("discarded_at", Double, nullable=False),
)
