"""What ``-o`` may say, and the small parts of a mount's life that need no mount."""

import os
import socket
import stat

import pytest

from artfs.errors import InvalidInput, MountFailed
from artfs.fuse import MountOptions, parse_options
from artfs.fuse.mountpoint import canonical, mount_table, mounted_on
from artfs.fuse.notify import notify
from artfs.fuse.records import Claim, live_record


def test_values_and_flags_are_parsed():
    assert parse_options("allow_other,uid=1000,gid=100,file_mode=440,dir_mode=0550,wait=2.5,noexec") == MountOptions(
        allow_other=True, uid=1000, gid=100, file_mode=0o440, dir_mode=0o550, wait=2.5, exec=False
    )


def test_later_options_win_and_a_base_is_kept():
    assert parse_options("uid=1,uid=2", MountOptions(gid=7)) == MountOptions(uid=2, gid=7)


def test_what_mount_and_fstab_say_is_passed_over():
    text = (
        "defaults,_netdev,nofail,noauto,auto,user,users,ro,nosuid,nodev,noatime,x-systemd.automount,comment=x,,user=me"
    )
    assert parse_options(text) == MountOptions()


@pytest.mark.parametrize("option", ["rw", "suid", "dev"])
def test_what_a_version_cannot_be_is_refused(option):
    with pytest.raises(InvalidInput, match=f"'{option}' is refused: "):
        parse_options(f"ro,{option}")


@pytest.mark.parametrize("option", ["alow_other", "uid", "allow_other=1", "max_read=4096"])
def test_an_unknown_option_is_named_with_those_that_exist(option):
    with pytest.raises(InvalidInput, match=f"'{option}'; artfs knows allow_other"):
        parse_options(option)
    assert parse_options(option, sloppy=True) == MountOptions()


@pytest.mark.parametrize(
    "option",
    ["uid=", "uid=-1", "uid=me", "file_mode=8", "file_mode=1777", "wait=0", "wait=nan", "max_background=0", "fsname="],
)
def test_a_bad_value_is_named(option):
    with pytest.raises(InvalidInput, match=f"'{option}'"):
        parse_options(option)


def test_a_source_that_the_mount_table_has_no_room_for_is_named():
    assert parse_options("fsname=" + "x" * 1024).source == "x" * 1024
    with pytest.raises(InvalidInput, match=r"'fsname=x*': fsname must be a name of at most 1024 bytes"):
        parse_options("fsname=" + "x" * 5000)


def test_a_source_cannot_bring_options_of_its_own():
    options = MountOptions(source="a,dev,ünï\\").fuse_options()
    assert r"fsname=a\,dev\,?n?\\" in options
    assert {"ro", "nosuid", "nodev", "noatime"} <= options


def test_the_mount_table_is_read_with_its_escapes(tmp_path):
    assert mounted_on("/proc").type == "proc"
    assert mounted_on(str(tmp_path)) is None
    assert all(entry.mountpoint.startswith("/") for entry in mount_table())


def test_canonical_follows_symlinks(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert canonical(tmp_path / "link" / ".." / "link") == str(tmp_path / "real")
    assert canonical("/") == "/"


def test_one_process_at_a_time_has_a_mount_point(tmp_path):
    claim = Claim(tmp_path, "/mnt/a", "acme/vision/mnist:v3")
    with pytest.raises(MountFailed, match="another artfs process"):
        Claim(tmp_path, "/mnt/a", "other")
    Claim(tmp_path, "/mnt/b", "other").release()
    record = live_record(tmp_path, "/mnt/a")
    assert (record.pid, record.mountpoint, record.source) == (os.getpid(), "/mnt/a", "acme/vision/mnist:v3")
    claim.release()
    assert live_record(tmp_path, "/mnt/a") is None
    Claim(tmp_path, "/mnt/a", "again").release()


def test_a_record_whose_process_died_does_not_count(tmp_path):
    child = os.fork()
    if child == 0:
        Claim(tmp_path, "/mnt/a", "x")
        os._exit(0)
    os.waitpid(child, 0)
    (left,) = (tmp_path / "mounts").iterdir()
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    assert live_record(tmp_path, "/mnt/a") is None
    Claim(tmp_path, "/mnt/a", "y").release()


def test_the_service_manager_is_told(tmp_path, monkeypatch):
    for address in (str(tmp_path / "socket"), f"\0artfs-test-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(address)
            monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
            notify(READY=1, STATUS="serving")
            assert manager.recv(1024) == b"READY=1\nSTATUS=serving"


def test_nobody_is_told_where_nobody_asked(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify(READY=1)
