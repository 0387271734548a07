"""The whole schema, as of artfs 0.1."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "discarded_catalog",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("discarded_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_discarded_catalog")),
    )
    op.create_table(
        "entity",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entity")),
        sa.UniqueConstraint("name", name=op.f("uq_entity_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "extent",
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("pack_id", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_extent")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pack",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("checksums", sa.LargeBinary(), nullable=False),
        sa.Column("registered_at", sa.Double(), nullable=False),
        sa.Column("condemned_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pack")),
        sa.UniqueConstraint("key", name=op.f("uq_pack_key")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_pack_condemned",
        "pack",
        ["condemned_at"],
        unique=False,
        sqlite_where=sa.text("condemned_at IS NOT NULL"),
        postgresql_where=sa.text("condemned_at IS NOT NULL"),
    )
    op.create_table(
        "registry",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registry")),
    )
    op.create_table(
        "project",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["entity_id"], ["entity.id"], name=op.f("fk_project_entity_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
        sa.UniqueConstraint("entity_id", "name", name=op.f("uq_project_entity_id_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "collection",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("ttl_seconds", sa.BigInteger(), nullable=True),
        sa.Column("next_number", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.CheckConstraint("kind IN ('sequence', 'portfolio')", name=op.f("ck_collection_kind")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_collection_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collection")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_collection_project_id_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "run",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("job_type", sa.Text(), nullable=True),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_run_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
    )
    op.create_index(op.f("ix_run_project_id"), "run", ["project_id"], unique=False)
    op.create_table(
        "version",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("base_id", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("client_id", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("tree_digest", sa.Text(), nullable=True),
        sa.Column("file_count", sa.BigInteger(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=True),
        sa.Column("catalog_key", sa.Text(), nullable=True),
        sa.Column("catalog_sha256", sa.Text(), nullable=True),
        sa.Column("catalog_size", sa.BigInteger(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("ttl_seconds", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("renewed_at", sa.Double(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.CheckConstraint("(state = 'PENDING') = (number IS NULL)", name=op.f("ck_version_number")),
        sa.CheckConstraint("state = 'PENDING' OR digest IS NOT NULL", name=op.f("ck_version_content")),
        sa.CheckConstraint("state IN ('PENDING', 'COMMITTED', 'DELETED')", name=op.f("ck_version_state")),
        sa.ForeignKeyConstraint(["collection_id"], ["collection.id"], name=op.f("fk_version_collection_id")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_version_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_version")),
        sa.UniqueConstraint("collection_id", "number", name=op.f("uq_version_collection_id_number")),
    )
    op.create_index(op.f("ix_version_catalog_key"), "version", ["catalog_key"], unique=False)
    op.create_index(op.f("ix_version_collection_id_digest"), "version", ["collection_id", "digest"], unique=False)
    op.create_index(
        "ix_version_pending",
        "version",
        ["renewed_at"],
        unique=False,
        sqlite_where=sa.text("state = 'PENDING'"),
        postgresql_where=sa.text("state = 'PENDING'"),
    )
    op.create_table(
        "membership",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["collection_id"], ["collection.id"], name=op.f("fk_membership_collection_id")),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name=op.f("fk_membership_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_membership")),
        sa.UniqueConstraint("collection_id", "number", name=op.f("uq_membership_collection_id_number")),
        sa.UniqueConstraint("version_id", "collection_id", name=op.f("uq_membership_version_id_collection_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "run_version",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column("relation", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("relation IN ('input', 'output')", name=op.f("ck_run_version_relation")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_version_run_id")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["version.id"], name=op.f("fk_run_version_version_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "version_id", "relation", name=op.f("pk_run_version")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_run_version_version_id"), "run_version", ["version_id"], unique=False)
    op.create_table(
        "tag",
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name=op.f("fk_tag_version_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("version_id", "name", name=op.f("pk_tag")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "version_pack",
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column("pack_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["pack_id"], ["pack.id"], name=op.f("fk_version_pack_pack_id")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["version.id"], name=op.f("fk_version_pack_version_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", "pack_id", name=op.f("pk_version_pack")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_version_pack_pack_id"), "version_pack", ["pack_id"], unique=False)
    op.create_table(
        "alias",
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("membership_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["collection_id"], ["collection.id"], name=op.f("fk_alias_collection_id")),
        sa.ForeignKeyConstraint(
            ["membership_id"], ["membership.id"], name=op.f("fk_alias_membership_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("collection_id", "name", name=op.f("pk_alias")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_alias_membership_id"), "alias", ["membership_id"], unique=False)
