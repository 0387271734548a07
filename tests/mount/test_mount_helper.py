"""``mount.artfs``, as mount(8) calls it at boot."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from artfs.cli import mount, mount_helper
from artfs.errors import MountFailed


@pytest.fixture
def mounted_with(monkeypatch):
    calls = []

    def stand_in(settings, name, directory, options, *, sloppy):
        calls.append((settings.data_dir, name, directory, options, sloppy))

    monkeypatch.setattr(mount, "mount", stand_in)
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the helper completes it
    return calls


def test_the_line_of_fstab_becomes_a_mount(mounted_with, tmp_path):
    options = f"rw,_netdev,allow_other,home={tmp_path}"
    assert mount_helper.main(["acme/vision/mnist:v3", "/mnt/a", "-o", options, "-n", "-v"]) == 0
    ((data_dir, *rest),) = mounted_with
    assert data_dir.is_relative_to(tmp_path)
    assert rest == ["acme/vision/mnist:v3", "/mnt/a", "_netdev,allow_other", False]


def test_sloppy_is_passed_on(mounted_with):
    assert mount_helper.main(["artfs", "/mnt/a", "-s", "-o", "future=1", "-t", "artfs"]) == 0
    assert mounted_with[0][1:] == ("", "/mnt/a", "future=1", True)


def test_fake_checks_and_does_not_mount(mounted_with, capsys):
    assert mount_helper.main(["acme/", "/mnt/a", "-f"]) == 0
    assert mount_helper.main(["acme/", "/mnt/a", "-f", "-o", "alow_other"]) == 1
    assert "mount.artfs: unknown mount option 'alow_other'" in capsys.readouterr().err
    assert mounted_with == []


def test_failures_have_the_exit_codes_of_mount(mounted_with, monkeypatch, capsys):
    def fail(*_, **__):
        raise MountFailed(mountpoint="/mnt/a", why="it is not empty")

    monkeypatch.setattr(mount, "mount", fail)
    assert mount_helper.main(["acme/", "/mnt/a"]) == 32
    assert "mount.artfs: cannot mount on /mnt/a: it is not empty" in capsys.readouterr().err
    assert mount_helper.main(["acme/"]) == 1
    assert mount_helper.main(["acme/", "/mnt/a", "-N", "/proc/1/ns/mnt"]) == 1
    assert mount_helper.main(["/home/me/acme", "/mnt/a"]) == 1


def test_it_works_without_an_environment(tmp_path):
    program = [sys.executable, "-m", "artfs.cli.mount_helper", "a/b/c", tmp_path / "absent", "-o", f"home={tmp_path}"]
    ran = subprocess.run(program, env={}, cwd="/", capture_output=True, text=True, check=False)
    assert ran.returncode == 32
    assert f"mkdir -p {tmp_path}/absent" in ran.stderr


UNITS = Path(__file__).parents[2] / "systemd"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize(
    ("manager", "source", "instance"),
    [
        ("--system", "system/artfs@.service", "artfs@mnt-mnist.service"),
        ("--user", "user/artfs@.service", "artfs@home-me-mnist.service"),
        ("--system", "mnt-mnist.mount", "mnt-mnist.mount"),
        ("--system", "mnt-mnist.automount", "mnt-mnist.automount"),
    ],
)
def test_the_units_are_valid(tmp_path, manager, source, instance):
    text = (UNITS / source).read_text()
    program = "/usr/local/bin/artfs" if manager == "--system" else "%h/.local/bin/artfs"
    (tmp_path / instance).write_text(text.replace(program, shutil.which("true")))
    if instance.endswith(".automount"):
        shutil.copy(UNITS / "mnt-mnist.mount", tmp_path)
    ran = subprocess.run(
        ["systemd-analyze", manager, "verify", "--man=no", tmp_path / instance],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_LOG_LEVEL": "warning"},
    )
    complaints = [line for line in ran.stderr.splitlines() if instance.partition(".")[0].partition("@")[0] in line]
    assert not complaints
    assert ran.returncode == 0, ran.stderr
