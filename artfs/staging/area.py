"""A staging area: the directory that keeps what was changed in one writable mount, until it is a version.

``STAGING_DIR/<id>/``, for its owner only (0700):

    area.json   what it is about (``Facts``), written once
    lock        locked by the process that has the area open, whose id it holds
    base.db     the base version's catalog, or an empty one; a hard link to the cache's file where that is possible
    staging.db  names, inodes and ranges that differ from the base (schema.py), with SQLite's -wal and -shm, and
                staging.reserve, room for removals on a full disk
    data/       written bytes, a sparse file an inode

It comes into being by a rename, whole. Nothing here deletes one unless it is told to.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from artfs.catalog import CatalogBuilder
from artfs.errors import AreaInUse, LocalIOError
from artfs.staging.database import sync_directory
from artfs.staging.files import local_error

_NEW: Final = ".new-"
_DISCARDED: Final = ".discarded-"


@attrs.frozen
class Facts:
    """What an area is about; does not change."""

    collection: str
    """``entity/project/collection`` in which the draft will be."""
    type: str
    base: str
    """Name of the version it began with, ``e/p/c:v3``; empty for none."""
    base_id: str
    """That version's id in the registry; empty for none."""
    pending: str
    """Id of the PENDING row that pins the base."""
    registry: str
    """Id of the registry."""
    created: str
    """When, ISO 8601, UTC."""


class Area:
    """An area, locked for this process until ``close``."""

    def __init__(self, path: Path) -> None:
        """Open and lock an area; raises AreaInUse, LocalIOError."""
        self.path = path
        self.data = path / "data"
        self.database = path / "staging.db"
        self.base_catalog = path / "base.db"
        self._lock = _lock(path)
        try:
            self.facts = read_facts(path)
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def id(self) -> str:
        """Its directory's name."""
        return self.path.name

    def close(self) -> None:
        """Let others open it."""
        os.close(self._lock)

    def discard(self) -> None:
        """Delete the area with everything that was written into it, and close it."""
        doomed = self.path.with_name(f"{_DISCARDED}{self.id}")  # from now on nobody takes it for an area
        try:
            self.path.rename(doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            raise local_error(self.path, error) from error
        finally:
            self.close()


def create_area(staging_dir: Path, facts: Facts, base_catalog: Path | None) -> Area:
    """A new area over a version's catalog, or over nothing; raises DiskFull, LocalIOError."""
    name = uuid.uuid4().hex[:16]
    fresh, path = staging_dir / f"{_NEW}{name}", staging_dir / name
    try:
        staging_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for rest in staging_dir.glob(f"{_DISCARDED}*"):  # of a discard that was interrupted
            shutil.rmtree(rest, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        (fresh / "data").mkdir(mode=0o700)
        if base_catalog is None:
            with CatalogBuilder(fresh / "base.db") as builder:
                builder.finish()
        else:
            _link_or_copy(base_catalog, fresh / "base.db")
        with open(os.open(fresh / "area.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(attrs.asdict(facts), file)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(fresh)
        fresh.rename(path)
        sync_directory(staging_dir)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise local_error(fresh, error) from error
    return Area(path)


def areas(staging_dir: Path) -> Iterator[tuple[Path, Facts]]:
    """Every area there is, open or not, by age."""
    try:
        paths = [path for path in staging_dir.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return
    found = [(path, read_facts(path)) for path in paths if (path / "area.json").exists()]
    yield from sorted(found, key=lambda item: (item[1].created, item[0]))


def read_facts(path: Path) -> Facts:
    """What the area at ``path`` is about; raises LocalIOError."""
    try:
        return Facts(**json.loads((path / "area.json").read_text(encoding="utf-8")))
    except OSError as error:
        raise LocalIOError(path=path, why=error.strerror) from error
    except (ValueError, TypeError) as error:
        raise LocalIOError(path=path / "area.json", why=f"it is not what artfs writes: {error}") from error


def holder(path: Path) -> int | None:
    """The process that has an area open, or None."""
    try:
        descriptor = _lock(path)
    except AreaInUse as error:
        return int(str(error.fields["process"]))
    os.close(descriptor)
    return None


def _lock(path: Path) -> int:
    """A descriptor that holds the lock: an flock, which belongs to it and goes with it, however the process ends."""
    try:
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise local_error(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except BlockingIOError:
        process = os.pread(descriptor, 20, 0).decode() or "0"
        os.close(descriptor)
        raise AreaInUse(area=path.name, process=process) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _link_or_copy(source: Path, target: Path) -> None:
    """The same bytes under another name: the cache may drop its own, and never writes into it."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())
