"""Looking things up: ``artfs.Api()``, and the runs it answers."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from artfs.errors import InvalidInput, InvalidName, NotFound, VersionNotFound
from artfs.names import CollectionName, check_entity, check_project, parse_collection_name, parse_version_name
from artfs.registry import RunRow, State
from artfs.sdk import session
from artfs.sdk.artifact import Artifact
from artfs.sdk.attributes import listed, moment
from artfs.sdk.collections import ArtifactCollection, ArtifactType, Listing, collections_of, versions_of
from artfs.versions.repository import Repository


class Run:
    """A run as the registry has it."""

    def __init__(self, repository: Repository, row: RunRow) -> None:
        self._repository = repository
        self._row = row

    @property
    def id(self) -> str:
        """Its id."""
        return self._row.id

    @property
    def name(self) -> str:
        """Its name for people; the id unless one was given."""
        return self._row.name

    @property
    def entity(self) -> str:
        """Its entity."""
        return self._row.entity

    @property
    def project(self) -> str:
        """Its project."""
        return self._row.project

    @property
    def path(self) -> list[str]:
        """Entity, project and id."""
        return [self.entity, self.project, self.id]

    @property
    def state(self) -> str:
        """``running``, ``finished``, ``failed`` or ``crashed``."""
        return self._row.state

    @property
    def job_type(self) -> str | None:
        """What it does, as was said when it began."""
        return self._row.job_type

    @property
    def config(self) -> dict[str, Any]:
        """Its configuration."""
        return dict(self._row.config)

    @property
    def created_at(self) -> str:
        """When it began, ISO 8601."""
        return moment(self._row.created_at)

    def logged_artifacts(self, per_page: int = 100) -> Listing[Artifact]:  # noqa: ARG002 - W&B's
        """What it logged, less what was deleted since."""
        rows = self._repository.registry.run_outputs(self.id)
        return versions_of(self._repository, (row for row in rows if row.state is State.COMMITTED))

    def used_artifacts(self, per_page: int = 100) -> Listing[Artifact]:  # noqa: ARG002 - W&B's
        """What it used, less what was deleted since."""
        rows = self._repository.registry.run_inputs(self.id)
        return versions_of(self._repository, (row for row in rows if row.state is State.COMMITTED))

    def __repr__(self) -> str:
        return f"<Run {'/'.join(self.path)} ({self.state})>"


class Api:
    """Artifacts, collections and runs of the registry.

    Names may leave out entity and project; those of the settings take their place, or ``overrides``.
    """

    def __init__(
        self,
        overrides: Mapping[str, str] | None = None,
        timeout: int | None = None,  # noqa: ARG002 - W&B's
        api_key: str | None = None,  # noqa: ARG002 - W&B's
    ) -> None:
        """``overrides`` may hold ``entity`` and ``project``. ``timeout``, ``api_key``: W&B's, without effect."""
        self._repository = session.repository()
        given = dict(overrides or {})
        settings = self._repository.settings
        self.default_entity = check_entity(given.get("entity") or settings.entity)
        self._project = check_project(given.get("project") or settings.project)

    def artifact(self, name: str, type: str | None = None) -> Artifact:  # noqa: A002 - W&B's
        """The artifact ``[[entity/]project/]collection[:alias]``; no alias means ``latest``.

        While the registry is out of reach, what it was when it was last asked. Raises VersionNotFound, InvalidName,
        and ValueError (InvalidInput) if it has another type.
        """
        return fetch(self._repository, name, self.default_entity, self._project, type)

    def artifacts(
        self,
        type_name: str,
        name: str,
        order: str | None = None,
        per_page: int = 50,  # noqa: ARG002 - W&B's
        tags: str | Iterable[str] | None = None,
    ) -> Listing[Artifact]:
        """The versions of a collection, newest first, or oldest with ``order="+created_at"``; those with all ``tags``.

        Raises VersionNotFound.
        """
        found = self.artifact_collection(type_name, name)
        wanted = set(listed(tags, str))
        rows = self._repository.registry.versions(CollectionName(found.entity, found.project, found.name))
        kept = [row for row in rows if wanted.issubset(row.tags)]
        return versions_of(self._repository, reversed(kept) if (order or "").startswith("+") else kept)

    def artifact_versions(self, type_name: str, name: str, per_page: int = 50) -> Listing[Artifact]:
        """``artifacts``, by its former name."""
        return self.artifacts(type_name, name, per_page=per_page)

    def artifact_collections(
        self,
        project_name: str,
        type_name: str,
        order: str | None = None,
        per_page: int = 50,  # noqa: ARG002 - W&B's
    ) -> Listing[ArtifactCollection]:
        """The collections of a project (``project`` or ``entity/project``) that have a type, by name.

        ``order``: ``+created_at`` or ``-created_at``; raises InvalidInput for another.
        """
        if order not in {None, "", "created_at", "+created_at", "-created_at"}:
            raise InvalidInput(f"collections cannot be ordered by {order!r}; use '+created_at' or '-created_at'")
        entity, project = self._place(project_name)
        rows = [row for row in self._repository.registry.collections(entity, project) if row.type == type_name]
        if order:
            rows.sort(key=operator.attrgetter("created_at"), reverse=order.startswith("-"))
        return collections_of(self._repository, rows)

    def artifact_collection(self, type_name: str, name: str) -> ArtifactCollection:
        """One collection; raises VersionNotFound."""
        parsed = parse_collection_name(name, entity=self.default_entity, project=self._project)
        return ArtifactType(self._repository, parsed.entity, parsed.project, type_name).collection(parsed.collection)

    def artifact_types(self, project: str | None = None) -> Listing[ArtifactType]:
        """The types that a project's collections have, by name."""
        entity, name = self._place(project)
        types = sorted({row.type for row in self._repository.registry.collections(entity, name)})
        return Listing(types, lambda type_: ArtifactType(self._repository, entity, name, type_))

    def artifact_type(self, type_name: str, project: str | None = None) -> ArtifactType:
        """One type; raises VersionNotFound if no collection of the project has it."""
        entity, name = self._place(project)
        for found in self.artifact_types(f"{entity}/{name}"):
            if found.name == type_name:
                return found
        raise VersionNotFound(name=f"artifact type {type_name!r} in {entity}/{name}", hint="")

    def artifact_exists(self, name: str, type: str | None = None) -> bool:  # noqa: A002 - W&B's
        """Whether there is such an artifact."""
        try:
            found = self.artifact(name)
        except VersionNotFound:
            return False
        return type in {None, found.type}

    def artifact_collection_exists(self, name: str, type: str) -> bool:  # noqa: A002 - W&B's
        """Whether there is such a collection."""
        try:
            self.artifact_collection(type, name)
        except VersionNotFound:
            return False
        return True

    def runs(
        self,
        path: str | None = None,
        filters: Mapping[str, Any] | None = None,
        order: str = "+created_at",
        per_page: int = 50,  # noqa: ARG002 - W&B's
    ) -> Listing[Run]:
        """The runs of a project (``project`` or ``entity/project``), oldest first, or newest with ``-created_at``.

        Raises InvalidInput for ``filters``: there are none here.
        """
        if filters:
            raise InvalidInput("runs cannot be filtered; choose among those that are answered")
        entity, project = self._place(path)
        rows = sorted(
            self._repository.registry.runs(entity, project),
            key=operator.attrgetter("created_at"),
            reverse=order.startswith("-"),
        )
        return Listing(rows, lambda row: Run(self._repository, row))

    def run(self, path: str) -> Run:
        """The run ``[[entity/]project/]id``; raises NotFound."""
        *_, run_id = path.strip("/").split("/")
        row = self._repository.registry.run(run_id)
        if [row.entity, row.project, row.id][-len(path.strip("/").split("/")) :] != path.strip("/").split("/"):
            raise NotFound(what="the run", name=path)
        return Run(self._repository, row)

    def _place(self, path: str | None) -> tuple[str, str]:
        parts = path.strip("/").split("/") if path else []
        if len(parts) > 2:
            raise InvalidName(what="project path", name=path, why="expected [entity/]project")
        entity, project = [self.default_entity, self._project][: 2 - len(parts)] + parts
        return check_entity(entity), check_project(project)


def fetch(repository: Repository, name: str, entity: str, project: str, type_: str | None = None) -> Artifact:
    """The artifact of a name; raises VersionNotFound, InvalidName, InvalidInput for another type."""
    parsed = parse_version_name(name, entity=entity, project=project)
    version = repository.resolve(parsed).version
    if type_ is not None and type_ != version.type:
        raise InvalidInput(f"Supplied type {type_} does not match type {version.type} of artifact {version.name}")
    return Artifact.of_version(repository, version, parsed if ":" in name else None)
