"""The HTTP client of the http and gs handlers: urllib3 with deadlines, proxies and errors that show no secrets."""

from __future__ import annotations

import email.utils
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.exceptions import (
    HTTPError,
    IncompleteRead,
    LocationValueError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    ResponseError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from artfs.errors import AccessDenied, ArtfsError, ReferenceMissing, ReferenceUnsupported, Unavailable
from artfs.references.retry import Requests, TransientError

T = TypeVar("T")
Response = urllib3.BaseHTTPResponse

CHUNK: Final = 1 << 20
"""Bytes asked of a socket at a time."""
_REDIRECTS: Final = 10
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Client:
    """GET requests through pooled connections. Thread-safe."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._lock = threading.Lock()
        self._pools: dict[str | None, urllib3.PoolManager] = {}

    def get(
        self,
        url: str,
        *,
        what: str,
        deadline: float,
        receive: Callable[[Response], T],
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """What ``receive`` makes of the response (status 2xx or 416, body unread), with retries.

        ``receive`` may run several times. Redirects are followed; credentials go to the first host only. ``what``
        names the URL in messages, without secrets. Raises AccessDenied, ReferenceMissing, ReferenceUnsupported,
        Unavailable, DeadlineExceeded.
        """

        def attempt(timeout: float) -> T:
            try:
                response = self._pool(url).request(
                    "GET",
                    url,
                    headers=headers,
                    preload_content=False,
                    decode_content=False,
                    timeout=urllib3.Timeout(connect=timeout, read=timeout),
                    # urllib3 follows redirects only through its Retry, which drops Authorization on another host.
                    retries=urllib3.Retry(
                        total=None, connect=False, read=False, status=False, other=False, redirect=_REDIRECTS
                    ),
                )
                try:
                    check_status(response, what)
                    return receive(response)
                finally:
                    response.close()  # a body that was read to its end has given its connection back before
            except (HTTPError, LocationValueError) as error:
                # The text of a urllib3 error can hold the URL with its query: neither shown nor chained.
                raise _failure(error, what) from None

        return self._requests.run(what, deadline, attempt)

    def _pool(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxy = urllib.request.getproxies().get(parts.scheme)
        if proxy and urllib.request.proxy_bypass(parts.hostname or ""):
            proxy = None
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = _new_pool(proxy)
            return self._pools[proxy]

    def close(self) -> None:
        """Close every idle connection."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()


def _new_pool(proxy: str | None) -> urllib3.PoolManager:
    if proxy is None:
        return urllib3.PoolManager(num_pools=32, maxsize=16)
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    user, at, address = parts.netloc.rpartition("@")
    headers = urllib3.make_headers(proxy_basic_auth=unquote(user)) if at else None
    plain = parts._replace(netloc=address).geturl()
    return urllib3.ProxyManager(plain, num_pools=32, maxsize=16, proxy_headers=headers)


def read_body(response: Response, deadline: float, write: Callable[[bytes], object]) -> int:
    """Hand the body to ``write`` piece by piece; bytes read. The deadline holds even for a server that trickles."""
    total = 0
    while piece := response.read1(CHUNK):
        total += len(piece)
        write(piece)
        if time.monotonic() > deadline:
            raise TransientError("the answer came too slowly")
    return total


def check_status(response: Response, what: str) -> None:
    """Raise what a status means for a reader; 2xx and 416 pass."""
    status = response.status
    if 200 <= status < 300 or status == 416:
        return
    said = f"the server answered {status} {_phrase(status)}"
    if status in {401, 403, 407}:
        raise AccessDenied(what=what, why=said)
    if status in {404, 410}:
        raise ReferenceMissing(uri=what, why=said)
    if status in _TRANSIENT:
        raise TransientError(said, retry_after=retry_after(response.headers.get("Retry-After")))
    raise Unavailable(what=what, why=said)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(unknown status)"


def retry_after(value: str | None) -> float:
    """Seconds to wait (RFC 9110, 10.2.3: seconds or a date)."""
    if value is None:
        return 0.0
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _failure(error: Exception, what: str) -> ArtfsError | TransientError:
    if isinstance(error, MaxRetryError):  # urllib3 wraps what its Retry does not know, and redirects without end
        if isinstance(error.reason, ResponseError) or error.reason is None:
            return Unavailable(what=what, why=f"more than {_REDIRECTS} redirects")
        return _failure(error.reason, what)
    if isinstance(error, LocationValueError):
        return ReferenceUnsupported(uri=what, why="it is, or redirects to, no http(s) URL")
    if isinstance(error, SSLError):
        return Unavailable(what=what, why=f"TLS failed ({_root_cause(error)})")
    if isinstance(error, NameResolutionError):
        return TransientError("its host name cannot be resolved")
    if isinstance(error, NewConnectionError):
        return TransientError(f"no connection ({_root_cause(error)})")
    if isinstance(error, ReadTimeoutError | HTTPTimeoutError):
        return TransientError("no answer in time")
    if isinstance(error, IncompleteRead):
        return TransientError("the answer was cut short")
    if isinstance(error, ProtocolError):
        return TransientError(f"the connection broke ({_root_cause(error)})")
    return TransientError(type(error).__name__)


def _root_cause(error: BaseException) -> str:
    """What the operating system or the TLS library said: texts that hold no URL."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        inner = [arg for arg in cause.args if isinstance(arg, BaseException)]
        cause = inner[0] if inner else cause.__cause__ or cause.__context__
    return type(error).__name__
