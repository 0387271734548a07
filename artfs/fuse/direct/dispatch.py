"""From one request of the kernel to its reply, over a ``Tree``; knows nothing of devices, threads and processes.

Every request is tried with no deadline first. What would block comes back as ``Deferred``: the same handler, to be run
in a thread with a deadline.
"""

from __future__ import annotations

import errno
import functools
import logging
import mmap
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from artfs.catalog import Kind
from artfs.errors import NotFound
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
from artfs.fuse.direct.ahead import LARGEST, Ahead, Page
from artfs.fuse.direct.board import INODE, LISTED, OPCODE, UNIQUE, Slot
from artfs.fuse.direct.protocol import (
    ATTR_OUT,
    DIRENT,
    DIRENTPLUS,
    DIRENTPLUS_LIFETIMES,
    DIRENTPLUS_LINE,
    DIRENTPLUS_MODE,
    ENTRY_OUT,
    GETXATTR_IN,
    GETXATTR_OUT,
    HEADER_SIZE,
    IN_HEADER,
    INTERRUPT_IN,
    MOST_PAGES,
    OPEN_OUT,
    OUT_HEADER,
    READ_IN,
    STATFS_OUT,
    Opcode,
    OpenFlag,
    error_reply,
    kind,
)
from artfs.fuse.failures import Failures
from artfs.fuse.options import MountOptions
from artfs.vfs.tree import ROOT_INODE, YEAR, Attributes, Tree, WouldBlock

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

Reply: TypeAlias = "tuple[Buffer, ...]"
"""What writev(2) takes: a header, and what follows it."""
_Handler: TypeAlias = "Callable[[int, Buffer, float | None], bytes | bytearray | memoryview]"
"""Of an inode, the request and a deadline; the content of the reply."""

READ_MOST: Final = MOST_PAGES * mmap.PAGESIZE
"""Bytes that the kernel asks for at most in one READ."""
_OUT_SIZE: Final = OUT_HEADER.size
_PADDING: Final = (b"", b"\0" * 7, b"\0" * 6, b"\0" * 5, b"\0" * 4, b"\0" * 3, b"\0" * 2, b"\0")
_BILLION: Final = 1_000_000_000

_CHANGES: Final = (
    Opcode.SETATTR, Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.UNLINK, Opcode.RMDIR, Opcode.RENAME,
    Opcode.RENAME2, Opcode.LINK, Opcode.WRITE, Opcode.SETXATTR, Opcode.REMOVEXATTR, Opcode.CREATE, Opcode.FALLOCATE,
    Opcode.COPY_FILE_RANGE, Opcode.TMPFILE,
)  # fmt: skip
_LEFT_TO_THE_KERNEL: Final = (
    Opcode.OPEN, Opcode.ACCESS, Opcode.FLUSH, Opcode.FSYNC, Opcode.FSYNCDIR, Opcode.LSEEK, Opcode.IOCTL, Opcode.POLL,
    Opcode.STATX, Opcode.BMAP, Opcode.SYNCFS, Opcode.GETLK, Opcode.SETLK, Opcode.SETLKW,
)  # fmt: skip
_REFUSED: Final[Mapping[int, int]] = {
    **dict.fromkeys(_CHANGES, errno.EROFS),
    **dict.fromkeys(_LEFT_TO_THE_KERNEL, errno.ENOSYS),
}
"""What is refused without a look. Changes: on a mount with ``ro`` the kernel refuses first. The others it does without
from then on, but for IOCTL: Python's ``open`` asks every file whether it is a terminal."""
_NOT_ANSWERED: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.NOTIFY_REPLY})


class Malformed(Exception):
    """The kernel sent what does not have the form of its kind."""


class Refusal(Exception):
    """An errno that is the answer, not a fault."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@attrs.frozen
class Interrupt:
    """The caller of a request got a signal."""

    unique: int


@attrs.frozen
class Deferred:
    """A request that waits for disk or network."""

    opcode: int
    unique: int
    inode: int
    pid: int
    """The thread that asked, 0 if it is nobody in particular."""
    message: bytes
    _run: Callable[[Deferred, float], Reply]

    def run(self, deadline: float) -> Reply:
        """Wait, at most until ``deadline``; the reply. Raises nothing."""
        return self._run(self, deadline)


@attrs.frozen
class Upcoming:
    """A page of a listing that the kernel will probably ask for."""

    unique: int
    """The request before it."""
    inode: int
    cookie: int
    room: int


class Dispatcher:
    """Answers requests for one tree. ``answer`` belongs to one thread; what it defers may run in any."""

    def __init__(
        self,
        tree: Tree,
        options: MountOptions,
        slot: Slot,
        statistics: Callable[[], Mapping[str, Any]],
        is_news: Callable[[Slot, str], bool],
        ahead: Ahead,
        worker: int,
    ) -> None:
        """Notes in ``slot`` what it does; ``statistics`` is what the engine adds to those of the tree.

        ``is_news`` says whether a failure is still to be logged, by any of the workers; ``worker`` is the
        number of this one.
        """
        self._tree = tree
        self._read = tree.read
        self._room = memoryview(mmap.mmap(-1, READ_MOST))
        self._slot = slot
        self._ahead = ahead
        self._worker = worker
        self.upcoming: Upcoming | None = None
        """The page of a listing that the kernel will probably ask for next; ``list_ahead`` makes it."""
        self._statistics = statistics
        self._appearance = Appearance(options)
        self._failures = Failures(slot.failed, lambda what: is_news(slot, what))
        # Of a few modes and lifetimes a listing has a million: looked up in 0.1 us.
        self._shared = functools.lru_cache(self._shared_by)
        self._unchanging: bool | None = None
        self._unknown: set[int] = set()
        self._handlers: dict[int, _Handler] = {
            **dict.fromkeys((Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.DESTROY), _nothing),
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.READLINK: self._readlink,
            Opcode.READ: self._read_file,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.STATFS: self._statfs,
        }

    def answer(self, message: memoryview | bytes) -> Reply | Deferred | Interrupt | None:
        """The reply to one request; None where the kernel waits for none. Raises nothing."""
        try:
            length, opcode, unique, inode, _, _, pid, _, _ = IN_HEADER.unpack_from(message)
        except struct.error:
            log.error("a request of %d bytes is no request", len(message))  # noqa: TRY400 - all that is known
            return None
        words = self._slot.words
        words[OPCODE] = opcode
        words[INODE] = inode
        words[UNIQUE] = unique
        try:
            handler = self._handlers.get(opcode)
            if handler is None or length != len(message):
                return self._other(opcode, unique, message, length)
            self._slot.requests[opcode] += 1
            content = handler(inode, message, None)
            return OUT_HEADER.pack(_OUT_SIZE + len(content), 0, unique), content
        except WouldBlock:
            return Deferred(opcode, unique, inode, pid, bytes(message), self._run)
        except Exception as error:  # noqa: BLE001 - any fault is the request's, not the mount's
            return (self.failed(opcode, unique, inode, error),)
        finally:
            words[UNIQUE] = 0

    def failed(self, opcode: int, unique: int, inode: int, error: Exception) -> bytes:
        """The reply that says what went wrong, which is logged if it is a fault."""
        if isinstance(error, Refusal):
            return error_reply(unique, error.number)
        if isinstance(error, Malformed):
            return self._malformed(opcode, unique)
        return error_reply(unique, self._failures.number(kind(opcode), inode, error))

    def _run(self, deferred: Deferred, deadline: float) -> Reply:
        try:
            content = self._handlers[deferred.opcode](deferred.inode, deferred.message, deadline)
            return OUT_HEADER.pack(_OUT_SIZE + len(content), 0, deferred.unique), content
        except Exception as error:  # noqa: BLE001 - as in answer
            return (self.failed(deferred.opcode, deferred.unique, deferred.inode, error),)

    def _other(self, opcode: int, unique: int, message: memoryview | bytes, length: int) -> Reply | Interrupt | None:
        """What is no ordinary request."""
        refused = _REFUSED.get(opcode)
        known = refused or opcode in _NOT_ANSWERED or opcode == Opcode.INTERRUPT or opcode in self._handlers
        self._slot.requests[opcode if known else 0] += 1
        if refused:
            return (error_reply(unique, refused),)
        if opcode in _NOT_ANSWERED:
            return None
        if opcode == Opcode.INTERRUPT and len(message) >= HEADER_SIZE + INTERRUPT_IN.size:
            return Interrupt(INTERRUPT_IN.unpack_from(message, HEADER_SIZE)[0])
        if length != len(message):
            return (self._malformed(opcode, unique),)
        if opcode not in self._unknown:
            self._unknown.add(opcode)
            log.warning("a request of the unknown kind %d is answered ENOSYS", opcode)
        return (error_reply(unique, errno.ENOSYS),)

    def _malformed(self, opcode: int, unique: int) -> bytes:
        if -opcode not in self._unknown:
            self._unknown.add(-opcode)
            log.warning("a malformed request (%s) is answered ENOSYS", kind(opcode))
        return error_reply(unique, errno.ENOSYS)

    # -- names and attributes -----------------------------------------------------------------------------------

    def _lookup(self, inode: int, message: Buffer, deadline: float | None) -> bytes:
        """The entry, or one with inode 0: the kernel remembers for a while that there is none."""
        name = _name(message, HEADER_SIZE)
        if len(name) > NAME_MAX:
            raise Refusal(errno.ENAMETOOLONG)
        try:
            text = name.decode()
        except UnicodeDecodeError:
            raise Refusal(errno.ENOENT) from None  # a tree has UTF-8 names only
        found = self._tree.lookup(inode, text, deadline)
        if found is None:
            seconds, nanoseconds = _lifetime(self._tree.absent_lifetime(inode))
            return ENTRY_OUT.pack(0, 0, seconds, 0, nanoseconds, *(0,) * 17)
        return ENTRY_OUT.pack(*self._entry(found))

    def _getattr(self, inode: int, message: Buffer, deadline: float | None) -> bytes:  # noqa: ARG002 - a handler
        attributes = self._tree.attributes(inode, deadline)
        return ATTR_OUT.pack(*_lifetime(attributes.lifetime), 0, *self._attr(attributes))

    def _readlink(self, inode: int, message: Buffer, deadline: float | None) -> bytes:  # noqa: ARG002 - a handler
        return self._tree.readlink(inode, deadline).encode()

    def _entry(self, attributes: Attributes) -> tuple[int, ...]:
        """``fuse_entry_out``. A generation of 0: no inode number is used twice."""
        lifetimes = _lifetimes(attributes.entry_lifetime, attributes.lifetime)
        return attributes.inode, 0, *lifetimes, *self._attr(attributes)

    def _shared_by(
        self, kind: Kind, mode: int, nlink: int, entry_lifetime: float, lifetime: float
    ) -> tuple[bytes, bytes, int]:
        """What many entries of a listing have in common: two parts of ``fuse_direntplus``, and the type (DT_DIR...)."""
        shown = self._appearance
        mode = shown.mode(kind, mode)
        lifetimes = DIRENTPLUS_LIFETIMES.pack(0, *_lifetimes(entry_lifetime, lifetime))
        return lifetimes, DIRENTPLUS_MODE.pack(mode, nlink, shown.uid, shown.gid, 0, BLOCK_SIZE, 0), mode >> 12

    def _attr(self, attributes: Attributes) -> tuple[int, ...]:
        """``fuse_attr``."""
        shown = self._appearance
        size = attributes.size
        seconds, nanoseconds = divmod(attributes.mtime_ns, _BILLION)
        return (
            attributes.inode, size, -(-size // 512), seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds,
            shown.mode(attributes.kind, attributes.mode), attributes.nlink, shown.uid, shown.gid, 0, BLOCK_SIZE, 0,
        )  # fmt: skip

    # -- directories --------------------------------------------------------------------------------------------

    def _opendir(self, inode: int, message: Buffer, deadline: float | None) -> bytes:  # noqa: ARG002 - a handler
        """Let the kernel keep the listing of what never changes; where nothing does, it need not ask again.

        A listing that changes must not be kept: the kernel would take it for current as long as the modification time
        is, which another process may have told it before the listing.
        """
        if self._unchanging is None:
            self._unchanging = self._tree.attributes(ROOT_INODE, deadline).lifetime >= YEAR
        if self._unchanging:
            raise Refusal(errno.ENOSYS)
        lasting = self._tree.attributes(inode, deadline).lifetime >= YEAR
        return OPEN_OUT.pack(0, OpenFlag.CACHE_DIR | OpenFlag.KEEP_CACHE if lasting else 0, 0)

    def _readdir(self, inode: int, message: Buffer, deadline: float | None) -> bytes:
        """Names after the offset, as many as fit; the kernel does not ask for them while we give it READDIRPLUS."""
        cookie, room = _range(message)
        parts: list[bytes] = []
        for listed in self._tree.list(inode, cookie, deadline):
            name = listed.name.encode()
            padding = _PADDING[len(name) & 7]
            room -= DIRENT.size + len(name) + len(padding)
            if room < 0:
                break
            type_ = self._appearance.mode(listed.kind, listed.mode) >> 12
            parts += DIRENT.pack(listed.inode, listed.cookie, len(name), type_), name, padding
        return b"".join(parts)

    def _readdirplus(self, inode: int, message: Buffer, deadline: float | None) -> bytes:
        """The same with attributes, as from a LOOKUP each; what find asks for by the million."""
        cookie, room = _range(message)
        page = self._ahead.take(inode, cookie, room)
        if page is None:
            page = self._page(inode, cookie, room, deadline)
        else:
            self._slot.words[LISTED] += 1
        if deadline is None and page.inode:
            self.upcoming = Upcoming(self._slot.words[UNIQUE], page.inode, page.cookie, room)
        return page.content

    def list_ahead(self) -> None:
        """Make the page that comes next, for any worker; call it when nobody waits for an answer. Raises nothing."""
        upcoming, page = self.upcoming, None
        self.upcoming = None
        if upcoming is None:
            return
        words, inode = self._slot.words, upcoming.inode
        words[OPCODE] = Opcode.READDIRPLUS
        words[INODE] = inode
        words[UNIQUE] = upcoming.unique | 1  # no request's, which are even: who hangs or dies here is seen all the same
        try:
            directory = self._tree.attributes(inode, None)
            if directory.kind is not Kind.DIRECTORY or directory.lifetime < YEAR:
                return
            self._ahead.claim(self._worker, inode, upcoming.cookie, upcoming.room)
            try:
                page = self._page(inode, upcoming.cookie, upcoming.room, None)
            finally:
                self._ahead.put(self._worker, page)
        except (NotFound, WouldBlock):
            pass  # it was a guess
        except Exception as error:  # noqa: BLE001 - who asks for the page meets it again, and is answered
            log.debug("a page of a listing could not be made ahead: %s", error)
        finally:
            words[UNIQUE] = 0

    def _page(self, inode: int, cookie: int, room: int, deadline: float | None) -> Page:
        """Entries with attributes after ``cookie``. The loop runs by the million: it calls nothing but C."""
        pack, shared, padding, join, fixed = DIRENTPLUS_LINE.pack, self._shared, _PADDING, b"".join, DIRENTPLUS.size
        room = min(room, LARGEST)
        parts: list[bytes] = []
        child = 0
        of_kind = of_mode = links = named = lasting = None
        lifetimes, rest, type_ = b"", b"", 0
        try:
            for listed in self._tree.list(inode, cookie, deadline):
                after, text, ino, kind_, mode, size, mtime_ns, nlink, entry_lifetime, lifetime = listed
                name = text.encode()
                length = len(name)
                room -= fixed + length + (-length & 7)
                if room < 0:
                    return Page(join(parts), inode, cookie)
                at = mtime_ns // _BILLION
                at_ns = mtime_ns - at * _BILLION
                if (
                    kind_ is not of_kind or mode != of_mode or nlink is not links
                    or entry_lifetime is not named or lifetime is not lasting
                ):  # fmt: skip
                    of_kind, of_mode, links, named, lasting = kind_, mode, nlink, entry_lifetime, lifetime
                    lifetimes, rest, type_ = shared(kind_, mode, nlink, entry_lifetime, lifetime)
                line = pack(
                    ino, lifetimes, ino, size, (size + 511) // 512, at, at, at, at_ns, at_ns, at_ns, rest,
                    ino, after, length, type_,
                )  # fmt: skip
                parts += line, name, padding[length & 7]
                cookie, child = after, ino
        except WouldBlock:
            if not parts:
                raise
            return Page(join(parts), 0, 0)  # the kernel asks again for what follows
        # Whoever walks a tree goes to the directory that comes next in path order, and so do the inodes of a version.
        return Page(join(parts), child and child + 1, 0)

    # -- content ------------------------------------------------------------------------------------------------

    def _read_file(self, inode: int, message: Buffer, deadline: float | None) -> bytes | bytearray | memoryview:
        offset, size = _range(message)
        # What a thread reads is answered later, when the loop has used the room again.
        room = self._room if deadline is None and size <= READ_MOST else None
        return self._read(inode, offset, size, deadline, room)

    # -- the rest -----------------------------------------------------------------------------------------------

    def _getxattr(self, inode: int, message: Buffer, deadline: float | None) -> bytes:
        """An attribute of the tree; the kernel's own questions (``security.capability``) never reach it."""
        size = _size(message)
        name = _name(message, HEADER_SIZE + GETXATTR_IN.size)
        if not name.startswith(b"user."):
            raise Refusal(errno.ENODATA)
        if name == STATISTICS and inode == ROOT_INODE:
            if deadline is None:
                raise WouldBlock
            return _sized(statistics_json({**self._tree.statistics(), **self._statistics()}), size)
        if name == PREFETCH:
            if not self._tree.prefetch(inode, deadline):
                raise Refusal(errno.ENODATA)
            return _sized(PREFETCHING, size)
        value = self._tree.xattrs(inode, deadline).get(name.decode(errors="replace"))
        if value is None:
            raise Refusal(errno.ENODATA)
        return _sized(bytes(value), size)

    def _listxattr(self, inode: int, message: Buffer, deadline: float | None) -> bytes:
        """The names of the tree's attributes."""
        size = _size(message)
        names = self._tree.xattrs(inode, deadline)
        return _sized(b"".join(name.encode() + b"\0" for name in names), size)

    def _statfs(self, inode: int, message: Buffer, deadline: float | None) -> bytes:  # noqa: ARG002 - a handler
        """What df shows: the whole tree."""
        shown = fragments(self._tree.capacity())
        return STATFS_OUT.pack(
            shown.blocks, shown.free, shown.free, shown.files, shown.files_free,
            BLOCK_SIZE, NAME_MAX, FRAGMENT_SIZE, 0, b"",
        )  # fmt: skip


def _nothing(inode: int, message: Buffer, deadline: float | None) -> bytes:  # noqa: ARG001 - a handler
    return b""


def _range(message: Buffer) -> tuple[int, int]:
    """Offset and size of a READ or READDIR."""
    try:
        _, offset, size, _, _, _, _ = READ_IN.unpack_from(message, HEADER_SIZE)
    except struct.error:
        raise Malformed from None
    return offset, size


def _size(message: Buffer) -> int:
    """What the caller of getxattr(2) or listxattr(2) has room for."""
    try:
        size, _ = GETXATTR_IN.unpack_from(message, HEADER_SIZE)
    except struct.error:
        raise Malformed from None
    return int(size)


def _name(message: Buffer, start: int) -> bytes:
    """The string at ``start``."""
    name, end, _ = bytes(memoryview(message)[start:]).partition(b"\0")
    if not end:
        raise Malformed
    return name


def _sized(value: bytes, size: int) -> bytes:
    """What getxattr(2) promises: the value if it fits in ``size``, how large it is where that is 0."""
    if size == 0:
        return GETXATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise Refusal(errno.ERANGE)
    return value


def _lifetimes(entry: float, attributes: float) -> tuple[int, int, int, int]:
    """Of a name and of attributes, as ``fuse_entry_out`` has them."""
    (names, names_ns), (whole, whole_ns) = _lifetime(entry), _lifetime(attributes)
    return names, whole, names_ns, whole_ns


def _lifetime(seconds: float) -> tuple[int, int]:
    whole = int(seconds)
    return whole, int((seconds - whole) * _BILLION)
