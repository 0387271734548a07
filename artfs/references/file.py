"""file: recorded by MD5 and size, read only where this machine allows it, and after the content was checked once."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote

import attrs

from artfs.catalog.entry import Entry, Reference
from artfs.digests import md5_base64
from artfs.errors import (
    DeadlineExceeded,
    InvalidReference,
    ReferenceMissing,
    ReferenceUnsupported,
    SourceChanged,
    SourceUnreadable,
)
from artfs.references.handler import changed, identity_key, limited, reference_entry
from artfs.references.pins import Pins
from artfs.references.uri import redact

_VERIFIED: Final = "verified files"
"""The scope of pins that say: this very file, unchanged since, had the recorded MD5."""
_CHUNK: Final = 1 << 20


class File:
    """References to files of this machine, or of a share mounted on it."""

    def __init__(self, pins: Pins, *, allow: bool) -> None:
        """``allow``: whether references may be read, so that nobody else's version can name files of this machine."""
        self._pins, self._allow = pins, allow
        self._lock = threading.Lock()
        self._checking: dict[str, Future[str]] = {}

    def expand(self, uri: str, name: str | None, *, checksum: bool, max_objects: int) -> Iterator[Entry]:
        """The file, or every file below the directory; links to files are followed, links to directories are not."""
        path = _path(uri)
        if os.path.isdir(path):
            yield from limited(self._below(path, uri, name, checksum), max_objects, uri)
        elif os.path.exists(path):
            yield self._entry(name or PurePosixPath(path).name, path, uri, checksum)
        else:
            raise InvalidReference(uri=redact(uri), why=f"Path {path!r} must be a valid file or directory path")

    def _below(self, top: str, uri: str, name: str | None, checksum: bool) -> Iterator[Entry]:
        def refuse(error: OSError) -> None:
            raise SourceUnreadable(path=error.filename, why=error.strerror) from error

        for directory, subdirectories, files in os.walk(top, onerror=refuse):
            subdirectories.sort()
            for file in sorted(files):
                path = os.path.join(directory, file)
                relative = os.path.relpath(path, top)
                # W&B appends the plain name; a percent sign must be quoted for the path to come back out.
                file_uri = f"{uri.rstrip('/')}/{relative.replace('%', '%25')}"
                yield self._entry(f"{name}/{relative}" if name else relative, path, file_uri, checksum)

    def _entry(self, where: str, path: str, uri: str, checksum: bool) -> Entry:
        try:
            fd = _open(path)
        except OSError as error:
            raise SourceUnreadable(path=path, why=error.strerror) from error
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise SourceUnreadable(path=path, why="it is not a regular file")
            digest = _md5(fd) if checksum else _uri_digest(os.path.realpath(path))
            if checksum and _signature(os.fstat(fd)) != _signature(before):
                raise SourceChanged(path=path)
        except OSError as error:
            raise SourceUnreadable(path=path, why=error.strerror) from error
        finally:
            os.close(fd)
        return reference_entry(where, Reference(uri, digest, before.st_size))

    def identity(self, reference: Reference) -> str | None:
        """The MD5; else its size and modification time, which ``stat`` settled on."""
        path = _path(reference.uri)
        # As the path is now, and as it was if a directory in it became a link since.
        if reference.digest not in {reference.uri, _uri_digest(os.path.realpath(path)), _uri_digest(path)}:
            return reference.digest
        return reference.extra.get("file")

    def stat(self, reference: Reference, deadline: float) -> Reference:  # noqa: ARG002  asks the file system
        """The size; where no MD5 was recorded, also what tells this state of the file from a later one."""
        fd = self._opened(reference)
        try:
            state = os.fstat(fd)
        finally:
            os.close(fd)
        self._check(reference, state)
        extra = dict(reference.extra)
        if self.identity(reference) is None:
            extra["file"] = _stamp(state)
        return attrs.evolve(reference, size=state.st_size, extra=extra)

    def fetch(self, reference: Reference, start: int, end: int, deadline: float) -> bytes:
        """Read the file; before the first time, and whenever it was touched, all of it is compared with its MD5."""
        fd = self._opened(reference)
        try:
            before = os.fstat(fd)
            self._check(reference, before)
            if "file" not in reference.extra:
                self._verify(reference, fd, before, deadline)
            data = _pread(fd, end - start, start)
            if _signature(os.fstat(fd)) != _signature(before):
                raise changed(reference, "an unchanging file", "a file that is being written")
        finally:
            os.close(fd)
        if len(data) != end - start:
            raise changed(reference, f"{reference.size} bytes", f"{before.st_size} bytes")
        return data

    def _opened(self, reference: Reference) -> int:
        shown = redact(reference.uri)
        if not self._allow:
            why = "this machine does not read local files for versions of a shared registry; file_references = true in "
            raise ReferenceUnsupported(uri=shown, why=why + "the settings allows it")
        path = _path(reference.uri)
        try:
            fd = _open(path)
        except OSError as error:
            raise ReferenceMissing(uri=shown, why=error.strerror) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise changed(reference, "a regular file", "something else")
        return fd

    def _check(self, reference: Reference, state: os.stat_result) -> None:
        if reference.size and state.st_size != reference.size:
            raise changed(reference, f"{reference.size} bytes", f"{state.st_size} bytes")
        pinned = reference.extra.get("file")
        if pinned is not None and pinned != _stamp(state):
            raise changed(reference, "the file as first read", "one that was changed since")

    def _verify(self, reference: Reference, fd: int, state: os.stat_result, deadline: float) -> None:
        key = identity_key(reference, _signature(state))
        if self._pins.get(_VERIFIED, key) is not None:
            return
        with self._lock:
            checking = self._checking.get(key)
            if checking is None:
                checking = self._checking[key] = Future()
                # A thread and a descriptor of its own: no reader's deadline ends the check of a large file.
                threading.Thread(
                    target=self._hash, args=(key, os.dup(fd), checking), name="artfs-verify", daemon=True
                ).start()
        start = time.monotonic()
        try:
            found = checking.result(max(0.0, deadline - start))
        except FutureTimeoutError:
            what = f"checking the content of {redact(reference.uri)}"
            raise DeadlineExceeded(what=what, seconds=round(deadline - start, 1)) from None
        except OSError as error:
            raise ReferenceMissing(uri=redact(reference.uri), why=error.strerror) from error
        if found != reference.digest:
            raise changed(reference, f"MD5 {reference.digest}", f"MD5 {found}")
        if _signature(os.fstat(fd)) == _signature(state):
            self._pins.put(_VERIFIED, key, {})

    def _hash(self, key: str, fd: int, checking: Future[str]) -> None:
        try:
            checking.set_result(_md5(fd))
        except OSError as error:
            checking.set_exception(error)
        finally:
            os.close(fd)
            with self._lock:
                del self._checking[key]


def _path(uri: str) -> str:
    """The absolute path that a file URI names; raises InvalidReference."""
    host, slash, rest = uri[len("file://") :].partition("/")
    if not uri.lower().startswith("file://") or not slash or host.lower() not in {"", "localhost"}:
        raise InvalidReference(uri=redact(uri), why="expected file:///absolute/path")
    path = unquote("/" + rest)
    if "\0" in path:
        raise InvalidReference(uri=redact(uri), why="it holds a NUL")
    return path


def _open(path: str) -> int:
    # O_NONBLOCK: opening a FIFO must not wait for its writer.
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def _pread(fd: int, length: int, offset: int) -> bytes:
    data = bytearray()
    while len(data) < length and (piece := os.pread(fd, length - len(data), offset + len(data))):
        data += piece
    return bytes(data)


def _md5(fd: int) -> str:
    md5, offset = hashlib.md5(usedforsecurity=False), 0
    while piece := os.pread(fd, _CHUNK, offset):
        md5.update(piece)
        offset += len(piece)
    return md5_base64(md5.digest())


def _uri_digest(path: str) -> str:
    """What W&B records for ``checksum=False``: the MD5 of the file URI, quoted; of the path with links resolved
    (wandb 0.31.0, ``local_file_handler.py``).
    """
    uri = Path(path).absolute().as_uri()
    return md5_base64(hashlib.md5(uri.encode(), usedforsecurity=False).digest())


def _stamp(state: os.stat_result) -> str:
    """What stays the same over a remount: rsync's quick check."""
    return f"{state.st_size}:{state.st_mtime_ns}"


def _signature(state: os.stat_result) -> str:
    """What changes with every write, even one that sets the modification time back."""
    return f"{state.st_dev}:{state.st_ino}:{state.st_size}:{state.st_mtime_ns}:{state.st_ctime_ns}"
