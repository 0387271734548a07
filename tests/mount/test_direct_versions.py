"""The command line with the direct engine, over a real version."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from daemons import alive, clear, wait_until

NAME = "acme/vision/mnist"


@pytest.fixture
def artfs(tmp_path):
    environment = {**os.environ, "ARTFS_HOME": str(tmp_path / "home")}

    def run(*arguments):
        command = [sys.executable, "-c", "from artfs.cli import main; main()", *map(str, arguments)]
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    run("init")
    return run


def test_a_mount_stays_what_it_was_whatever_dies(artfs, tmp_path):
    data, mountpoint = tmp_path / "data", tmp_path / "mnt"
    data.mkdir()
    mountpoint.mkdir()
    (data / "f").write_bytes(b"first")
    (data / "large").write_bytes(os.urandom(5 << 20))
    large = (data / "large").read_bytes()
    artfs("log", data, NAME, "--type", "dataset")
    artfs("mount", "-o", "engine=direct,workers=2", f"{NAME}:latest", mountpoint)

    def info():
        return json.loads(artfs("info", "--json", mountpoint))

    def workers():
        statistics = json.loads(os.getxattr(mountpoint, "user.artfs.statistics"))
        return [each["pid"] for each in statistics["workers"] if each["pid"]]

    supervisor = None
    try:
        shown = info()
        supervisor = shown["pid"]
        assert shown["statistics"]["engine"] == "direct"
        (data / "f").write_bytes(b"second")
        artfs("log", data, NAME, "--type", "dataset")  # latest is another version now
        wait_until(lambda: len(workers()) == 2, "both serve")
        for pid in workers():
            os.kill(pid, signal.SIGKILL)
        assert (mountpoint / "f").read_bytes() == b"first"
        assert (mountpoint / "large").read_bytes() == large
        os.kill(supervisor, signal.SIGKILL)
        wait_until(lambda: not alive(supervisor), "the supervisor is dead")
        artfs("mount", "--adopt", "-o", "engine=direct", f"{NAME}:latest", mountpoint)
        supervisor = info()["pid"]
        for pid in workers():
            os.kill(pid, signal.SIGKILL)
        descriptor = os.open(mountpoint / "f", os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.read(descriptor, 100) == b"first"
        os.close(descriptor)
        artfs("umount", mountpoint)
        assert not Path(mountpoint / "f").exists()
    finally:
        clear(mountpoint, supervisor)
