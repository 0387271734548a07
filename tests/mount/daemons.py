"""Mounts and their daemons, as tests look at them."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from artfs.fuse.mountpoint import mounted_on


def alive(pid):
    """Whether any thread of a process runs; a zombie that its parent has not collected does not."""
    try:
        threads = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return alive(pid)  # one ended between listing and reading
    return any(thread.rpartition(")")[2].split()[0] not in "ZX" for thread in threads)


def wait_until(condition, what, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.01)


class Mounted:
    """A mount that a test works with."""

    def __init__(self, path, pid, log):
        self.path = path
        self.pid = pid
        self.log = log

    def statistics(self):
        return json.loads(os.getxattr(self.path, "user.artfs.statistics"))

    def requests(self, kind):
        return self.statistics()["fuse"]["requests"].get(kind, 0)

    def terminate(self, number=signal.SIGTERM, seconds=10.0):
        os.kill(self.pid, number)
        self.wait_for_end(seconds)

    def wait_for_end(self, seconds=10.0):
        wait_until(lambda: not alive(self.pid), "the daemon ends", seconds)


def umount(path, *command):
    """Unmount as other programs do; a use of the mount that no process shows for, as of a file just closed, passes."""
    end = time.monotonic() + 10
    while True:
        done = subprocess.run([*(command or ["umount"]), path], check=False, capture_output=True, text=True)
        if "busy" not in done.stderr or time.monotonic() > end:
            assert done.returncode == 0, done.stderr
            return
        time.sleep(0.02)


def clear(path, pid):
    """Whatever happened, leave no mount, and no daemon where its ``pid`` is known."""
    while mounted_on(str(path)):
        subprocess.run(["umount", "-l", path], check=True)
    if pid is None:
        return
    end = time.monotonic() + 5
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    if alive(pid):
        os.kill(pid, signal.SIGKILL)
        pytest.fail(f"the daemon {pid} did not end after its mount was gone")
