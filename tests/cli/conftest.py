import hashlib
import os
import shutil

import pytest
from homes import Link, make_tree
from program import Program

if not os.path.exists("/dev/fuse"):
    collect_ignore_glob = ["test_cli_mount*"]

CONTENT = {
    "a.txt": b"hello from artfs\n",
    "script.sh": b"#!/bin/sh\necho hello\n",
    "big.bin": hashlib.shake_256(b"big").digest(11 << 20),
    "d/link": Link("../a.txt"),
    "empty": None,
    "nothing": b"",
    "Grüße 日本 🎈.txt": "ünï\n".encode(),
    "n" * 255: b"longest name\n",
} | {f"train/{i % 7}/{i:04}.png": hashlib.shake_256(b"%d" % i).digest(50 * i) for i in range(250)}


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """A home with ``acme/vision/mnist`` v0 (best) and v1 (latest), linked to ``acme/published/digits``.

    Tests only read it. ``sample.source`` is what v1 was logged from.
    """
    directory = tmp_path_factory.mktemp("sample")
    program = Program(directory / "home")
    program.source = make_tree(directory / "src", CONTENT | {"old": b"removed in v1\n"})
    (program.source / "script.sh").chmod(0o755)
    program.run("log", program.source, "vision/mnist", "-t", "dataset", "-a", "best", "--metadata", '{"k": 1}')
    (program.source / "old").unlink()
    (program.source / "a.txt").write_bytes(b"hello again\n")
    program.run("log", program.source, "vision/mnist", "--type", "dataset", "--tag", "checked", "--ttl", "30")
    program.run("link", "vision/mnist:v0", "published/digits", "-a", "production")
    return program


@pytest.fixture
def program(tmp_path):
    """An empty home."""
    return Program(tmp_path / "home")


@pytest.fixture
def copy(sample, tmp_path):
    """A copy of the sample for tests that change it."""
    shutil.copytree(sample.home, tmp_path / "home", ignore=shutil.ignore_patterns("run"))  # what is mounted stays there
    program = Program(tmp_path / "home")
    program.source = sample.source
    return program
