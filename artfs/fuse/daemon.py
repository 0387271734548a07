"""Start the process that serves a mount: in the background, answering for how it went, or right here."""

from __future__ import annotations

import faulthandler
import logging
import logging.handlers
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from io import TextIOWrapper
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn, cast

from artfs.errors import ArtfsError, MountFailed, local_error
from artfs.fuse.engines import choose
from artfs.fuse.failures import why_not_mounted
from artfs.fuse.mountpoint import canonical, is_adoptable, preflight
from artfs.fuse.options import MountOptions

if TYPE_CHECKING:
    from artfs.fuse.operations import Operations
    from artfs.vfs.tree import Tree

log = logging.getLogger(__name__)

LOG_SIZE = 10 << 20
LOG_FILES = 3
FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s"


class PrivateLogFile(logging.handlers.RotatingFileHandler):
    """A rotating log that only its owner reads: names of files and buckets are in it.

    Several processes of a mount may have it: each follows when another has rotated it.
    """

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 - logging's name
        """Whether the file is full; looks first whether it still is the file."""
        if self.stream is not None and not _is_at(self.baseFilename, self.stream):
            self.stream.close()
            self.stream = self._open()
        return bool(super().shouldRollover(record))

    def _open(self) -> TextIOWrapper:
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | os.O_CLOEXEC, 0o600)

        return cast("TextIOWrapper", open(self.baseFilename, self.mode, encoding="utf-8", opener=opener))


def _is_at(path: str, stream: IO[str]) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def configure_logging(log_file: Path | None, *, level: int = logging.INFO) -> None:
    """Send the log of this process to a file, or to stderr (and so to the journal); replaces what was configured."""
    if log_file is None:
        handler: logging.Handler = logging.StreamHandler()
    else:
        try:
            log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handler = PrivateLogFile(log_file, maxBytes=LOG_SIZE, backupCount=LOG_FILES)
        except OSError as error:
            raise local_error(log_file, error, what="the log") from error
    logging.basicConfig(level=level, format=FORMAT, handlers=[handler], force=True)
    for chatty in ("pyfuse3", "trio", "botocore", "boto3", "urllib3"):  # silent about files and costly at DEBUG
        logging.getLogger(chatty).setLevel(logging.INFO)


def mount_in_foreground(
    make_tree: Callable[[], Tree],
    path: str | os.PathLike[str],
    options: MountOptions,
    *,
    runtime_dir: Path,
    operations: Callable[[Tree, MountOptions], Operations] | None = None,
    adopt: bool = False,
    closing: float = 5.0,
    level: int = logging.INFO,
) -> None:
    """Mount and serve in this process until it is unmounted, logging to stderr. Raises ``MountFailed``.

    ``make_tree``, ``operations`` and ``adopt`` are as for ``mount_in_background``.
    """
    mountpoint, adopted = _prepare(path, options, adopt)
    configure_logging(None, level=level)
    _serve(make_tree, mountpoint, options, _nothing, runtime_dir, operations, closing, adopted)
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        # The interpreter would wait for them, and so for a network that hangs: they have nothing left to deliver.
        logging.shutdown()
        os._exit(0)


def mount_in_background(
    make_tree: Callable[[], Tree],
    path: str | os.PathLike[str],
    options: MountOptions,
    *,
    log_file: Path | None,
    runtime_dir: Path,
    start: float = 60.0,
    operations: Callable[[Tree, MountOptions], Operations] | None = None,
    adopt: bool = False,
    closing: float = 5.0,
    level: int = logging.INFO,
) -> int:
    """Mount in a daemon of its own session; its process id, once the mount answers. ``log_file`` is its own.

    ``make_tree`` runs in the daemon, with the direct engine in each of its workers, also in those that replace others:
    what has threads or connections must be made there, not before, and every tree must be the same. ``operations`` is
    an adapter for pyfuse3. ``adopt`` takes over what the direct engine has mounted there, if its supervisor is gone.
    Raises what kept the daemon from starting, as ``MountFailed`` if it was no ``ArtfsError`` or took longer than
    ``start`` seconds.
    """
    mountpoint, adopted = _prepare(path, options, adopt)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        _become_daemon(receiver)
        _daemon(
            sender,
            lambda ready: _serve(make_tree, mountpoint, options, ready, runtime_dir, operations, closing, adopted),
            mountpoint,
            log_file,
            level,
        )
    sender.close()
    os.waitpid(child, 0)
    with receiver:
        return _await(receiver, mountpoint, log_file, start)


def _prepare(path: str | os.PathLike[str], options: MountOptions, adopt: bool) -> tuple[str, bool]:
    """The mount point, and whether there is a mount on it to take over."""
    if adopt and is_adoptable(path):
        return canonical(path), True
    return preflight(path, options), False


def _serve(
    make_tree: Callable[[], Tree],
    mountpoint: str,
    options: MountOptions,
    ready: Callable[[], None],
    runtime_dir: Path,
    operations: Callable[[Tree, MountOptions], Operations] | None,
    closing: float,
    adopted: bool,
) -> None:
    engine = choose(options, mountpoint)
    if adopted or (operations is None and engine == "direct"):
        from artfs.fuse.direct import supervisor

        mounting = supervisor.Mounting(make_tree, mountpoint, options, runtime_dir, closing)
        (supervisor.adopt if adopted else supervisor.serve)(mounting, ready)
        return

    from artfs.fuse.operations import Operations
    from artfs.fuse.serve import serve

    adapter = operations or Operations
    serve(make_tree, mountpoint, options, ready, runtime_dir=runtime_dir, operations=adapter, closing=closing)


def _nothing() -> None:
    """Whoever waits for a foreground mount is told through the service manager."""


def _await(receiver: Connection, mountpoint: str, log_file: Path | None, start: float) -> int:
    see = f"; see {log_file}" if log_file else ""
    pid = 0
    end = time.monotonic() + start
    try:
        while receiver.poll(max(0.0, end - time.monotonic())):
            message = receiver.recv()
            if isinstance(message, ArtfsError):
                raise message
            if message is None:
                return pid
            pid = int(message)
    except EOFError:
        raise MountFailed(mountpoint=mountpoint, why=f"its process died while starting{see}") from None
    except BaseException:
        _stop(pid)
        raise
    _stop(pid)
    raise MountFailed(mountpoint=mountpoint, why=f"it did not answer within {start:g} s{see}")


def _stop(pid: int) -> None:
    if pid:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return


def _become_daemon(receiver: Connection) -> None:
    """Leave the terminal, the session and the directory of whoever started us (daemon(7))."""
    receiver.close()
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup meant the caller
    Path("/proc/self/comm").write_text("artfs")  # for ps and top; the command line, which names the mount, stays
    nothing = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)


def _daemon(
    sender: Connection,
    work: Callable[[Callable[[], None]], None],
    mountpoint: str,
    log_file: Path | None,
    level: int,
) -> NoReturn:
    """Run ``work`` and report on ``sender``. Ends with _exit: the caller's stack above us is not ours to unwind."""
    status = 1

    def ready() -> None:
        sender.send(None)
        sender.close()

    try:
        sender.send(os.getpid())
        configure_logging(log_file, level=level)
        if log_file is not None:
            _crashes_to(log_file)
        work(ready)
        status = 0
    except ArtfsError as error:
        log.error("%s", error)  # noqa: TRY400 - foreseen: the sentence is enough
        _report(sender, error)
    except BaseException as error:
        log.exception("%s ended", mountpoint)
        _report(sender, why_not_mounted(error, mountpoint))
    finally:
        logging.shutdown()
        os._exit(status)


def _crashes_to(log_file: Path) -> None:
    """Libraries' last words on stderr, and the stacks of a crash, belong in the log too."""
    stderr = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    os.dup2(stderr, 2)
    os.close(stderr)
    faulthandler.enable(2)


def _report(sender: Connection, error: ArtfsError) -> None:
    if sender.closed:
        return  # it had been ready: the log is all there is
    try:
        sender.send(error)
    except (pickle.PicklingError, TypeError, AttributeError):  # a field that does not travel; the sentence does
        sender.send(type(error)(str(error)))
    except OSError:  # nobody waits any more
        return
