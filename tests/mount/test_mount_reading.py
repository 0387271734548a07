"""What programs see through a real mount."""

import errno
import hashlib
import mmap
import os
import socket
import stat
import subprocess
from pathlib import Path

import attrs
import pytest
from memory_tree import MTIME, HugeTree, MemoryTree

from artfs import prefetch
from artfs.fuse import MountOptions, parse_options
from artfs.fuse.mountpoint import MountEntry, mounted_on

BIG = hashlib.shake_256(b"big").digest(3 << 20) + b"tail"
CONTENT = {
    "train/7.png": b"seven",
    "train/empty": b"",
    "train/deep/er/x.bin": bytes(range(256)) * 40,
    "big.bin": BIG,
    "script.sh": b"#!/bin/sh\necho hello\n",
    "link": "train/7.png",
    "nothing": None,
    "Grüße 日本 🎈.txt": "ünï".encode(),
    "n" * 255: b"longest name",
    "new\nline": b"odd name",
}


@pytest.fixture(params=["pyfuse3", "direct"])
def engine(request):
    return request.param


@pytest.fixture
def mount(mounted):
    return mounted(MemoryTree(CONTENT, modes={"script.sh": 0o755, "train": 0o750, "train/7.png": 0o640}))


def test_every_entry_is_listed_with_its_content(mount):
    seen = {}
    for path in mount.path.rglob("*"):
        if path.is_symlink():
            seen[str(path.relative_to(mount.path))] = os.readlink(path)
        elif path.is_file():
            seen[str(path.relative_to(mount.path))] = path.read_bytes()
        elif not os.listdir(path):
            seen[str(path.relative_to(mount.path))] = None
    assert seen == CONTENT


def test_stat_shows_what_is_stored(mount):
    status = os.stat(mount.path / "train/7.png")
    assert stat.S_ISREG(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert (status.st_size, status.st_blocks, status.st_nlink) == (5, 1, 1)
    assert status.st_atime_ns == status.st_mtime_ns == status.st_ctime_ns == MTIME
    assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
    assert status.st_blksize == 128 << 10
    assert stat.S_IMODE(os.stat(mount.path / "train").st_mode) == 0o750
    assert stat.S_IMODE(os.lstat(mount.path / "link").st_mode) == 0o777
    assert os.stat(mount.path / "big.bin").st_blocks == -(-len(BIG) // 512)


def test_listing_and_stat_agree_on_inodes(mount):
    for entry in os.scandir(mount.path):
        assert entry.inode() == os.lstat(entry.path).st_ino


def test_options_override_owner_and_modes(mounted):
    # SEMANTICS: `file_mode=`, `dir_mode=` replace them exactly, `uid=`, `gid=` the owner;
    tree = MemoryTree({"d/f": b"x", "s": "d/f"}, modes={"d/f": 0o600})
    mount = mounted(tree, "uid=1234,gid=4321,file_mode=444,dir_mode=0555")
    status = os.stat(mount.path / "d/f")
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 4321, 0o444)
    assert stat.S_IMODE(os.stat(mount.path / "d").st_mode) == 0o555
    assert stat.S_IMODE(os.lstat(mount.path / "s").st_mode) == 0o777


def test_the_mount_table_says_what_it_is(mounted):
    source = "acme/vi,si\\on/m nist:v3"
    mount = mounted(MemoryTree({"f": b""}), MountOptions(source=source, exec=False))
    line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(mount.path) in line)
    assert {"ro", "nosuid", "nodev", "noatime", "noexec"} <= set(line.split()[5].split(","))
    assert "default_permissions" in line
    device = os.stat(mount.path).st_dev
    entry = MountEntry(str(mount.path), "fuse.artfs", source, read_only=True, device=device)
    assert mounted_on(str(mount.path)) == entry


def test_tools_copy_and_compare(mount, tmp_path):
    subprocess.run(["cp", "-a", f"{mount.path}/.", tmp_path / "copy"], check=True)
    subprocess.run(["diff", "-r", "--no-dereference", mount.path, tmp_path / "copy"], check=True)
    found = subprocess.run(["find", mount.path, "-type", "f"], check=True, capture_output=True, text=True).stdout
    assert found.count("\n") == 9  # eight files, and one name with a line feed
    assert subprocess.run(["cat", mount.path / "big.bin"], check=True, capture_output=True).stdout == BIG
    assert subprocess.run([mount.path / "script.sh"], check=True, capture_output=True).stdout == b"hello\n"


def test_reads_at_any_offset_and_beyond_the_end(mount):
    # SEMANTICS: A read never returns fewer bytes than asked except at the end of the file.
    with open(mount.path / "big.bin", "rb", buffering=0) as file:
        for offset, length in [
            (0, 10),
            (4095, 2),
            (1 << 20, 1 << 20),
            (len(BIG) - 3, 100),
            (len(BIG), 5),
            (1 << 40, 5),
        ]:
            assert os.pread(file.fileno(), length, offset) == BIG[offset : offset + length]


def test_mmap_sees_the_file(mount):
    with open(mount.path / "big.bin", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        assert view[:] == BIG
        assert view[2_000_000:2_000_010] == BIG[2_000_000:2_000_010]


def test_sendfile_sends_the_file(mount):
    near, far = socket.socketpair()
    with open(mount.path / "train/deep/er/x.bin", "rb") as file, near, far:
        assert os.sendfile(near.fileno(), file.fileno(), 0, 1 << 20) == 256 * 40
        assert far.recv(256 * 40, socket.MSG_WAITALL) == CONTENT["train/deep/er/x.bin"]


def test_direct_io_reads_the_file(mount):
    descriptor = os.open(mount.path / "big.bin", os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, 1 << 20) as buffer:  # aligned memory
            assert os.preadv(descriptor, [buffer], 1 << 20) == 1 << 20
            assert buffer[:] == BIG[1 << 20 : 2 << 20]
    finally:
        os.close(descriptor)


def test_symlinks_are_followed(mount):
    assert os.readlink(mount.path / "link") == "train/7.png"
    assert (mount.path / "link").read_bytes() == b"seven"


def test_missing_and_impossible_names(mount):
    for name, number in [
        (b"absent", errno.ENOENT),
        (b"train/7.png/x", errno.ENOTDIR),
        (b"n" * 256, errno.ENAMETOOLONG),
        (b"\xff\xfe", errno.ENOENT),
    ]:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is checked below
            os.stat(os.fsencode(mount.path) + b"/" + name)
        assert caught.value.errno == number, name


def test_a_directory_of_100_000_entries_is_listed_whole(mounted):
    mount = mounted(HugeTree(100_000))
    assert sorted(os.listdir(mount.path)) == [f"{number:06d}" for number in range(100_000)]
    statistics = mount.statistics()
    if statistics["engine"] == "direct":
        assert statistics["fuse"]["listed_ahead"] > 0


def test_a_listing_goes_on_where_it_was_left(mounted):
    mount = mounted(HugeTree(5_000))
    with os.scandir(mount.path) as first:
        some = [next(first).name for _ in range(1000)]
        with os.scandir(mount.path) as second:
            assert sum(1 for _ in second) == 5000
        assert len({*some, *(entry.name for entry in first)}) == 5000


def test_opening_for_appending_without_writing_is_reading(mounted):
    descriptor = os.open(mounted(MemoryTree({"f": b"content"})).path / "f", os.O_RDONLY | os.O_APPEND)
    assert os.read(descriptor, 9) == b"content"
    os.close(descriptor)


WRITES = {
    "open for writing": lambda root: os.open(root / "script.sh", os.O_WRONLY),
    "open for both": lambda root: os.open(root / "script.sh", os.O_RDWR),
    "truncating open": lambda root: os.open(root / "script.sh", os.O_RDONLY | os.O_TRUNC),
    "create": lambda root: os.open(root / "new", os.O_CREAT | os.O_WRONLY),
    "truncate": lambda root: os.truncate(root / "script.sh", 0),
    "unlink": lambda root: os.unlink(root / "script.sh"),
    "rmdir": lambda root: os.rmdir(root / "nothing"),
    "mkdir": lambda root: os.mkdir(root / "new"),
    "rename": lambda root: os.rename(root / "script.sh", root / "other"),
    "link": lambda root: os.link(root / "script.sh", root / "other"),
    "symlink": lambda root: os.symlink("x", root / "other"),
    "mkfifo": lambda root: os.mkfifo(root / "fifo"),
    "chmod": lambda root: os.chmod(root / "script.sh", 0o777),
    "chown": lambda root: os.chown(root / "script.sh", 1, 1),
    "utime": lambda root: os.utime(root / "script.sh"),
    "setxattr": lambda root: os.setxattr(root / "script.sh", "user.x", b"y"),
    "removexattr": lambda root: os.removexattr(root / "script.sh", "user.artfs.digest"),
}


@pytest.mark.parametrize("read_only", [True, False], ids=["ro", "without-the-ro-flag"])
def test_every_write_is_refused(mounted, read_only):
    # SEMANTICS: EROFS, from the kernel (`ro`), and from the daemon should the kernel ever ask.
    tree = MemoryTree(CONTENT, xattrs={1: {"user.artfs.name": b"x"}})
    mount = mounted(tree, attrs.evolve(parse_options(""), read_only=read_only))
    for what, attempt in WRITES.items():
        with pytest.raises(OSError, match="Read-only file system") as caught:
            attempt(mount.path)
        assert caught.value.errno == errno.EROFS, what
    assert not os.access(mount.path / "script.sh", os.W_OK) or not read_only


def test_fsync_of_what_cannot_change_succeeds(mount):
    descriptor = os.open(mount.path / "big.bin", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def test_asking_for_the_prefetch_attribute_has_a_file_fetched(mounted):
    mount = mounted(MemoryTree({"f": b"x", "d/g": b"y"}))
    assert prefetch([mount.path / "f", mount.path / "d", mount.path / "d/g"]) == 2
    assert os.listxattr(mount.path / "f") == []
    with pytest.raises(FileNotFoundError):
        prefetch([mount.path / "absent"])


def test_xattrs(mounted):
    tree = MemoryTree({"f": b"x"}, xattrs={2: {"user.artfs.digest": b"abc==", "user.artfs.name": "é".encode()}})
    mount = mounted(tree, "workers=1")
    path = mount.path / "f"
    assert sorted(os.listxattr(path)) == ["user.artfs.digest", "user.artfs.name"]
    assert os.getxattr(path, "user.artfs.digest") == b"abc=="
    assert os.listxattr(mount.path) == []
    for name in ("user.other", "user.artfs.statistics", "security.capability", "trusted.x"):
        with pytest.raises(OSError, match="No data available"):
            os.getxattr(path, name)
    asked = mount.statistics()["memory"]["xattrs"]
    for _ in range(5):
        with pytest.raises(OSError, match="No data available"):
            os.getxattr(path, "security.capability")
    assert mount.statistics()["memory"]["xattrs"] == asked


def test_statistics_can_be_asked_twice_with_the_size_of_the_first_answer(mount):
    size = len(os.getxattr(mount.path, "user.artfs.statistics"))
    os.listdir(mount.path)
    assert len(os.getxattr(mount.path, "user.artfs.statistics")) == size
    assert mount.requests("readdir") + mount.requests("readdirplus") >= 2


def test_statfs_shows_the_whole_tree(mount):
    answer = os.statvfs(mount.path)
    assert answer.f_blocks * answer.f_frsize == -(-10_000_000 // 4096) * 4096
    assert (answer.f_bfree, answer.f_bavail, answer.f_ffree) == (0, 0, 0)
    assert answer.f_namemax == 255
    assert answer.f_files > 5


def test_absent_names_are_remembered_by_the_kernel(mounted):
    mount = mounted(MemoryTree({"f": b"x"}))
    for _ in range(20):
        assert not (mount.path / "absent").exists()
    assert mount.requests("lookup") == 1


def test_absent_names_are_asked_again_where_they_may_appear(mounted):
    mount = mounted(MemoryTree({"f": b"x"}, absent_lifetime=0))
    for _ in range(3):
        assert not (mount.path / "absent").exists()
    assert mount.requests("lookup") == 3


def test_a_file_read_again_costs_no_read(mounted, engine):
    # SEMANTICS: A small file that is cached costs OPEN, READ, RELEASE; read again, OPEN and RELEASE.
    mount = mounted(MemoryTree({"f": b"x" * 100_000}))
    for _ in range(5):
        assert len((mount.path / "f").read_bytes()) == 100_000
    requests = mount.statistics()["fuse"]["requests"]
    assert requests["read"] == 1
    assert requests["open"] == {"pyfuse3": 5, "direct": 1}[engine]
    assert requests["lookup"] == 1
    assert requests.get("getattr", 0) <= 1  # of the root
