"""The worker processes of a mount: started, replaced when they die or hang, ended.

Whoever has a pool keeps every worker's device open, so that what a dead worker had read stays in the kernel, and has
the kernel queue it again (FUSE_NOTIFY_RESEND, Linux 6.9). On older kernels it keeps none: the requests of a dead worker
fail with it.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection as Channel
from typing import Any, Final, NoReturn

import attrs

from artfs.errors import ArtfsError
from artfs.fuse.direct import device, worker
from artfs.fuse.direct.board import INODE, OPCODE, UNIQUE, Board
from artfs.fuse.direct.protocol import RESENT, kind
from artfs.fuse.direct.session import Connection

log = logging.getLogger(__name__)

HUNG: Final = 10.0
"""Seconds after which a worker that answers one request inline is taken for hung: there it never waits."""
CRASHES: Final = 3
"""Workers that may die on one request; the next time it has failed."""
BACKOFF: Final = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Seconds before a worker is started where the last ones, as many, ended for no request that they had."""
_MOST_SUSPECTS: Final = 4096
"""Requests of dead workers that are remembered."""


@attrs.define
class Process:
    """A worker."""

    pid: int
    ends: int
    """A descriptor that is readable when it has ended (pidfd_open(2))."""
    channel: Channel | None
    """To a worker that does not serve yet."""
    busy_with: int = 0
    busy_since: float = 0.0


@attrs.define
class Place:
    """Where there is a worker, or should be."""

    index: int
    device: int | None = None
    process: Process | None = None
    failures: int = 0
    """Workers in a row that could not start or serve."""
    due: float = 0.0
    """When to start the next (monotonic)."""


class Pool:
    """Workers of one mount, as many as its board has pages. One thread only: it forks."""

    def __init__(self, board: Board, work: Callable[[int, int, Channel], NoReturn]) -> None:
        """``work``, in the child, serves as the worker of an index on a device."""
        self._board = board
        self._work = work
        self._connection: Connection | None = None
        self._places = [Place(index) for index in range(len(board.slots))]
        self._strikes: Counter[int] = Counter()

    # -- what to wait for ---------------------------------------------------------------------------------------

    def descriptors(self) -> list[int]:
        """What becomes readable when there is something to ``attend`` to."""
        found = []
        for place in self._places:
            if place.process is not None:
                found.append(place.process.ends)
                if place.process.channel is not None:
                    found.append(place.process.channel.fileno())
        return found

    def attend(self, readable: Sequence[int]) -> None:
        """Let workers serve that have their tree, and note which have died. Raises nothing on their account."""
        for place in self._places:
            process = place.process
            if process is not None and process.channel is not None and process.channel.fileno() in readable:
                message = self._hear(process.channel)
                if message == worker.MADE:
                    self._release(place, process)
                elif isinstance(message, ArtfsError):
                    log.error("a worker cannot serve: %s", message)
            if process is not None and process.ends in readable:
                self._died(place, process)

    def tend(self) -> float:
        """End workers that hang and start those that are due; seconds until the next is."""
        now = time.monotonic()
        soonest = now + HUNG
        for place in self._places:
            if place.process is None:
                if place.due <= now:
                    self._start_again(place)
                if place.process is None:
                    soonest = min(soonest, place.due)
            elif place.process.channel is None:
                self._check(place.process, self._board.slots[place.index].words[UNIQUE], now)
        return max(0.0, soonest - now)

    def _check(self, process: Process, unique: int, now: float) -> None:
        if unique != process.busy_with:
            process.busy_with = unique
            process.busy_since = now
        elif unique and now - process.busy_since > HUNG:
            log.error("worker %d has not answered a request within %g s: replaced", process.pid, HUNG)
            self._signal(process, signal.SIGKILL)
            process.busy_since = now

    def _start_again(self, place: Place) -> None:
        try:
            self.start(place.index)
        except OSError as error:  # no memory, no process, no descriptor; or the mount has just ended
            log.error("cannot start a worker: %s", error)  # noqa: TRY400 - foreseen: the sentence is enough
            self._put_off(place)

    def _put_off(self, place: Place) -> None:
        place.failures += 1
        place.due = time.monotonic() + BACKOFF[min(place.failures, len(BACKOFF) - 1)]

    # -- starting -----------------------------------------------------------------------------------------------

    def start(self, index: int) -> None:
        """Fork a worker. It makes its tree, and serves as soon as there is a connection."""
        place = self._places[index]
        if place.device is None:
            place.device = device.open_device()
            if self._connection is not None:
                device.connect(place.device, self._connection.descriptor)
        ours, theirs = multiprocessing.Pipe()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, worker.SIGNALS)  # our handlers are not the child's
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                self._forget(keep=place.device)
                self._work(index, place.device, theirs)
            finally:
                os._exit(1)  # whatever happens, this is not its parent
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        place.process = Process(pid, os.pidfd_open(pid), ours)

    def _forget(self, keep: int) -> None:
        """In a child: close what is the parent's. What a dead sibling had read must not live on here."""
        if self._connection is not None:
            os.close(self._connection.descriptor)
        for place in self._places:
            if place.device is not None and place.device != keep:
                os.close(place.device)
            if place.process is not None:
                os.close(place.process.ends)
                if place.process.channel is not None:
                    place.process.channel.close()

    def first_message(self) -> Any:
        """What the first worker said: ``worker.MADE``, an ``ArtfsError``, or None when it died without a word."""
        process = self._places[0].process
        assert process is not None
        assert process.channel is not None
        return self._hear(process.channel)

    def connect(self, connection: Connection) -> None:
        """Let the first worker, which has its tree, serve; the others are started by ``tend``."""
        self._connection = connection
        place = self._places[0]
        assert place.process is not None
        assert place.device is not None
        device.connect(place.device, connection.descriptor)
        self._release(place, place.process)

    def adopt(self, connection: Connection, index: int, pid: int, own: int) -> None:
        """Take a worker that somebody else started."""
        self._connection = connection
        place = self._places[index]
        place.process = Process(pid, os.pidfd_open(pid), None)
        place.device = own
        self._keep_or_close(place, connection)

    def recover(self) -> None:
        """After ``adopt``: see to what was left behind by workers that died while nobody looked."""
        for place in self._places:
            if place.process is None:
                self._board.slots[place.index].clear_requests()
        self._resend()

    def _release(self, place: Place, process: Process) -> None:
        assert process.channel is not None
        if self._connection is None:
            return
        try:
            process.channel.send(worker.SERVE)
        except OSError:  # it has died, as will be seen
            return
        process.channel.close()
        process.channel = None
        self._keep_or_close(place, self._connection)

    def _keep_or_close(self, place: Place, connection: Connection) -> None:
        if not connection.resends and place.device is not None:
            os.close(place.device)
            place.device = None

    @staticmethod
    def _hear(channel: Channel) -> Any:
        try:
            return channel.recv()
        except (EOFError, OSError):
            return None

    # -- death --------------------------------------------------------------------------------------------------

    def _died(self, place: Place, process: Process) -> None:
        status = self._bury(place, process)
        if self._connection is None or device.ended(self._connection.descriptor):
            return
        crashed = status not in {0, -signal.SIGKILL, None}
        serving = process.channel is None
        if serving:
            log.warning("worker %d ended%s: replaced", process.pid, _how(status))
        innocent = not self._accuse(place, crashed=crashed)
        if not serving or (crashed and innocent):
            self._put_off(place)
        else:
            place.failures = 0
            place.due = 0.0
        self._board.slots[place.index].clear_requests()
        self._resend()

    def _bury(self, place: Place, process: Process) -> int | None:
        """Collect a dead process; its exit status, its signal as a negative number, None where nobody knows."""
        place.process = None
        os.close(process.ends)
        if process.channel is not None:
            process.channel.close()
        try:
            return os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
        except ChildProcessError:  # adopted: its parent was another
            return None

    def _accuse(self, place: Place, *, crashed: bool) -> bool:
        """Fail the requests on which worker after worker dies; whether there was any to suspect.

        Suspect is what the worker was answering itself; where it crashed, and was not killed, also what its threads
        were busy with.
        """
        slot = self._board.slots[place.index]
        # An odd one is no request's, but a page that was made ahead: nobody waits for it.
        suspects = [slot.words[UNIQUE]] if slot.words[UNIQUE] and not slot.words[UNIQUE] & 1 else []
        if crashed:
            suspects += slot.in_threads()
        if len(self._strikes) > _MOST_SUSPECTS:
            self._strikes.clear()
        for unique in suspects:
            self._strikes[unique & ~RESENT] += 1
            strikes = self._strikes[unique & ~RESENT]
            if strikes >= CRASHES and self._fail(unique):
                inline = unique == slot.words[UNIQUE]
                what = f"{kind(slot.words[OPCODE])} of inode {slot.words[INODE]}" if inline else "a request in a thread"
                log.error("%s failed: %d workers died of it", what, strikes)
        return bool(suspects)

    def _fail(self, unique: int) -> bool:
        """Answer a request with EIO, whoever has it now; whether somebody had.

        What was queued again after another death is queued again though its worker lives: two may have it then, and the
        kernel takes the answer on the device of the second, under its new name.
        """
        kept = [place.device for place in self._places if place.device is not None]
        names = {unique, unique | RESENT}
        return any(device.fail(one, name, errno.EIO) for one in kept for name in names)

    def _resend(self) -> None:
        if self._connection is not None and self._connection.resends:
            try:
                device.resend(self._connection.descriptor)
            except OSError:
                if not device.ended(self._connection.descriptor):
                    raise

    # -- the end ------------------------------------------------------------------------------------------------

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every worker."""
        for place in self._places:
            if place.process is not None:
                self._signal(place.process, number)

    def end(self, seconds: float) -> None:
        """Ask every worker to end, wait so long, and kill what is left."""
        self.signal_all(signal.SIGTERM)
        end = time.monotonic() + seconds
        while processes := [place for place in self._places if place.process is not None]:
            poll = select.poll()
            for place in processes:
                assert place.process is not None
                poll.register(place.process.ends, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll(max(0.0, end - time.monotonic()) * 1000)}
            if not ready:
                self.signal_all(signal.SIGKILL)
                end = time.monotonic() + seconds
            for place in processes:
                if place.process is not None and place.process.ends in ready:
                    self._bury(place, place.process)
        for place in self._places:
            if place.device is not None:
                os.close(place.device)
                place.device = None

    @staticmethod
    def _signal(process: Process, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(process.ends, number)
        except ProcessLookupError:  # it has ended, as will be seen
            return


def _how(status: int | None) -> str:
    if status is None:
        return ""
    return f" with status {status}" if status >= 0 else f" of {signal.Signals(-status).name}"
