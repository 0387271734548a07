"""A ``Tree`` spoken as pyfuse3 requests.

Every request is tried inline, on the loop: what memory and page cache can answer takes microseconds, a thread more
than that. What would have to wait for disk or network is done again in a thread, with a deadline, so that one slow
read never stands in the way of another.

pyfuse3 ends the mount on any exception but ``FUSEError``: every handler goes through ``request``, which turns
everything else into an errno.
"""
# ruff: noqa: ARG002 - the signatures are pyfuse3's

from __future__ import annotations

import errno
import functools
import itertools
import logging
import mmap
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar, TypeVarTuple, cast

import attrs
import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError

from artfs.errors import DeadlineExceeded
from artfs.fuse.appearance import (
    BLOCK_SIZE,
    FRAGMENT_SIZE,
    NAME_MAX,
    PREFETCH,
    PREFETCHING,
    STATISTICS,
    Appearance,
    fragments,
    statistics_json,
)
from artfs.fuse.failures import Failures
from artfs.fuse.options import MountOptions
from artfs.vfs.tree import ROOT_INODE, Attributes, DirectoryEntry, Tree, WouldBlock

log = logging.getLogger(__name__)

LISTED_AT_ONCE = 1024
"""Entries fetched for one READDIRPLUS in a thread; glibc asks for 32 KiB, which holds about 200."""
READ_MOST = 1 << 20
"""Bytes that libfuse asks for at most in one READ."""
READ_THREADS = 64
"""Reads that wait for data at a time; more wait for their turn, while those that are cached are answered."""
METADATA_THREADS = 16
"""Threads for everything but reads, apart from theirs: names stay answerable while every read waits."""
GRACE = 5.0
"""Seconds that a thread may overstay its deadline before its request is answered without it."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
P = ParamSpec("P")
Handler = TypeVar("Handler", bound="Operations")


@attrs.frozen
class OperationsStatistics:
    """What the kernel asked for."""

    requests: dict[str, int]
    """Requests by kind, since the mount."""
    errors: dict[str, int]
    """Requests answered with an error that was logged or would have been, by name of the errno."""
    threads: int
    """Requests that had to wait for disk or network in a thread, since the mount."""
    waiting: int
    """Requests that wait in a thread now."""


def request(
    method: Callable[Concatenate[Handler, P], Awaitable[T]],
) -> Callable[Concatenate[Handler, P], Coroutine[Any, Any, T]]:
    """Make ``method`` a handler: count it, and let nothing but ``FUSEError`` out."""
    kind = method.__name__

    @functools.wraps(method)
    async def handle(self: Handler, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self.requests[kind] += 1
        try:
            return await method(self, *args, **kwargs)
        except FUSEError:
            raise
        except Exception as error:  # anything else that got out would end the mount
            inode = args[0] if isinstance(args[0], int) else ROOT_INODE  # statfs has none
            raise FUSEError(self.failures.number(kind, inode, error)) from error

    return handle


class Operations(pyfuse3.Operations):
    """Serves one read-only tree. A writable adapter overrides the handlers that end in ``read_only``.

    Runs on one trio loop; only what ``call`` is given runs in threads. File and directory handles are inodes.
    """

    supports_dot_lookup = False  # export over NFS would look up "..", and a Tree does not know parents

    def __init__(self, tree: Tree, options: MountOptions) -> None:
        self.tree = tree
        self.requests: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.failures = Failures(self._failed)
        self.threads = 0
        self.waiting = 0
        self._wait = options.wait
        self._room = memoryview(mmap.mmap(-1, READ_MOST))
        self._appearance = Appearance(options)
        self._reads = trio.CapacityLimiter(READ_THREADS)
        self._metadata = trio.CapacityLimiter(METADATA_THREADS)

    def statistics(self) -> OperationsStatistics:
        """Counters since the mount."""
        return OperationsStatistics(dict(self.requests), dict(self.errors), self.threads, self.waiting)

    @property
    def threads_running(self) -> int:
        """Threads at work now, including those whose request was abandoned."""
        return int(self._reads.borrowed_tokens + self._metadata.borrowed_tokens)

    # -- one operation of the tree ------------------------------------------------------------------------------

    async def call(
        self,
        operation: Callable[[*Ts, float | None], T],
        *args: *Ts,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T:
        """What ``operation`` answers at once, or, where it would block, within the deadline in a thread.

        Cancelled (the mount ends), it leaves the thread to itself.
        """
        try:
            return operation(*args, None)
        except WouldBlock:
            pass  # outside of the handler, so that a failure in the thread has no context
        self.threads += 1
        self.waiting += 1
        deadline = time.monotonic() + self._wait
        try:
            with trio.fail_after(self._wait + GRACE):
                return await trio.to_thread.run_sync(
                    operation, *args, deadline, abandon_on_cancel=True, limiter=limiter or self._metadata
                )
        except trio.TooSlowError:
            raise DeadlineExceeded(what="the request", seconds=self._wait) from None
        finally:
            self.waiting -= 1

    def _failed(self, number: int) -> None:
        self.errors[errno.errorcode.get(number, str(number))] += 1

    # -- names and attributes -----------------------------------------------------------------------------------

    @request
    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> EntryAttributes:
        """The entry, or one with inode 0: the kernel remembers for a while that there is none."""
        if len(name) > NAME_MAX:
            raise FUSEError(errno.ENAMETOOLONG)
        try:
            text = name.decode()
        except UnicodeDecodeError:
            raise FUSEError(errno.ENOENT) from None  # a tree has UTF-8 names only
        found = await self.call(self.tree.lookup, parent_inode, text)
        if found is not None:
            return self.describe(found)
        absent = EntryAttributes()
        absent.entry_timeout = self.tree.absent_lifetime(parent_inode)
        return absent

    @request
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> EntryAttributes:
        """What stat shows."""
        return self.describe(await self.call(self.tree.attributes, inode))

    @request
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """The target of a symlink."""
        return (await self.call(self.tree.readlink, inode)).encode()

    def describe(self, attributes: Attributes, entry: EntryAttributes | None = None) -> EntryAttributes:
        """``attributes`` as the kernel wants them, in ``entry`` or a new one."""
        entry = entry or EntryAttributes()
        entry.st_ino = attributes.inode
        entry.st_mode = self._appearance.mode(attributes.kind, attributes.mode)
        entry.st_nlink = attributes.nlink
        entry.st_uid = self._appearance.uid
        entry.st_gid = self._appearance.gid
        entry.st_size = attributes.size
        entry.st_blocks = -(-attributes.size // 512)
        entry.st_blksize = BLOCK_SIZE
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = attributes.mtime_ns
        entry.entry_timeout = attributes.entry_lifetime
        entry.attr_timeout = attributes.lifetime
        return entry

    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        """Always: the kernel checks permission bits itself (``default_permissions``)."""
        return True

    # -- directories --------------------------------------------------------------------------------------------

    @request
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """The inode is the handle."""
        return inode

    @request
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Entries with their attributes after the cookie ``start_id``, as many as fit."""
        reply, entry, answered = pyfuse3.readdir_reply, EntryAttributes(), 0  # the reply copies the entry
        try:
            for listed in self.tree.list(fh, start_id, None):
                if not reply(token, listed.name.encode(), self.describe(listed.attributes, entry), listed.cookie):
                    return
                answered += 1
        except WouldBlock:
            if answered:
                return  # the kernel asks again for what follows
        else:
            return
        # A thread only gathers: the token's buffer is freed when this request is cancelled, the thread is not.
        for listed in await self.call(self._gather, fh, start_id):
            if not reply(token, listed.name.encode(), self.describe(listed.attributes, entry), listed.cookie):
                return

    def _gather(self, inode: int, cookie: int, deadline: float | None) -> list[DirectoryEntry]:
        return list(itertools.islice(self.tree.list(inode, cookie, deadline), LISTED_AT_ONCE))

    async def releasedir(self, fh: int) -> None:
        """Nothing to release."""

    # -- files --------------------------------------------------------------------------------------------------

    @request
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> FileInfo:
        """The inode is the handle; what the kernel has cached of the file stays."""
        if flags & (os.O_ACCMODE | os.O_TRUNC):  # O_APPEND changes nothing by itself
            raise FUSEError(errno.EROFS)
        return FileInfo(fh=inode, keep_cache=True)

    @request
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """At most ``size`` bytes."""
        return await self.call(self.read_now, fh, off, size, limiter=self._reads)

    def read_now(self, inode: int, offset: int, size: int, deadline: float | None) -> bytes:
        """``Tree.read``, into one buffer where it does not wait: the reply is sent before anything else happens."""
        room = self._room if deadline is None and size <= READ_MOST else None
        # pyfuse3 declares bytes and takes any contiguous buffer.
        return cast("bytes", self.tree.read(inode, offset, size, deadline, room))

    async def flush(self, fh: int) -> None:
        """Nothing to write back: ENOSYS tells the kernel not to ask at every close(2)."""
        raise FUSEError(errno.ENOSYS)

    @request
    async def release(self, fh: int) -> None:
        """Nothing to release."""

    # -- the rest -----------------------------------------------------------------------------------------------

    @request
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """An attribute of the tree; the kernel's own questions (``security.capability``) never reach it."""
        if not name.startswith(b"user."):
            raise FUSEError(pyfuse3.ENOATTR)
        if name == STATISTICS and inode == ROOT_INODE:
            return await self._statistics_json()
        if name == PREFETCH:
            if not await self.call(self.tree.prefetch, inode):
                raise FUSEError(pyfuse3.ENOATTR)
            return PREFETCHING
        value = (await self.call(self.tree.xattrs, inode)).get(name.decode(errors="replace"))
        if value is None:
            raise FUSEError(pyfuse3.ENOATTR)
        return bytes(value)

    @request
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """The names of the tree's attributes."""
        return [name.encode() for name in await self.call(self.tree.xattrs, inode)]

    async def _statistics_json(self) -> bytes:
        tree = await trio.to_thread.run_sync(self.tree.statistics, abandon_on_cancel=True, limiter=self._metadata)
        return statistics_json({**tree, "engine": "pyfuse3", "fuse": attrs.asdict(self.statistics())})

    @request
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """What df shows: the whole tree."""
        capacity = fragments(self.tree.capacity())
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = BLOCK_SIZE
        answer.f_frsize = FRAGMENT_SIZE
        answer.f_blocks = capacity.blocks
        answer.f_bfree = answer.f_bavail = capacity.free
        answer.f_files = capacity.files
        answer.f_ffree = answer.f_favail = capacity.files_free
        answer.f_namemax = NAME_MAX
        return answer

    # -- what would change something ----------------------------------------------------------------------------

    async def read_only(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse. The kernel itself refuses first on a mount with ``ro``."""
        raise FUSEError(errno.EROFS)

    setattr = mknod = mkdir = unlink = rmdir = symlink = rename = link = read_only
    write = create = setxattr = removexattr = read_only
