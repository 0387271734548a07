"""The processes of the direct engine: what happens to readers when one of them dies, hangs or is told to end."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import attrs
import pytest
from daemons import Mounted, alive, umount, wait_until
from memory_tree import BlockingTree, HugeTree, MemoryTree
from test_mount_life import AS_NOBODY

from artfs.errors import MountFailed
from artfs.fuse import MountOptions, mount_in_background, mounts, parse_options, unmount
from artfs.fuse.direct.protocol import Flag
from artfs.fuse.engines import choose
from artfs.fuse.mountpoint import mounted_on
from artfs.vfs.tree import WouldBlock

KILLED = r"worker \d+ ended of SIGKILL: replaced"


@pytest.fixture
def engine():
    return "direct"


def workers(mount):
    return [worker["pid"] for worker in mount.statistics()["workers"] if worker["pid"]]


def all_serve(mount, count=2):
    """The processes, once all serve."""
    wait_until(lambda: len(workers(mount)) == count, "the workers serve")
    return workers(mount)


def content(name):
    return hashlib.shake_256(name.encode()).digest(50_000)


READER = """
import hashlib, os, random, sys
root, seed = sys.argv[1:]
names = sorted(os.listdir(root))
chosen = random.Random(seed)
done = 0
print("reading", flush=True)
while not os.path.exists(root + "-stop"):
    name = chosen.choice(names)
    descriptor = os.open(os.path.join(root, name), os.O_RDONLY)
    data = os.read(descriptor, 1 << 20)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    assert data == hashlib.shake_256(name.encode()).digest(50_000), name
    done += 1
print(done)
"""


def test_kill_9_of_workers_under_load_fails_no_read(mounted):
    names = [f"{number:03d}" for number in range(150)] + [f"slow-{number}" for number in range(50)]
    mount = mounted(BlockingTree({name: content(name) for name in names}))
    mount.log.expect(KILLED, None)
    all_serve(mount)
    readers = [
        subprocess.Popen(
            [sys.executable, "-S", "-c", READER, mount.path, str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(3)
    ]
    for reader in readers:
        assert reader.stdout.readline() == "reading\n"
    kills = 0
    for turn in range(40):
        victim = workers(mount)[turn % 2]
        try:
            os.kill(victim, signal.SIGKILL)
            kills += 1
        except ProcessLookupError:
            continue  # the statistics were a moment older than its death
        wait_until(lambda gone=victim: gone not in workers(mount), "it is replaced")
    Path(f"{mount.path}-stop").touch()
    for reader in readers:
        done, complaint = reader.communicate(timeout=20)
        assert reader.returncode == 0, complaint
        assert int(done) > 0
    assert kills > 30
    assert mount.log.count(KILLED) == kills


def test_all_workers_killed_at_once_are_replaced(mounted):
    mount = mounted(MemoryTree({"f": b"x" * 5000}))
    mount.log.expect(KILLED, 2)
    killed = all_serve(mount)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert (mount.path / "f").read_bytes() == b"x" * 5000
    wait_until(lambda: not {*killed} & {*workers(mount)}, "both are replaced")


def test_a_worker_that_is_terminated_is_replaced(mounted):
    mount = mounted(MemoryTree({"f": b"x" * 5000}))
    mount.log.expect(r"worker \d+ ended with status 0: replaced")
    victim = all_serve(mount)[0]
    os.kill(victim, signal.SIGTERM)
    wait_until(lambda: victim not in workers(mount), "it is replaced")
    assert (mount.path / "f").read_bytes() == b"x" * 5000


class Poisoned(MemoryTree):
    """Whoever reads a poisoned file dies of it."""

    def read(self, inode, offset, size, deadline, room=None):
        name = self._nodes[inode][0]
        if name == "poison" or (name == "poison-in-thread" and deadline is not None):
            os._exit(3)
        if name == "poison-in-thread":
            raise WouldBlock
        return super().read(inode, offset, size, deadline)


@pytest.mark.parametrize("name", ["poison", "poison-in-thread"])
def test_a_request_that_kills_every_worker_fails_in_the_end(mounted, name):
    mount = mounted(Poisoned({name: b"x", "f": b"fine"}))
    mount.log.expect(r"worker \d+ ended with status 3: replaced", None)
    mount.log.expect(r"(read of inode 2|a request in a thread) failed: [34] workers died of it", None)
    descriptor = os.open(mount.path / name, os.O_RDONLY)
    with pytest.raises(OSError, match="Input/output error") as caught:
        os.read(descriptor, 10)
    os.close(descriptor)
    assert caught.value.errno == errno.EIO
    assert (mount.path / "f").read_bytes() == b"fine"
    # The kernel tries a failed readahead once more, as another request. That one may be read just before what the last
    # death left is queued again, and with it: then two workers have it, and one more may die.
    assert mount.log.count("ended with status 3") <= 2 * (3 + 1)


class PoisonedListing(HugeTree):
    """Whoever goes on with the listing dies of it: first who makes the next page ahead, then who is asked for it."""

    def list(self, inode, cookie, deadline):
        if cookie:
            os._exit(3)
        return super().list(inode, cookie, deadline)


def test_a_listing_that_kills_every_worker_fails_in_the_end(mounted):
    mount = mounted(PoisonedListing(10_000))
    mount.log.expect(r"worker \d+ ended with status 3: replaced", None)
    mount.log.expect(r"readdirplus of inode 1 failed: [34] workers died of it")
    with pytest.raises(OSError, match="Input/output error"):
        os.listdir(mount.path)
    assert (mount.path / "000007").stat().st_size == 9
    # Three of the request, or four when two workers had it, and those that made the page ahead: each restart answers
    # one first page at most.
    assert mount.log.count("ended with status 3") <= 2 * (3 + 1)


def test_a_hung_worker_is_replaced_and_its_request_answered(mounted, tmp_path, monkeypatch):
    monkeypatch.setattr("artfs.fuse.direct.pool.HUNG", 0.4)
    monkeypatch.setattr("artfs.fuse.direct.supervisor.TICK", 0.1)

    class HangingOnce(MemoryTree):
        def read(self, inode, offset, size, deadline, room=None):
            if not (tmp_path / "hung").exists():
                (tmp_path / "hung").touch()
                threading.Event().wait()
            return super().read(inode, offset, size, deadline)

    mount = mounted(HangingOnce({"f": b"content"}))
    mount.log.expect(r"worker \d+ has not answered a request within 0.4 s: replaced")
    mount.log.expect(KILLED)
    assert (mount.path / "f").read_bytes() == b"content"


def test_trees_are_made_where_they_serve_and_nowhere_else(mounted, tmp_path):
    class Telling(MemoryTree):
        def __init__(self):
            super().__init__({"f": b"x"})
            (tmp_path / f"made-{os.getpid()}").touch()

    mount = mounted(None, make_tree=Telling)
    mount.log.expect(KILLED)
    first = all_serve(mount)
    os.kill(first[0], signal.SIGKILL)
    wait_until(lambda: first[0] not in workers(mount), "it is replaced")
    made = {int(path.name.removeprefix("made-")) for path in tmp_path.glob("made-*")}
    assert made == {*first, *workers(mount)}
    assert mount.pid not in made


def test_a_tree_that_cannot_be_made_again_is_tried_again(mounted, tmp_path):
    class Unreachable(MemoryTree):
        def __init__(self):
            if (tmp_path / "down").exists():
                raise MountFailed(mountpoint="x", why="the network is down")
            super().__init__({"f": b"content"})

    mount = mounted(None, make_tree=Unreachable)
    mount.log.expect(KILLED, 2)
    mount.log.expect("a worker cannot serve: .*the network is down", None)
    pids = all_serve(mount)
    (tmp_path / "down").touch()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    mount.log.wait_for("a worker cannot serve")
    (tmp_path / "down").unlink()
    assert (mount.path / "f").read_bytes() == b"content"  # it waits for the next worker
    wait_until(lambda: not {*pids} & {*workers(mount)}, "both are replaced")


# -- signals ------------------------------------------------------------------------------------------------------


def test_a_reader_that_waits_for_a_name_can_be_killed(mounted):
    mount = mounted(BlockingTree({"d/hang-lookup": b""}))
    mount.log.expect("left alone", None)
    with subprocess.Popen(["stat", mount.path / "d/hang-lookup"], stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: mount.statistics()["fuse"]["waiting"], "it waits")
        process.kill()
        assert process.wait(5) == -signal.SIGKILL
    wait_until(lambda: not mount.statistics()["fuse"]["waiting"], "the request is answered")


ALARMED = """
import os, signal, sys
heard = []
signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
os.stat(sys.argv[1])  # Python does not try this again after EINTR
signal.setitimer(signal.ITIMER_REAL, 0)  # at its end Python lets the signal kill it
assert heard
"""


def test_a_signal_that_does_not_kill_does_not_fail_a_request(mounted):
    class Slow(MemoryTree):
        def lookup(self, parent, name, deadline):
            if deadline is None:
                raise WouldBlock
            time.sleep(0.5)
            return super().lookup(parent, name, deadline)

    mount = mounted(Slow({"f": b""}))
    subprocess.run([sys.executable, "-S", "-c", ALARMED, mount.path / "f"], check=True)
    assert mount.requests("interrupt") == 1


# -- without a supervisor -----------------------------------------------------------------------------------------


def orphaned(mount):
    """Kill the supervisor; the workers that go on."""
    pids = all_serve(mount)
    os.kill(mount.pid, signal.SIGKILL)
    wait_until(lambda: not alive(mount.pid), "the supervisor is dead")
    return pids


def test_without_a_supervisor_reads_go_on_and_unmounting_works(mounted, runtime_dir):
    mount = mounted(MemoryTree({"f": b"x" * 5000, "g": b"y"}))
    pids = orphaned(mount)
    assert (mount.path / "f").read_bytes() == b"x" * 5000
    (found,) = [each for each in mounts(runtime_dir) if each.mountpoint == str(mount.path)]
    assert (found.pid, found.stale) == (None, False)
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: not alive(pids[0]), "a worker is dead, too")
    assert (mount.path / "g").read_bytes() == b"y"
    unmount(mount.path, runtime_dir=runtime_dir, deadline=time.monotonic() + 10)
    wait_until(lambda: not alive(pids[1]), "the last worker ends")
    mounted(MemoryTree({"again": b"x"}))
    assert os.listdir(mount.path) == ["again"]


def adopt(mount, tree, runtime_dir):
    options = attrs.evolve(parse_options(""), engine="direct", workers=2)
    pid = mount_in_background(
        lambda: tree, mount.path, options, log_file=mount.log.path, runtime_dir=runtime_dir, start=20, adopt=True
    )
    mount.pid = pid


def test_a_mount_is_adopted(mounted, runtime_dir):
    tree = MemoryTree({"f": b"x" * 5000, "g": b"y"})
    mount = mounted(tree)
    mount.log.expect(KILLED + r"|worker \d+ ended: replaced")
    device = os.stat(mount.path).st_dev
    first, second = orphaned(mount)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not alive(first), "a worker is dead, too")
    adopt(mount, tree, runtime_dir)
    (found,) = [each for each in mounts(runtime_dir) if each.mountpoint == str(mount.path)]
    assert found.pid == mount.pid
    wait_until(lambda: first not in workers(mount), "the dead worker is replaced")
    assert second in workers(mount)
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: second not in workers(mount), "the adopted worker is replaced")
    assert (mount.path / "f").read_bytes() == b"x" * 5000
    assert os.stat(mount.path).st_dev == device
    mount.terminate()
    assert mounted_on(str(mount.path)) is None
    assert list((runtime_dir / "mounts").iterdir()) == []


def test_only_what_lost_its_supervisor_is_adopted(mounted, runtime_dir):
    tree = MemoryTree({"f": b"x"})
    mount = mounted(tree)
    with pytest.raises(MountFailed, match="another artfs process serves it"):
        adopt(Mounted(mount.path, None, mount.log), tree, runtime_dir)
    mount.log.expect("another artfs process serves it")
    unmount(mount.path, runtime_dir=runtime_dir, deadline=time.monotonic() + 10)
    adopt(mount, tree, runtime_dir)  # nothing there: an ordinary mount
    assert os.listdir(mount.path) == ["f"]
    mount.terminate()


# -- without root --------------------------------------------------------------------------------------------------

USER = """
    import os, sys, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from memory_tree import MemoryTree
    from artfs.fuse import MountOptions, mount_in_background, unmount
    base = Path(sys.argv[1])
    options = MountOptions(engine="direct", workers=2)
    mount_in_background(lambda: MemoryTree(dict(f=b"mine")), base / "mnt", options, log_file=None,
                        runtime_dir=base / "run")
    assert (base / "mnt/f").read_bytes() == b"mine"
    assert b'"engine": "direct"' in os.getxattr(base / "mnt", "user.artfs.statistics")
    unmount(base / "mnt", runtime_dir=base / "run", deadline=time.monotonic() + 10)
    assert os.listdir(base / "mnt") == []
"""


def test_a_user_mounts_without_root():
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    with tempfile.TemporaryDirectory(prefix="artfs-direct-") as base:
        (Path(base) / "mnt").mkdir()
        os.chown(base, 65534, 65534)
        os.chown(Path(base) / "mnt", 65534, 65534)
        program = textwrap.dedent(USER.format(tests=str(Path(__file__).parent)))
        ran = subprocess.run(
            ["unshare", "-m", "sh", "-e", "-c", AS_NOBODY, base, "", sys.executable, program],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",
        )
        assert ran.returncode == 0, ran.stderr


# -- older kernels ------------------------------------------------------------------------------------------------


def test_without_resend_a_killed_worker_costs_its_requests_only(mounted, monkeypatch):
    from artfs.fuse.direct import session

    monkeypatch.setattr(session, "WANTED", session.WANTED & ~Flag.HAS_RESEND)
    mount = mounted(BlockingTree({"d/hang-lookup": b"", "f": b"x" * 5000}), "workers=1")
    mount.log.expect(KILLED)
    (pid,) = all_serve(mount, 1)
    with subprocess.Popen(["stat", mount.path / "d/hang-lookup"], stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: mount.statistics()["fuse"]["waiting"], "it waits")
        os.kill(pid, signal.SIGKILL)
        assert process.wait(5) == 1
    assert (mount.path / "f").read_bytes() == b"x" * 5000


def test_a_worker_that_is_told_twice_to_end_gives_its_threads_their_moment(mounted, monkeypatch):
    """The kernel says that the mount has ended, and SIGTERM comes before the worker has begun to ignore it."""
    real = signal.signal

    def late(number, handler):
        if (number, handler) == (signal.SIGTERM, signal.SIG_IGN) and not told:
            told.append(os.getpid())
            os.kill(os.getpid(), signal.SIGTERM)
        return real(number, handler)

    told = []
    monkeypatch.setattr("artfs.fuse.direct.worker.signal.signal", late)
    mount = mounted(BlockingTree({"stuck": b"s"}), "workers=1")
    mount.log.expect("left alone")
    with subprocess.Popen(["cat", mount.path / "stuck"], stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: mount.statistics()["fuse"]["waiting"], "it waits")
        process.kill()
    umount(mount.path)
    mount.wait_for_end()


# -- which engine -------------------------------------------------------------------------------------------------


def test_the_engine_is_what_the_options_say(mounted):
    assert choose(MountOptions(engine="direct"), "/m") == "direct"
    assert choose(MountOptions(engine="pyfuse3"), "/m") == "pyfuse3"
    assert choose(MountOptions(read_only=False), "/m") == "pyfuse3"
    with pytest.raises(MountFailed, match="read-only mounts only"):
        choose(MountOptions(engine="direct", read_only=False), "/m")
    assert mounted(MemoryTree({}), "workers=3").statistics()["engine"] == "direct"


def test_statistics_are_of_all_workers(mounted):
    mount = mounted(BlockingTree({**{f"f{number}": b"x" for number in range(60)}, "gone": b"g"}))
    all_serve(mount)
    mount.log.expect("gone", None)
    with pytest.raises(OSError, match="Input/output"):
        (mount.path / "gone").read_bytes()
    for number in range(60):
        assert (mount.path / f"f{number}").read_bytes() == b"x"
    shown = json.loads(os.getxattr(mount.path, "user.artfs.statistics"))
    assert shown["fuse"]["requests"]["read"] >= 60
    assert shown["fuse"]["errors"]["EIO"] >= 1
    assert [worker["starts"] for worker in shown["workers"]] == [1, 1]
