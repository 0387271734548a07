"""Artifacts for media values, and the real client to compare with."""

import importlib.util

import pytest
from media.directory_artifact import DirectoryArtifact
from media.wandb_client import WandbClient

import artfs
from artfs.sdk import session


@pytest.fixture
def new_artifact(tmp_path):
    return lambda name="artifact": DirectoryArtifact(tmp_path / name)


@pytest.fixture
def artifact(new_artifact):
    return new_artifact()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """ARTFS_HOME with a registry and store of its own, in an empty working directory."""
    monkeypatch.setenv("ARTFS_HOME", str(tmp_path / "home"))
    for name in ("ARTFS_CONFIG", "ARTFS_ARTIFACT_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path / "home"
    artfs.finish()
    session.close()


@pytest.fixture(scope="session")
def wandb_client(tmp_path_factory):
    """The real client, in a process of its own: it changes the process that imports it."""
    if importlib.util.find_spec("wandb") is None:
        pytest.skip("wandb is not installed: there is nothing to compare with")
    with WandbClient(tmp_path_factory.mktemp("wandb")) as client:
        yield client
