import contextlib
import errno
import itertools
import os
import stat
import threading

import pytest
from staging_base import FACTS, MTIME, Link, far

from artfs.catalog import Kind
from artfs.errors import AreaInUse
from artfs.staging import Area, StagingTree, areas, create_area, holder
from artfs.vfs.tree import WouldBlock


@contextlib.contextmanager
def failing(number):
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its errno is compared below
        yield
    assert errno.errorcode[caught.value.errno] == errno.errorcode[number]


# -- names --------------------------------------------------------------------------------------------------------


def test_an_untouched_base_is_shown_as_it_is(stage):
    it = stage({"a/b": b"1", "a-b": b"22", "link": Link("a/b"), "empty": None}, modes={"a-b": 0o755})
    assert it.read("a/b") == b"1"
    assert it.find("a-b").mode == 0o755
    assert it.find("a-b").mtime_ns == MTIME
    assert it.readlink("link") == "a/b"
    assert sorted(it.listdir()) == ["a", "a-b", "empty", "link"]
    assert it.listdir("empty") == []
    assert it.changes() == []


def test_names_come_and_go(stage):
    it = stage({"old": b"1", "dir/x": b"2"})
    it.put("new", b"3")
    it.mkdir("dir/sub")
    it.unlink("old")
    assert sorted(it.listdir()) == ["dir", "new"]
    assert sorted(it.listdir("dir")) == ["sub", "x"]
    it.put("old", b"4")
    assert it.read("old") == b"4"
    it.reopen()
    assert sorted(it.listdir()) == ["dir", "new", "old"]
    assert it.read("old") == b"4"
    assert it.changes() == [
        ("added", "dir/sub", None, ""),
        ("added", "new", None, ""),
        ("changed", "old", None, "content"),
    ]


def test_a_renamed_directory_of_the_base_is_few_rows_and_takes_everything_along(stage):
    it = stage({f"big/{number}": b"x" for number in range(2000)} | {"big/sub/deep": b"y"})
    it.rename("big", "moved")
    assert it.read("moved/sub/deep") == b"y"
    assert len(it.listdir("moved", batch=7)) == 2001
    with failing(errno.ENOENT):
        it.find("big")
    rows = sum(it.tree._database.one(f"SELECT count(*) FROM {table}")[0] for table in ("name", "inode"))
    assert rows <= 5
    it.mkdir("big")  # the old name is free
    assert it.listdir("big") == []
    found = it.changes()
    assert len(found) == 2002
    assert ("renamed", "moved/sub/deep", "big/sub/deep", "") in found
    assert ("added", "big", None, "") in found
    it.rmdir("big")
    it.rename("moved", "big")
    assert it.changes() == []


def test_a_listing_that_is_rewritten_by_rename_comes_to_an_end(stage):
    it = stage({f"{number}": b"x" for number in range(5)})
    for number in range(5, 10):
        it.put(str(number), b"x")
    inode, cookie, seen = 1, 0, []
    while (entry := next(it.tree.list(inode, cookie, None), None)) is not None:
        seen.append(entry.name)
        cookie = entry.cookie
        it.put("temporary", b"y")
        it.rename("temporary", entry.name)
        assert len(seen) < 30
    assert sorted(seen) == [str(number) for number in range(10)]


def test_a_listing_goes_on_where_entries_were_removed(stage):
    it = stage({f"old{number:03}": b"x" for number in range(300)})
    for number in range(300):
        it.create(f"new{number:03}")
    cookie, seen = 0, []
    while batch := list(itertools.islice(it.tree.list(1, cookie, None), 50)):
        cookie = batch[-1].cookie
        for entry in batch:
            seen.append(entry.name)
            it.unlink(entry.name)
    assert len(seen) == len(set(seen)) == 600
    assert it.listdir() == []


def test_rename_flags(stage):
    it = stage({"a": b"1", "b": b"2", "d/x": b"3"})
    with failing(errno.EEXIST):
        it.rename("a", "b", replace=False)
    it.rename("a", "b", exchange=True)
    assert (it.read("a"), it.read("b")) == (b"2", b"1")
    it.rename("a", "d", exchange=True)
    assert it.read("a/x") == b"3"
    assert it.read("d") == b"2"
    with failing(errno.ENOENT):
        it.rename("a", "none", exchange=True)
    it.rename("b", "fresh", replace=False)
    assert it.read("fresh") == b"1"


def test_rename_keeps_to_posix(stage):
    it = stage({"file": b"1", "dir/x": b"2", "other/y": b"3", "empty": None})
    with failing(errno.EISDIR):
        it.rename("file", "dir")
    with failing(errno.ENOTDIR):
        it.rename("dir", "file")
    with failing(errno.ENOTEMPTY):
        it.rename("dir", "other")
    with failing(errno.EINVAL):
        it.rename("dir", "dir/below")
    it.mkdir("dir/below")
    with failing(errno.EINVAL):
        it.rename("dir", "dir/below/deeper")
    with failing(errno.EINVAL):
        it.rename("dir/below", "dir", exchange=True)
    it.rmdir("dir/below")
    it.rename("dir", "empty")
    assert it.read("empty/x") == b"2"
    it.link("file", "same")
    it.rename("file", "same")  # two names of one file: nothing happens
    assert it.read("file") == it.read("same") == b"1"


def test_hard_links_share_everything(stage):
    it = stage({"a": b"base"})
    it.link("a", "b")
    assert it.find("a").nlink == it.find("b").nlink == 2
    it.write("b", 0, b"B")
    assert it.read("a") == b"Base"
    it.chmod("a", 0o600)
    assert it.find("b").mode == 0o600
    it.unlink("a")
    assert it.find("b").nlink == 1
    assert it.read("b") == b"Base"
    it.mkdir("d")
    with failing(errno.EPERM):
        it.link("d", "e")


def test_removed_directories_are_dead(stage):
    it = stage({"d/x": b"1"})
    inode = it.find("d").inode
    with failing(errno.ENOTEMPTY):
        it.rmdir("d")
    it.unlink("d/x")
    it.rmdir("d")
    with failing(errno.ENOENT):
        it.call(it.tree.create, inode, "y", 0o644)
    assert it.tree.attributes(inode, None).nlink == 0
    assert list(it.tree.list(inode, 0, None)) == []
    with failing(errno.ENOENT):
        it.find("d")
    it.mkdir("d")
    assert it.listdir("d") == []
    assert it.find("d").inode != inode


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("x" * 255, None),
        ("x" * 256, errno.ENAMETOOLONG),
        ("é" * 127, None),
        ("é" * 128, errno.ENAMETOOLONG),
        ("a\nb", errno.EINVAL),
        ("a\x01b", errno.EINVAL),
        ("a\udcffb", errno.EINVAL),
        ("..", errno.EINVAL),
    ],
)
def test_names_that_a_version_cannot_hold_are_refused(stage, name, number):
    it = stage({"old": b"1"})
    for make in (
        lambda: it.tree.create(1, name, 0o644),
        lambda: it.tree.make_directory(1, name, 0o755),
        lambda: it.tree.make_symlink(1, name, "target"),
        lambda: it.tree.link(it.find("old").inode, 1, name),
        lambda: it.tree.rename(1, "old", 1, name),
    ):
        if number is None:
            it.call(make)
            (it.rmdir if it.find(name).kind == Kind.DIRECTORY else it.unlink)(name)
            if "old" not in it.listdir():
                it.put("old", b"1")
        else:
            with failing(number):
                it.call(make)
    assert it.listdir() == ["old"]


def test_a_path_over_4096_bytes_is_refused(stage):
    it = stage({})
    parent = 1
    for _ in range(16):  # 16 * 256 - 1 = 4095
        parent = it.tree.make_directory(parent, "d" * 255, 0o755).inode
    with failing(errno.ENAMETOOLONG):
        it.call(it.tree.create, parent, "a", 0o644)
    short = it.tree.make_directory(1, "s", 0o755).inode
    it.tree.create(short, "a", 0o644)
    with failing(errno.ENAMETOOLONG):
        it.call(it.tree.rename, 1, "s", parent, "s")


def test_symlink_targets(stage):
    it = stage({})
    it.symlink("../anywhere at all", "link")
    assert it.find("link").size == len("../anywhere at all")
    with failing(errno.EINVAL):
        it.symlink("a\nb", "bad")
    with failing(errno.ENAMETOOLONG):
        it.symlink("x" * 4096, "long")
    assert it.listdir() == ["link"]


# -- content ------------------------------------------------------------------------------------------------------


def test_an_edit_of_a_large_file_stores_the_edit_and_reads_the_rest_from_the_base(stage):
    data = os.urandom(1 << 20) * 16
    it = stage({"large": data})
    it.write("large", 5_000_000, b"EDIT" * 1024)
    assert it.base.read_bytes == 0
    local = os.stat(it.tree._files.path(it.file("large")))
    assert local.st_size == len(data)
    assert local.st_blocks * 512 < 64 << 10
    expected = bytearray(data)
    expected[5_000_000 : 5_000_000 + 4096] = b"EDIT" * 1024
    assert it.read("large") == expected
    assert it.base.read_bytes == len(data) - 4096
    assert it.changes() == [("changed", "large", None, "content")]


def test_truncation_down_then_up_gives_zeros(stage):
    it = stage({"f": b"0123456789"})
    it.truncate("f", 4)
    it.truncate("f", 8)
    assert it.read("f") == b"0123\0\0\0\0"
    it.write("f", 6, b"xy")
    assert it.read("f") == b"0123\0\0xy"
    it.write("f", 1, b"ABC")
    it.truncate("f", 2)
    assert it.tree.view.database.all("SELECT start, stop FROM range") == [(1, 2)]
    it.truncate("f", 12)
    assert it.read("f") == b"0A" + bytes(10)
    it.reopen()
    assert it.read("f") == b"0A" + bytes(10)


def test_a_write_beyond_the_end_leaves_zeros(stage):
    it = stage({"f": b"012"})
    it.write("f", 6, b"x")
    assert it.read("f") == b"012\0\0\0x"


def test_reads_that_need_the_base_say_so(stage):
    it = stage({"f": b"0123456789"}, blocking=True)
    inode = it.file("f")
    it.write("f", 2, b"ab")
    assert bytes(it.tree.read(inode, 2, 2, None)) == b"ab"
    with pytest.raises(WouldBlock):
        it.tree.read(inode, 0, 4, None)
    assert bytes(it.tree.read(inode, 0, 5, far())) == b"01ab4"


def test_a_file_lives_while_it_is_open(stage):
    it = stage({"old": b"base"})
    it.put("new", b"fresh")
    inodes = [it.file(name) for name in ("old", "new")]
    for inode, name in zip(inodes, ("old", "new"), strict=True):
        it.tree.open(inode)
        it.unlink(name)
        assert it.tree.attributes(inode, None).nlink == 0
    assert [bytes(it.tree.read(inode, 0, 9, far())) for inode in inodes] == [b"base", b"fresh"]
    it.tree.write(inodes[0], 4, b"!", far())
    assert bytes(it.tree.read(inodes[0], 0, 9, far())) == b"base!"
    for inode in inodes:
        it.tree.release(inode)
    it.tree.sync()
    assert list(it.tree._files.inodes()) == []
    assert it.tree._database.one("SELECT count(*) FROM inode WHERE inode!=1")[0] == 0


def test_references_stay_references_until_their_bytes_are_changed(stage):
    it = stage({}, references={"s3": b"remote bytes"}, sizes_known=False)
    inode = it.tree.lookup(1, "s3", far()).inode
    with pytest.raises(WouldBlock):
        it.tree.attributes(inode, None)
    assert it.tree.attributes(inode, far()).size == 12
    it.tree.rename(1, "s3", 1, "moved")
    it.tree.set_attributes(inode, 0o600, None, None, far())
    assert it.tree._nodes.get(inode).kind == Kind.REFERENCE
    assert it.changes() == [("renamed", "moved", "s3", "")]
    with pytest.raises(WouldBlock):
        it.tree.write(inode, 0, b"R", None)
    it.tree.write(inode, 0, b"R", far())
    assert bytes(it.tree.read(inode, 0, 99, far())) == b"Remote bytes"
    assert it.tree._nodes.get(inode).kind == Kind.FILE


def test_times_and_modes(stage):
    it = stage({"f": b"1", "d/x": b"2"})
    it.chmod("f", 0o4751)
    assert it.find("f").mode == 0o751
    for path in ("f", "d"):
        it.utime(path, 1_234_567_890_123_456_789)
        assert it.find(path).mtime_ns == 1_234_567_890_123_456_789
    it.write("f", 0, b"x")
    assert it.find("f").mtime_ns > MTIME
    it.utime("f", 42)
    assert it.find("f").mtime_ns == 42
    it.create("d/new")
    assert it.find("d").mtime_ns > MTIME
    it.reopen()
    assert it.find("f").mtime_ns == 42
    assert it.changes() == [("added", "d/new", None, ""), ("changed", "f", None, "content")]


def test_a_changed_permission_bit_is_a_change_of_whatever_has_it(stage):
    # SEMANTICS: A changed permission bit of a file, directory or reference is a change: it is shown by `status`
    it = stage({"a/b/f": b"1", "a/same": b"2", "empty": None, "kept/x": b"3"}, references={"s3": b"remote"})
    for path, mode in {"": 0o700, "a/b": 0o711, "empty": 0o700, "s3": 0o600, "kept": 0o700}.items():
        it.chmod(path, mode)
    it.chmod("kept", 0o755)
    assert it.changes() == [("changed", path, None, "mode") for path in (".", "a/b", "empty", "s3")]
    it.create("empty/new")
    it.chmod("", 0o755)
    it.unlink("a/b/f")
    assert it.changes() == [
        ("added", "a/b", None, ""),
        ("removed", "a/b/f", None, ""),
        ("removed", "empty", None, ""),
        ("added", "empty/new", None, ""),
        ("changed", "s3", None, "mode"),
    ]


def test_a_directory_made_again_with_other_permissions_has_changed(stage):
    it = stage({"d/f": b"1"})
    it.rename("d", "old")
    it.mkdir("d", 0o700)
    it.rename("old/f", "d/f")
    it.rmdir("old")
    assert it.changes() == [("changed", "d", None, "mode")]


@pytest.mark.parametrize(
    ("given", "shown"),
    [(10_413_792_000 * 10**9, 2**63 - 1), (-62_135_596_800 * 10**9, -(2**63)), (2**63 - 1, 2**63 - 1)],
    ids=["2300", "year 1", "the last that is held"],
)
def test_a_time_that_64_bits_do_not_hold_becomes_the_nearest(stage, given, shown):
    it = stage({"f": b"1", "d/x": b"2"})
    it.put("new", b"3")
    for path in ("f", "d", "new"):
        it.utime(path, given)
    it.reopen()
    assert (it.find("f").mtime_ns, it.find("d").mtime_ns) == (shown, shown)
    first_of_ext4 = -(2**31) * 10**9  # the local file's own limit
    assert it.find("new").mtime_ns in {shown, first_of_ext4}


def test_extended_attributes_of_what_the_base_holds(stage):
    it = stage({"f": b"1"})
    inode = it.file("f")
    assert it.tree.xattrs(inode, None) == {"user.artfs.digest": b"digest"}
    it.write("f", 0, b"2")
    assert it.tree.xattrs(inode, None) == {}


def test_a_file_that_cannot_grow_so_far_stays_as_it_is(stage, monkeypatch):
    it = stage({"f": b"content"})

    def too_large(_descriptor, _size):
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(os, "ftruncate", too_large)
    with failing(errno.EFBIG):
        it.truncate("f", 1 << 61)
    assert it.changes() == []
    assert list(it.tree._files.inodes()) == []


def test_the_room_left_is_the_disks(stage):
    it = stage({})
    disk = os.statvfs(it.directory)
    assert abs(it.tree.capacity().free - disk.f_bavail * disk.f_frsize) < 1 << 30


def test_threads_write_one_file_without_loss(stage):
    data = bytes(1 << 16)
    it = stage({"f": data * 8})
    inode = it.file("f")

    def write(which):
        for index in range(64):
            it.tree.write(inode, (index * 8 + which) * 1024, bytes([which + 1]) * 1024, far())

    threads = [threading.Thread(target=write, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert it.read("f") == b"".join(bytes([which + 1]) * 1024 for which in range(8)) * 64
    assert it.tree._database.all("SELECT start, stop FROM range") == [(0, 8 << 16)]


def test_many_removed_files_are_tidied_away(stage):
    it = stage({})
    for _ in range(600):
        it.put("temporary", b"x")
        it.unlink("temporary")
    deadline = far()
    while len(list(it.tree._files.inodes())) > 300:
        assert far() - deadline < 30
        threading.Event().wait(0.01)


# -- areas --------------------------------------------------------------------------------------------------------


def test_an_area_is_private_and_opened_once(tmp_path):
    area = create_area(tmp_path / "staging", FACTS, None)
    assert stat.S_IMODE(area.path.stat().st_mode) == 0o700
    with pytest.raises(AreaInUse) as caught:
        Area(area.path)
    assert str(os.getpid()) in str(caught.value)
    assert holder(area.path) == os.getpid()
    assert list(areas(tmp_path / "staging")) == [(area.path, FACTS)]
    area.close()
    assert holder(area.path) is None
    Area(area.path).discard()
    assert list((tmp_path / "staging").iterdir()) == []


def test_an_area_without_a_base_is_empty(tmp_path):
    tree = StagingTree(create_area(tmp_path, FACTS, None), None)
    assert list(tree.list(1, 0, None)) == []
    tree.create(1, "f", 0o644)
    assert [entry.name for entry in tree.list(1, 0, None)] == ["f"]
    tree.close()
