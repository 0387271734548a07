import os
import subprocess

import attrs
import pytest
from checklogs import CheckedLog
from daemons import Mounted, alive, clear
from writable_mount import BASE, WritableMount

from artfs.fuse import mount_in_background, parse_options

if not os.path.exists("/dev/fuse"):
    collect_ignore_glob = ["test_mount_*", "test_direct_*"]


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
