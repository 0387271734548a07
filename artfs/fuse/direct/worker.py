"""One serving process: a loop that reads requests from its device and answers, or hands them to threads.

What can be answered at once costs one readv(2), one writev(2) and what the tree needs: for a cached read one
preadv2(2).
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import pickle
import select
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import attrs

from artfs.errors import ArtfsError
from artfs.fuse.direct import control
from artfs.fuse.direct.ahead import Ahead
from artfs.fuse.direct.board import PID, STARTS, Board
from artfs.fuse.direct.device import reply
from artfs.fuse.direct.dispatch import Deferred, Dispatcher, Interrupt
from artfs.fuse.direct.protocol import MIN_READ_BUFFER
from artfs.fuse.direct.waiting import Waiting
from artfs.fuse.ending import DRAIN, close_tree, toggle_debug
from artfs.fuse.failures import why_not_mounted
from artfs.fuse.options import MountOptions
from artfs.vfs.tree import Tree

log = logging.getLogger(__name__)

MADE: Final = "made"
"""What a worker says when its tree is ready; it then waits until it is told to serve."""
SERVE: Final = "serve"
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""To be blocked when a worker is forked: it has handlers of its own."""
_AGAIN: Final = frozenset({errno.ENOENT, errno.EINTR, errno.EAGAIN})
"""Of reading a request: its caller was killed meanwhile (ENOENT)."""
_ENDED: Final = frozenset({errno.ENODEV, errno.ECONNABORTED})


class _Terminated(BaseException):
    """SIGTERM."""


@attrs.frozen
class Task:
    """What a worker is to do. All of it was made before the fork."""

    make_tree: Callable[[], Tree]
    mountpoint: str
    options: MountOptions
    runtime_dir: Path
    board: Board
    ahead: Ahead
    index: int
    device: int
    closing: float


def run(task: Task, channel: Connection) -> NoReturn:
    """Make the tree, say so on ``channel``, serve when told to; ends the process, with 0 if nothing went wrong."""
    status = 1
    try:
        _signals()
        tree = _make(task, channel)
        if tree is not None:
            try:
                with contextlib.suppress(EOFError):  # the supervisor died, or failed to mount
                    if channel.recv() == SERVE:
                        channel.close()
                        _serve(task, tree)
            finally:
                close_tree(tree, task.closing)
            status = 0
    except _Terminated:
        status = 0
    except BaseException:
        log.exception("a worker of %s failed", task.mountpoint)
    finally:
        logging.shutdown()
        os._exit(status)


def _signals() -> None:
    def terminate(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, terminate)
    for number in (signal.SIGINT, signal.SIGHUP):  # the terminal's, for the whole group: the supervisor unmounts
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, lambda _number, _frame: toggle_debug())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _make(task: Task, channel: Connection) -> Tree | None:
    try:
        tree = task.make_tree()
    except ArtfsError as error:
        _report(channel, error)
        return None
    except Exception as error:
        log.exception("the tree of %s could not be made", task.mountpoint)
        _report(channel, why_not_mounted(error, task.mountpoint))
        return None
    channel.send(MADE)
    return tree


def _report(channel: Connection, error: ArtfsError) -> None:
    try:
        channel.send(error)
    except (pickle.PicklingError, TypeError, AttributeError):  # a field that does not travel; the sentence does
        channel.send(type(error)(str(error)))


def _serve(task: Task, tree: Tree) -> None:
    slot = task.board.slots[task.index]
    slot.words[PID] = os.getpid()
    slot.words[STARTS] += 1
    dispatcher = Dispatcher(tree, task.options, slot, task.board.statistics, task.board.is_news, task.ahead, task.index)
    waiting = Waiting(task.device, dispatcher, task.board, slot, task.options.wait)
    try:
        listener = control.listen(task.runtime_dir, task.mountpoint, task.index)
    except OSError as error:
        log.warning("worker %d of %s cannot be adopted: %s", task.index, task.mountpoint, error)
    else:
        hand_over = (listener, task.index, task.device, task.board.descriptor)
        threading.Thread(target=control.hand_over, args=hand_over, name="control", daemon=True).start()
    gc.freeze()  # what is there now stays: collections need not look at it
    try:
        try:
            _loop(task.device, dispatcher, waiting, slot.interrupted)
        finally:
            # The supervisor's comes right behind the kernel's word, and may come just here.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except _Terminated:
        log.debug("told to end")
    finally:
        _drain(waiting)


def _loop(device: int, dispatcher: Dispatcher, waiting: Waiting, interrupted: Callable[[int], None]) -> None:
    """Answer requests until the connection ends."""
    buffer = bytearray(MIN_READ_BUFFER)
    buffers = [buffer]
    view = memoryview(buffer)
    answer, read = dispatcher.answer, os.readv
    requests = select.poll()
    requests.register(device, select.POLLIN)
    while True:
        try:
            length = read(device, buffers)
        except OSError as error:
            if error.errno in _AGAIN:
                continue
            if error.errno in _ENDED:
                return
            raise
        answered = answer(view[:length])
        if type(answered) is tuple:
            reply(device, answered)
            if dispatcher.upcoming is not None and not requests.poll(0):
                dispatcher.list_ahead()
        elif isinstance(answered, Deferred):
            waiting.add(answered)
        elif isinstance(answered, Interrupt):
            interrupted(answered.unique)


def _drain(waiting: Waiting) -> None:
    """Give threads a moment, before the tree is closed under them."""
    end = time.monotonic() + DRAIN
    while waiting.threads_running and time.monotonic() < end:
        time.sleep(0.02)
    if waiting.threads_running:
        log.warning("%d requests still wait for data: left alone", waiting.threads_running)
