"""The current run of this process: begun by ``init``, ended by ``finish`` or with the program."""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

from artfs.config import Settings
from artfs.errors import InvalidInput, NoRun
from artfs.sdk import session
from artfs.sdk.artifact import Artifact
from artfs.sdk.run import Run, StrPath, lock, unfinished

log = logging.getLogger(__name__)

_REINIT: Final[dict[object, str]] = {
    None: "return_previous",
    "default": "return_previous",
    False: "return_previous",
    "return_previous": "return_previous",
    True: "finish_previous",
    "finish_previous": "finish_previous",
    "create_new": "create_new",
}
"""What W&B takes for ``reinit``, and what it means (wandb 0.31.0, ``wandb_init.py``)."""


def init(
    entity: str | None = None,
    project: str | None = None,
    *,
    name: str | None = None,
    job_type: str | None = None,
    config: Mapping[str, Any] | None = None,
    id: str | None = None,  # noqa: A002 - W&B's
    group: str | None = None,
    reinit: bool | Literal["default", "return_previous", "finish_previous", "create_new"] | None = None,
    settings: Settings | None = None,
    **ignored: object,
) -> Run:
    """Begin a run, which becomes the current one; answer the current one if there is one already.

    ``entity``, ``project``: where names without them are looked up and logged (the settings'). ``name``, ``job_type``,
    ``config``: kept with the run. ``id``: 8 characters by default; one that exists is resumed. ``group``: see
    ``Run.group``. ``reinit``: what becomes of a current run (True: it is finished; False, "default": it is answered).
    ``settings``: other than those in force. What else W&B takes (``mode``, ``notes``, ``dir``, ..) is ignored.
    Raises InvalidInput for another ``reinit``, and InvalidName.
    """
    if ignored:
        log.info("init: artfs has no use for %s", ", ".join(sorted(ignored)))
    if reinit not in _REINIT:
        raise InvalidInput(f"reinit {reinit!r} is none of " + ", ".join(map(repr, _REINIT)))
    running = current()
    if running is not None and _REINIT[reinit] == "return_previous":
        return running
    if running is not None and _REINIT[reinit] == "finish_previous":
        running.finish()
    repository = session.repository(settings)
    run = Run(
        repository,
        entity or repository.settings.entity,
        project or repository.settings.project,
        run_id=id,
        name=name,
        job_type=job_type,
        group=group,
        config=config,
    )
    with lock:
        unfinished.append(run)
    _finish_at_exit()
    return run


def current() -> Run | None:
    """The run that was begun last in this process and is not finished."""
    with lock:
        return next((run for run in reversed(unfinished) if run.process == os.getpid()), None)


def log_artifact(
    artifact_or_path: Artifact | StrPath,
    name: str | None = None,
    type: str | None = None,  # noqa: A002 - W&B's
    aliases: str | Iterable[str] | None = None,
    tags: str | Iterable[str] | None = None,
) -> Artifact:
    """``Run.log_artifact`` of the current run; without one, of a run of job type "auto" that ends with this call."""
    return _with_run(lambda run: run.log_artifact(artifact_or_path, name, type, aliases, tags))


def use_artifact(
    artifact_or_name: Artifact | str,
    type: str | None = None,  # noqa: A002 - W&B's
    aliases: str | Iterable[str] | None = None,
    use_as: str | None = None,
) -> Artifact:
    """``Run.use_artifact`` of the current run; without one, of a run of job type "auto"."""
    return _with_run(lambda run: run.use_artifact(artifact_or_name, type, aliases, use_as))


def link_artifact(artifact: Artifact, target_path: str, aliases: str | Iterable[str] | None = None) -> Artifact:
    """``Run.link_artifact`` of the current run; without one, of a run of job type "auto"."""
    return _with_run(lambda run: run.link_artifact(artifact, target_path, aliases))


def upsert_artifact(
    artifact_or_path: Artifact | StrPath,
    name: str | None = None,
    type: str | None = None,  # noqa: A002 - W&B's
    aliases: str | Iterable[str] | None = None,
    distributed_id: str | None = None,
) -> Artifact:
    """``Run.upsert_artifact`` of the current run; raises NoRun without one."""
    return _current_for("upsert_artifact").upsert_artifact(artifact_or_path, name, type, aliases, distributed_id)


def finish_artifact(
    artifact_or_path: Artifact | StrPath,
    name: str | None = None,
    type: str | None = None,  # noqa: A002 - W&B's
    aliases: str | Iterable[str] | None = None,
    distributed_id: str | None = None,
) -> Artifact:
    """``Run.finish_artifact`` of the current run; raises NoRun without one."""
    return _current_for("finish_artifact").finish_artifact(artifact_or_path, name, type, aliases, distributed_id)


def finish(exit_code: int | None = None) -> None:
    """``Run.finish`` of the current run, if there is one."""
    run = current()
    if run is not None:
        run.finish(exit_code)


def log_model(path: StrPath, name: str | None = None, aliases: str | Iterable[str] | None = None) -> None:
    """``Run.log_model`` of the current run; raises NoRun without one."""
    _current_for("log_model").log_model(path, name, aliases)


def use_model(name: str) -> str:
    """``Run.use_model`` of the current run; raises NoRun without one."""
    return _current_for("use_model").use_model(name)


def link_model(
    path: StrPath, registered_model_name: str, name: str | None = None, aliases: str | Iterable[str] | None = None
) -> Artifact:
    """``Run.link_model`` of the current run; raises NoRun without one."""
    return _current_for("link_model").link_model(path, registered_model_name, name, aliases)


def _with_run(call: Callable[[Run], Artifact]) -> Artifact:
    run = current()
    if run is not None:
        return call(run)
    with init(job_type="auto") as auto:
        return call(auto)


def _current_for(what: str) -> Run:
    run = current()
    if run is None:
        raise NoRun(what=what)
    return run


@functools.cache
def _finish_at_exit() -> None:
    """Finish runs when the program ends without doing so, as the examples of W&B's documentation do.

    ``atexit`` comes too late: threads cannot be started any more. concurrent.futures has its own hook in this place.
    """
    threading._register_atexit(_finish_all)  # type: ignore[attr-defined]  # noqa: SLF001  there is no public one


def _finish_all() -> None:
    ended_by = getattr(sys, "last_type", None)
    while (run := current()) is not None:
        if ended_by is not None:
            run.end("crashed" if issubclass(ended_by, KeyboardInterrupt) else "failed")
        else:
            run.end("finished")  # what fails is logged: there is nobody left to raise it to
