"""The process that mounts and looks after the workers. It opens no store, catalog or cache: each worker has its own."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection as Channel
from pathlib import Path
from typing import Final, NoReturn

import attrs

from artfs.errors import ArtfsError, MountFailed
from artfs.fuse.direct import control, device, session, worker
from artfs.fuse.direct.ahead import Ahead
from artfs.fuse.direct.board import Board
from artfs.fuse.direct.pool import Pool
from artfs.fuse.ending import DRAIN, ending_signals, toggle_debug, unmount_or_detach
from artfs.fuse.mountpoint import device_number
from artfs.fuse.notify import notify
from artfs.fuse.options import MountOptions
from artfs.fuse.records import Claim
from artfs.fuse.tune import tune
from artfs.vfs.tree import Tree

log = logging.getLogger(__name__)

DEFAULT_WORKERS: Final = 8
"""Where there are as many cores."""
TICK: Final = 1.0
"""Seconds between two looks at what the workers are doing."""
SPARE: Final = 1.0
"""Seconds that workers get to end beyond those for their requests and their tree."""


@attrs.frozen
class Mounting:
    """What is mounted, and how."""

    make_tree: Callable[[], Tree]
    """Runs in every worker, also in those that replace others: it has to make the same tree each time."""
    mountpoint: str
    """Canonical."""
    options: MountOptions
    runtime_dir: Path
    closing: float = 5.0
    """Seconds that ``tree.close()`` may take."""


def serve(mounting: Mounting, ready: Callable[[], None]) -> None:
    """Mount and serve until it is unmounted; calls ``ready`` when the mount answers.

    SIGTERM, SIGINT and SIGHUP unmount, SIGUSR2 turns debug logging on and off; main thread only. Raises what
    ``make_tree`` raises, and ``MountFailed``.
    """
    count = mounting.options.workers or min(os.cpu_count() or 1, DEFAULT_WORKERS)
    with _supervisor(mounting, lambda: Board(count)) as supervisor:
        supervisor.mount()
        supervisor.announce()
        ready()
        supervisor.supervise()


def adopt(mounting: Mounting, ready: Callable[[], None]) -> None:
    """Take over a mount whose supervisor is gone and whose workers serve on. Raises ``MountFailed`` where none does."""
    handed = control.collect(mounting.runtime_dir, mounting.mountpoint)
    if not handed:
        raise MountFailed(mountpoint=mounting.mountpoint, why="no process that could be adopted serves it")
    with _supervisor(mounting, lambda: Board.attach(handed[0].board)) as supervisor:
        supervisor.adopt(handed)
        supervisor.announce()
        ready()
        supervisor.supervise()


@contextlib.contextmanager
def _supervisor(mounting: Mounting, make_board: Callable[[], Board]) -> Iterator[Supervisor]:
    claim = Claim(mounting.runtime_dir, mounting.mountpoint, mounting.options.source)
    try:
        supervisor = Supervisor(mounting, claim, make_board())
        with supervisor.signals():
            try:
                yield supervisor
            finally:
                supervisor.end()
    finally:
        claim.release()
        log.info("%s ended", mounting.mountpoint)


class Supervisor:
    """Looks after one mount."""

    def __init__(self, mounting: Mounting, claim: Claim, board: Board) -> None:
        self._mounting = mounting
        self._claim = claim
        self._board = board
        self._ahead = Ahead(len(board.slots))
        self._connection: session.Connection | None = None
        self._pool = Pool(board, self._work)
        self._received: list[int] = []
        self._wakeup, self._waker = socket.socketpair()
        for end in (self._wakeup, self._waker):
            end.setblocking(False)

    def announce(self) -> None:
        """Say what is mounted, to who looks for it."""
        self._claim.mounted(device_number(self._mounting.mountpoint))

    def _work(self, index: int, own: int, channel: Channel) -> NoReturn:
        """In a child: be a worker."""
        self._claim.forget()
        self._wakeup.close()
        self._waker.close()
        what = self._mounting
        task = worker.Task(
            what.make_tree, what.mountpoint, what.options, what.runtime_dir, self._board, self._ahead, index, own,
            what.closing,
        )  # fmt: skip
        worker.run(task, channel)

    # -- signals ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Receive the signals that are for us."""
        numbers = [*ending_signals(), signal.SIGUSR2]
        before = {number: signal.signal(number, lambda got, _: self._received.append(got)) for number in numbers}
        wakeup = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ending(self) -> bool:
        """Whether a signal said so; others are obeyed."""
        while self._received:
            number = signal.Signals(self._received.pop(0))
            if number != signal.SIGUSR2:
                log.info("%s: unmounting %s", number.name, self._mounting.mountpoint)
                return True
            toggle_debug()
            self._pool.signal_all(number)
        return False

    def _wait(self, descriptors: Sequence[int], seconds: float | None) -> list[int]:
        """Those that are readable within so many seconds; fewer, too, when a signal comes."""
        poll = select.poll()
        wakeup = self._wakeup.fileno()
        for descriptor in (wakeup, *descriptors):
            poll.register(descriptor, select.POLLIN)
        ready = [number for number, _ in poll.poll(None if seconds is None else seconds * 1000) if number != wakeup]
        with contextlib.suppress(BlockingIOError):
            self._wakeup.recv(4096)
        return ready

    # -- life ---------------------------------------------------------------------------------------------------

    def mount(self) -> None:
        """Start one worker; when it has its tree, mount and let it serve. The others follow when all is answered."""
        mountpoint, options = self._mounting.mountpoint, self._mounting.options
        self._pool.start(0)
        while not self._wait(self._pool.descriptors(), None):
            if self._ending():
                raise MountFailed(mountpoint=mountpoint, why="it was told to end while it started")
        message = self._pool.first_message()
        if isinstance(message, ArtfsError):
            raise message
        if message != worker.MADE:
            raise MountFailed(mountpoint=mountpoint, why="a process that was to serve it died while starting")
        self._connection = session.mount(mountpoint, options)
        log.info("mounted %s on %s, engine=direct, workers=%d", options.source, mountpoint, len(self._board.slots))
        number = device_number(mountpoint)
        if number is not None:
            tune(number, options)
        self._pool.connect(self._connection)
        notify(READY=1, STATUS=f"serving {options.source}")

    def adopt(self, handed: Sequence[control.Handed]) -> None:
        """Go on with the workers that another supervisor left."""
        descriptor = device.open_device()
        device.connect(descriptor, handed[0].device)
        self._connection = session.Connection(descriptor, session.resends())
        for each in handed:
            self._pool.adopt(self._connection, each.index, each.pid, each.device)
            if each.board != self._board.descriptor:
                os.close(each.board)
        self._pool.recover()
        source, mountpoint = self._mounting.options.source, self._mounting.mountpoint
        log.info("adopted %s on %s, engine=direct, workers=%d", source, mountpoint, len(handed))
        notify(READY=1, STATUS=f"serving {source}")

    def supervise(self) -> None:
        """Keep the workers going until the mount ends or a signal ends it."""
        assert self._connection is not None
        while not self._ending() and not device.ended(self._connection.descriptor):
            due = self._pool.tend()
            self._pool.attend(self._wait(self._pool.descriptors(), min(due, TICK)))

    def end(self) -> None:
        """Unmount, if that is still to do, and end the workers."""
        if self._connection is not None:
            notify(STOPPING=1)
            try:
                unmount_or_detach(self._mounting.mountpoint)
            except ArtfsError as error:
                log.error("%s", error)  # noqa: TRY400 - foreseen: the sentence is enough
        self._pool.end(DRAIN + self._mounting.closing + SPARE)
        if self._connection is not None:
            os.close(self._connection.descriptor)
            control.clear(self._mounting.runtime_dir, self._mounting.mountpoint)
        self._board.close()
        self._wakeup.close()
        self._waker.close()
