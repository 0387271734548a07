"""Alembic's entry: runs the revisions on the connection that ``migrations.upgrade`` passes."""

from __future__ import annotations

from alembic import context

from artfs.registry import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    version_table=schema.REVISION_TABLE,
    render_as_batch=True,  # SQLite alters tables by copying them
)
with context.begin_transaction():
    context.run_migrations()
