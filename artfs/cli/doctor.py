"""``artfs doctor``."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click

from artfs.cli.output import json_option, print_json, size, table
from artfs.config import Settings, load_settings
from artfs.errors import ArtfsError, LocalIOError

if TYPE_CHECKING:
    from artfs.registry import Registry

_NONE_YET: Final = "none yet: made when it is first used"


@attrs.frozen
class Check:
    """One line of the report."""

    name: str
    ok: bool
    found: str


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Check that everything artfs needs is there; exit with 1 if something is not. Changes nothing.

    \b
    Example:
      artfs doctor
    """
    checks = list(_checks())
    if as_json:
        print_json([attrs.asdict(check) for check in checks])
    else:
        table([("ok" if check.ok else "FAIL", check.name, check.found) for check in checks])
    if not all(check.ok for check in checks):
        sys.exit(1)


def _checks() -> Iterator[Check]:
    yield Check("artfs", True, f"{metadata.version('artfs')} on Python {platform.python_version()}")
    yield Check("kernel", True, platform.release())
    yield _fuse_device()
    helper = shutil.which("fusermount3")
    needed = os.geteuid() != 0
    yield Check("fusermount3", bool(helper) or not needed, helper or "absent: install the package fuse3")
    try:
        settings = load_settings()
    except ArtfsError as error:
        yield Check("configuration", False, str(error).removeprefix("configuration: "))
        return
    yield Check("configuration", True, f"{settings.config_file}{'' if settings.config_file.exists() else ' (none)'}")
    yield _try("registry", lambda: _registry(settings))
    yield _try("store", lambda: _store(settings))
    yield _try("cache", lambda: _cache(settings))
    yield _try("staging", lambda: _staging(settings))
    yield _try("mounts", lambda: _mounts(settings))
    yield _try("logs", lambda: _place(settings.log_dir))


def _fuse_device() -> Check:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        return Check("/dev/fuse", False, "no permission to use it: ask the administrator for chmod 666 /dev/fuse")
    except OSError as error:
        return Check("/dev/fuse", False, f"{error.strerror}: load the module fuse, or give the container the device")
    return Check("/dev/fuse", True, "usable")


def _try(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except ArtfsError as error:
        return Check(name, False, str(error))


def _registry(settings: Settings) -> str:
    if _is_new(settings):
        _place(settings.data_dir)
        return _NONE_YET
    with closing(_open_registry(settings)) as registry:
        return f"{registry.url_redacted}, {len(registry.entities())} entities"


def _is_new(settings: Settings) -> bool:
    """Whether nobody has used the embedded registry yet."""
    from artfs.registry.connection import sqlite_file

    file = sqlite_file(settings.registry_url)
    return file is not None and not file.exists()


def _open_registry(settings: Settings) -> Registry:
    from artfs.registry import Registry

    return Registry.open(settings.registry_url, create=False)


def _store(settings: Settings) -> str:
    from artfs.errors import ObjectNotFound, StoreNotOurs
    from artfs.store import open_store, store_owner

    if _is_new(settings) and settings.store_url.startswith("file:"):
        return _NONE_YET
    store = open_store(settings.store_url, endpoint=settings.store_endpoint, request_timeout=settings.request_timeout)
    try:
        owner = store_owner(store, deadline=time.monotonic() + settings.read_deadline)
    except ObjectNotFound:
        return f"{store.url}, claimed when it is first used"
    with closing(_open_registry(settings)) as registry:
        if owner != registry.id:
            raise StoreNotOurs(store=store.url, found=owner, expected=registry.id)
    return store.url


def _cache(settings: Settings) -> str:
    from artfs.versions.repository import Repository

    place = _place(settings.cache_dir)
    if not os.path.exists(place):
        return _NONE_YET
    for directory in filter(os.path.isdir, (os.path.join(place, name) for name in os.listdir(place))):
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise LocalIOError(path=directory, why="it cannot be used by this user, so nothing is kept there")
    with Repository(settings) as repository:
        info = repository.cache.info()
    if info.disk_free < settings.cache_free:
        why = f"{size(info.disk_free)} free on its disk, less than the {size(settings.cache_free)} of cache_free"
        raise LocalIOError(path=place, why=f"{why}: what is fetched does not stay")
    return f"{place}, {size(info.size)} of {size(settings.cache_limit)}"


def _staging(settings: Settings) -> str:
    from artfs.staging import areas, holder

    place = _place(settings.staging_dir)
    left = [path.name for path, _ in areas(settings.staging_dir) if holder(path) is None]
    return f"{place}, {', '.join(left)} left behind: see `artfs drafts`" if left else place


def _place(directory: Path) -> str:
    """The directory, if it can be used or made; raises LocalIOError."""
    there = next(path for path in (directory, *directory.parents) if os.path.exists(path))
    if not there.is_dir():
        raise LocalIOError(path=directory, why=f"{there} is no directory")
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise LocalIOError(path=directory, why=f"no permission to write to {there}")
    return str(directory)


def _mounts(settings: Settings) -> str:
    from artfs.fuse import mounts

    found = mounts(settings.runtime_dir)
    stale = [mount.mountpoint for mount in found if mount.stale]
    if stale:
        raise ArtfsError(f"{', '.join(stale)}: the process is gone; clear with `artfs umount {stale[0]}`")
    return f"{len(found)} running"
