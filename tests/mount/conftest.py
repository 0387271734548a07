import json
import os
import signal
import subprocess
import time
from pathlib import Path

import attrs
import pytest
from checklogs import CheckedLog
from writable_mount import BASE, WritableMount

from artfs.fuse import mount_in_background, parse_options
from artfs.fuse.mountpoint import mounted_on

if not os.path.exists("/dev/fuse"):
    collect_ignore_glob = ["test_mount_*", "test_direct_*"]


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


def clear(path, pid):
    while mounted_on(str(path)):
        subprocess.run(["umount", "-l", path], check=True)
    end = time.monotonic() + 5
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    if alive(pid):
        os.kill(pid, signal.SIGKILL)
        pytest.fail(f"the daemon {pid} did not end after its mount was gone")


@pytest.fixture
def runtime_dir(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def log(tmp_path):
    """The daemon's log; checked when the test ends."""
    checked = CheckedLog(tmp_path / "mount.log")
    yield checked
    checked.check()


@pytest.fixture
def engine():
    """Which engine ``mounted`` mounts with; a module overrides it to run its tests with both."""
    return "pyfuse3"


@pytest.fixture
def processes():
    """How many workers the direct engine serves with."""
    return 2


@pytest.fixture
def mounted(tmp_path, runtime_dir, log, engine, processes):
    """``mounted(tree, "uid=1000", ...)`` mounts a tree in a daemon of its own."""
    made = []

    def mount(tree, options="", *, make_tree=None, **settings):
        path = tmp_path / "mnt"
        path.mkdir(exist_ok=True)
        parsed = options if not isinstance(options, str) else parse_options(options)
        if parsed.engine == "auto" and parsed.read_only:
            parsed = attrs.evolve(parsed, engine=engine, workers=parsed.workers or processes)
        pid = mount_in_background(
            make_tree or (lambda: tree),
            path,
            parsed,
            log_file=log.path,
            runtime_dir=runtime_dir,
            start=20,
            **settings,
        )
        made.append((path, pid))
        return Mounted(path, pid, log)

    yield mount
    for path, pid in made:
        clear(path, pid)


@pytest.fixture
def place(tmp_path, log):
    """``place(content)`` is a mounted staging area; unmounted at the end."""
    made = []

    def make(content=None, mount=True, **keywords):
        it = WritableMount(tmp_path, BASE if content is None else content, **keywords)
        made.append(it)
        if mount:
            it.mount(log.path)
        return it

    yield make
    for each in made:
        subprocess.run(["umount", "-l", each.path], check=False, capture_output=True)
        if each.pid and alive(each.pid):
            each.unmount()


@pytest.fixture
def mnt(place):
    return place().path
