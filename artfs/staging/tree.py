"""The writable file system over a base version: POSIX operations as transactions on names and inodes.

Decided here, where POSIX leaves it open: directories have one link (``nlink`` 1, as on btrfs); ctime and atime are
mtime; special files are refused with EPERM, extended attributes are shown and cannot be set; setuid, setgid and
sticky bits are dropped, owners are not kept.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
from cachetools import LRUCache

from artfs.catalog import Catalog, Difference, Kind, bounded_time
from artfs.errors import (
    AlreadyExists,
    ArtfsError,
    DirectoryNotEmpty,
    DiskFull,
    IntoItself,
    InvalidInput,
    IsDirectory,
    NameTooLong,
    NotDirectory,
    NotFound,
    Refused,
)
from artfs.names import PART_LIMIT, PATH_LIMIT, check_part
from artfs.staging.area import Area, Facts
from artfs.staging.changes import changes
from artfs.staging.content import Content
from artfs.staging.database import Database
from artfs.staging.files import LocalFiles
from artfs.staging.nodes import Nodes, new_inode
from artfs.staging.recovery import recover
from artfs.staging.view import Inode, View
from artfs.vfs.tree import YEAR, Attributes, Capacity, DirectoryEntry, Tree

log = logging.getLogger(__name__)

_TARGET_LIMIT = 4095
"""Bytes of a symlink's target: PATH_MAX of Linux without the NUL."""


@attrs.frozen
class StagingStatistics:
    """The work of a staging area since it was opened."""

    commits: int
    """Transactions."""
    syncs: int
    """Syncs of the database that programs asked for."""
    checkpoints: int
    open_files: int
    """Inodes open now."""


class StagingTree:
    """A ``WritableTree`` over an area, which it owns from now on, and the base's tree, from which it reads bytes."""

    def __init__(self, area: Area, base: Tree | None) -> None:
        """Put in order what a crash left, and be ready; ``base`` is None where the area's base is empty."""
        self._area = area
        self._catalog = Catalog(area.base_catalog, area.facts.base or area.facts.collection)
        self._database = Database(area.database)
        self._files = LocalFiles(area.data)
        self._nodes = Nodes(self._database, self._catalog, self._files)
        self._content = Content(self._nodes, base)
        self._base = base
        recover(self._database, self._files)
        self._lengths: LRUCache[int, int] = LRUCache(1024)  # of directories' paths
        self._reserve = threading.Lock()  # who has spent the room set aside is not robbed of it before it is used
        self._wake = threading.Event()
        self._closing = False
        self._tidier = threading.Thread(target=self._tidy, name="staging-tidy", daemon=True)
        self._tidier.start()

    @property
    def facts(self) -> Facts:
        """What the area is about."""
        return self._area.facts

    @property
    def view(self) -> View:
        """Area and base together, for reading."""
        return self._nodes

    # -- reading --------------------------------------------------------------------------------------------------

    def lookup(self, parent: int, name: str, deadline: float | None) -> Attributes | None:
        """What a name is."""
        found = self._nodes.find(parent, name)
        return None if found is None else self._attributes(found, deadline)

    def absent_lifetime(self, parent: int) -> float:  # noqa: ARG002 - Tree
        """Only the kernel's own requests make names."""
        return YEAR

    def attributes(self, inode: int, deadline: float | None) -> Attributes:
        """What stat shows."""
        return self._attributes(self._nodes.get(inode), deadline)

    def list(self, inode: int, cookie: int, deadline: float | None) -> Iterator[DirectoryEntry]:
        """The entries of a directory; those that are made meanwhile may or may not be among them."""
        del deadline
        for child in self._nodes.children(inode, cookie):
            with contextlib.suppress(NotFound):  # removed since the page was read
                yield DirectoryEntry(child.cookie, child.name, *self._shown(child.inode))

    def readlink(self, inode: int, deadline: float | None) -> str:
        """The target of a symlink."""
        del deadline
        return self._nodes.get(inode).target or ""

    def read(
        self, inode: int, offset: int, size: int, deadline: float | None, room: memoryview | None = None
    ) -> bytes | bytearray | memoryview:
        """Bytes of a file."""
        return self._content.read(inode, offset, size, deadline, room)

    def prefetch(self, inode: int, deadline: float | None) -> bool:
        """Of what has the base's content."""
        if self._base is None or self._nodes.get(inode).shown is not None or not self._catalog.node(inode):
            return False
        return self._base.prefetch(inode, deadline)

    def xattrs(self, inode: int, deadline: float | None) -> Mapping[str, bytes]:
        """Those of the base for what has the base's content, none else."""
        node = self._nodes.get(inode)
        if self._base is None or node.shown is not None or not self._catalog.node(inode):
            return {}
        return self._base.xattrs(inode, deadline)

    def capacity(self) -> Capacity:
        """The room on the staging area's disk."""
        disk = os.statvfs(self._area.data)
        return Capacity(
            size=(disk.f_blocks - disk.f_bfree) * disk.f_frsize,
            free=disk.f_bavail * disk.f_frsize,
            files=disk.f_files - disk.f_ffree,
            files_free=disk.f_favail,
        )

    def statistics(self) -> Mapping[str, Any]:
        """Counters of the area and of what is beneath."""
        database = self._database.statistics()
        area = StagingStatistics(database.commits, database.syncs, database.checkpoints, self._files.in_use())
        return {"staging": attrs.asdict(area)} | ({} if self._base is None else dict(self._base.statistics()))

    def close(self) -> None:
        """Sync everything and close the area; the base's tree, too."""
        self._closing = True
        self._wake.set()
        self._tidier.join()
        self._content.sync()
        self._files.close()
        with contextlib.suppress(DiskFull), self._database.transaction():  # then it is put in order when it is opened
            self._database.change("INSERT OR REPLACE INTO meta VALUES ('clean', 1)")
        self._database.close()
        self._catalog.close()
        if self._base is not None:
            self._base.close()
        self._area.close()

    # -- names ----------------------------------------------------------------------------------------------------

    def create(self, parent: int, name: str, mode: int) -> Attributes:
        """A new empty file, open."""
        created = None
        try:
            with self._database.transaction():
                directory = self._room_for(parent, name)
                node = new_inode(self._nodes.number(), Kind.FILE, mode)._replace(shown=0, size=None)
                created = self._content.create(node.inode)
                self._add(directory, name, node)
        except BaseException:
            if created is not None:
                self._content.release(created.inode)
            raise
        self._after()
        return self._shown(node)

    def make_directory(self, parent: int, name: str, mode: int) -> Attributes:
        """A new empty directory."""
        with self._database.transaction():
            directory = self._room_for(parent, name)
            node = new_inode(self._nodes.number(), Kind.DIRECTORY, mode)._replace(parent=parent, name=name)
            self._add(directory, name, node)
        self._after()
        return self._shown(node)

    def make_symlink(self, parent: int, name: str, target: str) -> Attributes:
        """A new symlink."""
        size = _length(target)
        if size > _TARGET_LIMIT:
            raise NameTooLong(name=target[:64], limit=_TARGET_LIMIT)
        if "\n" in target:
            raise InvalidInput("the target of a symlink cannot hold a line feed: a digest's text could not carry it")
        with self._database.transaction():
            directory = self._room_for(parent, name)
            node = new_inode(self._nodes.number(), Kind.SYMLINK, 0o777)._replace(target=target, size=size)
            self._add(directory, name, node)
        self._after()
        return self._shown(node)

    def link(self, inode: int, parent: int, name: str) -> Attributes:
        """One more name for a file or symlink."""
        with self._database.transaction():
            node = self._nodes.get(inode)
            if node.kind == Kind.DIRECTORY:
                raise Refused(what="a directory has one name only")
            if not node.nlink:
                raise NotFound(what="inode", name=inode)
            node = node._replace(nlink=node.nlink + 1)
            self._add(self._room_for(parent, name), name, node)
        self._after()
        return self._shown(node)

    def unlink(self, parent: int, name: str) -> None:
        """Remove the name of what is no directory."""
        self._despite_full_disk(lambda: self._unlink(parent, name))

    def _unlink(self, parent: int, name: str) -> None:
        with self._database.transaction():
            node = self._existing(parent, name)
            if node.kind == Kind.DIRECTORY:
                raise IsDirectory(name=name)
            self._nodes.unbind(parent, name)
            self._nodes.touch(self._nodes.get(parent))
            self._lose_name(node)
        self._after()

    def remove_directory(self, parent: int, name: str) -> None:
        """Remove an empty directory."""
        self._despite_full_disk(lambda: self._remove_directory(parent, name))

    def _remove_directory(self, parent: int, name: str) -> None:
        with self._database.transaction():
            node = self._existing(parent, name)
            self._check_replaceable(node, name)
            self._nodes.unbind(parent, name)
            self._nodes.touch(self._nodes.get(parent))
            self._lose_name(node)
        self._after()

    def rename(
        self, parent: int, name: str, new_parent: int, new_name: str, *, replace: bool = True, exchange: bool = False
    ) -> None:
        """Move a name, or let two change places."""
        with self._database.transaction():
            source = self._existing(parent, name)
            directory = self._directory(new_parent, new_name)
            target = self._nodes.find(new_parent, new_name)
            if exchange:
                if target is None:
                    raise NotFound(what="name", name=new_name)
                self._check_not_within(target, parent, new_name)
            elif target is not None and not replace:
                raise AlreadyExists(name=new_name)
            self._check_not_within(source, new_parent, name)
            if target is not None and target.inode == source.inode:
                return  # two names of one file: rename(2) does nothing
            if exchange and target is not None:
                self._move(target, parent, name)
            else:
                if target is not None:
                    self._replace(source, target, new_name)
                self._nodes.unbind(parent, name)
            self._move(source, new_parent, new_name)
            self._nodes.touch(self._nodes.get(parent))
            if new_parent != parent:
                self._nodes.touch(directory)
            if source.kind == Kind.DIRECTORY or (exchange and target is not None and target.kind == Kind.DIRECTORY):
                self._lengths.clear()
        self._after()

    def _replace(self, source: Inode, target: Inode, new_name: str) -> None:
        """``target`` makes way for ``source``."""
        if source.kind == Kind.DIRECTORY:
            self._check_replaceable(target, new_name)
        elif target.kind == Kind.DIRECTORY:
            raise IsDirectory(name=new_name)
        self._lose_name(target)
        if source.shown is not None:
            self._content.order(source.inode)

    def _move(self, node: Inode, parent: int, name: str) -> None:
        """Let a name lead to an inode, which knows about it if it is a directory."""
        self._nodes.bind(parent, name, node.inode)
        if node.kind == Kind.DIRECTORY:
            self._nodes.save(node._replace(parent=parent, name=name))

    def _lose_name(self, node: Inode) -> None:
        if node.kind == Kind.DIRECTORY:
            # Kept: somebody may be in it, and the base's directory of that inode must not come back to life.
            self._nodes.save(node._replace(nlink=0))
            self._lengths.clear()
        elif node.nlink > 1:
            self._nodes.save(node._replace(nlink=node.nlink - 1))
        else:
            self._content.remove(node)

    def _add(self, directory: Inode, name: str, node: Inode) -> None:
        self._nodes.save(node)
        self._nodes.bind(directory.inode, name, node.inode)
        self._nodes.touch(directory)

    # -- checks ---------------------------------------------------------------------------------------------------

    def _room_for(self, parent: int, name: str) -> Inode:
        """The directory in which ``name`` can be made."""
        directory = self._directory(parent, name)
        if self._nodes.find(parent, name) is not None:
            raise AlreadyExists(name=name)
        return directory

    def _directory(self, parent: int, name: str) -> Inode:
        """The directory ``parent``, in which ``name`` could stand."""
        size = _length(name)
        if size > PART_LIMIT:
            raise NameTooLong(name=name[:64], limit=PART_LIMIT)
        check_part(name)
        directory = self._nodes.get(parent)
        if directory.kind != Kind.DIRECTORY:
            raise NotDirectory(name=f"inode {parent}")
        if not directory.nlink:
            raise NotFound(what="directory", name=f"of {name!r}")
        length = self._lengths.get(parent)
        if length is None:
            length = self._lengths[parent] = self._nodes.length_of_path(parent)
        if length + bool(length) + size > PATH_LIMIT:
            raise NameTooLong(name=name[:64], limit=PATH_LIMIT)
        return directory

    def _existing(self, parent: int, name: str) -> Inode:
        node = self._nodes.find(parent, name)
        if node is None:
            raise NotFound(what="name", name=name)
        return node

    def _check_replaceable(self, node: Inode, name: str) -> None:
        if node.kind != Kind.DIRECTORY:
            raise NotDirectory(name=name)
        if self._nodes.holds_anything(node.inode):
            raise DirectoryNotEmpty(name=name)

    def _check_not_within(self, node: Inode, parent: int, name: str) -> None:
        if node.kind == Kind.DIRECTORY and self._nodes.is_within(parent, node.inode):
            raise IntoItself(name=name)

    # -- content and attributes -----------------------------------------------------------------------------------

    def set_attributes(
        self, inode: int, mode: int | None, size: int | None, mtime_ns: int | None, deadline: float | None
    ) -> Attributes:
        """Change size, mode, modification time."""
        if mtime_ns is not None:
            mtime_ns = bounded_time(mtime_ns)
        if size is not None:
            if self._nodes.get(inode).kind == Kind.DIRECTORY:
                raise IsDirectory(name=f"inode {inode}")
            self._despite_full_disk(lambda: self._content.truncate(inode, size, deadline))
        with self._database.lock:
            node = self._nodes.get(inode)
            if mtime_ns is not None and node.shown is not None:
                self._files.set_mtime(inode, mtime_ns)
            changed = node._replace(
                mode=node.mode if mode is None else mode & 0o777,
                mtime_ns=node.mtime_ns if mtime_ns is None else mtime_ns,
            )
            if changed != node:
                with self._database.transaction():
                    self._nodes.save(changed)
        self._after()
        return self.attributes(inode, deadline)

    def open(self, inode: int) -> None:
        """One more opener."""
        self._nodes.get(inode)
        self._content.acquire(inode)

    def release(self, inode: int) -> None:
        """One opener less."""
        self._content.release(inode)

    def write(self, inode: int, offset: int, data: bytes | memoryview, deadline: float | None) -> int:
        """Write bytes."""
        written = self._content.write(inode, offset, data, deadline)
        self._after()
        return written

    def sync_file(self, inode: int, *, data_only: bool) -> None:
        """Make a file outlive a power cut."""
        self._content.sync_file(inode, data_only=data_only)

    def changes(self) -> Iterator[Difference]:
        """What differs from the base now."""
        return changes(self._nodes)

    def sync(self) -> None:
        """Make names and attributes outlive a power cut."""
        self._content.sync()

    def _attributes(self, node: Inode, deadline: float | None) -> Attributes:
        if node.kind == Kind.REFERENCE and node.size is None and self._base is not None:
            size = self._base.attributes(node.inode, deadline).size
            return self._shown(node)._replace(size=size, lifetime=YEAR)
        return self._shown(node)

    def _shown(self, node: Inode) -> Attributes:
        size, mtime_ns = self._nodes.size_and_mtime(node)
        return Attributes(
            node.inode,
            Kind.FILE if node.kind == Kind.REFERENCE else Kind(node.kind),
            node.mode,
            size or 0,
            mtime_ns,
            node.nlink,
            lifetime=0.0 if size is None else YEAR,
        )

    # -- in the background ----------------------------------------------------------------------------------------

    def _despite_full_disk(self, operation: Callable[[], None]) -> None:
        """What makes room takes a little of it first."""
        try:
            operation()
        except DiskFull:
            with self._reserve:
                if not self._database.spend_reserve():
                    raise
                try:
                    operation()
                    self._content.sync()  # unlinks what was removed
                    self._database.checkpoint()  # the WAL begins anew in the room that it has
                finally:
                    self._database.keep_reserve()

    def _after(self) -> None:
        if self._content.untidy:
            self._wake.set()

    def _tidy(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closing:
                return
            try:
                self._content.tidy()
                with self._reserve:
                    self._database.keep_reserve()  # what was removed may have left room for it
            except (ArtfsError, OSError):
                log.exception("tidying the staging area %s failed; it will be tried again", self._area.path)


def _length(text: str) -> int:
    """Bytes of a text; raises InvalidInput if it is not UTF-8."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"{text.encode('utf-8', 'replace').decode()[:64]!r} is not UTF-8") from None
