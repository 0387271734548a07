"""From mounting to unmounting, and what goes wrong on the way."""

import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
from daemons import alive, clear, umount, wait_until
from memory_tree import BlockingTree, MemoryTree

from artfs.errors import DiskFull, InvalidInput, MountFailed, StoreUnavailable, UnmountFailed
from artfs.fuse import MountOptions, mount_in_background, mounts, unmount
from artfs.fuse.mountpoint import mounted_on

SOON = 10.0


@pytest.fixture(params=["pyfuse3", "direct"])
def engine(request):
    return request.param


def soon():
    return time.monotonic() + SOON


def test_the_mount_answers_as_soon_as_mounting_returns(mounted, runtime_dir):
    mount = mounted(MemoryTree({"f": b"x"}), MountOptions(source="acme/vision/mnist:v3"))
    assert os.listdir(mount.path) == ["f"]
    (found,) = [each for each in mounts(runtime_dir) if each.mountpoint == str(mount.path)]
    assert (found.source, found.pid, found.stale) == ("acme/vision/mnist:v3", mount.pid, False)
    assert abs(found.started - time.time()) < 60


def test_the_longest_source_is_shown_in_the_mount_table(mounted):
    mount = mounted(MemoryTree({}), "fsname=" + "x" * 1024)
    assert mounted_on(str(mount.path)).source == "x" * 1024


def test_the_daemon_is_its_own_session_and_holds_no_terminal(mounted):
    mount = mounted(MemoryTree({}))
    assert os.getsid(mount.pid) != os.getsid(0)
    assert os.readlink(f"/proc/{mount.pid}/cwd") == "/"
    assert os.readlink(f"/proc/{mount.pid}/fd/0") == "/dev/null"
    assert Path(f"/proc/{mount.pid}/comm").read_text() == "artfs\n"
    assert mount.log.path.stat().st_mode & 0o777 == 0o600


def test_unmount_waits_for_the_daemon_and_leaves_nothing(mounted, runtime_dir):
    mount = mounted(MemoryTree({"f": b"x"}))
    unmount(mount.path, runtime_dir=runtime_dir, deadline=soon())
    assert mounted_on(str(mount.path)) is None
    assert str(mount.path) not in [each.mountpoint for each in mounts(runtime_dir)]
    assert list((runtime_dir / "mounts").iterdir()) == []
    mount.wait_for_end(2)
    mounted(MemoryTree({"g": b"x"}))
    assert os.listdir(mount.path) == ["g"]


@pytest.mark.parametrize("command", [["fusermount3", "-u"], ["umount"], ["umount", "-l"]], ids=" ".join)
def test_an_external_unmount_ends_the_daemon(mounted, command):
    mount = mounted(MemoryTree({"f": b"x"}))
    umount(mount.path, *command)
    mount.wait_for_end()
    assert mount.log.count(" ended$") == 1


def test_an_external_unmount_ends_the_daemon_while_a_request_hangs(mounted):
    mount = mounted(BlockingTree({"stuck": b"s"}))
    with subprocess.Popen(["cat", mount.path / "stuck"]) as process:
        wait_until(lambda: mount.statistics()["fuse"]["waiting"], "the reader waits")
        process.kill()
    mount.log.expect("left alone")
    umount(mount.path)
    mount.wait_for_end(8)


def test_the_tree_is_closed_at_the_end(mounted, tmp_path):
    class Closing(MemoryTree):
        def close(self):
            (tmp_path / "closed").write_text("yes")

    mount = mounted(Closing({}))
    mount.terminate()
    assert (tmp_path / "closed").read_text() == "yes"


def test_a_tree_that_does_not_close_does_not_keep_the_daemon(mounted):
    class Endless(MemoryTree):
        def close(self):
            BlockingTree.never.wait()

    mount = mounted(Endless({}), closing=0.3)
    mount.log.expect("not closed within 0.3 s", None)  # once for each process that serves
    mount.terminate(seconds=5)
    assert mount.log.count("not closed within 0.3 s")


def refused(path, runtime_dir, options=None, make_tree=lambda: MemoryTree({}), **settings):
    with pytest.raises(MountFailed) as caught:
        mount_in_background(
            make_tree, path, options or MountOptions(), log_file=None, runtime_dir=runtime_dir, **settings
        )
    return str(caught.value)


def test_a_bad_mount_point_is_refused_with_a_remedy(tmp_path, runtime_dir):
    assert f"mkdir -p {tmp_path}/absent" in refused(tmp_path / "absent", runtime_dir)
    (tmp_path / "file").touch()
    assert "not a directory" in refused(tmp_path / "file", runtime_dir)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    assert "not empty" in refused(tmp_path / "full", runtime_dir)


def test_a_second_mount_on_one_directory_is_refused(mounted, runtime_dir):
    mount = mounted(MemoryTree({}), MountOptions(source="acme/vision/mnist:v3"))
    assert "acme/vision/mnist:v3 (fuse.artfs) is already mounted" in refused(mount.path, runtime_dir)
    assert os.listdir(mount.path) == []


def test_two_mounts_started_at_once_do_not_stack(mounted, runtime_dir, monkeypatch):
    mount = mounted(MemoryTree({}))
    monkeypatch.setattr("artfs.fuse.daemon.preflight", lambda path, options: str(path))  # both found it free
    assert "another artfs process" in refused(mount.path, runtime_dir)


def test_a_symlink_to_the_mount_point_is_the_mount_point(mounted, runtime_dir, tmp_path):
    mount = mounted(MemoryTree({"f": b""}))
    (tmp_path / "other").symlink_to(mount.path)
    assert "already mounted" in refused(tmp_path / "other", runtime_dir)
    unmount(tmp_path / "other", runtime_dir=runtime_dir, deadline=soon())
    assert os.listdir(mount.path) == []


def test_what_keeps_the_tree_from_being_made_is_what_the_caller_gets(tmp_path, runtime_dir, log):
    (tmp_path / "mnt").mkdir()

    def unreachable():
        raise StoreUnavailable(store="s3://b", why="connection refused")

    log.expect("the object store s3://b is out of reach")
    with pytest.raises(StoreUnavailable, match="connection refused") as caught:
        mount_in_background(unreachable, tmp_path / "mnt", MountOptions(), log_file=log.path, runtime_dir=runtime_dir)
    assert caught.value.exit_code == 6
    assert list((runtime_dir / "mounts").iterdir()) == []


@pytest.mark.parametrize("engine", ["direct", "pyfuse3"])
def test_a_full_disk_is_said_to_be_one(tmp_path, runtime_dir, engine):
    def make_tree():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/small/disk")

    (tmp_path / "mnt").mkdir()
    with pytest.raises(DiskFull, match="no space left in /small/disk"):
        mount_in_background(
            make_tree,
            tmp_path / "mnt",
            MountOptions(engine=engine),
            log_file=tmp_path / "log",
            runtime_dir=runtime_dir,
        )


def test_an_unforeseen_start_failure_is_reported_too(tmp_path, runtime_dir):
    (tmp_path / "mnt").mkdir()
    assert "ZeroDivisionError" in refused(tmp_path / "mnt", runtime_dir, make_tree=lambda: 1 / 0)
    assert "died" in refused(tmp_path / "mnt", runtime_dir, make_tree=lambda: os._exit(3))


def test_a_start_that_takes_too_long_is_given_up(tmp_path, runtime_dir):
    (tmp_path / "mnt").mkdir()
    pid_file = tmp_path / "pid"

    def endless():
        pid_file.write_text(str(os.getpid()))
        BlockingTree.never.wait()

    assert "did not answer within 1 s" in refused(tmp_path / "mnt", runtime_dir, make_tree=endless, start=1)
    wait_until(lambda: not alive(int(pid_file.read_text())), "the daemon is told to end")


def test_what_the_kernel_refuses_is_told(tmp_path, runtime_dir):
    (tmp_path / "mnt").mkdir()
    why = refused(tmp_path / "mnt", runtime_dir, MountOptions(source="x" * 5000))
    assert "cannot mount on" in why
    assert "fuse" in why


@pytest.mark.parametrize("engine", ["pyfuse3"])  # with the other one the workers go on
def test_a_killed_daemon_leaves_a_stale_mount_that_unmount_clears(mounted, runtime_dir):
    # SEMANTICS: After `kill -9` or an OOM kill every access fails with ENOTCONN
    mount = mounted(MemoryTree({"f": b"x"}))
    os.kill(mount.pid, signal.SIGKILL)
    wait_until(lambda: not alive(mount.pid), "the daemon is dead")
    with pytest.raises(OSError, match=r"not connected|connection abort"):
        os.listdir(mount.path)
    (found,) = [each for each in mounts(runtime_dir) if each.mountpoint == str(mount.path)]
    assert (found.pid, found.stale) == (None, True)
    assert f"artfs umount {mount.path}" in refused(mount.path, runtime_dir)
    unmount(mount.path, runtime_dir=runtime_dir, deadline=soon())
    mounted(MemoryTree({"again": b"x"}))
    assert os.listdir(mount.path) == ["again"]


def test_a_use_that_passes_by_does_not_fail_the_unmount(mounted, runtime_dir, monkeypatch):
    # SEMANTICS: a use that no process shows for is waited for, up to 2 seconds.
    mount = mounted(MemoryTree({"f": b"x"}))
    held = os.open(mount.path, os.O_RDONLY)
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b"x"], [held])  # in flight: it keeps the mount busy and no process shows it
    os.close(held)
    asked = []

    def users(mountpoint):
        asked.append(mountpoint)
        ours.close()
        theirs.close()
        return []

    monkeypatch.setattr(sys.modules[unmount.__module__], "users", users)
    unmount(mount.path, runtime_dir=runtime_dir, deadline=soon())
    assert asked
    assert mounted_on(str(mount.path)) is None


def test_a_busy_mount_names_who_uses_it(mounted, runtime_dir):
    # SEMANTICS: `artfs umount` refuses a busy mount and names who uses it;
    mount = mounted(MemoryTree({"f": b"x", "d/g": b""}))
    with subprocess.Popen(["sleep", "60"], cwd=mount.path / "d") as sleeper, open(mount.path / "f", "rb"):
        with pytest.raises(UnmountFailed) as caught:
            unmount(mount.path, runtime_dir=runtime_dir, deadline=soon())
        assert f"sleep ({sleeper.pid})" in str(caught.value)
        assert f"({os.getpid()})" in str(caught.value)
        assert "--lazy" in str(caught.value)
        sleeper.kill()
    unmount(mount.path, runtime_dir=runtime_dir, deadline=soon())


def test_a_lazy_unmount_lets_users_finish(mounted, runtime_dir):
    mount = mounted(MemoryTree({"f": b"x" * (64 << 20)}))
    with open(mount.path / "f", "rb", buffering=0) as file:
        unmount(mount.path, runtime_dir=runtime_dir, deadline=soon(), lazy=True)
        assert mounted_on(str(mount.path)) is None
        assert "waits for the last user" in refused(mount.path, runtime_dir)
        for _ in range(64):  # longer than the daemon takes to notice
            assert file.read(1 << 20) == b"x" * (1 << 20)
            time.sleep(0.03)
    mount.wait_for_end()


def test_sigterm_detaches_a_busy_mount(mounted):
    # SEMANTICS: A mount in use is detached (its users get ENOTCONN), with a log line that names them.
    mount = mounted(MemoryTree({"f": b"x" * 300_000}))
    mount.log.expect(rf"in use by .*\({os.getpid()}\): detached")
    descriptor = os.open(mount.path / "f", os.O_RDONLY)
    mount.terminate(seconds=5)
    assert mounted_on(str(mount.path)) is None
    with pytest.raises(OSError, match=r"not connected|connection abort"):
        os.read(descriptor, 300_000)
    with pytest.raises(OSError, match=r"not connected|connection abort"):
        os.close(descriptor)


def test_only_artfs_mounts_are_unmounted(tmp_path, runtime_dir):
    with pytest.raises(UnmountFailed, match="nothing is mounted"):
        unmount(tmp_path, runtime_dir=runtime_dir, deadline=soon())
    with pytest.raises(UnmountFailed, match=r"proc .* not an artfs mount"):
        unmount("/proc", runtime_dir=runtime_dir, deadline=soon())


FOREGROUND = """
    import sys, threading
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from memory_tree import MemoryTree
    from artfs.fuse import MountOptions, mount_in_foreground
    threading.Thread(target=threading.Event().wait).start()  # would keep the interpreter for ever
    mount_in_foreground(lambda: MemoryTree(dict(f=b"x")), sys.argv[1], MountOptions(), runtime_dir=Path(sys.argv[2]))
"""


def foreground(mountpoint, runtime_dir, **settings):
    program = textwrap.dedent(FOREGROUND.format(tests=str(Path(__file__).parent)))
    return subprocess.Popen(
        [sys.executable, "-c", program, mountpoint, runtime_dir], stderr=subprocess.PIPE, text=True, **settings
    )


@pytest.mark.parametrize("end", ["signal", "unmount"])
def test_in_the_foreground_the_service_manager_is_told(tmp_path, runtime_dir, end):
    path = tmp_path / "mnt"
    path.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(SOON)
        process = foreground(path, runtime_dir, env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")})
        try:
            assert b"READY=1" in manager.recv(4096)
            assert os.listdir(path) == ["f"]
            if end == "signal":
                process.send_signal(signal.SIGTERM)
            else:
                umount(path)
            assert b"STOPPING=1" in manager.recv(4096)
            stderr = process.communicate(timeout=SOON)[1]
        finally:
            process.kill()
            clear(path, process.pid)
    assert process.returncode == 0
    assert "INFO" in stderr
    assert "Traceback" not in stderr


# In a mount namespace of its own, whose /dev/fuse users may open and whose fuse.conf is what the test wants.
AS_NOBODY = """
    mknod -m 666 "$0/fuse" c 10 229 && mount --bind "$0/fuse" /dev/fuse
    echo "$1" > "$0/fuse.conf" && mount --bind "$0/fuse.conf" /etc/fuse.conf
    exec setpriv --reuid=65534 --regid=65534 --clear-groups "$2" -c "$3" "$0" $1
"""


def as_nobody(base, configuration=""):
    program = textwrap.dedent(USER.format(tests=str(Path(__file__).parent)))
    return subprocess.run(
        ["unshare", "-m", "sh", "-e", "-c", AS_NOBODY, base, configuration, sys.executable, program],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )


USER = """
    import os, sys, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from memory_tree import MemoryTree
    from artfs.fuse import MountOptions, mount_in_background, mounts, unmount
    base = Path(sys.argv[1])
    runtime = base / "run"
    pid = mount_in_background(lambda: MemoryTree(dict(f=b"mine")), base / "mnt",
                              MountOptions(allow_other=True) if "allow_other" in base.name else MountOptions(),
                              log_file=base / "log", runtime_dir=runtime)
    assert (base / "mnt/f").read_bytes() == b"mine"
    assert (base / "mnt/f").stat().st_uid == os.getuid() == 65534
    (mount,) = [each for each in mounts(runtime) if each.mountpoint == str(base / "mnt")]
    assert mount.pid == pid and not mount.stale
    unmount(base / "mnt", runtime_dir=runtime, deadline=time.monotonic() + 10)
    assert os.listdir(base / "mnt") == []
    print((base / "log").read_text())
"""


@pytest.fixture
def home_of_nobody(request):
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    with tempfile.TemporaryDirectory(prefix=f"artfs-{request.node.name[5:30]}-") as base:
        (Path(base) / "mnt").mkdir()
        os.chown(base, 65534, 65534)
        os.chown(Path(base) / "mnt", 65534, 65534)
        yield base


def test_a_user_mounts_and_unmounts_without_root(home_of_nobody):
    ran = as_nobody(home_of_nobody)
    assert ran.returncode == 0, ran.stderr
    assert "INFO" in ran.stdout
    assert "WARNING" not in ran.stdout
    assert "ERROR" not in ran.stdout


def test_allow_other_needs_the_administrators_consent(home_of_nobody):
    refusal = as_nobody(home_of_nobody)
    assert refusal.returncode != 0
    assert "user_allow_other in /etc/fuse.conf" in refusal.stderr


def test_allow_other_works_with_consent(home_of_nobody):
    ran = as_nobody(home_of_nobody, "user_allow_other")
    assert ran.returncode == 0, ran.stderr


def test_unusual_but_valid_options_reach_the_mount(mounted):
    mount = mounted(
        MemoryTree({"f": b"x"}), "_netdev,nofail,x-systemd.automount,ro,noatime,allow_other,read_ahead_kb=512"
    )
    device = os.stat(mount.path).st_dev
    limit = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    if os.access(limit, os.W_OK):
        assert limit.read_text().strip() == "512"


def test_an_unknown_option_never_mounts(mounted):
    with pytest.raises(InvalidInput, match="alow_other"):
        mounted(MemoryTree({}), "alow_other")
