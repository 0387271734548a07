"""An HTTP proxy that breaks things on command, in front of a real server.

    with FaultyProxy(*server.address) as proxy:
        store = open_store(..., endpoint=proxy.url, ...)
        proxy.fail("503", 2)                    # the next two requests
        proxy.fail("truncate", method="GET")    # the next GET
        proxy.stall(); ...; proxy.resume()      # everybody waits
        assert len(proxy.requests) == 3

Requests are passed on as they are, ``Host`` included, so signatures of path-style S3 requests stay valid.

Kinds of failure:

``400`` .. ``599``  answer with that status, without asking the server
``refuse``          reset the connection before any answer; the server sees nothing
``lose``            pass the request on, then reset the connection: the server has done it, the client cannot know
``reset``           reset the connection in the middle of the body (of an empty body: before the answer)
``truncate``        end the connection in the middle of the body
``short``           a well-formed answer that holds only half of the body
``corrupt``         flip one bit in the middle of the body
``stall``           wait for ``resume()`` before the answer
``stall-body``      wait for ``resume()`` in the middle of the body
``delay``           wait ``seconds`` before passing the request on
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
import time
import weakref
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import attrs

_CHUNK = 64 << 10
_LONGEST_STALL = 120.0
_IN_BODY = frozenset({"reset", "truncate", "stall-body", "corrupt"})
_KINDS = _IN_BODY | {"refuse", "lose", "short", "stall", "delay"}


@attrs.frozen
class Request:
    """A request that arrived."""

    method: str
    path: str
    """With its query."""
    range: tuple[int, int] | None
    """First byte and the byte after the last, if one range was asked for."""
    fault: str | None
    """What was done to it."""


@attrs.define
class _Fault:
    kind: str
    left: float
    method: str | None
    path: str | None
    seconds: float

    def concerns(self, method: str, path: str) -> bool:
        return self.method in {None, method} and (self.path is None or self.path in path)


class FaultyProxy:
    """See the module. Thread-safe; ``requests`` grows as requests arrive and may be cleared."""

    def __init__(self, upstream_host: str, upstream_port: int) -> None:
        self.upstream = (upstream_host, upstream_port)
        self.requests: list[Request] = []
        self.body_bytes = 0
        """Bytes of bodies sent to clients."""
        self.active = 0
        """Requests being worked on."""
        self.most_active = 0
        self.connections = 0
        """Connections that clients made."""
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._changed = threading.Condition()  # guards all of this
        self._faults: list[_Fault] = []
        self._stalled = False
        self._resumed = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self.resume()
        self._server.shutdown()
        self._server.server_close()

    def fail(
        self,
        kind: str | int,
        count: float = 1,
        *,
        method: str | None = None,
        path: str | None = None,
        seconds: float = 1.0,
    ) -> None:
        """Do that to the next ``count`` requests (``math.inf``: to all) of that method with ``path`` in their path."""
        if str(kind) not in _KINDS and not str(kind).isdigit():
            raise ValueError(kind)
        with self._changed:
            self._faults.append(_Fault(str(kind), count, method, path, seconds))

    def heal(self) -> None:
        """Forget failures that have not happened yet, and resume."""
        with self._changed:
            self._faults.clear()
        self.resume()

    def stall(self) -> None:
        """Let every request wait, also those in progress, until ``resume()``."""
        with self._changed:
            self._stalled = True

    def resume(self) -> None:
        """Let everything go on, also what a failure stalled."""
        with self._changed:
            self._stalled = False
            self._resumed += 1
            self._changed.notify_all()

    def wait_for_requests(self, count: int, deadline: float = 10.0) -> None:
        """Until that many requests have arrived."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.requests) >= count, deadline)
        assert arrived, f"only {len(self.requests)} of {count} requests arrived"

    def hang_up(self) -> None:
        """Close every connection, as a server does that has waited long enough for the next request."""
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def connected(self, client: socket.socket) -> None:
        with self._changed:
            self.connections += 1
            self._sockets.add(client)

    def arrived(self, method: str, path: str, asked: tuple[int, int] | None) -> _Fault | None:
        with self._changed:
            fault = next((fault for fault in self._faults if fault.concerns(method, path)), None)
            if fault is not None:
                fault.left -= 1
                if fault.left <= 0:
                    self._faults.remove(fault)
            self.requests.append(Request(method, path, asked, fault.kind if fault else None))
            self.active += 1
            self.most_active = max(self.most_active, self.active)
            self._changed.notify_all()
        return fault

    def done(self) -> None:
        with self._changed:
            self.active -= 1

    def sent(self, count: int) -> None:
        with self._changed:
            self.body_bytes += count

    def wait_while_stalled(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._stalled, _LONGEST_STALL)

    def wait_for_resume(self) -> None:
        with self._changed:
            before = self._resumed
            self._changed.wait_for(lambda: self._resumed != before, _LONGEST_STALL)


class _Server(ThreadingHTTPServer):
    proxy: FaultyProxy
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def process_request(self, request, client_address) -> None:
        self.proxy.connected(request)
        super().process_request(request, client_address)

    def handle_error(self, request, client_address) -> None:
        pass  # a client or the server hung up: the client reports it


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, with one of its own to the server."""

    protocol_version = "HTTP/1.1"
    server: _Server
    upstream: http.client.HTTPConnection | None = None

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle_one_request()
            return
        self.close_connection = True

    def finish(self) -> None:
        super().finish()
        if self.upstream is not None:
            self.upstream.close()

    def log_message(self, format, *args) -> None:  # noqa: A002  the base class's name
        pass

    def do(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = proxy.arrived(self.command, self.path, _range(self.headers.get("Range")))
        try:
            self.pass_on(body, fault)
        except (http.client.HTTPException, OSError):
            self.reset()
        finally:
            proxy.done()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do  # noqa: N815  names that the base class looks up

    def pass_on(self, body: bytes, fault: _Fault | None) -> None:
        kind = fault.kind if fault else None
        if kind == "refuse":
            return self.reset()
        if kind is not None and kind.isdigit():
            return self.refuse(int(kind))
        if kind == "delay":
            time.sleep(fault.seconds)
        self.server.proxy.wait_while_stalled()
        answer = self.ask(body)
        if kind == "lose":
            answer.read()
            return self.reset()
        if kind == "stall":
            self.server.proxy.wait_for_resume()
        return self.give(answer, kind)

    def ask(self, body: bytes) -> http.client.HTTPResponse:
        if self.upstream is None:
            self.upstream = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=_LONGEST_STALL)
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in {"connection", "expect"}:
                self.upstream.putheader(name, value)
        self.upstream.endheaders(body or None)
        return self.upstream.getresponse()

    def give(self, answer: http.client.HTTPResponse, kind: str | None) -> None:
        """Send the answer on, breaking it as ``kind`` says."""
        if answer.length is None or kind == "short":  # chunked, or of another length than the server says
            whole = answer.read()
            pieces = [whole[: len(whole) // 2] if kind == "short" else whole]
            length = len(pieces[0])
        else:
            length = answer.length
            pieces = iter(lambda: answer.read(_CHUNK), b"")
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        if self.command == "HEAD":
            length = int(answer.headers.get("Content-Length") or 0)
        if answer.status not in {204, 304}:
            self.send_header("Content-Length", str(length))
        if kind == "reset" and not length:
            return self.reset()
        self.end_headers()
        return self.give_body(pieces, kind, length // 2)

    def give_body(self, pieces, kind: str | None, middle: int) -> None:
        position = 0
        for piece in pieces:
            if kind in _IN_BODY and position <= middle < position + len(piece):
                cut = middle - position
                self.send(piece[:cut])
                if kind == "reset":
                    return self.reset()
                if kind == "truncate":
                    self.close_connection = True
                    self.upstream.close()
                    return None
                if kind == "stall-body":
                    self.server.proxy.wait_for_resume()
                rest = bytearray(piece[cut:])
                if kind == "corrupt":
                    rest[0] ^= 1
                self.send(rest)
            else:
                self.send(piece)
            position += len(piece)
        return None

    def send(self, piece) -> None:
        self.server.proxy.wait_while_stalled()
        self.server.proxy.sent(len(piece))  # first: a client that has its answer finds it counted
        self.wfile.write(piece)

    def refuse(self, status: int) -> None:
        text = b"<Error><Code>%s</Code><Message>injected</Message></Error>" % (
            b"SlowDown" if status in {429, 503} else b"Injected"
        )
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def reset(self) -> None:
        """End the connection with RST, which clients see as "connection reset by peer"."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.close(self.connection.detach())


def _range(header: str | None) -> tuple[int, int] | None:
    first, dash, last = (header or "").removeprefix("bytes=").partition("-")
    return (int(first), int(last) + 1) if dash and first.isdigit() and last.isdigit() else None
