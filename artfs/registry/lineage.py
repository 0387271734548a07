"""Runs, and the versions that they used and logged."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Connection, Row, Select, insert, select, update

from artfs.errors import Conflict, NotFound
from artfs.names import check_text
from artfs.registry import lookup
from artfs.registry.namespace import ensure_project, get_project
from artfs.registry.rows import RunRow, VersionRow, instant
from artfs.registry.schema import Now, entity, project, run, run_version, version

_ID_ALPHABET: Final = string.digits + string.ascii_lowercase
_ID_LENGTH: Final = 8  # as W&B's run ids

_Relation: TypeAlias = Literal["input", "output"]


def create_run(
    connection: Connection,
    in_entity: str,
    in_project: str,
    name: str | None = None,
    job_type: str | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    run_id: str | None = None,
) -> str:
    """Record a run that begins and answer its id; the name is the id unless given.

    A ``run_id`` that exists in the project is resumed: it runs again, nothing else of it changes. Raises Conflict if
    it exists in another project, InvalidText.
    """
    for what, given in (("run id", run_id), ("run name", name), ("job type", job_type)):
        if given is not None:
            check_text(what, given)
    parent = ensure_project(connection, in_entity, in_project)
    key = run_id or _fresh_id(connection)
    found = connection.execute(select(run).where(run.c.id == key)).first()
    if found is not None and found.project_id != parent:
        raise Conflict(f"the run {key} belongs to another project than {in_entity}/{in_project}")
    if found is not None:
        connection.execute(update(run).where(run.c.id == key).values(state="running", finished_at=None))
        return key
    connection.execute(
        insert(run).values(
            id=key,
            project_id=parent,
            name=name or key,
            job_type=job_type,
            config=json.dumps(dict(config or {})),
            state="running",
            created_at=Now(),
        )
    )
    return key


def finish_run(
    connection: Connection, run_id: str, state: Literal["finished", "failed", "crashed"] = "finished"
) -> None:
    """Record how a run ended; raises NotFound."""
    get_run(connection, run_id)
    connection.execute(update(run).where(run.c.id == run_id).values(state=state, finished_at=Now()))


def get_run(connection: Connection, run_id: str) -> RunRow:
    """The run with that id; raises NotFound."""
    found = connection.execute(_runs().where(run.c.id == run_id)).first()
    if found is None:
        raise NotFound(what="the run", name=run_id)
    return _row(found)


def runs(connection: Connection, in_entity: str, in_project: str) -> tuple[RunRow, ...]:
    """The runs of a project, newest first; raises VersionNotFound if there is no such project."""
    parent = get_project(connection, in_entity, in_project)
    found = connection.execute(_runs().where(run.c.project_id == parent).order_by(run.c.created_at.desc()))
    return tuple(map(_row, found))


def record_input(connection: Connection, run_id: str, version_id: str) -> None:
    """Record that a run used a version; the first time counts. Raises NotFound, VersionNotFound."""
    _record(connection, run_id, version_id, "input")


def record_output(connection: Connection, run_id: str, version_id: str) -> None:
    """Record that a run logged a version; the first time counts. Raises NotFound, VersionNotFound."""
    _record(connection, run_id, version_id, "output")


def run_inputs(connection: Connection, run_id: str) -> tuple[VersionRow, ...]:
    """The versions that a run used, deleted ones included; raises NotFound."""
    return _versions(connection, run_id, "input")


def run_outputs(connection: Connection, run_id: str) -> tuple[VersionRow, ...]:
    """The versions that a run logged, deleted ones included, also those that existed before; raises NotFound."""
    return _versions(connection, run_id, "output")


def logged_by(connection: Connection, version_id: str) -> RunRow | None:
    """The run that logged a version first; None if none did. Raises VersionNotFound."""
    found = _runs_of(connection, version_id, "output")
    return found[0] if found else None


def used_by(connection: Connection, version_id: str) -> tuple[RunRow, ...]:
    """The runs that used a version, in the order they did; raises VersionNotFound."""
    return _runs_of(connection, version_id, "input")


def _record(connection: Connection, run_id: str, version_id: str, relation: _Relation) -> None:
    key = {"run_id": get_run(connection, run_id).id, "version_id": lookup.get(connection, version_id).id}
    if connection.execute(select(run_version).filter_by(relation=relation, **key)).first() is None:
        connection.execute(insert(run_version).values(relation=relation, created_at=Now(), **key))


def _versions(connection: Connection, run_id: str, relation: _Relation) -> tuple[VersionRow, ...]:
    get_run(connection, run_id)
    related = select(run_version.c.version_id).where(run_version.c.run_id == run_id, run_version.c.relation == relation)
    found = lookup.views(connection, version.c.id.in_(related), lookup.OWN)
    return tuple(sorted(found, key=lambda row: (row.source_name.collection_name, row.source_index or 0)))


def _runs_of(connection: Connection, version_id: str, relation: _Relation) -> tuple[RunRow, ...]:
    lookup.get(connection, version_id)
    found = connection.execute(
        _runs()
        .join(run_version, run_version.c.run_id == run.c.id)
        .where(run_version.c.version_id == version_id, run_version.c.relation == relation)
        .order_by(run_version.c.created_at, run.c.created_at)
    )
    return tuple(map(_row, found))


def _fresh_id(connection: Connection) -> str:
    while True:
        key = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
        if connection.scalar(select(run.c.id).where(run.c.id == key)) is None:
            return key


def _runs() -> Select[Any]:
    return select(run, entity.c.name.label("entity_name"), project.c.name.label("project_name")).select_from(
        run.join(project).join(entity)
    )


def _row(row: Row[Any]) -> RunRow:
    return RunRow(
        id=row.id,
        entity=row.entity_name,
        project=row.project_name,
        name=row.name,
        job_type=row.job_type,
        config=json.loads(row.config),
        state=row.state,
        created_at=instant(row.created_at),
        finished_at=None if row.finished_at is None else instant(row.finished_at),
    )
