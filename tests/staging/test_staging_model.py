"""The staging tree against a plain directory: the same operations, the same outcome, in any order."""

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule, run_state_machine_as_test
from staging_base import EXCHANGE, MTIME, NOREPLACE, Link, Stage, far, renameat2, snapshot_of

from artfs.catalog import Catalog, Change

NAMES = ["a", "b", "a-", "long" * 20]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
OFFSETS = st.sampled_from([0, 1, 4095, 4096, 5000, 100_000])
SIZES = st.sampled_from([0, 1, 100, 4096, 9000])
TARGETS = ["/dev/null", "/dev/./zero"]  # what is there and no directory: a path through it fails with ENOTDIR
BASE = {
    "a/a": bytes(range(256)) * 40,
    "a/b/a": b"deep",
    "a/b/a-": b"",
    "a-": b"x" * 5000,
    "b/a": Link("/dev/null"),
    "b/b": None,
    "b/a-/b": b"12345",
}


def materialise(root, content):
    """A description as files of a directory."""
    for path, value in content.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if value is None:
            target.mkdir(exist_ok=True)
        elif isinstance(value, Link):
            target.symlink_to(value)
        else:
            target.write_bytes(value)
    for directory, names, files in os.walk(root, topdown=False):
        for name in names + files:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                os.chmod(path, 0o755 if name in names else 0o644)
                os.utime(path, ns=(MTIME, MTIME))


class Model(RuleBasedStateMachine):
    opened = Bundle("opened")

    @initialize(based=st.booleans())
    def begin(self, based):
        self.directory = Path(tempfile.mkdtemp(prefix="artfs-model-", dir="/dev/shm"))
        self.root = self.directory / "plain"
        self.root.mkdir()
        self.stage = self.make_stage(BASE if based else {})
        materialise(self.root, BASE if based else {})
        self.descriptors = {}

    def make_stage(self, content):
        return Stage(self.directory, content)

    def both(self, plain, staged):
        """Run both; they fail alike or not at all. Returns the plain one's result, or None."""
        outcomes = []
        for operation in (plain, staged):
            try:
                outcomes.append((None, operation()))
            except OSError as error:
                outcomes.append((errno.errorcode[error.errno], None))
        assert outcomes[0][0] == outcomes[1][0], outcomes
        return outcomes

    def at(self, path):
        return os.path.join(self.root, path)

    # -- names

    @rule(path=PATHS)
    def create(self, path):
        def plain():
            os.close(os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644))

        self.both(plain, lambda: self.stage.create(path))

    @rule(path=PATHS)
    def mkdir(self, path):
        self.both(lambda: os.mkdir(self.at(path), 0o755), lambda: self.stage.mkdir(path))

    @rule(path=PATHS)
    def rmdir(self, path):
        self.both(lambda: os.rmdir(self.at(path)), lambda: self.stage.rmdir(path))

    @rule(path=PATHS)
    def unlink(self, path):
        self.both(lambda: os.unlink(self.at(path)), lambda: self.stage.unlink(path))

    @rule(path=PATHS, to=st.sampled_from(TARGETS))
    def symlink(self, path, to):
        self.both(lambda: os.symlink(to, self.at(path)), lambda: self.stage.symlink(to, path))

    @rule(old=PATHS, new=PATHS)
    def link(self, old, new):
        def plain():
            os.link(self.at(old), self.at(new), follow_symlinks=False)

        if os.path.isdir(self.at(old)) and not os.path.islink(self.at(old)) and os.path.lexists(self.at(new)):
            return  # EPERM or EEXIST, as the file system likes
        self.both(plain, lambda: self.stage.link(old, new))

    @rule(old=PATHS, new=PATHS, flags=st.sampled_from([0, 0, 0, NOREPLACE, EXCHANGE]))
    def rename(self, old, new, flags):
        if old.startswith(new + "/") or new.startswith(old + "/"):
            return  # the kernel answers before the file system does, in an order of its own

        def staged():
            self.stage.rename(old, new, replace=flags != NOREPLACE, exchange=flags == EXCHANGE)

        self.both(lambda: renameat2(self.at(old), self.at(new), flags), staged)

    # -- content

    @rule(path=PATHS, offset=OFFSETS, size=SIZES, fill=st.integers(1, 255))
    def write(self, path, offset, size, fill):
        data = bytes([fill]) * size
        if os.path.islink(self.at(path)):
            return

        def plain():
            descriptor = os.open(self.at(path), os.O_WRONLY)
            os.pwrite(descriptor, data, offset)
            os.close(descriptor)

        if size:
            self.both(plain, lambda: self.stage.write(path, offset, data))

    @rule(path=PATHS, offset=OFFSETS, data=st.binary(min_size=1, max_size=9))
    def mapped_write(self, path, offset, data):
        if not os.path.isfile(self.at(path)) or os.path.islink(self.at(path)):
            return
        if offset + len(data) <= os.path.getsize(self.at(path)):
            with open(self.at(path), "r+b") as file:
                os.pwrite(file.fileno(), data, offset)
            self.stage.mapped_write(path, offset, data)

    @rule(path=PATHS, size=OFFSETS)
    def truncate(self, path, size):
        if not os.path.islink(self.at(path)):
            self.both(lambda: os.truncate(self.at(path), size), lambda: self.stage.truncate(path, size))

    @rule(path=PATHS, offset=OFFSETS, size=SIZES)
    def read(self, path, offset, size):
        if not os.path.isfile(self.at(path)) or os.path.islink(self.at(path)):
            return
        with open(self.at(path), "rb") as file:
            assert self.stage.read(path, offset, size) == os.pread(file.fileno(), size, offset)

    @rule(path=PATHS, mode=st.sampled_from([0o644, 0o755, 0o600]))
    def chmod(self, path, mode):
        if not os.path.islink(self.at(path)):
            self.both(lambda: os.chmod(self.at(path), mode), lambda: self.stage.chmod(path, mode))

    @rule(path=PATHS, mtime_ns=st.sampled_from([1, 1_000_000_000_000_000_001]))
    def utime(self, path, mtime_ns):
        def plain():
            os.utime(self.at(path), ns=(mtime_ns, mtime_ns), follow_symlinks=False)

        self.both(plain, lambda: self.stage.utime(path, mtime_ns))

    # -- open files

    @rule(target=opened, path=PATHS)
    def open(self, path):
        if os.path.islink(self.at(path)) or not os.path.isfile(self.at(path)):
            return None
        inode = self.stage.file(path)
        self.stage.tree.open(inode)
        descriptor = os.open(self.at(path), os.O_RDWR)
        self.descriptors[descriptor] = inode
        return descriptor

    @rule(descriptor=opened, offset=OFFSETS, data=st.binary(min_size=1, max_size=20))
    def write_open(self, descriptor, offset, data):
        if descriptor in self.descriptors:
            os.pwrite(descriptor, data, offset)
            assert self.stage.tree.write(self.descriptors[descriptor], offset, data, far()) == len(data)

    @rule(descriptor=opened)
    def read_open(self, descriptor):
        if descriptor in self.descriptors:
            inode = self.descriptors[descriptor]
            status, attributes = os.fstat(descriptor), self.stage.tree.attributes(inode, None)
            assert (status.st_size, status.st_nlink) == (attributes.size, attributes.nlink)
            assert os.pread(descriptor, 1 << 20, 0) == bytes(self.stage.tree.read(inode, 0, 1 << 20, far()))

    @rule(descriptor=opened)
    def sync_open(self, descriptor):
        if descriptor in self.descriptors:
            self.stage.tree.sync_file(self.descriptors[descriptor], data_only=False)

    @rule(descriptor=consumes(opened))
    def close(self, descriptor):
        if descriptor in self.descriptors:
            os.close(descriptor)
            self.stage.tree.release(self.descriptors.pop(descriptor))

    @rule()
    def sync(self):
        self.stage.tree.sync()

    @rule()
    def reopen(self):
        for descriptor in list(self.descriptors):
            self.close(descriptor)
        self.stage.reopen()

    # -- outcome

    @rule(path=PATHS)
    def listing(self, path):
        if os.path.isdir(self.at(path)) and not os.path.islink(self.at(path)):
            assert sorted(self.stage.listdir(path, batch=2)) == sorted(os.listdir(self.at(path)))

    @rule()
    def compare(self):
        assert self.stage.snapshot() == snapshot_of(self.root)

    @rule()
    def compare_changes(self):
        """What ``changes`` says leads from the base to what is there; content can be called changed in vain."""
        base = Catalog(self.stage.directory / "base", "base")
        tree = {entry.path for entry in base.leaves()}
        modes = {entry.path: (entry.kind.name.lower(), entry.mode) for entry in base.entries()}
        base.close()
        snapshot = self.stage.snapshot()
        now = leaves_of(snapshot)
        found = self.stage.changes()
        for change, path, old_path, _ in found:
            if change == Change.REMOVED.value:
                tree.remove(path)
            elif change == Change.RENAMED.value:
                tree.remove(old_path)
        for change, path, _, what in found:
            if change in {Change.ADDED.value, Change.RENAMED.value}:
                assert path not in tree
                tree.add(path)
            elif change == Change.CHANGED.value:
                assert path in tree or (what, snapshot[path][0]) == ("mode", "directory")
        assert tree == now
        told = {path for _, path, _, _ in found}
        for path, (kind, mode) in modes.items():
            if path in snapshot and snapshot[path][0] == kind != "symlink" and snapshot[path][1] != mode:
                assert path in told

    def teardown(self):
        if not hasattr(self, "stage"):
            return
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.directory)
            for descriptor in list(self.descriptors):
                self.close(descriptor)
            self.compare()
            if self.compare_changes is not None:
                self.compare_changes()
            self.stage.reopen()
            self.compare()
            self.stage.close()


def leaves_of(snapshot):
    """Paths but those of directories that hold something."""
    holding = {path.rpartition("/")[0] for path in snapshot}
    return {path for path, what in snapshot.items() if what[0] != "directory" or path not in holding}


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=80, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_model_for_long():
    run_state_machine_as_test(Model, settings=settings(TestModel.settings, max_examples=5000))
