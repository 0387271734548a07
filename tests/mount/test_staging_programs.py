"""The writable mount, used by programs."""

import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import attr
import click
import pytest
from writable_mount import LARGE, run

from staging_base import snapshot_of  # isort: skip - found by writable_mount

FSX = Path(__file__).parents[1] / "staging" / "fsx.py"


def test_rsync(place, tmp_path):
    it = place()
    source = tmp_path / "source"
    shutil.copytree(Path(click.__file__).parent, source / "click")
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
    source = Path(attr.__file__).parent
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


def test_an_editor_that_renames(mnt):
    (mnt / "text").write_text("one two\n")
    (mnt / "text").chmod(0o640)
    before = (mnt / "text").stat().st_ino
    replace = ["-c", "set backupskip= backupcopy=no writebackup backup fsync", "-c", "%s/two/three/", "-c", "wq"]
    run("vim.tiny", "-es", "-u", "NONE", *replace, mnt / "text")
    assert (mnt / "text").read_text() == "one three\n"
    assert (mnt / "text~").read_text() == "one two\n"
    assert (mnt / "text").stat().st_mode & 0o777 == 0o640
    assert (mnt / "text").stat().st_ino != before  # it did not write in place


def test_updates_in_place(place):
    """What HDF5 does: under a lock, data at the end, then an index in the middle, then the superblock in front."""
    it = place()
    expected = bytearray(LARGE)
    with open(it.path / "large", "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for number in range(200):
            chunk = bytes([number]) * 5000
            end = len(expected)
            for offset, data in (
                (end, chunk),
                (1 << 20 | number * 24, struct.pack("<QQQ", number, end, len(chunk))),
                (0, struct.pack("<8sQ", b"\x89HDF\r\n\x1a\n", end + len(chunk))),
            ):
                assert os.pwrite(file.fileno(), data, offset) == len(data)
                expected[offset : offset + len(data)] = data
            if number % 50 == 0:
                os.fsync(file.fileno())
        file.truncate(len(expected) - 100)
    assert (it.path / "large").read_bytes() == expected[:-100]
    it.unmount()
    staged = it.staged()
    assert staged.read("large") == expected[:-100]
    staged.close()


# -- programs that try to break file systems ----------------------------------------------------------------------

# Of stress-ng's class "filesystem" those that ask of a file system what this one has. Not: bind-mount, chattr, dnotify,
# fanotify, fiemap, file-ioctl, handle, inode-flags, inotify, ioprio, lease, mknod, verity, xattr (refused here, or not
# about files), binderfs, eventfd, fpunch, procfs (about others), fsize (fails at the end of its time where it has to
# emulate fallocate; test_the_limit_of_a_file_size stands in).
STRESSORS = (
    "access", "chmod", "chown", "copy-file", "dentry", "dir", "dup", "fallocate", "fcntl", "filename", "flock", "fstat",
    "getdent", "hdd", "io", "iomix", "link", "locka", "lockf", "lockofd", "open", "rename", "symlink", "sync-file",
    "touch", "utime",
)  # fmt: skip
DIRECTORIES = ("chdir", "dirdeep", "dirmany")  # what they make takes them long to remove


def stress(directory, seconds, stressors, most):
    directory.mkdir()
    chosen = [word for name in stressors for word in (f"--{name}", "1")]
    done = subprocess.run(
        ["stress-ng", "--temp-path", directory, "--timeout", f"{seconds}s", "--verify", *chosen],
        capture_output=True,
        text=True,
        check=False,
        timeout=most,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "fail:" not in said, said
    assert "skipped" not in said, said
    assert os.listdir(directory) == []


def test_stress(mnt):
    stress(mnt / "stress", 2, STRESSORS, 100)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_stress_for_long(mnt):
    stress(mnt / "stress", 60, STRESSORS + DIRECTORIES, 500)


def verify(directory, seconds, size):
    """Random and sequential writes, each block read back and its checksum compared, by several jobs at once."""
    jobs = []
    for name, options in {
        "sequential": ["--rw=write", "--bs=128k"],
        "random": ["--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned"],
        "synced": ["--rw=randwrite", "--bs=4k", "--fsync=32"],
        "mapped": ["--rw=randwrite", "--bs=4k", "--ioengine=mmap"],
    }.items():
        jobs += [f"--name={name}", "--ioengine=psync", *options, f"--size={size}"]
        jobs += ["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--verify_state_save=0"]
        if seconds:
            jobs += ["--time_based", f"--runtime={seconds}"]
    said = run("fio", f"--directory={directory}", *jobs, cwd=directory)
    assert said.count("err= 0") == 4, said


def test_fio_verifies(mnt):
    verify(mnt, 0, "8m")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_fio_verifies_for_long(mnt):
    verify(mnt, 60, "128m")
