"""A staging area mounted for a test."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest
from daemons import umount

from artfs import faults
from artfs.fuse import MountOptions, mount_in_background
from artfs.fuse.mountpoint import mounted_on
from artfs.fuse.writable import WritableOperations

sys.path.extend(str(Path(__file__).parents[1] / place) for place in ("staging", "cli"))
from staging_base import Link, Stage

OPTIONS = attrs.evolve(MountOptions(), read_only=False, source="e/p/c")


LARGE = random.Random(1).randbytes(3 << 20)
BASE = {"dir/inner": b"inner", "dir/sub/deep": b"deep", "large": LARGE, "link": Link("large"), "empty": None}


class WritableMount:
    """Mounts a ``Stage`` in a daemon; ``unmount`` gives it back, opened here."""

    def __init__(self, directory, content=None, **keywords):
        self.directory = Path(directory)
        self.path = self.directory / "mnt"
        self.path.mkdir()
        Stage(self.directory, content, **keywords).close()
        self.pid = 0

    def mount(self, log=None, fault="", change=lambda tree: None):
        """``change`` may put something in the way of the tree, in the daemon."""

        def make_tree():
            importlib.reload(faults)  # which reads the environment once
            tree = Stage.resume(self.directory).tree
            change(tree)
            return tree

        os.environ["ARTFS_FAULT"] = fault
        try:
            self.pid = mount_in_background(
                make_tree,
                self.path,
                OPTIONS,
                log_file=log or self.directory / "log",
                runtime_dir=self.directory / "run",
                start=20,
                operations=WritableOperations,
                closing=60,
            )
        finally:
            del os.environ["ARTFS_FAULT"]
        return self.path

    def unmount(self):
        if mounted_on(str(self.path)):
            umount(self.path)
        end = time.monotonic() + 60
        while alive(self.pid):
            assert time.monotonic() < end
            time.sleep(0.01)

    def staged(self):
        """The area after the mount, by path."""
        return Stage.resume(self.directory)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextlib.contextmanager
def failing(number):
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its errno is compared below
        yield
    assert errno.errorcode[caught.value.errno] == errno.errorcode[number]


def run(*command, cwd=None, **environment):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
