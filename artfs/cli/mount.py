"""``artfs mount``."""

from __future__ import annotations

import hashlib
import logging
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from artfs.config import Settings, load_settings
from artfs.errors import InvalidName

if TYPE_CHECKING:
    from artfs.fuse import MountOptions
    from artfs.vfs import Tree


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[NAME] DIR")
@click.option("-o", "options", multiple=True, metavar="OPTIONS", help="Mount options, separated by commas.")
@click.option("-f", "--foreground", is_flag=True, help="Serve in this process and log to standard error.")
@click.pass_context
def command(context: click.Context, arguments: tuple[str, ...], options: tuple[str, ...], foreground: bool) -> None:
    """Show NAME as a read-only directory; return when it can be read.

    A version is pinned when it is mounted. A slash at the end of NAME shows a level instead, which follows what is
    logged meanwhile: acme/vision/ a project, acme/ an entity; without NAME everything is shown.

    \b
    Options: allow_other, uid=N, gid=N, file_mode=OCTAL, dir_mode=OCTAL, and those of mount(8) that make sense for
    what is read-only.

    \b
    Examples:
      artfs mount acme/vision/mnist:latest ~/mnist
      artfs mount -o allow_other acme/ /data
    """
    if len(arguments) > 2:
        raise click.UsageError("give a name and a directory, or a directory alone", context)
    *name, directory = arguments
    mount(load_settings(), name[0] if name else "", directory, ",".join(options), foreground=foreground)


def mount(
    settings: Settings, name: str, directory: str, options: str, *, foreground: bool = False, sloppy: bool = False
) -> None:
    """What both ``artfs mount`` and the mount helper do. Nothing that a fork would break is opened before it."""
    from artfs.fuse import mount_in_background, mount_in_foreground, parse_options

    parsed = parse_options(options, sloppy=sloppy)
    _check(settings, name)
    mount_options: MountOptions = attrs.evolve(parsed, source=name or parsed.source)
    level = logging.getLogger().getEffectiveLevel() if foreground else logging.INFO

    def make_tree() -> Tree:
        return open_tree(settings, name)

    if foreground:
        mount_in_foreground(
            make_tree, directory, mount_options, runtime_dir=settings.runtime_dir, level=min(level, logging.INFO)
        )
    else:
        mount_in_background(
            make_tree,
            directory,
            mount_options,
            log_file=log_file(settings, directory),
            runtime_dir=settings.runtime_dir,
        )


def log_file(settings: Settings, directory: str) -> Path:
    """Where the daemon of a mount writes its log."""
    place = os.path.realpath(directory)
    label = "".join(c if c.isalnum() else "-" for c in os.path.basename(place))[:40]
    return settings.log_dir / f"mount-{label}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:8]}.log"


def _check(settings: Settings, name: str) -> None:
    """Refuse a bad name before a process is forked."""
    from artfs.names import check_entity, check_project, parse_version_name

    if name and not name.endswith("/"):
        parse_version_name(name, entity=settings.entity, project=settings.project)
        return
    level = _level(name)
    if len(level) > 2:
        raise InvalidName(what="level", name=name, why="mount a version without a slash at the end")
    for part, check in zip(level, (check_entity, check_project), strict=False):
        check(part)


def _level(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part)


def open_tree(settings: Settings, name: str) -> Tree:
    """What ``name`` shows, with parts of its own; runs in the process that serves."""
    from artfs.versions.repository import Repository
    from artfs.vfs import Namespace, VersionTree

    # The cache keeps up to a quarter of the soft limit open as parts: with the usual 1024 that is 16 GB of files.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    repository = Repository(settings)
    try:
        if not name or name.endswith("/"):
            return Namespace(repository, _level(name))
        version = repository.resolve(repository.parse(name)).version
        catalog = repository.catalog(version)
        return VersionTree(version, catalog, repository.reader(catalog), repository=repository)
    except BaseException:
        repository.close()
        raise
