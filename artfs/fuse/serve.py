"""Serve a tree in this process, from mounting to unmounting. One mount a process: pyfuse3's session is global."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import FrameType

import pyfuse3
import trio

from artfs.errors import ArtfsError, MountFailed
from artfs.fuse.ending import DRAIN, close_tree, ending_signals, toggle_debug, unmount_or_detach
from artfs.fuse.mountpoint import device_number
from artfs.fuse.notify import notify
from artfs.fuse.operations import Operations
from artfs.fuse.options import MountOptions
from artfs.fuse.records import Claim
from artfs.fuse.tune import tune
from artfs.vfs.tree import Tree

log = logging.getLogger(__name__)

IDLE_TASKS = 4
"""Loop tasks kept when nothing happens; each holds a buffer for one request."""
SPARE_TASKS = 64
"""Tasks beyond the kernel's background reads: names are looked up while every read waits. A task costs 1 MiB of address
space, the size of the largest request, and the few pages of it that a request has touched."""
TICK = 1.0
"""Seconds between two alarms."""


def serve(
    make_tree: Callable[[], Tree],
    mountpoint: str,
    options: MountOptions,
    ready: Callable[[], None],
    *,
    runtime_dir: Path,
    operations: Callable[[Tree, MountOptions], Operations] = Operations,
    closing: float = 5.0,
) -> None:
    """Mount what ``make_tree`` makes on ``mountpoint`` (canonical) and serve it until it is unmounted.

    Calls ``ready`` when the mount answers. SIGTERM, SIGINT and SIGHUP unmount and are passed over from then on, SIGUSR2
    turns debug logging on and off; main thread only. ``closing`` is the seconds that ``tree.close()`` may take. Raises
    what ``make_tree`` raises, and ``MountFailed``.
    """
    claim = Claim(runtime_dir, mountpoint, options.source)
    try:
        tree = make_tree()
        try:
            adapter = operations(tree, options)

            def announce() -> None:
                claim.mounted(device_number(mountpoint))
                ready()

            trio.run(_run, adapter, mountpoint, options, announce)
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            close_tree(tree, closing)
    finally:
        claim.release()
        log.info("%s ended", mountpoint)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _run(adapter: Operations, mountpoint: str, options: MountOptions, ready: Callable[[], None]) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # what trio delivers again at its end must not kill us
    # Blocked, not passed over, until trio receives them.
    signal.pthread_sigmask(signal.SIG_BLOCK, ending_signals())
    _pass_over_signals(mountpoint)
    with (
        trio.open_signal_receiver(*ending_signals(), signal.SIGUSR2) as signals,
        trio.open_signal_receiver(signal.SIGALRM) as alarms,
    ):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ending_signals())
        device = _mount(adapter, mountpoint, options)
        signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_obey, signals, mountpoint, nursery.cancel_scope)
                nursery.start_soon(_watch, alarms, device, nursery.cancel_scope)
                nursery.start_soon(_announce, mountpoint, options, ready)
                await pyfuse3.main(IDLE_TASKS, options.max_background + SPARE_TASKS)
                nursery.cancel_scope.cancel()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            with trio.CancelScope(shield=True):
                await _end(mountpoint)
                await _drain(adapter)
            # Ours to unmount, and done: libfuse would lazily detach whatever has been mounted there meanwhile.
            pyfuse3.close(unmount=False)


def _pass_over_signals(mountpoint: str) -> None:
    """Have what trio no longer receives end nothing: closing a writable mount's tree publishes what was written."""

    def pass_over(number: int, _frame: FrameType | None) -> None:
        log.info("%s: %s is ending already", signal.Signals(number).name, mountpoint)

    for number in ending_signals():
        signal.signal(number, pass_over)
    signal.signal(signal.SIGUSR2, lambda _number, _frame: toggle_debug())


def _mount(adapter: Operations, mountpoint: str, options: MountOptions) -> int:
    """Mount; the descriptor of /dev/fuse, which pyfuse3 keeps to itself."""
    logging.getLogger("pyfuse3").addFilter(_not_interrupted)
    before = _devices()
    with _standard_error() as said:
        try:
            pyfuse3.init(adapter, mountpoint, options.fuse_options())
        except RuntimeError as error:
            why = "; ".join(said()) or str(error)
            raise MountFailed(mountpoint=mountpoint, why=why) from None
    log.info("mounted %s on %s, engine=pyfuse3", options.source, mountpoint)
    (device,) = _devices() - before
    return device


def _devices() -> set[int]:
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            if os.readlink(f"/proc/self/fd/{descriptor}") == "/dev/fuse":
                found.add(int(descriptor))
    return found


def _not_interrupted(record: logging.LogRecord) -> bool:
    # The reply to a request whose caller was killed meanwhile: the kernel has forgotten it (ENOENT).
    return "fuse_reply_" not in str(record.msg) or os.strerror(2) not in record.getMessage()


@contextlib.contextmanager
def _standard_error() -> Iterator[Callable[[], list[str]]]:
    """Keep what libfuse and fusermount3 say: their only way to tell why a mount failed."""
    kept = os.memfd_create("mount", os.MFD_CLOEXEC)
    before = os.dup(2)
    os.dup2(kept, 2)
    try:
        yield lambda: os.pread(kept, 4096, 0).decode(errors="replace").split("\n")[:-1]
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(kept)


async def _announce(mountpoint: str, options: MountOptions, ready: Callable[[], None]) -> None:
    # In a thread: this very loop has to answer it.
    status = await trio.to_thread.run_sync(os.stat, mountpoint, abandon_on_cancel=True)
    await trio.to_thread.run_sync(tune, status.st_dev, options)
    ready()
    notify(READY=1, STATUS=f"serving {options.source}")


async def _obey(signals: AsyncIterator[int], mountpoint: str, serving: trio.CancelScope) -> None:
    async for number in signals:
        if number == signal.SIGUSR2:
            toggle_debug()
            continue
        log.info("%s: unmounting %s", signal.Signals(number).name, mountpoint)
        await _end(mountpoint)
        serving.cancel()
        return


async def _watch(alarms: AsyncIterator[int], device: int, serving: trio.CancelScope) -> None:
    """Every second, end if the kernel has: pyfuse3 alone would wait for requests in threads that nobody awaits.

    The alarm itself also frees a loop that is stuck in read(2), with the interpreter's lock held: pyfuse3 reads when
    epoll says that there is a request, but its caller may be killed in between, and then there is none. The signal ends
    that read with EINTR, and pyfuse3 goes back to epoll.
    """
    connection = select.poll()
    connection.register(device, 0)  # only POLLERR: unmounted, and nobody uses what was detached
    async for _ in alarms:
        if connection.poll(0):
            serving.cancel()


async def _end(mountpoint: str) -> None:
    """Unmount, detaching what is in use. In a thread: the kernel may have to write back through this very loop."""
    notify(STOPPING=1)
    try:
        await trio.to_thread.run_sync(unmount_or_detach, mountpoint)
    except ArtfsError as error:
        log.error("%s", error)  # noqa: TRY400 - foreseen: the sentence is enough


async def _drain(adapter: Operations) -> None:
    """Give threads whose requests were abandoned a moment, before the tree is closed under them."""
    with trio.move_on_after(DRAIN):
        while adapter.threads_running:  # noqa: ASYNC110 - threads of an ended request have no event to set
            await trio.sleep(0.02)
    if adapter.threads_running:
        log.warning("%d requests still wait for data: left alone", adapter.threads_running)
