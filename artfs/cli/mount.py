"""``artfs mount``."""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artfs.config import Settings, load_settings
from artfs.errors import InvalidName

if TYPE_CHECKING:
    from artfs.vfs import Pin, Tree


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[NAME] DIR")
@click.option("-o", "options", multiple=True, metavar="OPTIONS", help="Mount options, separated by commas.")
@click.option("-f", "--foreground", is_flag=True, help="Serve in this process and log to standard error.")
@click.option("--adopt", is_flag=True, help="Take over the mount on DIR if the process that looked after it is gone.")
@click.option("--profile", is_flag=True, help="Record what is read, for later mounts of the version to fetch first.")
@click.option("-w", "--writable", is_flag=True, help="Stage changes to NAME; unmounting makes a draft of them.")
@click.option("-t", "--type", "type_", help="With --writable: type of a collection that does not exist yet.")
@click.option("--commit", is_flag=True, help="With --writable: make a version when unmounted, not a draft.")
@click.option("-a", "--alias", "aliases", multiple=True, help="With --commit: alias of the version.")
@click.option("--require-latest", is_flag=True, help="With --commit: only if nobody has logged a version meanwhile.")
@click.pass_context
def command(
    context: click.Context,
    arguments: tuple[str, ...],
    options: tuple[str, ...],
    foreground: bool,
    adopt: bool,
    profile: bool,
    writable: bool,
    type_: str | None,
    commit: bool,
    aliases: tuple[str, ...],
    require_latest: bool,
) -> None:
    """Show NAME as a read-only directory; return when it can be read.

    A version is pinned when it is mounted. A slash at the end of NAME shows a level instead, which follows what is
    logged meanwhile: acme/vision/ a project, acme/ an entity; without NAME everything is shown.

    Options: allow_other, uid=N, gid=N, file_mode=OCTAL, dir_mode=OCTAL, noexec, engine=auto|direct|pyfuse3, workers=N,
    wait=SECONDS for one request, max_background=N, read_ahead_kb=N, fsname=NAME, and those of mount(8) that make sense
    for what is read-only.

    \b
    Examples:
      artfs mount acme/vision/mnist:latest ~/mnist
      artfs mount -o allow_other acme/ /data
      artfs mount --writable acme/vision/mnist ~/stage
    """
    if len(arguments) > 2:
        raise click.UsageError("give a name and a directory, or a directory alone", context)
    *name, directory = arguments
    settings = load_settings()
    if not writable:
        if type_ or commit or aliases or require_latest:
            raise click.UsageError("--type, --commit, --alias and --require-latest go with --writable", context)
        shown = name[0] if name else ""
        if profile and (not shown or shown.endswith("/")):
            raise click.UsageError("--profile goes with the name of one version", context)
        text = ",".join(options)
        mount(settings, shown, directory, text, foreground=foreground, adopt=adopt, profile=profile)
        return
    if profile:
        raise click.UsageError("--profile and --writable do not go together", context)
    if adopt:
        raise click.UsageError("--adopt and --writable do not go together", context)
    if not name or name[0].endswith("/"):
        raise click.UsageError("--writable takes the name of one collection", context)
    if not commit and (aliases or require_latest):
        raise click.UsageError("--alias and --require-latest go with --commit", context)
    from artfs.cli.writable import mount_writable
    from artfs.fuse import MountOptions, parse_options
    from artfs.staging.mounted import Plan
    from artfs.versions.log import Labels

    plan = Plan(Labels(aliases) if commit else None, require_latest)
    parsed = parse_options(",".join(options), MountOptions(source=name[0]))
    _check(settings, name[0])
    mount_writable(
        settings,
        name[0],
        directory,
        parsed,
        type_,
        plan,
        foreground=foreground,
        log_file=log_file(settings, directory),
    )


def mount(
    settings: Settings,
    name: str,
    directory: str,
    options: str,
    *,
    foreground: bool = False,
    adopt: bool = False,
    profile: bool = False,
    sloppy: bool = False,
) -> None:
    """What both ``artfs mount`` and the mount helper do. Nothing that a fork would break is opened before it."""
    from artfs.fuse import MountOptions, mount_in_background, mount_in_foreground, parse_options
    from artfs.vfs import Pin

    if adopt:
        name = _version_on(directory) or name
    mount_options = parse_options(options, MountOptions(source=name) if name else None, sloppy=sloppy)
    _check(settings, name)
    load_code(settings)
    pin = Pin()
    level = logging.getLogger().getEffectiveLevel() if foreground else logging.INFO

    def make_tree() -> Tree:
        return open_tree(settings, name, pin, profile=profile)

    if foreground:
        mount_in_foreground(
            make_tree,
            directory,
            mount_options,
            runtime_dir=settings.runtime_dir,
            adopt=adopt,
            level=min(level, logging.INFO),
        )
    else:
        mount_in_background(
            make_tree,
            directory,
            mount_options,
            log_file=log_file(settings, directory),
            runtime_dir=settings.runtime_dir,
            adopt=adopt,
        )


def _version_on(directory: str) -> str:
    """The version that is mounted there, which an alias may no longer lead to; nothing where there is none."""
    try:
        return os.getxattr(directory, "user.artfs.version").decode()
    except OSError:
        return ""


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


def load_code(settings: Settings) -> None:
    """Import what serving takes, so that the processes to be forked share it; no more than imports.

    boto3 alone takes 0.2 CPU seconds, in each worker and while the first reader waits.
    """
    modules = ["artfs.vfs", "cattrs.preconf.json", "zstandard"]
    if settings.store_url.startswith("s3:"):
        modules += ["artfs.store.aws", "artfs.store.remote"]
    for module in modules:
        importlib.import_module(module)


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors as it may have.

    The cache keeps up to a quarter of the limit open as parts (with the usual 1024 that is 16 GB of files), and a
    writable mount has one open for every file that programs have open.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def open_tree(settings: Settings, name: str, pin: Pin, *, profile: bool = False) -> Tree:
    """What ``name`` shows, with parts of its own; runs in the process that serves."""
    from artfs.versions.repository import Repository
    from artfs.vfs import Namespace, ProfiledTree, VersionTree, has_profile

    raise_descriptor_limit()
    repository = Repository(settings)
    try:
        if not name or name.endswith("/"):
            return Namespace(repository, _level(name))
        first = not pin.known
        version = pin.version(lambda: repository.find(name).version)
        catalog = repository.catalog(version)
        if profile or (first and has_profile(repository, version)):
            return ProfiledTree(version, catalog, repository, record=profile, first=first)
        return VersionTree(version, catalog, repository.reader(catalog), repository=repository)
    except BaseException:
        repository.close()
        raise
