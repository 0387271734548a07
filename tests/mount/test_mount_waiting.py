"""What happens to everybody else, and to the mount, while something waits or fails."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from daemons import wait_until
from memory_tree import BlockingTree, MemoryTree

READ = "import sys; sys.exit(len(open(sys.argv[1], 'rb').read()) != int(sys.argv[2]))"


@pytest.fixture(params=["pyfuse3", "direct"])
def engine(request):
    return request.param


@pytest.fixture
def processes():
    return 1  # each logs for itself


def reader(path, size=1):
    return subprocess.Popen([sys.executable, "-S", "-c", READ, path, str(size)], stderr=subprocess.DEVNULL)


def waiting(mount):
    return mount.statistics()["fuse"]["waiting"]


def test_what_would_block_is_answered_in_a_thread(mounted):
    mount = mounted(BlockingTree({"slow/file": b"x" * 5000, "slow.txt": b"slow", "quick": b"q"}))
    assert (mount.path / "slow.txt").read_bytes() == b"slow"
    assert (mount.path / "slow/file").stat().st_size == 5000
    assert sorted(os.listdir(mount.path)) == ["quick", "slow", "slow.txt"]
    assert mount.statistics()["fuse"]["threads"] > 0


def test_a_listing_that_blocks_half_way_is_complete(mounted):
    names = [f"{number:04d}" for number in range(3000)]
    names[700:700] = ["slow-a"]
    names[1500:1500] = ["slow-b"]
    mount = mounted(BlockingTree(dict.fromkeys(names, b"")))
    assert os.listdir(mount.path) == names


def test_waiting_reads_hold_up_nobody(mounted):
    tree = BlockingTree({**{f"stuck{number}": b"s" for number in range(70)}, "quick": b"q", "slow": b"s"})
    mount = mounted(tree)
    readers = [reader(mount.path / f"stuck{number}") for number in range(70)]  # more than threads for reads
    try:
        wait_until(lambda: waiting(mount) == 70, "the readers wait")
        assert (mount.path / "quick").read_bytes() == b"q"
        assert len(os.listdir(mount.path)) == 72
        assert (mount.path / "slow").stat().st_size == 1  # a lookup in a thread
    finally:
        for each in readers:
            each.kill()
    for each in readers:
        assert each.wait(5) == -signal.SIGKILL
    mount.log.expect("left alone")
    mount.terminate()


def test_a_killed_reader_is_gone_at_once_and_the_mount_lives(mounted):
    mount = mounted(BlockingTree({"stuck": b"s", "quick": b"q"}))
    process = reader(mount.path / "stuck")
    wait_until(lambda: waiting(mount), "the reader waits")
    process.kill()
    process.wait(5)
    assert (mount.path / "quick").read_bytes() == b"q"
    mount.log.expect("left alone")
    mount.terminate()


def test_a_read_that_outlives_its_deadline_fails_and_is_logged_once(mounted):
    mount = mounted(BlockingTree({"hang": b"h"}), "wait=0.3")
    mount.log.expect("read of inode 2 failed: reading hang did not finish")
    with pytest.raises(OSError, match="Input/output error"):
        (mount.path / "hang").read_bytes()


def test_a_thread_that_ignores_its_deadline_does_not_hold_its_reader(mounted, monkeypatch):
    monkeypatch.setattr("artfs.fuse.operations.GRACE", 0.2)
    monkeypatch.setattr("artfs.fuse.direct.waiting.GRACE", 0.2)
    mount = mounted(BlockingTree({"stuck": b"s"}), "wait=0.3")
    mount.log.expect("read of inode 2 failed: the request did not finish within 0.3 s")
    with pytest.raises(OSError, match="Input/output error"):
        (mount.path / "stuck").read_bytes()
    mount.log.expect("left alone")
    mount.terminate()


def test_the_unforeseen_is_one_traceback_and_the_mount_lives(mounted):
    mount = mounted(BlockingTree({"broken": b"b", "broken-lookup": b"", "quick": b"q"}))
    mount.log.expect("read of inode 2 failed: surprise in broken\nTraceback")
    mount.log.expect("lookup of inode 1 failed: surprise in broken-lookup\nTraceback")
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output error"):
            (mount.path / "broken").read_bytes()
        with pytest.raises(OSError, match="Input/output error"):
            os.stat(mount.path / "broken-lookup")
    assert (mount.path / "quick").read_bytes() == b"q"
    assert mount.statistics()["fuse"]["errors"]["EIO"] >= 6


def test_a_foreseen_failure_is_one_line(mounted):
    mount = mounted(BlockingTree({"gone": b"g", "quick": b"q"}))
    mount.log.expect(r"read of inode 2 failed: reading gone did not finish within 1 s\n$")
    with pytest.raises(OSError, match="Input/output error"):
        (mount.path / "gone").read_bytes()
    assert (mount.path / "quick").read_bytes() == b"q"


class BadAnswers(MemoryTree):
    """Answers that no tree may give, each of which would end the mount if it got through to pyfuse3."""

    def readlink(self, inode, deadline):
        return None

    def xattrs(self, inode, deadline):
        raise RuntimeError("no attributes today")

    def capacity(self):
        raise RuntimeError("no capacity today")

    def statistics(self):
        return {"set": {1, 2}}

    def list(self, inode, cookie, deadline):
        raise RuntimeError("no listing today")

    def attributes(self, inode, deadline):
        described = super().attributes(inode, deadline)
        return described if inode == 1 else None


def test_bad_answers_fail_their_request_only(mounted):
    mount = mounted(BadAnswers({"link": "x", "f": b"content"}))
    attempts = {
        "readlink of inode 2 failed: 'NoneType'": lambda: os.readlink(mount.path / "link"),
        "getxattr of inode 1 failed: no attributes": lambda: os.getxattr(mount.path, "user.x"),
        "listxattr of inode 1 failed: no attributes": lambda: os.listxattr(mount.path),
        "getxattr of inode 1 failed: Object of type set": mount.statistics,
        "statfs of inode 1 failed: no capacity": lambda: os.statvfs(mount.path),
        "readdir(plus)? of inode 1 failed: no listing": lambda: os.listdir(mount.path),
    }
    for what, attempt in attempts.items():
        mount.log.expect(what)
        with pytest.raises(OSError, match="Input/output error") as caught:
            attempt()
        assert caught.value.errno == errno.EIO
    assert (mount.path / "f").read_bytes() == b"content"


def test_sigusr2_turns_debug_logging_on_and_off(mounted):
    mount = mounted(MemoryTree({"f": b"x"}))
    os.kill(mount.pid, signal.SIGUSR2)
    mount.log.wait_for("logging at level DEBUG")
    os.kill(mount.pid, signal.SIGUSR2)
    mount.log.wait_for("logging at level INFO")
    assert (mount.path / "f").read_bytes() == b"x"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_unmount(mounted, number):
    mount = mounted(MemoryTree({"f": b"x"}))
    mount.terminate(number)
    assert not os.path.ismount(mount.path)
    assert os.listdir(mount.path) == []


def test_sigterm_while_a_reader_hangs_ends_within_seconds(mounted):
    mount = mounted(BlockingTree({"stuck": b"s", "d/hang-lookup": b""}))
    mount.log.expect("is in use by .*python")
    mount.log.expect("2 requests still wait for data: left alone")
    hanging = [reader(mount.path / "stuck"), subprocess.Popen(["stat", mount.path / "d/hang-lookup"], stderr=-3)]
    wait_until(lambda: waiting(mount) == 2, "both wait")
    began = time.monotonic()
    mount.terminate(seconds=8)
    assert time.monotonic() - began < 8
    assert not os.path.ismount(mount.path)
    for process in hanging:
        assert process.wait(5) != 0
