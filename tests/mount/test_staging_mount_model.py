"""The state machine of the staging tree once more, over the real mount: kernel caches, mmap and remounts included."""

import mmap
import os
import subprocess
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import initialize, run_state_machine_as_test
from writable_mount import WritableMount

from program import Program, end  # isort: skip - found by writable_mount

from staging_base import EXCHANGE, NOREPLACE, renameat2, snapshot_of  # isort: skip - found by writable_mount
from test_staging_model import Model  # isort: skip


class MountedStage:
    """A ``Stage`` reached through the kernel; what stands for an inode is a descriptor."""

    def __init__(self, directory, content):
        self.directory = directory
        self.mounted = WritableMount(directory, content)
        self.root = self.mounted.mount()
        self.tree = self.calls()

    def calls(self):
        """What stands for the tree's own operations."""
        return SimpleNamespace(
            open=lambda _: None,
            release=os.close,
            write=lambda descriptor, offset, data, _: os.pwrite(descriptor, data, offset),
            read=lambda descriptor, offset, size, _: os.pread(descriptor, size, offset),
            attributes=lambda descriptor, _: SimpleNamespace(
                size=os.fstat(descriptor).st_size, nlink=os.fstat(descriptor).st_nlink
            ),
            sync_file=lambda descriptor, data_only: (os.fdatasync if data_only else os.fsync)(descriptor),
            sync=self.sync,
        )

    def at(self, path):
        return os.path.join(self.root, path)

    def sync(self):
        descriptor = os.open(self.root, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def reopen(self):
        self.mounted.unmount()
        self.mounted.mount()

    def close(self):
        self.mounted.unmount()
        staged = self.mounted.staged()
        assert staged.snapshot() == snapshot_of(self.directory / "plain")
        staged.close()

    def abandon(self):
        subprocess.run(["umount", "-l", self.root], check=False, capture_output=True)

    def file(self, path):
        return os.open(self.at(path), os.O_RDWR)

    def create(self, path):
        os.close(os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644))

    def write(self, path, offset, data):
        descriptor = os.open(self.at(path), os.O_WRONLY)
        os.pwrite(descriptor, data, offset)
        os.close(descriptor)

    def mapped_write(self, path, offset, data):
        with open(self.at(path), "r+b") as file, mmap.mmap(file.fileno(), 0) as area:
            area[offset : offset + len(data)] = data

    def read(self, path, offset=0, size=1 << 30):
        with open(self.at(path), "rb") as file:
            return os.pread(file.fileno(), size, offset)

    def truncate(self, path, size):
        os.truncate(self.at(path), size)

    def chmod(self, path, mode):
        os.chmod(self.at(path), mode)

    def utime(self, path, mtime_ns):
        os.utime(self.at(path), ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def mkdir(self, path):
        os.mkdir(self.at(path), 0o755)

    def rmdir(self, path):
        os.rmdir(self.at(path))

    def unlink(self, path):
        os.unlink(self.at(path))

    def symlink(self, target, path):
        os.symlink(target, self.at(path))

    def link(self, old, new):
        os.link(self.at(old), self.at(new), follow_symlinks=False)

    def rename(self, old, new, *, replace=True, exchange=False):
        renameat2(self.at(old), self.at(new), EXCHANGE if exchange else 0 if replace else NOREPLACE)

    def listdir(self, path="", batch=None):
        return os.listdir(self.at(path))

    def snapshot(self):
        return snapshot_of(self.root)


class MountedModel(Model):
    """The same rules; differences from the base are looked at without a mount."""

    compare_changes = None

    def make_stage(self, content):
        return MountedStage(self.directory, content)

    def teardown(self):
        try:
            super().teardown()
        finally:
            if hasattr(self, "stage"):
                self.stage.abandon()


class PublishedStage(MountedStage):
    """A collection mounted by the program; in the end its draft, mounted read-only, is held against the plain tree."""

    def __init__(self, directory, content):
        self.directory = directory
        self.program = Program(directory / "home")
        self.root = directory / "mnt"
        self.root.mkdir()
        self.program.run("mount", "--writable", "--type", "dataset", "model/tree", self.root)
        self.tree = self.calls()

    def reopen(self):
        """Going on with the draft would make two files of what a hard link joins."""

    def close(self):
        draft = self.program.out("umount", self.root)
        expected = unlinked(snapshot_of(self.directory / "plain"))
        if not draft:
            assert expected == {}
            return
        with self.program.mounted(draft, self.directory / "draft") as mount:
            assert unlinked(snapshot_of(mount.path)) == expected

    def abandon(self):
        end(self.root)


def unlinked(snapshot):
    """A snapshot without what a version does not keep: how many links a file has, and modes of symlinks."""
    return {path: (*what[:2], *what[3:]) if what[0] == "file" else what for path, what in snapshot.items()}


class PublishedModel(MountedModel):
    def make_stage(self, content):
        return PublishedStage(self.directory, content)

    @initialize()
    def begin(self):
        super().begin(based=False)


PROFILE = settings(
    max_examples=10, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)


def test_the_mount_is_a_directory():
    run_state_machine_as_test(MountedModel, settings=PROFILE)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_the_mount_is_a_directory_for_long():
    run_state_machine_as_test(MountedModel, settings=settings(PROFILE, max_examples=1000))


def test_the_draft_is_that_directory():
    # SEMANTICS: **What survives publication**: paths, bytes, permission bits
    run_state_machine_as_test(PublishedModel, settings=settings(PROFILE, max_examples=2, stateful_step_count=150))


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_the_draft_is_that_directory_for_long():
    run_state_machine_as_test(PublishedModel, settings=settings(PROFILE, max_examples=200, stateful_step_count=120))
