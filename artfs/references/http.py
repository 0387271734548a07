"""http(s): recorded by ETag and Content-Length, read by range requests whose answers are compared with them."""

from __future__ import annotations

import base64
import logging
import netrc
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar
from urllib.parse import quote, unquote, urlsplit

import attrs

from artfs.catalog.entry import Entry, Reference
from artfs.errors import ConfigurationError, InvalidReference
from artfs.references.client import Client, Response, read_body
from artfs.references.handler import (
    changed,
    check_answer,
    identity_key,
    recorded_etag,
    reference_entry,
    unchecked,
)
from artfs.references.retry import Requests, TransientError
from artfs.references.spool import Spool, Stream
from artfs.references.uri import redact, split_user

log = logging.getLogger(__name__)

T = TypeVar("T")

STREAM_TRIES: Final = 3600.0
"""Seconds within which the transfer of a whole object may be tried again."""
_CONTENT_RANGE = re.compile(r"bytes (?:(?P<first>\d+)-(?P<last>\d+)|\*)/(?P<total>\d+|\*)")


@attrs.frozen
class _Answer:
    """What the headers of a response say."""

    etag: str | None
    """As sent, with quotes."""
    modified: str | None
    """Last-Modified as sent; a validator only where there is no ETag."""
    size: int | None
    first: int | None
    """Offset of the body's first byte in the object; None: the body is not a range."""

    @classmethod
    def of(cls, response: Response) -> _Answer:
        headers, size, first = response.headers, None, None
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if response.status in {206, 416}:
            size = int(match["total"]) if match and match["total"] != "*" else None
            first = int(match["first"]) if match and match["first"] else None
        elif headers.get("Content-Length", "").isdigit():
            size = int(headers["Content-Length"])
        return cls(headers.get("ETag"), headers.get("Last-Modified"), size, first)


class Http:
    """References to plain web servers, presigned URLs among them."""

    def __init__(self, requests: Requests, client: Client, spool: Spool) -> None:
        self._requests, self._client, self._spool = requests, client, spool

    def expand(self, uri: str, name: str | None, *, checksum: bool, max_objects: int) -> Iterator[Entry]:  # noqa: ARG002
        """One entry, whose name is the last part of the URL's path. A password in the URL is used, not recorded."""
        plain, user = split_user(uri)
        if user is not None:
            log.warning("the user info of %s is not recorded; to read the reference, put it into ~/.netrc", redact(uri))
        path = name or PurePosixPath(urlsplit(plain).path).name
        if not path:
            raise InvalidReference(uri=redact(uri), why="its path names no file; pass a name")
        if not checksum:
            yield unchecked(path, plain)
            return
        answer = self._probe(uri, time.monotonic() + self._requests.timeout)
        digest = answer.etag or plain
        if len(digest) >= 2 and digest[0] == digest[-1] == '"':
            digest = digest[1:-1]
        extra = {} if answer.etag is None else {"etag": answer.etag}
        yield reference_entry(path, Reference(plain, digest, answer.size, extra))

    def identity(self, reference: Reference) -> str | None:
        """The ETag; else what ``stat`` settled on."""
        extra = reference.extra
        return recorded_etag(reference) or extra.get("lastModified") or extra.get("pin") or None

    def stat(self, reference: Reference, deadline: float) -> Reference:
        """Ask for the first byte: more servers allow GET than HEAD, among them every presigned URL."""
        answer = self._probe(reference.uri, deadline)
        _check(reference, answer)
        extra = dict(reference.extra)
        if self.identity(reference) is None:
            if answer.etag:
                extra["etag"] = answer.etag
            elif answer.modified:
                extra["lastModified"] = answer.modified
            else:  # nothing will tell another content from this one, so the cache must not share it
                extra["pin"] = uuid.uuid4().hex
        found = attrs.evolve(reference, extra=extra, size=answer.size)
        if answer.size is not None:
            return found
        name, stream = identity_key(found), self._stream(found)
        size = self._spool.size(name, what=redact(found.uri), deadline=deadline, stream=stream)
        if reference.size and size != reference.size:
            raise changed(reference, f"{reference.size} bytes", f"{size} bytes")
        return attrs.evolve(found, size=size)

    def fetch(self, reference: Reference, start: int, end: int, deadline: float) -> bytes:
        """A range request; a server that answers it with everything is read once, into the spool."""
        if start >= end:
            return b""
        what, name = redact(reference.uri), identity_key(reference)
        data = None if self._spool.has(name) else self._range(reference, start, end, deadline)
        if data is None:
            stream = self._stream(reference)
            data = self._spool.read(name, start, end, what=what, deadline=deadline, stream=stream)
        if len(data) != end - start:
            raise changed(reference, f"{reference.size} bytes", f"at most {start + len(data)} bytes")
        return data

    def _range(self, reference: Reference, start: int, end: int, deadline: float) -> bytes | None:
        """The bytes, or None if the server does not do ranges."""

        def receive(response: Response) -> bytes | None:
            answer = _Answer.of(response)
            if response.status == 416:  # need not carry validators
                raise changed(reference, f"{reference.size} bytes", f"{answer.size or 'fewer'} bytes")
            _check(reference, answer)
            whole = response.status != 206
            if whole and (start, end) != (0, answer.size):
                return None
            if not whole and answer.first != start:
                raise TransientError("the server sent another range than it was asked for")
            body = bytearray()
            read_body(response, deadline, body.extend)
            if len(body) != end - start:
                raise TransientError("the answer was cut short")
            return bytes(body)

        return self._get(reference.uri, deadline, receive, {"Range": f"bytes={start}-{end - 1}"})

    def _probe(self, uri: str, deadline: float) -> _Answer:
        first_byte = {"Range": "bytes=0-0"}
        response = self._get(uri, deadline, lambda r: (r.status, _Answer.of(r)), first_byte)
        if response[0] == 416:  # empty, and 416 need not carry validators
            response = self._get(uri, deadline, lambda r: (r.status, _Answer.of(r)), {})
        return response[1]

    def _stream(self, reference: Reference) -> Stream:
        def stream(write: Callable[[bytes], object], restart: Callable[[], None]) -> None:
            def receive(response: Response) -> None:
                _check(reference, _Answer.of(response))
                restart()
                # Only silence ends a transfer that its readers come and go from: the socket's timeout sees to that.
                read_body(response, float("inf"), write)

            self._get(reference.uri, time.monotonic() + STREAM_TRIES, receive, {})

        return stream

    def _get(self, uri: str, deadline: float, receive: Callable[[Response], T], headers: dict[str, str]) -> T:
        url, user = split_user(uri)
        user = user or _netrc_user(url)
        # As stored: a compressed answer would have another length, and another ETag, than what is recorded.
        headers = headers | {"Accept-Encoding": "identity"}
        if user is not None:
            basic = base64.b64encode(":".join(map(unquote, user)).encode())
            headers["Authorization"] = f"Basic {basic.decode()}"
        return self._client.get(url, what=redact(uri), deadline=deadline, receive=receive, headers=headers)


def _check(reference: Reference, answer: _Answer) -> None:
    check_answer(reference, etag=answer.etag, size=answer.size)
    expected = reference.extra.get("lastModified")
    if expected is not None and answer.modified != expected:
        raise changed(reference, f"Last-Modified {expected}", f"Last-Modified {answer.modified}")


def _netrc_user(url: str) -> tuple[str, str] | None:
    """What ``$NETRC`` or ``~/.netrc`` says about the host, percent-encoded like user info; ConfigurationError."""
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        found = netrc.netrc(path).authenticators(urlsplit(url).hostname or "")
    except FileNotFoundError:
        return None
    except (netrc.NetrcParseError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", "?")
        # The parser's own message quotes the file, passwords included.
        raise ConfigurationError(why=f"{path} cannot be parsed at line {line}") from None
    except OSError as error:
        raise ConfigurationError(why=f"{path} cannot be read: {error.strerror}") from error
    return None if found is None else (quote(found[0] or found[1] or "", safe=""), quote(found[2] or "", safe=""))
