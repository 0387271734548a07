"""The bytes of files: the base's, and over them what was written, in a sparse local file.

A file is untouched until the first write or truncation. Then it gets a local file of its size, all hole, and of the
base only the bytes below ``shown`` still count, where no range says that they were written here. So a 4 KiB edit of a
10 GB file stores 4 KiB. A new file has ``shown`` 0: nothing need be recorded for its writes at all. Size and
modification time of a file with a local file are the local file's own: writing to it keeps them right without a
commit, and no crash can set them apart.

Order of things, for ``kill -9`` and for a power cut:

- bytes are written before the range that makes them count is committed;
- a truncation that hides bytes of the base is committed first (``truncating``), then done, for bytes of the base that
  show too little are lost, while a repeated truncation does no harm;
- before commits are made to outlive a power cut (``sync``), the bytes they rely on are: of ranges over the base, and
  of files that took the name of another. So neither the base's bytes nor a replaced file is traded for a hole.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from artfs.catalog import Kind
from artfs.errors import FileTooLarge, InvalidInput, NotFound
from artfs.faults import fault_point
from artfs.staging import ranges
from artfs.staging.database import sync_directory
from artfs.staging.files import OpenFile, local_error
from artfs.staging.nodes import Nodes
from artfs.staging.view import Inode
from artfs.vfs.tree import Tree, WouldBlock

_SIZE_LIMIT = 1 << 62
_ORDERED = 256
"""Files whose bytes must be synced before the WAL; with more the next sync would make a program wait for long."""
_DOOMED = 256
"""Local files of removed files that wait for a sync to be unlinked."""
_DOOMED_BYTES = 64 << 20
"""And their bytes: who removes a large file expects room."""
_COMMITS = 4096
"""Commits between checkpoints: about 64 MiB of WAL, at four pages of 4 KiB a commit."""


class Content:
    """Reads and writes the bytes of inodes. Thread-safe; operations on one inode take their turn."""

    def __init__(self, nodes: Nodes, base: Tree | None) -> None:
        """``base`` reads the base version's bytes; None if there is no base."""
        self._nodes = nodes
        self._database = nodes.database
        self._files = nodes.files
        self._base = base
        self._ordered: set[int] = set()
        self._truncating: set[int] = set()
        self._sync_lock = threading.Lock()
        self._checkpointed = 0

    # -- reading --------------------------------------------------------------------------------------------------

    def read(
        self, inode: int, offset: int, size: int, deadline: float | None, room: memoryview | None = None
    ) -> bytes | bytearray | memoryview:
        """Bytes of a file as ``Tree.read``."""
        with self._use(inode) as file:
            shown = self._local(file)
            if shown is None:
                return self._of_base(inode, offset, size, deadline, room)
            assert file.descriptor is not None
            if offset >= shown:
                return _pread(file.descriptor, offset, size, deadline, room)
            stop = min(offset + size, os.fstat(file.descriptor).st_size)
            pieces = [
                _pread(file.descriptor, run.start, run.stop - run.start, deadline, None)
                if run.local
                else self._of_base(inode, run.start, run.stop - run.start, deadline, None)
                for run in ranges.runs(self._database, inode, offset, stop, shown)
            ]
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _of_base(
        self, inode: int, offset: int, size: int, deadline: float | None, room: memoryview | None
    ) -> bytes | bytearray | memoryview:
        assert self._base is not None  # only its inodes have content there
        return self._base.read(inode, offset, size, deadline, room)

    # -- writing --------------------------------------------------------------------------------------------------

    def create(self, inode: int) -> OpenFile:
        """The empty local file of a new inode, in use once."""
        file = self._files.acquire(inode)
        try:
            file.descriptor, file.shown = self._files.create(inode, 0), 0
        except BaseException:
            self._files.release(inode)
            raise
        return file

    def write(self, inode: int, offset: int, data: bytes | memoryview, deadline: float | None) -> int:
        """Write at ``offset``; how many bytes were, fewer when the disk fills up. Raises DiskFull for none."""
        if offset + len(data) > _SIZE_LIMIT:
            raise FileTooLarge(name=f"inode {inode}")
        with self._use(inode) as file, file.lock:
            if inode in self._truncating:
                self._truncated(inode)
            shown = self._local(file)
            if shown is None:
                size = self._base_size(inode, deadline)
                shown = self._copy_up(file, size, size)
            assert file.descriptor is not None
            written = self._pwrite(file, data, offset)
            fault_point("written")
            stop = min(offset + written, shown)
            if offset < stop and not ranges.covers(self._database, inode, offset, stop):
                with self._database.transaction():
                    ranges.add(self._database, inode, offset, stop)
                self._ordered.add(inode)
            return written

    def truncate(self, inode: int, size: int, deadline: float | None) -> None:
        """Give a file a size: what is cut off is gone, what is added is zeros."""
        if size > _SIZE_LIMIT:
            raise FileTooLarge(name=f"inode {inode}")
        with self._use(inode) as file, file.lock:
            shown = self._local(file)
            if shown is None:
                known = 0 if size == 0 else self._base_size(inode, deadline)
                self._copy_up(file, size, min(size, known))
                return
            assert file.descriptor is not None
            if size < shown:
                with self._database.transaction():
                    self._database.change("UPDATE inode SET shown=?, truncating=? WHERE inode=?", size, size, inode)
                    ranges.cut(self._database, inode, size)
                file.shown = size
                self._truncating.add(inode)
                fault_point("truncating")
            try:
                os.ftruncate(file.descriptor, size)
            except OSError as error:
                raise local_error(self._files.directory, error) from error
            if inode in self._truncating:
                fault_point("truncated")
                self._truncated(inode)

    def _truncated(self, inode: int) -> None:
        """From now on a crash must not truncate again: bytes will be written behind the cut."""
        with self._database.transaction():
            self._database.change("UPDATE inode SET truncating=NULL WHERE inode=?", inode)
        self._truncating.discard(inode)

    def _copy_up(self, file: OpenFile, size: int, shown: int) -> int:
        """Give an untouched file of the base a local file of ``size`` zeros, through which ``shown`` bytes show."""
        node = self._nodes.get(file.inode)
        if node.kind not in {Kind.FILE, Kind.REFERENCE}:
            raise InvalidInput(f"inode {file.inode} is no file")
        descriptor = self._files.create(file.inode, size)
        fault_point("copying-up")
        with self._database.lock:  # a reader that sees the row sees the descriptor
            try:
                with self._database.transaction():
                    node = self._nodes.get(file.inode)
                    self._nodes.save(node._replace(kind=Kind.FILE, size=None, shown=shown))
            except BaseException:
                os.close(descriptor)
                raise
            file.descriptor, file.shown = descriptor, shown
        self._ordered.add(file.inode)
        return shown

    def _pwrite(self, file: OpenFile, data: bytes | memoryview, offset: int) -> int:
        assert file.descriptor is not None
        try:
            try:
                return os.pwrite(file.descriptor, data, offset)
            except OSError as error:
                if error.errno != errno.ENOSPC or not self._files.waiting:
                    raise
            self.sync()  # removed files make room
            return os.pwrite(file.descriptor, data, offset)
        except OSError as error:
            raise local_error(self._files.directory, error) from error

    def _base_size(self, inode: int, deadline: float | None) -> int:
        size = self._nodes.get(inode).size
        if size is not None:
            return size
        assert self._base is not None  # a reference
        return self._base.attributes(inode, deadline).size

    # -- use ------------------------------------------------------------------------------------------------------

    def acquire(self, inode: int) -> None:
        """A program opened the file: its content stays until as many releases."""
        self._files.acquire(inode)

    def release(self, inode: int) -> None:
        """A program closed the file."""
        if self._files.release(inode):
            self._drop(inode)

    def remove(self, node: Inode) -> None:
        """Its last name is gone: drop the inode, now or when the last program closes it. Inside a transaction."""
        if self._files.remove_when_released(node.inode):
            self._nodes.save(node._replace(nlink=0))
        else:
            self._forget(node)

    def _drop(self, inode: int) -> None:
        with self._database.transaction():
            node = self._nodes.get(inode)
            if not node.nlink:  # else the removal that marked the file was rolled back
                self._forget(node)

    def _forget(self, node: Inode) -> None:
        self._nodes.forget(node.inode)
        if node.shown is not None:
            self._database.on_commit(lambda: self._files.doom(node.inode))

    @contextmanager
    def _use(self, inode: int) -> Iterator[OpenFile]:
        file = self._files.acquire(inode)
        try:
            yield file
        finally:
            if self._files.release(inode):
                self._drop(inode)

    def _local(self, file: OpenFile) -> int | None:
        """``shown`` of the file, with its local file open; None: untouched."""
        if file.descriptor is None:
            row = self._database.one("SELECT shown FROM inode WHERE inode=?", file.inode)
            if row is None or row[0] is None:
                return None
            with self._database.lock:  # two readers may come here at once
                if file.descriptor is None:
                    file.descriptor = self._files.open(file.inode)
                    file.shown = row[0]
        return file.shown

    # -- outliving a power cut ------------------------------------------------------------------------------------

    def order(self, inode: int) -> None:
        """The file took the name of another: its bytes must not come after that on disk."""
        self._ordered.add(inode)

    def sync_file(self, inode: int, *, data_only: bool) -> None:
        """Return when bytes, size, times (unless ``data_only``) and names of a file would outlive a power cut."""
        with self._use(inode) as file:
            if self._local(file) is not None:
                assert file.descriptor is not None
                try:
                    (os.fdatasync if data_only else os.fsync)(file.descriptor)
                except OSError as error:
                    raise local_error(self._files.directory, error) from error
                self._ordered.discard(inode)
        self.sync()

    def sync(self) -> None:
        """Return when every change so far would outlive a power cut, bytes of unsynced new files apart."""
        with self._sync_lock:
            doomed = self._files.doomed()
            ordered, self._ordered = self._ordered, set()
            try:
                for inode in list(ordered):
                    self._sync_bytes(inode)
                    ordered.discard(inode)
                fault_point("sync")
                sync_directory(self._files.directory)
                self._database.sync()
            except OSError as error:
                raise local_error(self._files.directory, error) from error
            finally:
                self._ordered |= ordered
            self._files.unlink(doomed)

    def tidy(self) -> None:
        """Sync and make a checkpoint if enough has gathered. Not for a thread that somebody waits for."""
        if self._database.commits - self._checkpointed >= _COMMITS:
            self._checkpointed = self._database.commits
            self.sync()
            self._database.checkpoint()
        elif self.untidy:
            self.sync()

    @property
    def untidy(self) -> bool:
        """Whether ``tidy`` would find something to do."""
        return (
            len(self._ordered) >= _ORDERED
            or self._files.waiting >= _DOOMED
            or self._files.doomed_bytes >= _DOOMED_BYTES
            or self._database.commits - self._checkpointed >= _COMMITS
        )

    def _sync_bytes(self, inode: int) -> None:
        try:
            with self._use(inode) as file:
                if self._local(file) is not None:
                    assert file.descriptor is not None
                    os.fdatasync(file.descriptor)
        except (NotFound, FileNotFoundError):
            return  # removed meanwhile


def _pread(
    descriptor: int, offset: int, size: int, deadline: float | None, room: memoryview | None
) -> bytes | memoryview:
    """Bytes of a local file; without a deadline from the page cache only, else WouldBlock."""
    if deadline is not None:
        return os.pread(descriptor, size, offset)
    buffer = memoryview(bytearray(size)) if room is None else room[:size]
    try:
        count = os.preadv(descriptor, [buffer], offset, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EOPNOTSUPP}:  # the latter from tmpfs and NFS: nobody can tell there
            raise WouldBlock from None
        raise
    if count < size and offset + count < os.fstat(descriptor).st_size:
        raise WouldBlock
    return buffer[:count]
