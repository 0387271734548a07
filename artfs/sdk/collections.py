"""Types and collections of a project, and lists of what the registry knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from artfs.errors import VersionNotFound
from artfs.names import CollectionName
from artfs.registry import CollectionKind, CollectionRow, VersionRow
from artfs.sdk.artifact import Artifact
from artfs.sdk.attributes import moment
from artfs.versions.repository import Repository

_T = TypeVar("_T")


class Listing(Sequence[_T], Generic[_T]):
    """An answer of the registry, its objects made as they are asked for."""

    def __init__(self, rows: Iterable[Any], make: Callable[[Any], _T]) -> None:
        self._rows = list(rows)
        self._make = make

    @property
    def length(self) -> int:
        """How many there are."""
        return len(self)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> _T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[_T]: ...
    def __getitem__(self, index: int | slice) -> _T | Sequence[_T]:
        if isinstance(index, slice):
            return [self._make(row) for row in self._rows[index]]
        return self._make(self._rows[index])

    def __iter__(self) -> Iterator[_T]:
        return map(self._make, self._rows)

    def __repr__(self) -> str:
        return f"<Listing of {len(self)}>"


class ArtifactCollection:
    """A sequence or a portfolio."""

    def __init__(self, repository: Repository, name: CollectionName, row: CollectionRow | None = None) -> None:
        self._repository = repository
        self._row = row or repository.registry.collection(name)
        self.description: str | None = self._row.description
        """Free text; ``save()`` persists a change."""
        seconds = self._row.ttl_seconds
        self.ttl: timedelta | None = None if seconds is None else timedelta(seconds=seconds)
        """How long versions live that set no TTL themselves; None: for ever. ``save()`` persists a change."""

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._row.name.collection

    @property
    def entity(self) -> str:
        """Its entity."""
        return self._row.name.entity

    @property
    def project(self) -> str:
        """Its project."""
        return self._row.name.project

    @property
    def qualified_name(self) -> str:
        """``entity/project/collection``."""
        return str(self._row.name)

    @property
    def type(self) -> str:
        """The type of everything in it."""
        return self._row.type

    @property
    def aliases(self) -> list[str]:
        """Every alias in it."""
        return list(self._repository.registry.aliases(self._row.name))

    @property
    def created_at(self) -> str:
        """When it was made, ISO 8601."""
        return moment(self._row.created_at)

    @property
    def updated_at(self) -> str:
        """When a version, link or alias in it appeared or went last, ISO 8601."""
        return moment(self._row.changed_at)

    def is_sequence(self) -> bool:
        """Whether it owns its versions; a portfolio links to them."""
        return self._row.kind is CollectionKind.SEQUENCE

    def artifacts(self, per_page: int = 50) -> Listing[Artifact]:  # noqa: ARG002 - W&B's
        """The versions in it, newest first."""
        return versions_of(self._repository, self._repository.registry.versions(self._row.name))

    def versions(self, per_page: int = 50) -> Listing[Artifact]:
        """The same, by its former name."""
        return self.artifacts(per_page)

    def save(self) -> None:
        """Persist description and TTL."""
        seconds = None if self.ttl is None else int(self.ttl.total_seconds())
        self._row = self._repository.registry.update_collection(
            self._row.name, description=self.description, ttl_seconds=seconds
        )

    def delete(self) -> None:
        """Delete every version in it, aliases and all; of a portfolio, every link."""
        registry = self._repository.registry
        for version in registry.versions(self._row.name):
            if self.is_sequence():
                registry.delete_version(version.id, delete_aliases=True)
            else:
                registry.unlink(version.id, self._row.name)

    def __repr__(self) -> str:
        return f"<ArtifactCollection {self.name} ({self.type})>"


class ArtifactType:
    """A type, with the collections of a project that have it."""

    def __init__(self, repository: Repository, entity: str, project: str, name: str) -> None:
        self._repository = repository
        self.entity = entity
        self.project = project
        self.name = name

    def collections(self, per_page: int = 50) -> Listing[ArtifactCollection]:  # noqa: ARG002 - W&B's
        """The collections of this type, by name."""
        rows = self._repository.registry.collections(self.entity, self.project)
        return collections_of(self._repository, (row for row in rows if row.type == self.name))

    def collection(self, name: str) -> ArtifactCollection:
        """One collection; raises VersionNotFound."""
        found = ArtifactCollection(self._repository, CollectionName(self.entity, self.project, name))
        if found.type != self.name:
            raise VersionNotFound(name=found.qualified_name, hint=f" with type {self.name!r}; it is a {found.type!r}")
        return found

    def __repr__(self) -> str:
        return f"<ArtifactType {self.name}>"


def versions_of(repository: Repository, rows: Iterable[VersionRow]) -> Listing[Artifact]:
    """Rows of versions as artifacts."""
    return Listing(rows, lambda row: Artifact.of_version(repository, row))


def collections_of(repository: Repository, rows: Iterable[CollectionRow]) -> Listing[ArtifactCollection]:
    """Rows of collections as collections."""
    return Listing(rows, lambda row: ArtifactCollection(repository, row.name, row))
