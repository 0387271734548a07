"""A base version in memory, and a staging tree used by path, as a program would."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
import time

from artfs.catalog import Catalog, CatalogBuilder, Entry, Extent, Kind, Reference
from artfs.digests import md5_base64
from artfs.errors import ArtfsError
from artfs.staging import Area, Facts, StagingTree, create_area
from artfs.vfs.tree import Attributes, Capacity, WouldBlock

PACK = "packs/aa/one"
MTIME = 1_500_000_000_123_456_789
FACTS = Facts("e/p/c", "dataset", "e/p/c:v0", "0" * 32, "1" * 32, "2" * 32, "2026-01-01T00:00:00+00:00")


class Link(str):
    """The target of a symlink in a description of a tree."""

    __slots__ = ()


def build_catalog(path, content, modes=None, references=None):
    """``content``: path -> bytes, Link or None (an empty directory). Returns the bytes of the one pack."""
    modes, references = modes or {}, references or {}
    pack = bytearray()
    entries = [Entry(path, Kind.REFERENCE, reference=reference) for path, reference in references.items()]
    directories = {name for name, value in content.items() if value is None}
    for name in [*content, *references]:
        while name := name.rpartition("/")[0]:
            directories.add(name)
    for name, value in (dict.fromkeys(directories) | content).items():
        if value is None:
            entries.append(Entry(name, Kind.DIRECTORY, modes.get(name, 0o755), MTIME))
        elif isinstance(value, Link):
            entries.append(Entry(name, Kind.SYMLINK, 0o777, MTIME, target=str(value)))
        else:
            extents = (Extent(PACK, len(pack), len(value)),) if value else ()
            digest = md5_base64(hashlib.md5(value).digest())
            entries.append(Entry(name, Kind.FILE, modes.get(name, 0o644), MTIME, len(value), digest, extents=extents))
            pack += value
    with CatalogBuilder(path) as builder:
        for entry in sorted(entries, key=lambda e: e.path + ("/" if e.kind is Kind.DIRECTORY else "")):
            builder.add(entry)
        for key in builder.packs:
            builder.set_pack(key, len(pack), b"")
        builder.finish()
    return bytes(pack)


class BaseTree:
    """The part of ``Tree`` that staging asks of its base. ``blocking``: bytes are never at hand at once."""

    def __init__(self, catalog, pack, *, references=None, blocking=False):
        self.catalog, self.pack, self.references, self.blocking = catalog, pack, references or {}, blocking
        self.read_bytes = 0

    def read(self, inode, offset, size, deadline, room=None):
        if self.blocking and deadline is None:
            raise WouldBlock
        node = self.catalog.node(inode)
        if node.kind == Kind.REFERENCE:
            data = self.references[self.catalog.reference(inode).uri]
        else:
            data = self.pack[node.offset : node.offset + node.size] if node.size else b""
        self.read_bytes += len(data[offset : offset + size])
        return memoryview(data)[offset : offset + size]

    def attributes(self, inode, deadline):
        if deadline is None:
            raise WouldBlock
        uri = self.catalog.reference(inode).uri
        return Attributes(inode, Kind.FILE, 0o644, len(self.references[uri]), 0)

    def xattrs(self, inode, deadline):
        return {"user.artfs.digest": b"digest"}

    def capacity(self):
        return Capacity(0, 0, 0, 0)

    def statistics(self):
        return {}

    def close(self):
        self.catalog.close()


class Stage:
    """A staging tree over ``content``, used by path. Failures are OSError, as from a mount."""

    def __init__(self, directory, content=None, *, modes=None, references=None, sizes_known=True, blocking=False):
        self.directory = directory
        self.blocking = blocking
        self.remote = references or {}
        catalog = directory / "base"
        described = {
            path: Reference(path, "etag", len(data) if sizes_known else None) for path, data in self.remote.items()
        }
        self.pack = build_catalog(catalog, content or {}, modes, described)
        (directory / "pack").write_bytes(self.pack)
        self.area_path = create_and_close(directory / "staging", catalog)
        self.open()

    @classmethod
    def resume(cls, directory):
        """The stage that was made in ``directory``, whatever became of its process."""
        stage = cls.__new__(cls)
        stage.directory, stage.blocking, stage.remote = directory, False, {}
        stage.pack = (directory / "pack").read_bytes()
        (stage.area_path,) = (directory / "staging").iterdir()
        stage.open()
        return stage

    def open(self):
        area = Area(self.area_path)
        catalog = Catalog(area.base_catalog, "base")
        self.base = BaseTree(catalog, self.pack, references=self.remote, blocking=self.blocking)
        self.tree = StagingTree(area, self.base)

    def close(self):
        self.tree.close()

    def reopen(self):
        self.close()
        self.open()

    # -- by path

    def find(self, path):
        found = self.call(self.tree.attributes, 1, None)
        for part in path.split("/") if path else ():
            if found.kind != Kind.DIRECTORY:
                raise OSError(errno.ENOTDIR, path)
            found = self.call(self.tree.lookup, found.inode, part, None)
            if found is None:
                raise OSError(errno.ENOENT, path)
        return found

    def parent(self, path):
        head, _, name = path.rpartition("/")
        directory = self.find(head)
        if directory.kind != Kind.DIRECTORY:
            raise OSError(errno.ENOTDIR, path)
        return directory.inode, name

    @staticmethod
    def call(operation, *args, **keywords):
        try:
            return operation(*args, **keywords)
        except ArtfsError as error:
            raise OSError(error.errno, str(error)) from error

    def create(self, path, mode=0o644):
        inode = self.call(self.tree.create, *self.parent(path), mode).inode
        self.tree.release(inode)

    def write(self, path, offset, data):
        return self.call(self.tree.write, self.file(path), offset, data, far())

    def mapped_write(self, path, offset, data):
        self.write(path, offset, data)  # as it comes from the kernel

    def put(self, path, data):
        self.create(path)
        self.write(path, 0, data)

    def file(self, path):
        found = self.find(path)
        if found.kind == Kind.DIRECTORY:
            raise OSError(errno.EISDIR, path)
        return found.inode

    def read(self, path, offset=0, size=1 << 30):
        return bytes(self.call(self.tree.read, self.file(path), offset, size, far()))

    def truncate(self, path, size):
        self.call(self.tree.set_attributes, self.file(path), None, size, None, far())

    def chmod(self, path, mode):
        self.call(self.tree.set_attributes, self.find(path).inode, mode, None, None, None)

    def utime(self, path, mtime_ns):
        self.call(self.tree.set_attributes, self.find(path).inode, None, None, mtime_ns, None)

    def mkdir(self, path, mode=0o755):
        self.call(self.tree.make_directory, *self.parent(path), mode)

    def symlink(self, target, path):
        self.call(self.tree.make_symlink, *self.parent(path), target)

    def readlink(self, path):
        return self.tree.readlink(self.find(path).inode, None)

    def link(self, old, new):
        inode = self.find(old).inode
        self.call(self.tree.link, inode, *self.parent(new))

    def unlink(self, path):
        self.call(self.tree.unlink, *self.parent(path))

    def rmdir(self, path):
        self.call(self.tree.remove_directory, *self.parent(path))

    def rename(self, old, new, **how):
        self.call(self.tree.rename, *self.parent(old), *self.parent(new), **how)

    def listdir(self, path="", batch=None):
        """Names in the order of the listing, taken ``batch`` at a time."""
        inode, names, cookie = self.find(path).inode, [], 0
        while True:
            count = 0
            for entry in self.tree.list(inode, cookie, None):
                names.append(entry.name)
                cookie = entry.cookie
                count += 1
                if batch and count >= batch:
                    break
            if not batch or count < batch:
                return names

    def changes(self):
        return [(d.change.value, d.path, d.old_path, d.what) for d in self.tree.changes()]

    def snapshot(self, path=""):
        """path -> what it is, for comparison with ``snapshot_of``."""
        found = {}
        for name in self.listdir(path, batch=3):
            full = f"{path}/{name}" if path else name
            attributes = self.find(full)
            if attributes.kind == Kind.DIRECTORY:
                found[full] = ("directory", attributes.mode, old_time(attributes.mtime_ns))
                found |= self.snapshot(full)
            elif attributes.kind == Kind.SYMLINK:
                found[full] = ("symlink", self.readlink(full))
            else:
                data = self.read(full)
                assert len(data) == attributes.size
                found[full] = ("file", attributes.mode, attributes.nlink, old_time(attributes.mtime_ns), data)
        return found


def snapshot_of(root, path=""):
    found = {}
    for entry in os.scandir(os.path.join(root, path)):
        full = f"{path}/{entry.name}" if path else entry.name
        status = entry.stat(follow_symlinks=False)
        mode = stat.S_IMODE(status.st_mode)
        if entry.is_symlink():
            found[full] = ("symlink", os.readlink(entry.path))
        elif entry.is_dir():
            found[full] = ("directory", mode, old_time(status.st_mtime_ns))
            found |= snapshot_of(root, full)
        else:
            with open(entry.path, "rb") as file:
                found[full] = ("file", mode, status.st_nlink, old_time(status.st_mtime_ns), file.read())
    return found


def old_time(mtime_ns):
    """A time that was set on purpose; None for one that was now."""
    return mtime_ns if mtime_ns < 1_600_000_000_000_000_000 else None


def far():
    """A deadline that no test comes to."""
    return time.monotonic() + 60


def create_and_close(staging_dir, catalog, facts=FACTS):
    area = create_area(staging_dir, facts, catalog)
    area.close()
    return area.path


_libc = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2


def renameat2(old, new, flags):
    """rename(2) with flags; raises OSError."""
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
