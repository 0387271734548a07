"""Running requests to remote sides: retries with backoff inside a deadline, one clock and one count for all schemes."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import attrs

from artfs.errors import DeadlineExceeded, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
"""Seconds between tries: doubling, with full jitter over the upper half, as AWS's SDKs do."""
MOST_TRIES: Final = 8
"""About 15 s of pauses together; a dead server should not hold a reader longer, even where its deadline would."""


class TransientError(Exception):
    """One try failed in a way that may pass."""

    def __init__(self, why: str, *, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after = retry_after
        """Seconds that the server asked to wait."""


@attrs.frozen
class RequestStatistics:
    """Counts since the start of the process."""

    requests: int = 0
    """Requests sent, retries included."""
    retries: int = 0
    failures: int = 0
    """Operations given up after their retries, or refused by the remote side."""
    bytes_received: int = 0
    """Bytes of content asked for by readers (not headers, not listings)."""


class Requests:
    """Sends requests on behalf of every handler. Thread-safe."""

    def __init__(self, request_timeout: float) -> None:
        self.timeout = request_timeout
        """Seconds that one request may stay silent."""
        self._lock = threading.Lock()
        self._counts = RequestStatistics()

    def run(self, what: str, deadline: float, attempt: Callable[[float], T]) -> T:
        """The answer of ``attempt(timeout)``, tried again while it raises TransientError and time is left.

        ``what`` names the remote side in messages, without secrets. Raises Unavailable or DeadlineExceeded, and
        whatever else ``attempt`` raises.
        """
        start = time.monotonic()
        for tried in range(1, MOST_TRIES + 1):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self.count(requests=1, retries=int(tried > 1))
            try:
                return attempt(min(self.timeout, left))
            except TransientError as error:
                failure = error
            except Exception:
                self.count(failures=1)
                raise
            pause = max(failure.retry_after, _pause(tried))
            if tried == MOST_TRIES or time.monotonic() + pause >= deadline:
                self.count(failures=1)
                if time.monotonic() >= deadline:
                    break
                # Waiting out the rest of the deadline could change nothing: the next try lies beyond it.
                raise Unavailable(what=what, why=str(failure)) from failure
            log.debug("%s: %s; trying again in %.1f s", what, failure, pause)
            time.sleep(pause)
        raise DeadlineExceeded(what=f"reading {what}", seconds=round(deadline - start, 1))

    def count(self, *, requests: int = 0, retries: int = 0, failures: int = 0, bytes_received: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            old = self._counts
            self._counts = RequestStatistics(
                requests=old.requests + requests,
                retries=old.retries + retries,
                failures=old.failures + failures,
                bytes_received=old.bytes_received + bytes_received,
            )

    def statistics(self) -> RequestStatistics:
        """The counts."""
        return self._counts


def _pause(tried: int) -> float:
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tried - 1))
    return random.uniform(longest / 2, longest)  # noqa: S311  jitter, not cryptography
