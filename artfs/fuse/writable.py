"""A ``WritableTree`` spoken as pyfuse3 requests.

Without the kernel's writeback cache: it costs a SETATTR for every created file, and what a program wrote would be lost
with the kernel's memory rather than kept in the staging area. The kernel still caches what was read, and names and
attributes for good, for every change comes through it.

Locks (fcntl(2), flock(2)) are the kernel's own and hold within the mount; fallocate(2) is answered EOPNOTSUPP by
libfuse, and programs fall back to writing.
"""
# ruff: noqa: ARG002 - the signatures are pyfuse3's

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable
from typing import Any

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError

from artfs.fuse.handles import Handles, inode_of, past_cache
from artfs.fuse.operations import Operations, request
from artfs.fuse.options import MountOptions
from artfs.vfs.writable import WritableTree


class WritableOperations(Operations):
    """Serves one writable tree. Names and small writes are done on the loop, what syncs in a thread."""

    def __init__(self, tree: WritableTree, options: MountOptions) -> None:
        super().__init__(tree, options)
        self._writable = tree
        self._handles = Handles()

    # -- names --------------------------------------------------------------------------------------------------

    @request
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """A new file, open."""
        created = self._writable.create(parent_inode, _text(name), mode)
        return self._handle(created.inode, flags), self.describe(created)

    @request
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """A new regular file. Devices, FIFOs and sockets have no place in a version: EPERM, as the manual has it."""
        if not stat.S_ISREG(mode):
            raise FUSEError(errno.EPERM)
        created = self._writable.create(parent_inode, _text(name), mode)
        self._writable.release(created.inode)
        return self.describe(created)

    @request
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext) -> EntryAttributes:
        """A new directory."""
        return self.describe(self._writable.make_directory(parent_inode, _text(name), mode))

    @request
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """A new symlink."""
        return self.describe(self._writable.make_symlink(parent_inode, _text(name), _text(target)))

    @request
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """One more name."""
        return self.describe(self._writable.link(inode, new_parent_inode, _text(new_name)))

    @request
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove a name."""
        self._writable.unlink(parent_inode, _text(name))

    @request
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove an empty directory."""
        self._writable.remove_directory(parent_inode, _text(name))

    @request
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Move a name."""
        if flags & ~(pyfuse3.RENAME_EXCHANGE | pyfuse3.RENAME_NOREPLACE):
            raise FUSEError(errno.EINVAL)
        self._writable.rename(
            parent_inode_old,
            _text(name_old),
            parent_inode_new,
            _text(name_new),
            replace=not flags & pyfuse3.RENAME_NOREPLACE,
            exchange=bool(flags & pyfuse3.RENAME_EXCHANGE),
        )

    # -- files and attributes -----------------------------------------------------------------------------------

    @request
    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> EntryAttributes:
        """Change mode, size, modification time. Owners are not kept: a change is accepted, as tar and rsync need when
        run by root, and forgotten.
        """
        # Not with a size: the kernel then holds back writes until it has the answer, and has dropped the mapped pages.
        if fields.update_mtime and not fields.update_size and self._handles.may_be_mapped(inode):
            await self._write_back(inode)
        changed = await self.call(
            self._writable.set_attributes,
            inode,
            stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            attr.st_size if fields.update_size else None,
            attr.st_mtime_ns if fields.update_mtime else None,
        )
        return self.describe(changed)

    async def _write_back(self, inode: int) -> None:
        """Have what was stored through mappings written now: the kernel would do so after the time is set, which would
        then be that of the write. Told to forget a file's pages, it writes the dirty ones first; to this loop, so from
        a thread.
        """
        await self._wait_for(functools.partial(pyfuse3.invalidate_inode, inode))

    @request
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> FileInfo:
        """The inode is the handle, or most of it."""
        self._writable.open(inode)
        if flags & os.O_TRUNC:
            try:
                await self.call(self._writable.set_attributes, inode, None, 0, None)
            except BaseException:
                self._writable.release(inode)
                raise
        return self._handle(inode, flags)

    def _handle(self, inode: int, flags: int) -> FileInfo:
        handle = self._handles.add(inode, flags)
        return FileInfo(fh=handle, keep_cache=True, direct_io=past_cache(handle))

    @request
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """At most ``size`` bytes."""
        return await self.call(self.read_now, inode_of(fh), off, size, limiter=self._reads)

    @request
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Into the local file's page cache, which is as quick as a thread would be to start."""
        return await self.call(self._writable.write, inode_of(fh), off, buf, limiter=self._reads)

    @request
    async def release(self, fh: int) -> None:
        """One opener less."""
        self._handles.remove(fh)
        self._writable.release(inode_of(fh))

    @request
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Return when the file is on disk."""
        await self._wait_for(lambda: self._writable.sync_file(inode_of(fh), data_only=datasync))

    @request
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Return when names are on disk."""
        await self._wait_for(self._writable.sync)

    async def _wait_for(self, operation: Callable[[], None]) -> None:
        """Run what takes as long as the disk takes. Cancelled (the mount ends), it is left to itself."""
        self.threads += 1
        await trio.to_thread.run_sync(operation, abandon_on_cancel=True, limiter=self._metadata)

    async def no_xattrs(self, *_args: Any, **_kwargs: Any) -> Any:
        """ENOSYS: programs get EOPNOTSUPP, and the kernel never asks again.

        A version has no place for what programs would set. Artfs's own are not shown either: were any attribute
        answered, the kernel would ask for ``security.capability`` before every single write.
        """
        raise FUSEError(errno.ENOSYS)

    getxattr = listxattr = setxattr = removexattr = no_xattrs


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise FUSEError(errno.EILSEQ) from None
