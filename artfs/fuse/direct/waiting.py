"""Requests that wait for disk or network: each in a thread, which replies itself.

Every request is answered once: by its thread; or, if that overstays its deadline, without it; or with EINTR when the
caller is being killed. A signal that does not kill does not end the wait, as on NFS and on disks: programs do not
expect EINTR from a file, and profilers and the Go runtime send signals all the time.
"""

from __future__ import annotations

import errno
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import attrs

from artfs.errors import DeadlineExceeded
from artfs.fuse.direct.board import MOST_WAITING, THREADS, Board, Slot
from artfs.fuse.direct.device import fail, reply
from artfs.fuse.direct.dispatch import Deferred, Dispatcher
from artfs.fuse.direct.protocol import Opcode

READ_THREADS: Final = 64
"""Reads of one worker that wait for data at a time; more wait for their turn."""
METADATA_THREADS: Final = 16
"""Threads for everything but reads, apart from theirs: names stay answerable while every read waits."""
GRACE: Final = 5.0
"""Seconds that a thread may overstay its deadline before its request is answered without it."""
WATCH: Final = 0.05
"""Seconds between two looks at what waits, while something does."""


@attrs.frozen
class _Request:
    deferred: Deferred
    deadline: float
    place: int | None
    """On the board, which has so many."""


class Waiting:
    """The requests of one worker that wait."""

    def __init__(self, device: int, dispatcher: Dispatcher, board: Board, slot: Slot, wait: float) -> None:
        """``wait`` is the seconds that a request may take, its turn for a thread included."""
        self._device = device
        self._dispatcher = dispatcher
        self._board = board
        self._slot = slot
        self._wait = wait
        self._reads = ThreadPoolExecutor(READ_THREADS, "read")
        self._metadata = ThreadPoolExecutor(METADATA_THREADS, "metadata")
        self._lock = threading.Lock()
        self._requests: dict[int, _Request] = {}
        self._places = list(range(MOST_WAITING))
        self._running = 0
        self._some = threading.Event()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    @property
    def threads_running(self) -> int:
        """Requests in threads or before them, answered or not."""
        return self._running

    def add(self, deferred: Deferred) -> None:
        """Answer a request later."""
        with self._lock:
            if deferred.unique in self._requests:
                return  # sent again, and here again: the thread that has it answers it
            place = self._places.pop() if self._places else None
            request = _Request(deferred, time.monotonic() + self._wait, place)
            self._requests[deferred.unique] = request
            self._running += 1
        if place is not None:
            self._slot.waiting[place] = deferred.unique
        self._slot.words[THREADS] += 1
        self._some.set()
        pool = self._reads if deferred.opcode == Opcode.READ else self._metadata
        pool.submit(self._answer, request)

    def _answer(self, request: _Request) -> None:
        try:
            if request.deferred.unique in self._requests:  # nobody waits for what was interrupted in the queue
                parts = request.deferred.run(request.deadline)
                if self._take(request):
                    reply(self._device, parts)
        finally:
            with self._lock:
                self._running -= 1

    def _take(self, request: _Request) -> bool:
        """The right to answer a request: whoever comes first has it."""
        with self._lock:
            if self._requests.pop(request.deferred.unique, None) is None:
                return False
            if request.place is not None:
                self._slot.waiting[request.place] = 0
                self._places.append(request.place)
            return True

    def _watch(self) -> None:
        while True:
            self._some.wait()
            time.sleep(WATCH)
            with self._lock:
                requests = list(self._requests.values())
                if not requests:
                    self._some.clear()
            interrupted = self._board.interrupts()
            for request in requests:
                if time.monotonic() > request.deadline + GRACE:
                    self._give_up(request, DeadlineExceeded(what="the request", seconds=self._wait))
                elif request.deferred.unique in interrupted and _is_dying(request.deferred.pid):
                    self._give_up(request, None)

    def _give_up(self, request: _Request, error: DeadlineExceeded | None) -> None:
        """Answer without the thread; with EINTR where nothing is wrong."""
        if self._take(request):
            late = request.deferred
            if error is None:
                fail(self._device, late.unique, errno.EINTR)
            else:
                reply(self._device, (self._dispatcher.failed(late.opcode, late.unique, late.inode, error),))


def _is_dying(thread: int) -> bool:
    """Whether a fatal signal has been sent to a thread: the kernel then has SIGKILL pending for it.

    That is in proc_pid_status(5). 0 stands for a thread of another PID name space, of which nothing is known.
    """
    if not thread:
        return False
    try:
        status = Path(f"/proc/{thread}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    pending = re.search(r"^SigPnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return pending is not None and bool(int(pending[1], 16) >> (signal.SIGKILL - 1) & 1)
