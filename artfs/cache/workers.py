"""Threads for fetches: started when there is work, daemons, so that a stalled network never holds up an exit."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)


class Workers:
    """At most ``threads`` threads and, if ``queue`` is given, at most so many waiting jobs. Jobs must not raise."""

    def __init__(self, name: str, threads: int, queue: int | None = None) -> None:
        self._name = name
        self._most = threads
        self._queue = queue
        self._jobs: deque[Callable[[], None]] = deque()
        self._ready = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    def submit(self, job: Callable[[], None]) -> bool:
        """Whether the job was accepted: not when the queue is full or the workers are closed."""
        with self._ready:
            if self._closed or (self._queue is not None and len(self._jobs) >= self._queue):
                return False
            self._jobs.append(job)
            if len(self._jobs) > self._idle and len(self._threads) < self._most:
                thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            else:
                self._ready.notify()
        return True

    def close(self, timeout: float) -> None:
        """Drop what waits, and give what runs ``timeout`` seconds to end."""
        deadline = time.monotonic() + timeout
        with self._ready:
            self._closed = True
            self._jobs.clear()
            self._ready.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._ready:
                self._idle += 1
                while not self._jobs and not self._closed:
                    self._ready.wait()
                self._idle -= 1
                if not self._jobs:
                    return
                job = self._jobs.popleft()
            job()
            # Else an idle thread would keep the last job's buffers and descriptors alive.
            del job
