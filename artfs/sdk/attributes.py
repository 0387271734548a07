"""What an artifact is: its constructor, its state and its attributes."""

from __future__ import annotations

import copy
import enum
import functools
import logging
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypeVar, cast

from artfs.catalog import Catalog
from artfs.errors import ArtifactFinalizedError, ArtifactNotLoggedError, InvalidInput, InvalidName, VersionNotFound
from artfs.names import VersionName, check_alias, check_artifact_name, check_tag, check_type
from artfs.registry import INHERIT, KEEP, State, Ttl, VersionRow
from artfs.registry.rows import Keep
from artfs.sdk import session
from artfs.sdk.draft import Draft, Row
from artfs.sdk.manifest import ArtifactManifest, CatalogContents, Contents, DraftContents, LiveContents
from artfs.versions.metadata import check_metadata
from artfs.versions.publication import Published
from artfs.versions.repository import Repository

if TYPE_CHECKING:
    from artfs.sdk.artifact import Artifact
    from artfs.sdk.collections import ArtifactCollection

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S", bound="Attributes")

# Types that W&B keeps for itself where the name begins so (wandb 0.31.0, ``_validators.py``).
_RESERVED = {"run_table": "run-", "code": "source-"}


class ArtifactTTL(enum.Enum):
    """What ``ttl`` may be set to beside a duration and None."""

    INHERIT = "inherit"
    """The default of the collection."""


def logged(method: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R]:
    """Mark what only exists once the artifact is logged: before, it raises ArtifactNotLoggedError."""

    @functools.wraps(method)
    def checked(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if not self.is_logged:
            raise ArtifactNotLoggedError(name=method.__name__)
        return method(self, *args, **kwargs)

    return checked


def not_finalized(method: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R]:
    """Mark what changes the contents: it raises ArtifactFinalizedError once the artifact is logged or finalized."""

    @functools.wraps(method)
    def checked(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if self.is_final:
            raise ArtifactFinalizedError(name=method.__name__)
        return method(self, *args, **kwargs)

    return checked


def listed(names: str | Iterable[str] | None, check: Callable[[str], str]) -> list[str]:
    """One name or several as a list without repeats, each checked."""
    given = [names] if isinstance(names, str) else names or []
    return list(dict.fromkeys(map(check, given)))


class Attributes:
    """State and attributes; ``Artifact`` is the class to use."""

    def __init__(
        self,
        name: str,
        type: str,  # noqa: A002 - W&B's
        description: str | None = None,
        metadata: Mapping[str, Any] | str | None = None,
        incremental: bool = False,
        use_as: str | None = None,  # noqa: ARG002 - W&B's
        storage_region: str | None = None,  # noqa: ARG002 - W&B's
        digest_algorithm: Literal["MD5"] = "MD5",
    ) -> None:
        """An empty artifact, whose contents are then added. Nothing is asked of the registry before it is logged.

        ``name``: letters, digits, ``_ - .``, at most 128. ``type``: such as dataset or model. ``description``: free
        text. ``metadata``: a dict (or its JSON) of at most 100 keys. ``incremental``: build on what ``latest`` holds
        when it is logged. ``use_as``, ``storage_region``: W&B's, without effect. ``digest_algorithm``: MD5 only.
        Raises InvalidName and InvalidMetadata (both ValueError), and TypeError for metadata that is no dict.
        """
        if digest_algorithm != "MD5":
            raise InvalidInput(f"digest_algorithm {digest_algorithm!r} is not supported; artfs uses MD5")
        self._collection = check_artifact_name(name)
        self._type = _checked_type(type, name)
        self.description: str | None = description
        """Free text, markdown; ``save()`` persists a change."""
        self._metadata = check_metadata(metadata or None)
        self.incremental: bool = incremental
        """Whether it builds on what ``latest`` holds when it is logged."""
        self.distributed_id: str | None = None
        """What joins the parts of an artifact that several processes write."""
        self.use_as: str | None = None
        """W&B's; always None."""
        self.client_id: str = uuid.uuid4().hex
        """The artifact's own id until it has one of the registry."""
        self._prepare(Draft(name))
        session.by_client_id[self.client_id] = cast("Artifact", self)

    def _prepare(self, draft: Draft | None) -> None:
        self._repository: Repository | None = None
        self._version: VersionRow | None = None
        self._name: VersionName | None = None
        self._draft = draft
        self._final = False
        self._saving: Future[Published] | None = None
        self._saving_process = 0
        self._planned: tuple[str | None, dict[str, Any], Ttl | Keep] = (None, {}, KEEP)  # as it is being logged
        self._base: VersionRow | None = None  # of a new_draft()
        self._aliases: list[str] = []
        self._tags: list[str] = []
        self._ttl: Ttl | Keep = KEEP  # what it is to become
        self._files: weakref.finalize[..., Attributes] | None = None  # removes the files of new_file()
        self._directory = ""  # where they are
        self._opening = threading.RLock()
        self.submitting = threading.RLock()
        """Held from looking whether somebody is logging it to beginning to."""
        self._catalog: Catalog | None = None

    @classmethod
    def of_version(cls, repository: Repository, version: VersionRow, name: VersionName | None = None) -> Self:
        """The artifact of a version that the registry knows; ``name`` is the one it was found by."""
        artifact = cls.__new__(cls)
        artifact._prepare(None)  # noqa: SLF001 - its own class
        artifact.incremental = False
        artifact.distributed_id = artifact.use_as = None
        artifact.client_id = version.client_id or uuid.uuid4().hex
        artifact.adopt(repository, version, name)
        return artifact

    def adopt(self, repository: Repository, version: VersionRow, name: VersionName | None = None) -> None:
        """Become what the registry says."""
        with self._opening:
            self._repository, self._version = repository, version
            self._name = name or version.name
            self._collection, self._type = version.name.collection, version.type
            self.description, self._metadata = version.description, copy.deepcopy(dict(version.metadata))
            self._aliases, self._tags = list(version.aliases), list(version.tags)
            self._ttl = KEEP
            self._final = True
            self._draft = None  # closed by the last who reads it
            files, self._files = self._files, None
        if files is not None:
            files()

    def __repr__(self) -> str:
        return f"<Artifact {self.id or self.name}>"

    # -- state --------------------------------------------------------------------------------------------------

    @property
    def is_logged(self) -> bool:
        """Whether the registry has it, were it as the draft of a writable mount."""
        return self._version is not None

    @property
    def is_final(self) -> bool:
        """Whether its contents can no longer change."""
        return self._final

    def is_draft(self) -> bool:
        """Whether it is not committed yet."""
        return self._version is None or self._version.state is State.PENDING

    def finalize(self) -> None:
        """Disallow further changes of the contents, as ``log_artifact`` does."""
        self._final = True

    @property
    def version_row(self) -> VersionRow:
        """What the registry said of it; raises ArtifactNotLoggedError."""
        if self._version is None:
            raise ArtifactNotLoggedError(name="version")
        return self._version

    @property
    def repository(self) -> Repository:
        """Where it is logged, or is going to be."""
        if self._repository is None:
            self._repository = session.repository()  # which reads the settings: not for every entry
        return self._repository

    # -- attributes that a draft has ------------------------------------------------------------------------------

    @property
    def id(self) -> str | None:
        """The registry's id (32 hexadecimal digits); None for a draft."""
        return None if self._version is None else self._version.id

    @property
    def type(self) -> str:
        """The type."""
        return self._type

    @property
    def name(self) -> str:
        """``collection:alias`` in the collection it was retrieved from; ``collection`` alone before it is logged."""
        return self._collection if self._name is None else f"{self._name.collection}:{self._name.alias}"

    @property
    def source_name(self) -> str:
        """``collection:vN`` in its own sequence; ``collection`` alone before it is logged."""
        source = None if self._version is None else self._version.source_name
        return self._collection if source is None else f"{source.collection}:{source.alias}"

    @property
    def state(self) -> str:
        """PENDING, COMMITTED or DELETED."""
        return str(State.PENDING if self._version is None else self._version.state)

    @property
    def digest(self) -> str:
        """The checksum of the contents, equal to W&B's: lowercase hexadecimal MD5 of the manifest's paths and digests.

        Of a draft: hashes files that were not hashed yet.
        """
        if self._version is not None and self._version.digest is not None:
            return self._version.digest
        return self.manifest.digest()

    @property
    def digest_algorithm(self) -> str:
        """``MD5``."""
        return "MD5"

    @property
    def size(self) -> int:
        """Bytes of files and references together, as far as they are known."""
        if self._version is not None and self._version.size is not None:
            return self._version.size
        return self.manifest.size()

    @property
    def manifest(self) -> ArtifactManifest:
        """What it holds."""
        return ArtifactManifest(LiveContents(cast("Artifact", self)), self.name)

    def contents(self) -> Contents:
        """What it holds now: its draft, or the catalog of the version that was made of it."""
        artifact = cast("Artifact", self)
        with self._opening:
            if self._draft is not None:
                return DraftContents(self._draft, artifact)
            return CatalogContents(self.catalog(), artifact)

    @property
    def metadata(self) -> dict[str, Any]:
        """Structured data, a JSON object; ``save()`` persists a change. Setting raises InvalidMetadata, TypeError."""
        return self._metadata

    @metadata.setter
    def metadata(self, metadata: Mapping[str, Any] | str | None) -> None:
        self._metadata = check_metadata(metadata or None)

    @property
    def is_link(self) -> bool:
        """Whether it was retrieved from a portfolio."""
        return self._version is not None and self._version.is_link

    @property
    def ttl(self) -> timedelta | None:
        """How long after its creation it is deleted (by ``artfs gc``); None: never. Inherits the collection's default.

        Raises ArtifactNotLoggedError while it is not known: on a draft that inherits it. Setting takes a positive
        timedelta, None or ``ArtifactTTL.INHERIT``, raises ValueError (InvalidInput) otherwise and on a link, and takes
        effect with ``save()``.
        """
        seconds: Ttl
        if self._ttl is not KEEP:
            seconds = self._ttl
        elif self._version is not None:
            seconds = self._version.ttl_seconds
        else:
            seconds = INHERIT
        if seconds is INHERIT:
            raise ArtifactNotLoggedError(name="ttl")
        return None if seconds is None else timedelta(seconds=seconds)

    @ttl.setter
    def ttl(self, ttl: timedelta | ArtifactTTL | None) -> None:
        if self.is_link:
            raise InvalidInput("Cannot set TTL for link artifact. Set it for the source artifact")
        if isinstance(ttl, ArtifactTTL):
            self._ttl = INHERIT
        elif ttl is None:
            self._ttl = None
        else:
            seconds = int(ttl.total_seconds())
            if seconds <= 0:
                raise InvalidInput(f"Artifact TTL Duration has to be positive. ttl: {ttl.total_seconds()}")
            self._ttl = seconds

    # -- attributes that only a logged artifact has ---------------------------------------------------------------

    @property
    @logged
    def aliases(self) -> list[str]:
        """Its aliases in the collection it was retrieved from. The list is mutable; ``save()`` persists all changes."""
        return self._aliases

    @aliases.setter
    @logged
    def aliases(self, aliases: str | Iterable[str]) -> None:
        self._aliases = listed(aliases, check_alias)

    @property
    @logged
    def tags(self) -> list[str]:
        """Its tags. The list is mutable; ``save()`` persists all changes."""
        return self._tags

    @tags.setter
    @logged
    def tags(self, tags: str | Iterable[str]) -> None:
        self._tags = listed(tags, check_tag)

    @property
    @logged
    def entity(self) -> str:
        """The entity of the collection it was retrieved from."""
        return self.version_row.name.entity

    @property
    @logged
    def project(self) -> str:
        """The project of the collection it was retrieved from."""
        return self.version_row.name.project

    @property
    @logged
    def version(self) -> str:
        """``vN`` in the collection it was retrieved from."""
        return self.version_row.name.alias

    @property
    @logged
    def qualified_name(self) -> str:
        """``entity/project/name``."""
        return f"{self.entity}/{self.project}/{self.name}"

    @property
    @logged
    def collection(self) -> ArtifactCollection:
        """The collection it was retrieved from, be it a portfolio."""
        from artfs.sdk.collections import ArtifactCollection

        return ArtifactCollection(self.repository, self.version_row.name.collection_name)

    @property
    @logged
    def source_entity(self) -> str:
        """The entity of its own sequence."""
        return self.version_row.source_name.entity

    @property
    @logged
    def source_project(self) -> str:
        """The project of its own sequence."""
        return self.version_row.source_name.project

    @property
    @logged
    def source_version(self) -> str:
        """``vN`` in its own sequence."""
        return self.version_row.source_name.alias

    @property
    @logged
    def source_qualified_name(self) -> str:
        """``entity/project/name`` in its own sequence."""
        return str(self.version_row.source_name)

    @property
    @logged
    def source_collection(self) -> ArtifactCollection:
        """Its own sequence."""
        from artfs.sdk.collections import ArtifactCollection

        return ArtifactCollection(self.repository, self.version_row.source_name.collection_name)

    @property
    @logged
    def source_artifact(self) -> Artifact:
        """The artifact in its own sequence; itself unless it was retrieved from a portfolio."""
        if not self.is_link:
            return cast("Artifact", self)
        return cast("Artifact", self.of_version(self.repository, self.repository.registry.get(self.version_row.id)))

    @property
    @logged
    def linked_artifacts(self) -> list[Artifact]:
        """The artifact in every portfolio it is linked to; of one retrieved from a portfolio, none."""
        if self.is_link:
            return []
        links = self.repository.registry.links(self.version_row.id)
        return [cast("Artifact", self.of_version(self.repository, link)) for link in links]

    @property
    @logged
    def linked_at(self) -> str | None:
        """When it was linked to the portfolio it was retrieved from, ISO 8601."""
        at = self.version_row.linked_at
        return moment(at) if self.is_link and at is not None else None

    @property
    @logged
    def commit_hash(self) -> str:
        """The tree digest: SHA-256 over contents, executable bits, symlinks and empty directories."""
        return self.version_row.tree_digest or ""

    @property
    @logged
    def file_count(self) -> int:
        """Files and references."""
        return self.version_row.file_count or 0

    @property
    @logged
    def created_at(self) -> str:
        """When it was committed, ISO 8601."""
        return moment(self.version_row.created_at)

    @property
    @logged
    def updated_at(self) -> str:
        """When its description, metadata, TTL or tags changed last, ISO 8601."""
        return moment(self.version_row.updated_at)

    @property
    @logged
    def history_step(self) -> int | None:
        """None: artfs's runs log no metrics."""
        return None

    @property
    @logged
    def url(self) -> str:
        """``artfs:entity/project/collection:vN``: a name for people, there is no page behind it."""
        return f"artfs:{self.version_row.name}"

    # -- contents -------------------------------------------------------------------------------------------------

    @property
    def draft(self) -> Draft:
        """What it holds before it is logged."""
        assert self._draft is not None
        return self._draft

    def digest_of(self, row: Row) -> str:
        """The digest of an entry that was added, hashed now if need be."""
        with self._opening:
            if self._draft is not None:
                return self._draft.digest_of(row)
        entry = self.manifest.get_entry_by_path(row.path)
        return entry.digest if entry is not None else ""

    def catalog(self) -> Catalog:
        """The catalog of the version, fetched when it is first needed.

        Raises ArtifactNotLoggedError, and VersionNotFound once the version was deleted.
        """
        with self._opening:
            if self.version_row.state is State.DELETED:
                raise VersionNotFound(name=self.version_row.name, hint=": it was deleted")
            if self._catalog is None:
                self._catalog = self.repository.catalog(self.version_row)
                weakref.finalize(self, self._catalog.close)
            return self._catalog


def moment(when: datetime) -> str:
    """A time as W&B writes it."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _checked_type(type_: str, name: str) -> str:
    prefix = _RESERVED.get(type_)
    if prefix is not None and name.startswith(prefix):
        raise InvalidName(what="artifact type", name=type_, why=f"W&B reserves it for names that begin with {prefix!r}")
    return check_type(type_)
