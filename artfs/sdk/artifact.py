"""The artifact: what ``artfs.Artifact`` is.

Its constructor and attributes, ``add`` family and reading methods are in the modules of its base classes; here is how
it is logged and managed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

from artfs.config import Settings
from artfs.errors import ArtifactNotLoggedError, InvalidInput, InvalidMetadata, WaitTimeoutError
from artfs.names import CollectionName, VersionName, check_alias, check_tag, parse_collection_name
from artfs.registry import INHERIT, KEEP, VersionRow
from artfs.sdk import session
from artfs.sdk.attributes import listed, logged
from artfs.sdk.publish import Plan
from artfs.sdk.reading import Reading
from artfs.versions.log import Labels
from artfs.versions.metadata import check_metadata
from artfs.versions.publication import Published
from artfs.versions.repository import Repository

if TYPE_CHECKING:
    from artfs.sdk.api import Run

log = logging.getLogger(__name__)


class Artifact(Reading):
    """A versioned set of files and references, as W&B's ``Artifact``.

    Made with a name and a type, filled with the ``add`` family, logged with ``artfs.log_artifact``; or retrieved with
    ``artfs.use_artifact`` or ``artfs.Api().artifact``.
    """

    # -- being logged -------------------------------------------------------------------------------------------

    def save(self, project: str | None = None, settings: Settings | None = None) -> None:
        """Log a draft in the current run, or in a run of job type "auto" made for it; persist changes of a logged one.

        Changes of aliases, tags, description, metadata and TTL are persisted. ``project``, ``settings``: of a run that
        has to be made; logging is then done when this returns.
        """
        from artfs.sdk import current

        if self.is_being_logged:
            self.wait()
        if self._version is not None:
            self._persist()
        elif current.current() is not None:
            current.log_artifact(self)
        else:
            with current.init(project=project, job_type="auto", settings=settings) as auto:
                auto.log_artifact(self)

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until the artifact is logged, at most ``timeout`` seconds; itself.

        Raises WaitTimeoutError, what made logging fail, and ArtifactNotLoggedError if nobody logs it.
        """
        if self._version is None:
            saving = self._saving_here()
            if saving is None:
                raise ArtifactNotLoggedError(name="wait")
            try:
                published = saving.result(timeout)
            except TimeoutError:
                if saving.done():
                    raise  # the artifact's own
                raise WaitTimeoutError(artifact=self.name, seconds=timeout) from None
            if self.distributed_id is None or not published.version.is_draft:
                self._adopt_logged(published.version)
        return self

    def _adopt_logged(self, version: VersionRow) -> None:
        """Become the version that was made, but for what was set since ``plan`` looked: ``save()`` persists that."""
        with self._opening:
            if self._version is not None:
                return  # another thread waited too
            description, metadata, ttl = self.description, self._metadata, self._ttl
            planned_description, planned_metadata, planned_ttl = self._planned
            self.adopt(self.repository, version)
            if description != planned_description:
                self.description = description
            if ttl != planned_ttl:
                self._ttl = ttl
            if _is_changed(metadata, planned_metadata):
                self._metadata = metadata

    @property
    def is_being_logged(self) -> bool:
        """Whether a run is logging it, or has done so; not after a failure."""
        saving = self._saving_here()
        return saving is not None and not (saving.done() and saving.exception() is not None)

    @property
    def is_stored_part(self) -> bool:
        """Whether it is in the store as one part of several, and no version yet."""
        saving = self._saving_here()
        if saving is None or self.distributed_id is None or not saving.done() or saving.exception() is not None:
            return False
        return saving.result().version.is_draft

    def being_logged(self, repository: Repository, saving: Future[Published]) -> None:
        """A run is logging it."""
        self._repository, self._saving, self._saving_process = repository, saving, os.getpid()

    def _saving_here(self) -> Future[Published] | None:
        """How logging goes, unless a process does it that this one was forked from: here nothing would come of it."""
        saving = self._saving
        return None if saving is not None and self._saving_process != os.getpid() and not saving.done() else saving

    def plan(
        self,
        repository: Repository,
        entity: str,
        project: str,
        run: str | None,
        aliases: str | Iterable[str] | None,
        tags: str | Iterable[str] | None,
    ) -> Plan:
        """How it is logged from a run; raises InvalidName, InvalidMetadata."""
        metadata = check_metadata(self._metadata)
        self._planned = self.description, metadata, self._ttl
        home = CollectionName(entity, project, self._collection)
        if self._base is not None:
            home = self._base.source_name.collection_name
        labels = Labels(
            tuple(listed(aliases, check_alias)),
            tuple(listed(tags, check_tag)),
            self.description,
            metadata,
            INHERIT if self._ttl is KEEP else self._ttl,
        )
        return Plan(
            repository,
            self.draft,
            home,
            self._type,
            labels,
            run,
            self.client_id,
            None if self._base is None else self._base.id,
            self.incremental,
            self.distributed_id,
        )

    @logged
    def new_draft(self) -> Artifact:
        """A draft with the same name, type, description, metadata and contents, to be changed and logged anew.

        Nothing is copied or fetched but the list of contents. It is logged to this artifact's own sequence.
        """
        version = self.version_row
        draft = Artifact(version.source_name.collection, self.type, self.description, self.metadata)
        draft._base = version
        draft.draft.merge(self.catalog())
        return draft

    @logged
    def json_encode(self) -> dict[str, Any]:
        """What stands for the artifact in the JSON of a run's config."""
        return {
            "_type": "artifactVersion",
            "_version": "v0",
            "id": self.id,
            "version": self.source_version,
            "sequenceName": self.source_name.partition(":")[0],
            "usedAs": self.use_as,
        }

    # -- managing -----------------------------------------------------------------------------------------------

    @logged
    def delete(self, delete_aliases: bool = False) -> None:
        """Delete the version; what other versions share stays. Retrieved from a portfolio, only unlink it from there.

        Refuses with AliasesExist, which names them, while it has aliases, unless ``delete_aliases``.
        """
        if self.is_link:
            log.warning("%s is a link: only the link is deleted, not the artifact", self.qualified_name)
            self.unlink()
            return
        self._version = self.repository.registry.delete_version(self.version_row.id, delete_aliases=delete_aliases)
        self._aliases = []

    def link(self, target_path: str, aliases: str | Iterable[str] | None = None) -> Artifact:
        """Link it to a portfolio, made if needed, and answer it as it is there; a draft is logged first (as 0.31.0).

        ``target_path``: ``{portfolio}``, ``{project}/{portfolio}`` or ``{entity}/{project}/{portfolio}``. The link has
        a version number of its own; it gets ``aliases`` and ``latest`` there. Raises InvalidName, KindMismatch,
        TypeMismatch.
        """
        names = listed(aliases, check_alias)
        settings = self.repository.settings
        parse_collection_name(target_path, entity=settings.entity, project=settings.project)  # before it is logged
        if self._version is None:
            if self._saving_here() is None:
                self.save()
            self.wait()
        target = parse_collection_name(target_path, entity=self.source_entity, project=settings.project)
        row = self.repository.registry.link(self.version_row.id, target, names)
        return self.of_version(self.repository, row)

    @logged
    def unlink(self) -> None:
        """Take it out of the portfolio it was retrieved from; raises ValueError (InvalidInput) if it is no link."""
        if not self.is_link:
            raise InvalidInput(
                f"Artifact {self.qualified_name!r} is not a linked artifact and cannot be unlinked. "
                "To delete it, use 'delete' instead."
            )
        self.repository.registry.unlink(self.version_row.id, self.version_row.name.collection_name)

    @logged
    def logged_by(self) -> Run | None:
        """The run that logged it first; None if none did (``artfs log``, a writable mount)."""
        from artfs.sdk.api import Run

        row = self.repository.registry.logged_by(self.version_row.id)
        return None if row is None else Run(self.repository, row)

    @logged
    def used_by(self) -> list[Run]:
        """The runs that used it, in the order they did."""
        from artfs.sdk.api import Run

        return [Run(self.repository, row) for row in self.repository.registry.used_by(self.version_row.id)]

    def __reduce__(self) -> tuple[object, ...]:
        """A logged artifact travels to other processes, and is there what the registry said of it last."""
        if self._version is None:
            raise TypeError("an artifact that is not logged can be neither pickled nor copied; log it first")
        return _retrieved, (session.mark(self.repository), self._version, self._name)

    def _persist(self) -> None:
        registry, seen = self.repository.registry, self.version_row
        collection = seen.name.collection_name
        aliases, tags = listed(self._aliases, check_alias), listed(self._tags, check_tag)
        metadata = check_metadata(self._metadata)
        # The differences only: what others changed meanwhile stays.
        if added := set(aliases).difference(seen.aliases):
            registry.add_aliases(seen.id, sorted(added), collection)
        if removed := set(seen.aliases).difference(aliases):
            registry.remove_aliases(seen.id, sorted(removed), collection)
        if set(tags) != set(seen.tags):
            registry.change_tags(seen.id, set(tags).difference(seen.tags), set(seen.tags).difference(tags))
        registry.update_version(
            seen.id,
            description=KEEP if self.description == seen.description else self.description,
            metadata=KEEP if metadata == seen.metadata else metadata,
            ttl=self._ttl,
        )
        self.adopt(self.repository, registry.get(seen.id, collection), self._name)


def _retrieved(mark: str, version: VersionRow, name: VersionName | None) -> Artifact:
    return Artifact.of_version(session.marked(mark), version, name)


def _is_changed(metadata: dict[str, Any], planned: dict[str, Any]) -> bool:
    try:
        return check_metadata(metadata) != planned
    except InvalidMetadata:
        return True  # as ``save()`` will say
