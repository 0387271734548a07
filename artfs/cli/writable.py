"""What ``mount --writable`` and ``umount`` share: starting a staging area's mount, and telling how it ended."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import attrs
import click

from artfs.cli.output import Progress, size
from artfs.config import Settings
from artfs.errors import ArtfsError

if TYPE_CHECKING:
    from artfs.fuse import MountOptions
    from artfs.fuse.operations import Operations
    from artfs.staging.mounted import Plan, Status, StatusFile
    from artfs.vfs import Tree
    from artfs.vfs.writable import WritableTree

_CLOSING: Final = 7 * 24 * 3600.0
"""Seconds that publishing may take once the mount has ended; each request in it has its own deadline."""
_LOOK: Final = 0.1


class NotPublished(ArtfsError):
    """What was written is kept on this machine, because publishing it failed."""

    template = "{why}; what was written is kept: `artfs commit {area}` tries again, `artfs discard {area}` deletes it"


def status_file(settings: Settings, directory: str) -> StatusFile:
    """Where the writable mount on a directory tells how far it is."""
    from artfs.fuse.mountpoint import served_as
    from artfs.staging.mounted import StatusFile

    place = hashlib.sha256(os.fsencode(served_as(settings.runtime_dir, directory))).hexdigest()[:16]
    return StatusFile(settings.runtime_dir / "staging" / f"{place}.json")


def status_of(settings: Settings, directory: str) -> StatusFile | None:
    """Where the writable mount that is on a directory now tells; None if there is none, though there may have been."""
    from artfs.fuse.mountpoint import canonical, mounted_on

    entry = mounted_on(canonical(directory))
    if entry is None or entry.read_only:
        return None
    status = status_file(settings, directory)
    return None if status.read() is None else status


def mount_writable(
    settings: Settings, name: str, directory: str, options: MountOptions, type_: str | None, plan: Plan,
    *, foreground: bool, log_file: Path,
) -> None:  # fmt: skip
    """Mount a staging area over ``name``; returns when it can be used, or with ``foreground`` when it has ended."""
    from artfs.cli.mount import load_code
    from artfs.fuse import mount_in_background, mount_in_foreground
    from artfs.staging import areas, holder

    for path, facts in areas(settings.staging_dir):
        if holder(path) is None:
            click.echo(f"artfs: {path.name} ({facts.collection}) was left behind; see `artfs drafts`", err=True)
    status = status_file(settings, directory)
    load_code(settings)

    def make_tree() -> Tree:
        return open_area(settings, name, type_, plan, status)

    def operations(tree: Tree, fuse_options: MountOptions) -> Operations:
        from artfs.fuse.writable import WritableOperations

        return WritableOperations(cast("WritableTree", tree), fuse_options)  # what open_area made

    writable = attrs.evolve(options, read_only=False)
    if foreground:
        mount_in_foreground(
            make_tree,
            directory,
            writable,
            runtime_dir=settings.runtime_dir,
            operations=operations,
            closing=_CLOSING,
        )
        told = status.read()
        if told is not None:
            tell(told)
        return
    mount_in_background(
        make_tree,
        directory,
        writable,
        log_file=log_file,
        runtime_dir=settings.runtime_dir,
        operations=operations,
        closing=_CLOSING,
    )


def open_area(settings: Settings, name: str, type_: str | None, plan: Plan, status: StatusFile) -> Tree:
    """A new staging area with parts of its own; runs in the process that serves."""
    from artfs.cli.mount import raise_descriptor_limit
    from artfs.staging.mounted import StagedMount
    from artfs.staging.session import begin
    from artfs.versions.repository import Repository

    raise_descriptor_limit()
    repository = Repository(settings)
    try:
        area, base = begin(repository, repository.parse(name), type_)
        return StagedMount(repository, area, base, plan, status)
    except BaseException:
        repository.close()
        raise


def unmount_writable(directory: str, settings: Settings, status: StatusFile, *, lazy: bool) -> None:
    """Unmount, show how publishing goes on, and say what came of it; raises NotPublished."""
    from artfs.fuse import unmount

    failure: list[ArtfsError] = []

    def work() -> None:
        try:
            unmount(directory, runtime_dir=settings.runtime_dir, deadline=time.monotonic() + _CLOSING, lazy=lazy)
        except ArtfsError as error:
            failure.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    files = count = 0
    with Progress("published") as progress:
        while worker.is_alive():
            worker.join(_LOOK)
            told = status.read()
            if told is not None and told.state == "publishing":
                progress(told.files - files, told.bytes - count)
                files, count = told.files, told.bytes
    if failure:
        raise failure[0]
    told = status.read()
    if told is not None and not lazy:
        status.remove()
        tell(told)


def tell(status: Status) -> None:
    """Say how a writable mount ended; raises NotPublished."""
    if status.state == "kept":
        error = NotPublished(why=status.error, area=status.area)
        error.exit_code = status.exit_code or 1  # type: ignore[misc]  # that of what went wrong
        raise error
    if status.state not in {"done", "nothing"} or status.outcome is None:
        raise NotPublished(why="its process died before it could publish", area=status.area or "AREA")
    tell_outcome(status.outcome)


def tell_outcome(outcome: dict[str, Any]) -> None:
    """Print the name of a draft or version, and on standard error what is in it."""
    from artfs.staging.publish import NOTHING

    if not outcome["name"]:
        click.echo(NOTHING, err=True)
        return
    counts = outcome["counts"]
    what = ", ".join(f"{counts[key]} {key}" for key in ("added", "changed", "removed"))
    click.echo(f"{what}; {size(outcome['stored_bytes'])} stored", err=True)
    tell_overlap(outcome["newer"], outcome["overlap"])
    tell_name(outcome["name"], created=outcome["created"])


def tell_overlap(newer: str, overlap: Sequence[str]) -> None:
    """Say that somebody else made a version meanwhile, if so, and what both have changed."""
    if newer:
        both = f"; changed in both: {', '.join(overlap)}" if overlap else ", no path was changed in both"
        click.echo(f"the base is no longer the latest, {newer} is{both}", err=True)


def tell_name(name: str, *, created: bool) -> None:
    """Print the name of a draft or version, and whether it is new."""
    if not created:
        click.echo(f"{name} has the same content: no new version, the aliases point to it", err=True)
    click.echo(name)
