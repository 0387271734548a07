"""What ``mount --writable`` and ``umount`` share: starting a staging area's mount, and telling how it ended."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import attrs
import click

from artfs.cli.output import size
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
_LOOK: Final = 0.2


class NotPublished(ArtfsError):
    """What was written is kept on this machine, because publishing it failed."""

    template = "{why}; what was written is kept: `artfs commit {area}` tries again, `artfs discard {area}` deletes it"


def status_file(settings: Settings, directory: str) -> StatusFile:
    """Where the writable mount on a directory tells how far it is."""
    from artfs.fuse.mountpoint import canonical
    from artfs.staging.mounted import StatusFile

    place = hashlib.sha256(os.fsencode(canonical(directory))).hexdigest()[:16]
    return StatusFile(settings.runtime_dir / "staging" / f"{place}.json")


def mount_writable(
    settings: Settings, name: str, directory: str, options: MountOptions, type_: str | None, plan: Plan,
    *, foreground: bool, log_file: Path,
) -> None:  # fmt: skip
    """Mount a staging area over ``name``; returns when it can be used, or with ``foreground`` when it has ended."""
    from artfs.fuse import mount_in_background, mount_in_foreground
    from artfs.staging import areas, holder

    for path, facts in areas(settings.staging_dir):
        if holder(path) is None:
            click.echo(f"artfs: {path.name} ({facts.collection}) was left behind; see `artfs drafts`", err=True)
    status = status_file(settings, directory)

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
    terminal = sys.stderr.isatty()
    while worker.is_alive():
        worker.join(_LOOK)
        told = status.read()
        if terminal and told is not None and told.state == "publishing":
            click.echo(f"\r\x1b[Kpublishing: {told.files} files, {size(told.bytes)}", nl=False, err=True)
    if terminal:
        click.echo("\r\x1b[K", nl=False, err=True)
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
    if status.state == "nothing":
        click.echo("nothing was changed, so there is no draft", err=True)
        return
    if status.state != "done" or status.outcome is None:
        raise NotPublished(why="its process died before it could publish", area=status.area or "AREA")
    tell_outcome(status.outcome)


def tell_outcome(outcome: dict[str, Any]) -> None:
    """Print the name of a draft or version, and on standard error what is in it."""
    counts = outcome["counts"]
    what = ", ".join(f"{counts[key]} {key}" for key in ("added", "changed", "removed"))
    click.echo(f"{what}; {size(outcome['stored_bytes'])} stored", err=True)
    if outcome["newer"]:
        overlap = outcome["overlap"]
        both = f"; changed in both: {', '.join(map(str, overlap))}" if overlap else ", no path was changed in both"
        click.echo(f"the base is no longer the latest, {outcome['newer']} is{both}", err=True)
    click.echo(str(outcome["name"]))
