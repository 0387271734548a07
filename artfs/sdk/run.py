"""Runs: what logs and uses artifacts. Logging happens on threads; ``wait`` and ``finish`` wait for it."""

from __future__ import annotations

import functools
import logging
import os
import secrets
import string
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from types import TracebackType
from typing import Any, Final, Literal, Self

import attrs

from artfs.errors import InvalidInput, NoRun, RegistryUnavailable, TypeMismatch, VersionNotFound
from artfs.names import (
    CollectionName,
    check_alias,
    check_entity,
    check_project,
    check_tag,
    parse_collection_name,
    parse_version_name,
)
from artfs.registry import State as RowState
from artfs.sdk import session
from artfs.sdk.api import Run as PublicRun
from artfs.sdk.api import fetch
from artfs.sdk.artifact import Artifact
from artfs.sdk.attributes import listed
from artfs.sdk.collections import Listing
from artfs.sdk.progress import progress
from artfs.sdk.publish import Plan, publish, publish_part
from artfs.versions.ingest import Progress
from artfs.versions.publication import Published
from artfs.versions.repository import Repository

log = logging.getLogger(__name__)

StrPath = str | os.PathLike[str]
State = Literal["finished", "failed", "crashed"]

_THREADS: Final = 4
"""Artifacts logged at a time; those of one name one after the other."""

lock: Final = threading.RLock()
unfinished: Final[list[Run]] = []
"""Runs of this process that are not finished, the current one last."""


# A child begins with the lock free, and what it guards whole, whichever thread of its parent had it.
os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


@attrs.frozen
class _Job:
    artifact: Artifact
    collection: CollectionName
    future: Future[Published]


class Run:
    """A run that is not finished; ``artfs.init()`` makes one. A context manager; thread-safe."""

    def __init__(
        self,
        repository: Repository,
        entity: str,
        project: str,
        *,
        run_id: str | None = None,
        name: str | None = None,
        job_type: str | None = None,
        group: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._repository = repository
        self.entity = check_entity(entity)
        self.project = check_project(project)
        self.id = run_id or _fresh_id()
        """8 characters unless given; a run with that id is resumed."""
        self.name = name or self.id
        self.job_type = job_type
        self.group = group
        """The ``distributed_id`` of artifacts that several runs write, unless another is given."""
        self.config: dict[str, Any] = dict(config or {})
        self.process = os.getpid()
        self._recorded = False
        self._finished = False
        self._begin()
        try:
            self._record()
        except RegistryUnavailable as error:
            # Versions that are remembered and cached can be used all the same.
            log.warning("%s; the run %s is not recorded", error, self.id)

    def _begin(self) -> None:
        """In this process: the threads and connections of another do not survive a fork."""
        self._interrupted = threading.Event()
        self._jobs: list[_Job] = []
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"artfs-run-{self.id}")
        self._here = os.getpid()

    @property
    def path(self) -> str:
        """``entity/project/id``."""
        return f"{self.entity}/{self.project}/{self.id}"

    def __repr__(self) -> str:
        return f"<Run {self.path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
            return
        self.end("crashed" if isinstance(error, KeyboardInterrupt) else "failed")

    # -- artifacts ------------------------------------------------------------------------------------------------

    def log_artifact(
        self,
        artifact_or_path: Artifact | StrPath,
        name: str | None = None,
        type: str | None = None,  # noqa: A002 - W&B's
        aliases: str | Iterable[str] | None = None,
        tags: str | Iterable[str] | None = None,
    ) -> Artifact:
        """Log an artifact as an output of the run, and answer it at once: ``wait()`` returns when it is logged.

        It gets ``aliases`` and ``latest``. A path or reference URI is made an artifact ``name`` (``run-<id>-<base
        name>``) of type ``type`` ("unspecified"). If its collection has the content already no version is made: the
        aliases move there. Raises TypeMismatch, InvalidName, InvalidMetadata (all ValueErrors); what fails later is
        raised by ``wait()`` and by ``finish()``.
        """
        self._check_active("log_artifact")
        artifact = self._artifact(artifact_or_path, name, type)
        while True:
            with artifact.submitting:
                if artifact.is_logged:
                    return self._log_again(artifact, aliases, tags)
                if not artifact.is_being_logged or artifact.is_stored_part:
                    return self._submit(artifact, aliases, tags, publish)
            artifact.wait()

    def use_artifact(
        self,
        artifact_or_name: Artifact | str,
        type: str | None = None,  # noqa: A002 - W&B's
        aliases: str | Iterable[str] | None = None,
        use_as: str | None = None,  # noqa: ARG002 - W&B's, without effect there too
    ) -> Artifact:
        """Declare an artifact as an input of the run and answer it; a draft is logged first, with ``aliases``.

        A name may leave out entity and project (the run's) and alias (``latest``). While the registry is out of reach
        names that were resolved before still work; the use is then not recorded. Raises VersionNotFound, InvalidName,
        and ValueError (InvalidInput) if it is not of ``type``.
        """
        self._check_active("use_artifact")
        if isinstance(artifact_or_name, str):
            self._settle(parse_version_name(artifact_or_name, entity=self.entity, project=self.project).collection_name)
            artifact = fetch(self._repository, artifact_or_name, self.entity, self.project, type)
        elif isinstance(artifact_or_name, Artifact):
            artifact = artifact_or_name
            if not artifact.is_logged:
                if not artifact.is_being_logged:
                    self.log_artifact(artifact, aliases=aliases)
                artifact.wait()
            _refuse_deleted(artifact)
        else:
            raise InvalidInput(
                'You must pass an artifact name (e.g. "pedestrian-dataset:v1") or an artifact to `use_artifact`'
            )
        try:
            self._record()
            self._repository.registry.record_input(self.id, artifact.version_row.id)
        except RegistryUnavailable as error:
            log.warning("%s; the use of %s is not recorded", error, artifact.qualified_name)
        return artifact

    def link_artifact(
        self, artifact: Artifact, target_path: str, aliases: str | Iterable[str] | None = None
    ) -> Artifact:
        """Link an artifact to a portfolio (in the run's entity and project unless named) and answer the link.

        A draft is logged first.
        """
        self._check_active("link_artifact")
        target = parse_collection_name(target_path, entity=self.entity, project=self.project)
        if not artifact.is_logged and not artifact.is_being_logged:
            self.log_artifact(artifact)
        return artifact.wait().link(str(target), aliases)

    def upsert_artifact(
        self,
        artifact_or_path: Artifact | StrPath,
        name: str | None = None,
        type: str | None = None,  # noqa: A002 - W&B's
        aliases: str | Iterable[str] | None = None,
        distributed_id: str | None = None,
    ) -> Artifact:
        """Store one process's part of an artifact that several write; ``finish_artifact`` makes the version.

        ``distributed_id`` (the run's group) is what the parts have in common; TypeError without one.
        """
        self._check_active("upsert_artifact")
        artifact = self._artifact(artifact_or_path, name, type)
        artifact.distributed_id = self._distributed_id(distributed_id)
        return self._submit(artifact, aliases, None, publish_part)

    def finish_artifact(
        self,
        artifact_or_path: Artifact | StrPath,
        name: str | None = None,
        type: str | None = None,  # noqa: A002 - W&B's
        aliases: str | Iterable[str] | None = None,
        distributed_id: str | None = None,
    ) -> Artifact:
        """Make the version of what all processes stored with ``upsert_artifact``, and of this artifact's own contents.

        Where several have one path, this one wins, then the part stored last. Nothing may be upserted after.
        """
        self._check_active("finish_artifact")
        artifact = self._artifact(artifact_or_path, name, type)
        artifact.distributed_id = self._distributed_id(distributed_id)
        return self._submit(artifact, aliases, None, publish)

    def log_model(self, path: StrPath, name: str | None = None, aliases: str | Iterable[str] | None = None) -> None:
        """``log_artifact`` of a file, directory or reference URI, with type "model"."""
        self.log_artifact(path, name, "model", aliases)

    def use_model(self, name: str) -> str:
        """``use_artifact`` of a model, downloaded: the path of what is alone in the directory, else of the directory.

        Raises InvalidInput (ValueError) where "model" is no part of its type.
        """
        artifact = self.use_artifact(name)
        _check_model(artifact)
        directory = artifact.download()
        names = os.listdir(directory)
        return os.path.join(directory, names[0]) if len(names) == 1 else directory

    def link_model(
        self,
        path: StrPath,
        registered_model_name: str,
        name: str | None = None,
        aliases: str | Iterable[str] | None = None,
    ) -> Artifact:
        """Log a model and link it to ``registered_model_name`` in the project ``model-registry`` of the run's entity.

        Raises InvalidInput (ValueError) for a name with slashes, and where the collection ``name`` holds no models.
        """
        if "/" in registered_model_name:
            raise InvalidInput(
                "Please provide only the name of the registered model. Do not append the entity or project name."
            )
        name = name or f"run-{self.id}-{os.path.basename(os.fspath(path))}"
        try:
            existing = fetch(self._repository, f"{name}:latest", self.entity, self.project)
        except VersionNotFound:
            type_ = "model"
        else:
            _check_model(existing)
            type_ = existing.type
        artifact = self.log_artifact(path, name, type_)
        return self.link_artifact(artifact, f"{self.entity}/model-registry/{registered_model_name}", aliases)

    def logged_artifacts(self) -> Listing[Artifact]:
        """What the run logged so far."""
        return self._public().logged_artifacts()

    def used_artifacts(self) -> Listing[Artifact]:
        """What the run used so far."""
        return self._public().used_artifacts()

    def finish(self, exit_code: int | None = None) -> None:
        """Wait until everything is logged and end the run; raises the first failure of what was logged.

        ``exit_code``: not 0 for a run that failed.
        """
        failures = self.end("failed" if exit_code else "finished")
        if failures:
            raise failures[0]

    # -- inside ---------------------------------------------------------------------------------------------------

    def _artifact(self, given: Artifact | StrPath, name: str | None, type_: str | None) -> Artifact:
        if isinstance(given, Artifact):
            return given
        if not isinstance(given, str | os.PathLike):
            raise TypeError("You must pass an instance of artfs.Artifact or a valid file path to log_artifact")
        path = os.fspath(given)
        artifact = Artifact(name or f"run-{self.id}-{os.path.basename(path)}", type_ or "unspecified")
        if os.path.isfile(path):
            artifact.add_file(path)
        elif os.path.isdir(path):
            artifact.add_dir(path)
        elif "://" in path:
            artifact.add_reference(path)
        else:
            raise InvalidInput("path must be a file, directory or external reference like s3://bucket/path")
        return artifact

    def _log_again(
        self, artifact: Artifact, aliases: str | Iterable[str] | None, tags: str | Iterable[str] | None
    ) -> Artifact:
        """What is logged already is an output of this run too."""
        _refuse_deleted(artifact)
        registry = self._repository.registry
        self._record()
        registry.record_output(self.id, artifact.version_row.id)
        if aliases is not None or tags is not None:
            artifact.aliases = [*artifact.aliases, *listed(aliases, check_alias)]
            artifact.tags = [*artifact.tags, *listed(tags, check_tag)]
            artifact.save()
        return artifact

    def _submit(
        self,
        artifact: Artifact,
        aliases: str | Iterable[str] | None,
        tags: str | Iterable[str] | None,
        how: Callable[[Plan], Published],
    ) -> Artifact:
        self._record()
        plan = artifact.plan(self._repository, self.entity, self.project, self.id, aliases, tags)
        self._check_type(plan)
        artifact.finalize()
        with lock:
            self._jobs = [job for job in self._jobs if not (job.future.done() and job.artifact.is_logged)]
            before = [job.future for job in self._jobs if job.collection == plan.collection]
            future = self._pool.submit(self._log, artifact, plan, how, before)
            self._jobs.append(_Job(artifact, plan.collection, future))
        artifact.being_logged(self._repository, future)
        return artifact

    def _log(
        self, artifact: Artifact, plan: Plan, how: Callable[[Plan], Published], before: list[Future[Published]]
    ) -> Published:
        wait_for(before)
        artifact.resolve_client_references()
        with progress("logged", plan.draft.size()) as show:
            return how(attrs.evolve(plan, progress=functools.partial(self._report, show)))

    def _report(self, show: Progress, files: int, size: int) -> None:
        if self._interrupted.is_set():
            raise CancelledError("the run was interrupted")
        show(files, size)

    def _check_type(self, plan: Plan) -> None:
        """Say at once what would fail later."""
        try:
            existing = self._repository.registry.collection(plan.collection)
        except VersionNotFound:
            return
        if existing.next_index and existing.type != plan.type:
            raise TypeMismatch(collection=plan.collection, existing=existing.type, given=plan.type)

    def _check_active(self, what: str) -> None:
        if self._finished:
            raise NoRun(f"Run ({self.id}) is finished. The call to `{what}` will be ignored.")
        with lock:
            if self._here != os.getpid():
                self._repository = session.repository(self._repository.settings)
                self._begin()

    def _distributed_id(self, given: str | None) -> str:
        if found := given or self.group:
            return found
        raise TypeError("Cannot upsert or finish an artifact unless the run has a group or distributed_id is provided")

    def _settle(self, collection: CollectionName) -> None:
        """Wait for what this run is logging to a collection that is about to be read."""
        with lock:
            futures = [job.future for job in self._jobs if job.collection == collection]
        wait_for(futures)

    def _record(self) -> None:
        if not self._recorded:
            self._repository.registry.create_run(
                self.entity, self.project, self.name, self.job_type, self.config, run_id=self.id
            )
            self._recorded = True

    def _public(self) -> PublicRun:
        return PublicRun(self._repository, self._repository.registry.run(self.id))

    def end(self, state: State) -> list[Exception]:
        """Wait for what is being logged (or stop it, when crashed), record the end; what failed.

        In a forked child the run does not end: it is its parent's.
        """
        if self.process != os.getpid():
            return self._failures() if self._here == os.getpid() else []
        with lock:
            if self._finished:
                return []
            self._finished = True
            if self in unfinished:
                unfinished.remove(self)
        if state == "crashed":
            self._interrupted.set()
        try:
            failures = self._failures()
        except KeyboardInterrupt:
            self._interrupted.set()
            self._close("crashed")
            raise
        self._close("failed" if failures and state == "finished" else state)
        return failures

    def _failures(self) -> list[Exception]:
        """Wait for everything; what failed."""
        failures: list[Exception] = []
        for job in self._jobs:
            try:
                job.artifact.wait()
            except Exception as error:  # noqa: BLE001  whatever it is, it goes to the caller
                failures.append(error)
                log.error("%s could not be logged: %s", job.collection, error)  # noqa: TRY400  raised by the caller
        return failures

    def _close(self, state: State) -> None:
        self._pool.shutdown()
        self._jobs.clear()
        if self._recorded:
            try:
                self._repository.registry.finish_run(self.id, state)
            except RegistryUnavailable as error:
                log.warning("%s; the end of the run %s is not recorded", error, self.id)


def _refuse_deleted(artifact: Artifact) -> None:
    if artifact.version_row.state is RowState.DELETED:
        raise VersionNotFound(name=artifact.qualified_name, hint=": it was deleted")


def _check_model(artifact: Artifact) -> None:
    if "model" not in artifact.type.lower():
        raise InvalidInput(
            "You can only use this method for 'model' artifacts. For an artifact to be a 'model' artifact, "
            "its type property must contain the substring 'model'."
        )


def _fresh_id() -> str:
    """Shaped as W&B's; one of 2.8e12, so nobody asks the registry whether it is free."""
    return "".join(secrets.choice(string.digits + string.ascii_lowercase) for _ in range(8))
