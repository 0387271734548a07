"""An embedded registry and store in a temporary directory, and the real W&B client, which never connects here."""

from __future__ import annotations

import gc
import socket
import warnings

import pytest
from homes import give_registry

import artfs
from artfs.sdk import session


@pytest.fixture
def home(tmp_path, monkeypatch):
    """ARTFS_HOME; the working directory is another, empty one."""
    monkeypatch.setenv("ARTFS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ARTFS_ENTITY", "acme")
    monkeypatch.setenv("ARTFS_PROJECT", "vision")
    for name in ("ARTFS_CONFIG", "ARTFS_ARTIFACT_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.delenv(name, raising=False)
    give_registry(tmp_path / "home" / "registry.db")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path / "home"
    artfs.finish()
    session.close()


@pytest.fixture
def run(home):
    with artfs.init() as run:
        yield run


@pytest.fixture
def work(home, tmp_path):
    """The working directory."""
    return tmp_path / "work"


@pytest.fixture
def write(work):
    """Write a file below the working directory."""

    def write(path, data=b""):
        target = work / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
        return str(target)

    return write


@pytest.fixture
def logged(run):
    """Log an artifact of small files and wait for it."""

    def logged(name="mnist", files=None, **options):
        artifact = artfs.Artifact(name, "dataset")
        for path, text in (files or {"a.txt": "A", "sub/b.txt": "B"}).items():
            with artifact.new_file(path) as file:
                file.write(text)
        return run.log_artifact(artifact, **options).wait()

    return logged


@pytest.fixture
def oracle(offline_wandb, monkeypatch):
    def refuse(_socket, address):
        raise AssertionError(f"the oracle connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield offline_wandb
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves pools and directories to the collector
        gc.collect()
