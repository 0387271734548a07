"""The writable mount, used by programs and by the calls that they make."""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from writable_mount import WritableMount, alive

from staging_base import EXCHANGE, NOREPLACE, Link, renameat2, snapshot_of  # isort: skip - found by writable_mount

FSX = Path(__file__).parents[1] / "staging" / "fsx.py"
LARGE = random.Random(1).randbytes(3 << 20)
BASE = {"dir/inner": b"inner", "dir/sub/deep": b"deep", "large": LARGE, "link": Link("large"), "empty": None}


@contextlib.contextmanager
def failing(number):
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its errno is compared below
        yield
    assert errno.errorcode[caught.value.errno] == errno.errorcode[number]


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


# -- programs -----------------------------------------------------------------------------------------------------


def test_rsync(place, tmp_path):
    it = place()
    source = tmp_path / "source"
    shutil.copytree(Path(sys.prefix) / "lib" / "python3.11" / "site-packages" / "click", source / "click")
    (source / "large").write_bytes(LARGE[::-1])
    (source / "link").symlink_to("click")
    run("rsync", "-a", "--delete", f"{source}/", f"{it.path}/")
    assert snapshot_of(it.path) == snapshot_of(source)
    shutil.rmtree(source / "click" / "__pycache__", ignore_errors=True)
    (source / "click" / "core.py").write_text("changed")
    run("rsync", "-a", "--delete", f"{source}/", f"{it.path}/")
    assert run("rsync", "-ain", "--delete", f"{source}/", f"{it.path}/") == ""
    assert snapshot_of(it.path) == snapshot_of(source)
    it.unmount()
    staged = it.staged()
    assert staged.snapshot() == snapshot_of(source)
    staged.close()


def test_git(mnt, tmp_path):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    origin = tmp_path / "origin"
    run("git", "init", "-q", origin)
    for number in range(50):
        (origin / f"file{number}").write_text(f"{number}\n" * number)
    run("git", "add", ".", cwd=origin)
    run("git", *identity, "commit", "-qm", "one", cwd=origin)
    clone = mnt / "clone"
    run("git", "clone", "-q", origin, clone)
    assert run("git", "status", "--porcelain", cwd=clone) == ""
    (clone / "file7").write_text("seven")
    run("git", *identity, "commit", "-qam", "two", cwd=clone)
    run("git", "gc", "-q", cwd=clone)
    run("git", "fsck", "--strict", cwd=clone)
    run("git", "checkout", "-q", "HEAD~", cwd=clone)
    assert (clone / "file7").read_text() == "7\n" * 7
    assert run("git", "status", "--porcelain", cwd=clone) == ""


def test_tar(mnt, tmp_path):
    source = Path(sys.prefix) / "lib" / "python3.11" / "site-packages" / "attr"
    run("tar", "cf", tmp_path / "a.tar", "-C", source.parent, source.name)
    run("tar", "xf", tmp_path / "a.tar", "-C", mnt)
    run("tar", "df", tmp_path / "a.tar", "-C", mnt)  # compares contents, modes and times


@pytest.mark.parametrize("journal", ["delete", "truncate", "wal"])
def test_sqlite(place, journal):
    it = place()
    program = f"""
import sqlite3
database = sqlite3.connect({str(it.path / "data.db")!r}, isolation_level=None)
assert database.execute("PRAGMA journal_mode={journal}").fetchone() == ({journal!r},)
database.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, value)")
for number in range(200):
    database.execute("INSERT INTO t (value) VALUES (?)", (str(number) * 50,))
database.execute("DELETE FROM t WHERE id % 3 = 0")
database.execute("VACUUM")
assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
print(database.execute("SELECT count(*) FROM t").fetchone()[0])
database.close()
"""
    assert run(sys.executable, "-c", program) == "134\n"
    it.unmount()
    it.mount()
    assert int(run(sys.executable, "-c", program)) > 134


def test_pip_install(mnt, tmp_path):
    wheel = tmp_path / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("thing/__init__.py", "VALUE = 42\n")
        file.writestr("thing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
        file.writestr("thing-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("thing-1.dist-info/RECORD", "")
    run(sys.executable, "-m", "pip", "install", "-q", "--no-index", "--target", mnt / "site", wheel)
    assert run(sys.executable, "-c", "import thing; print(thing.VALUE)", PYTHONPATH=str(mnt / "site")) == "42\n"


def test_small_tools(mnt):
    (mnt / "text").write_text("one two\n")
    run("sed", "-i", "s/two/three/", mnt / "text")
    assert (mnt / "text").read_text() == "one three\n"
    run("dd", "if=/dev/zero", f"of={mnt / 'large'}", "bs=4096", "seek=5", "count=1", "conv=notrunc")
    assert (mnt / "large").read_bytes() == LARGE[:20480] + bytes(4096) + LARGE[24576:]
    run("truncate", "-s", "1M", mnt / "large")
    run("truncate", "-s", "+4K", mnt / "large")
    assert (mnt / "large").stat().st_size == (1 << 20) + 4096
    run("cp", "--reflink=auto", "-p", mnt / "large", mnt / "copy")
    run("cmp", mnt / "large", mnt / "copy")
    run("ln", mnt / "copy", mnt / "hard")
    run("ln", "-s", "copy", mnt / "soft")
    assert (mnt / "soft").samefile(mnt / "hard")
    assert (mnt / "hard").stat().st_nlink == 2
    run("touch", "-d", "2001-02-03 04:05:06.789 UTC", mnt / "hard")
    assert (mnt / "copy").stat().st_mtime_ns == 981_173_106_789_000_000
    run("chmod", "u=rwx,go=", mnt / "copy")
    assert (mnt / "hard").stat().st_mode & 0o777 == 0o700
    run("mv", mnt / "dir", mnt / "moved")
    assert (mnt / "moved/sub/deep").read_bytes() == b"deep"
    run("cp", "-a", mnt / "moved", mnt / "again")
    assert snapshot_of(mnt / "again") == snapshot_of(mnt / "moved")
    run("rm", "-r", mnt / "moved")
    assert not (mnt / "moved").exists()


def test_zip_in_place(mnt):
    archive = mnt / "a.zip"
    run(sys.executable, "-m", "zipfile", "-c", archive, FSX, mnt / "dir")
    run(sys.executable, "-m", "zipfile", "-t", archive)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("added", b"more")
    with zipfile.ZipFile(archive) as file:
        assert file.read("added") == b"more"
        assert file.testzip() is None
    run(sys.executable, "-m", "zipfile", "-e", archive, mnt / "extracted")
    assert (mnt / "extracted/dir/sub/deep").read_bytes() == b"deep"


def test_numpy_memmap(mnt):
    numpy = pytest.importorskip("numpy")
    array = numpy.memmap(mnt / "large", dtype=numpy.uint8, mode="r+")
    array[1_000_000:1_000_100] = 7
    array.flush()
    assert (mnt / "large").read_bytes() == LARGE[:1_000_000] + b"\7" * 100 + LARGE[1_000_100:]


def test_large_sequential_writes(mnt):
    expected = hashlib.sha256()
    with open(mnt / "model", "wb") as file:
        for number in range(64):
            block = bytes([number]) * (1 << 20)
            file.write(block)
            expected.update(block)
    with open(mnt / "model", "rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == expected.digest()


def test_fsx(place):
    it = place()
    shutil.copyfile(it.path / "large", it.path / "copy")
    for name, seed in (("large", 1), ("copy", 2), ("fresh", 3)):
        run(sys.executable, FSX, it.path / name, "--operations", "1500", "--seed", seed, "--paranoid")


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_fsx_for_long(mnt):
    run(sys.executable, FSX, mnt / "large", "--operations", "100000", "--seed", "1")


# -- calls --------------------------------------------------------------------------------------------------------


def test_open_flags(mnt):
    path = mnt / "f"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
    assert path.stat().st_mode & 0o777 == 0o640
    with failing(errno.EEXIST):
        os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    a, b = (os.open(path, os.O_WRONLY | os.O_APPEND) for _ in range(2))
    for number in range(10):
        os.write((a, b)[number % 2], b"%d" % number)
    os.close(a)
    os.close(b)
    assert path.read_bytes() == b"0123456789"
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    assert path.read_bytes() == b""
    assert (mnt / "large").stat().st_size == len(LARGE)
    os.close(os.open(mnt / "large", os.O_RDWR | os.O_TRUNC))
    assert (mnt / "large").read_bytes() == b""
    with failing(errno.ENOTDIR):
        os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    with failing(errno.EISDIR):
        os.open(mnt / "dir", os.O_WRONLY)
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags | os.O_DSYNC)) as file:
        file.write(b"synchronous")
    assert path.read_bytes() == b"synchronous"


def test_unlinked_while_open(place):
    it = place()
    for name in ("large", "fresh"):
        with open(it.path / name, "a+b") as file:
            os.unlink(it.path / name)
            assert not (it.path / name).exists()
            assert os.fstat(file.fileno()).st_nlink == 0
            file.write(b"tail")
            file.flush()
            file.seek(-4, os.SEEK_END)
            assert file.read() == b"tail"
    it.unmount()
    staged = it.staged()
    assert ("removed", "large", None, "") in staged.changes()
    assert not list(staged.tree._files.inodes())
    staged.close()


def test_rename_flags(mnt):
    with failing(errno.EEXIST):
        renameat2(mnt / "large", mnt / "dir/inner", NOREPLACE)
    renameat2(mnt / "large", mnt / "dir", EXCHANGE)
    assert (mnt / "large/inner").read_bytes() == b"inner"
    assert (mnt / "dir").read_bytes() == LARGE
    renameat2(mnt / "dir", mnt / "new", NOREPLACE)
    assert sorted(os.listdir(mnt)) == ["empty", "large", "link", "new"]
    with failing(errno.ENOTEMPTY):
        os.rename(mnt / "empty", mnt / "large")
    os.rename(mnt / "large/sub", mnt / "empty")
    assert (mnt / "empty/deep").read_bytes() == b"deep"
    with failing(errno.EINVAL):
        os.rename(mnt / "large", mnt / "large/below")


def test_shared_writable_mapping(place):
    it = place()
    with open(it.path / "large", "r+b") as file, mmap.mmap(file.fileno(), 0) as area:
        area[123_456:123_466] = b"0123456789"
        other = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert other[123_456:123_466] == b"0123456789"
        other.close()
        assert os.pread(file.fileno(), 10, 123_456) == b"0123456789"
    it.unmount()
    staged = it.staged()
    assert staged.read("large") == LARGE[:123_456] + b"0123456789" + LARGE[123_466:]
    staged.close()


def test_sparse_files_take_no_room(place):
    it = place()
    with open(it.path / "sparse", "wb") as file:
        file.seek(1 << 40)
        file.write(b"end")
    assert (it.path / "sparse").stat().st_size == (1 << 40) + 3
    with open(it.path / "sparse", "rb") as file:
        assert file.read(4096) == bytes(4096)
        file.seek(-5, os.SEEK_END)
        assert file.read() == b"\0\0end"
    assert int(run("du", "-sk", it.directory / "staging").split()[0]) < 5000


def test_locks_exclude_processes(mnt):
    path = mnt / "lock"
    path.touch()
    other = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
for lock in (fcntl.flock, fcntl.lockf):
    try:
        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("got", end=" ")
    except OSError:
        print("not", end=" ")
"""
    with open(path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run(sys.executable, "-c", other, path) == "not got "
        fcntl.flock(file, fcntl.LOCK_UN)
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert run(sys.executable, "-c", other, path) == "got not "


def test_what_is_not_supported_says_so(mnt):
    with failing(errno.EPERM):
        os.mkfifo(mnt / "fifo")
    with failing(errno.EPERM), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(mnt / "s"))
    with failing(errno.EOPNOTSUPP):
        os.setxattr(mnt / "large", "user.mine", b"1")
    with failing(errno.EOPNOTSUPP):
        os.getxattr(mnt / "large", "user.mine")
    with open(mnt / "large", "r+b") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.fallocate(file.fileno(), 0, ctypes.c_long(0), ctypes.c_long(4096)) == -1
        assert ctypes.get_errno() == errno.EOPNOTSUPP
        os.posix_fallocate(file.fileno(), 0, len(LARGE) + 10)  # glibc falls back to writing
    assert (mnt / "large").stat().st_size == len(LARGE) + 10
    assert (mnt / "large").read_bytes() == LARGE + bytes(10)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (b"a\nb", errno.EINVAL),
        (b"a\x7fb", errno.EINVAL),
        (b"a\xffb", errno.EILSEQ),
        (b"x" * 256, errno.ENAMETOOLONG),
    ],
)
def test_names_that_are_refused(mnt, name, number):
    path = os.fsencode(mnt) + b"/" + name
    for make in (
        lambda: os.open(path, os.O_CREAT | os.O_WRONLY),
        lambda: os.mkdir(path),
        lambda: os.symlink("x", path),
        lambda: os.link(mnt / "large", path),
        lambda: os.rename(mnt / "large", path),
        lambda: os.mknod(path),
    ):
        with failing(number):
            make()
    assert sorted(os.listdir(mnt)) == ["dir", "empty", "large", "link"]
    with failing(errno.EINVAL):
        os.symlink("a\nb", mnt / "target")


def test_a_path_over_4096_bytes_is_refused(mnt):
    descriptor = os.open(mnt, os.O_RDONLY)
    for _ in range(16):
        os.mkdir("d" * 255, dir_fd=descriptor)
        below = os.open("d" * 255, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    with failing(errno.ENAMETOOLONG):
        os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
    os.close(descriptor)


def test_owners_are_the_mounters(mnt):
    os.chown(mnt / "large", 12345, 12345)
    assert (mnt / "large").stat().st_uid == os.getuid()
    os.chmod(mnt / "large", 0o6755)
    assert (mnt / "large").stat().st_mode & 0o7777 == 0o755


def test_the_room_left_is_the_disks(mnt, tmp_path):
    shown, disk = os.statvfs(mnt), os.statvfs(tmp_path)
    assert abs(shown.f_bavail * shown.f_frsize - disk.f_bavail * disk.f_frsize) < 1 << 30
    assert shown.f_namemax == 255


def test_a_directory_of_many_files(place):
    it = place({f"base/{number:05}": b"x" for number in range(3000)})
    for number in range(1000):
        (it.path / "base" / f"new{number}").write_bytes(b"y")
    for number in range(0, 3000, 3):
        os.unlink(it.path / "base" / f"{number:05}")
    assert len(os.listdir(it.path / "base")) == 3000
    os.rename(it.path / "base", it.path / "other")
    assert sum(entry.stat().st_size for entry in os.scandir(it.path / "other")) == 3000
    shutil.rmtree(it.path / "other")
    assert os.listdir(it.path) == []


# -- nothing is lost ----------------------------------------------------------------------------------------------


def test_a_killed_daemon_loses_nothing(place):
    it = place()
    program = """
import os, sys
os.chdir(sys.argv[1])
number = 0
while True:
    with open(f"f{number}", "wb") as file:
        file.write(b"%d" % number * 1000)
        file.flush()
        if number % 5 == 0:
            os.fsync(file.fileno())
    os.rename(f"f{number}", f"g{number}")
    print(number, flush=True)
    number += 1
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", program, it.path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    done = -1
    while done < 60:
        done = int(writer.stdout.readline())
    os.kill(it.pid, signal.SIGKILL)
    rest = writer.communicate()[0].split()  # it ends with ENOTCONN
    done = int(rest[-1]) if rest else done
    subprocess.run(["umount", "-l", it.path], check=True)
    wait_for_end(it.pid)
    it.mount()
    for number in range(done + 1):
        assert (it.path / f"g{number}").read_bytes() == b"%d" % number * 1000
    assert (it.path / "large").read_bytes() == LARGE
    (it.path / "more").write_bytes(b"goes on")


@pytest.mark.parametrize("fault", ["commit:7", "committed:7", "written:3", "copying-up:1", "truncating:1", "sync:1"])
def test_killed_at_a_named_point(place, fault):
    it = place(mount=False)
    it.mount(fault=fault)
    synced = []
    with contextlib.suppress(OSError):
        for number in range(40):
            with open(it.path / f"f{number}", "wb") as file:
                file.write(b"x" * number * 100)
                file.flush()
                if number % 4 == 0:
                    os.fsync(file.fileno())
                    synced.append(number)
            with open(it.path / "large", "r+b") as file:
                file.seek(number * 5000)
                file.write(b"edit")
                file.truncate(len(LARGE) - number * 10_000)
    wait_for_end(it.pid)
    subprocess.run(["umount", "-l", it.path], check=True)
    it.mount()
    for number in synced:
        assert (it.path / f"f{number}").read_bytes() == b"x" * number * 100
    found = (it.path / "large").read_bytes()
    assert len(found) > len(LARGE) - 40 * 10_000
    assert sum(a != b for a, b in zip(found, LARGE, strict=False)) <= 40 * 4


def test_a_full_disk_fails_the_writer_and_nothing_else(tmp_path, log):
    log.expect("no space left", count=None)
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk)
    it = None
    try:
        it = WritableMount(disk, {"large": LARGE, "small": b"small"})
        it.mount(log.path)
        with failing(errno.ENOSPC), open(it.path / "huge", "wb") as file:
            for _ in range(40):
                file.write(bytes(1 << 20))
                file.flush()
        with failing(errno.ENOSPC):  # the database has no room either, some time or other
            for number in range(100_000):
                (it.path / f"{'n' * 200}{number}").write_bytes(b"x")
        assert (it.path / "large").read_bytes() == LARGE
        os.unlink(it.path / "huge")  # what makes room works
        with open(it.path / "large", "r+b") as file:
            file.write(b"written")
        assert (it.path / "large").read_bytes() == b"written" + LARGE[7:]
        it.unmount()
    finally:
        if it is not None and alive(it.pid):
            subprocess.run(["umount", "-l", it.path], check=False)
            wait_for_end(it.pid)
        run("umount", "-l", disk)


def wait_for_end(pid):
    end = time.monotonic() + 30
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(0.01)
