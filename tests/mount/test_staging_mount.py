"""The writable mount, by the calls that programs make."""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from daemons import wait_until
from writable_mount import LARGE, WritableMount, alive, failing, run

from artfs.fuse.handles import LEAST_KERNEL
from artfs.fuse.kernel import kernel_version
from artfs.vfs.tree import WouldBlock

from staging_base import EXCHANGE, NOREPLACE, renameat2  # isort: skip - found by writable_mount


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


past_the_cache = pytest.mark.skipif(kernel_version() < LEAST_KERNEL, reason="all writes go through the page cache")


def writing(name, _flags=0):
    """An opener: for writing only, without O_TRUNC."""
    return os.open(name, os.O_WRONLY)


def resident(descriptor, size):
    """How many pages of a file are in the page cache. Asks for no attributes: that would drop what was written."""
    with mmap.mmap(-1, size) as place:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        start = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_PRIVATE, descriptor, ctypes.c_long(0))
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE)).from_buffer(place)
        assert libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), pages) == 0
        assert libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(size)) == 0
        count = sum(page & 1 for page in pages)
        del pages
        return count


@past_the_cache
def test_what_is_only_written_goes_past_the_page_cache(mnt):
    with open(mnt / "written", "wb", buffering=0) as file:
        file.write(LARGE)
        with open(mnt / "written", "rb") as reader:
            assert resident(reader.fileno(), len(LARGE)) == 0
    with open(mnt / "both", "w+b", buffering=0) as file:
        file.write(LARGE)
        assert resident(file.fileno(), len(LARGE)) == len(LARGE) // mmap.PAGESIZE


@past_the_cache
def test_old_bytes_that_a_reader_brought_back_while_they_were_written_are_forgotten(place, log, tmp_path):
    arrived, go = tmp_path / "arrived", tmp_path / "go"

    def stall_writes(tree):
        write = tree.write

        def stalled(inode, offset, data, deadline):
            if deadline is None:
                raise WouldBlock
            arrived.touch()
            wait_until(go.exists, "the reader has read")
            return write(inode, offset, data, deadline)

        tree.write = stalled

    it = place(mount=False)
    it.mount(log.path, change=stall_writes)
    writer = os.open(it.path / "large", os.O_WRONLY)  # past the page cache, for nobody else has it open
    reader = os.open(it.path / "large", os.O_RDONLY)
    mapped = mmap.mmap(reader, 8192, prot=mmap.PROT_READ)  # read(2) would first ask for the modification time
    thread = threading.Thread(target=os.pwrite, args=(writer, b"new", 4000))
    thread.start()
    wait_until(arrived.exists, "the write is under way")
    assert mapped[4000:4003] == LARGE[4000:4003]
    go.touch()
    thread.join(20)
    assert mapped[4000:4003] == b"new"
    mapped.close()
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("first", ["writer", "mapping"])
def test_a_mapping_sees_what_another_program_writes(mnt, first):
    path = mnt / "mapped"
    path.write_bytes(bytes(8192))
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(open(path, "wb", buffering=0, opener=writing)) if first == "writer" else None
        file = stack.enter_context(open(path, "r+b"))
        mapped = stack.enter_context(mmap.mmap(file.fileno(), 8192))
        assert mapped[:] == bytes(8192)
        writer = writer or stack.enter_context(open(path, "wb", buffering=0, opener=writing))
        os.pwrite(writer.fileno(), b"new", 4000)
        assert mapped[4000:4003] == b"new"
        mapped[:3] = b"map"
        os.pwrite(writer.fileno(), b"pwr", 3)
        assert mapped[:6] == b"mappwr"
    assert path.read_bytes()[:6] == b"mappwr"


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


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_a_time_set_after_a_store_through_a_mapping_stays(mnt, closed):
    # SEMANTICS: A modification time that is set stays, also over what was stored through a mapping before.
    file = os.open(mnt / "large", os.O_RDWR)
    mapped = mmap.mmap(file, 0)
    if closed:
        os.close(file)
    for number in range(3):
        mapped[100:103] = mapped[1_000_000:1_000_003] = b"%03d" % number
        os.utime(mnt / "large", ns=(42, 42))
    mapped.flush()
    assert (mnt / "large").stat().st_mtime_ns == 42
    mapped[100:103] = b"abc"
    mapped.close()
    if not closed:
        os.close(file)
    assert (mnt / "large").stat().st_mtime_ns != 42
    assert (mnt / "large").read_bytes()[100:103] == b"abc"
    assert (mnt / "large").read_bytes()[1_000_000:1_000_003] == b"002"


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


def test_a_time_beyond_64_bits_is_shown_as_the_nearest(mnt):
    # SEMANTICS: one beyond is shown as the nearest of those at once
    for path in (mnt / "large", mnt / "dir"):
        run("touch", "-d", "2300-01-01", path)
        assert path.stat().st_mtime_ns == 2**63 - 1
    run("touch", "-d", "2300-01-01", mnt / "new")
    assert (mnt / "new").stat().st_mtime_ns == 2**63 - 1


def test_the_limit_of_a_file_size(mnt):
    program = """
import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
assert os.pwrite(file, bytes(20_000), 0) == 10_000
for refused in (lambda: os.pwrite(file, b"x", 10_000), lambda: os.ftruncate(file, 10_001)):
    try:
        refused()
    except OSError as error:
        print(error.errno, end=" ")
"""
    assert run(sys.executable, "-c", program, mnt / "limited") == f"{errno.EFBIG} {errno.EFBIG} "
    assert (mnt / "limited").stat().st_size == 10_000


def test_signals_do_not_cut_publishing_off(place, log, tmp_path):
    # SEMANTICS: Further signals than the first are passed over, with a log line: only SIGKILL ends publishing.
    closing, go, closed = (tmp_path / name for name in ("closing", "go", "closed"))

    def publish_for_long(tree):
        close = tree.close

        def slow():
            closing.touch()
            wait_until(go.exists, "the signals have come", 30)
            close()
            closed.touch()

        tree.close = slow

    it = place(mount=False)
    it.mount(log.path, change=publish_for_long)
    os.kill(it.pid, signal.SIGTERM)
    wait_until(closing.exists, "publishing has begun")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(it.pid, number)
        log.wait_for(f"{number.name}: .* is ending already")
    os.kill(it.pid, signal.SIGUSR2)
    log.wait_for("logging at level DEBUG")
    go.touch()
    wait_until(lambda: not alive(it.pid), "the daemon ends")
    assert closed.exists()


def test_what_is_too_large_for_the_local_file_system_is_efbig(place, log):
    def limit(_tree):
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 20, 16 << 20))

    it = place(mount=False)
    it.mount(log.path, change=limit)
    (it.path / "new").touch()
    for name in ("large", "new"):
        with open(it.path / name, "r+b", buffering=0) as file:
            for refused in (lambda fd: os.ftruncate(fd, 17 << 20), lambda fd: os.pwrite(fd, b"x", 16 << 20)):
                with failing(errno.EFBIG):
                    refused(file.fileno())
    assert (it.path / "large").read_bytes() == LARGE


def test_a_daemon_without_descriptors_left_says_so(place, log):
    # SEMANTICS: ENOSPC (EDQUOT, too), EFBIG, and ENFILE where the daemon has no descriptor left.
    def limit(_tree):
        most = len(os.listdir("/proc/self/fd")) + 30
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    it = place(mount=False)
    it.mount(log.path, change=limit)
    log.expect("too many files are open", None)
    with contextlib.ExitStack() as opened, failing(errno.ENFILE):
        for number in range(50):
            opened.enter_context(open(it.path / f"f{number}", "xb"))
    assert (it.path / "large").read_bytes() == LARGE


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


@pytest.fixture
def on_small_disk(tmp_path, log):
    """``on_small_disk(files)`` mounts a base of these files, with everything that artfs keeps on a disk of 24 MiB."""
    log.expect("no space left", count=None)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounts = []

    def mount(files):
        mounts.append(WritableMount(disk, files))
        mounts[0].mount(log.path)
        return mounts[0]

    run("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk)
    yield mount
    for it in mounts:
        if alive(it.pid):
            subprocess.run(["umount", "-l", it.path], check=False)
            wait_for_end(it.pid)
    run("umount", "-l", disk)


def test_a_full_disk_fails_the_writer_and_nothing_else(on_small_disk):
    it = on_small_disk({"large": LARGE, "small": b"small"})
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


def test_on_a_full_disk_everything_can_be_removed_whatever_writers_take(on_small_disk):
    it = on_small_disk({f"d/{number}": b"x" for number in range(120)})
    for number in range(120):
        with failing(errno.ENOSPC), open(it.path / "huge", "ab", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        os.unlink(it.path / "d" / str(number))
    os.unlink(it.path / "huge")
    os.rmdir(it.path / "d")
    assert os.listdir(it.path) == []
    it.unmount()


def wait_for_end(pid):
    end = time.monotonic() + 30
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(0.01)
