"""Fixtures for all layers."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from pathlib import Path

import pytest
from servers.faulty_proxy import FaultyProxy
from servers.seaweed import SeaweedServer, seaweed_server


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the long profiles too")


def pytest_configure():
    # A shell that is not interactive starts what it puts in the background with SIGINT ignored, and so would be every
    # program of the tests.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        for item in items:
            if "long" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="runs with --long"))


def pytest_collection_finish():
    # What is imported stays: collections need not look at it. They took 40 of the 754 CPU seconds of all tests.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    """Kill what a test that fails has started and not ended."""
    before = children()
    try:
        return (yield)
    except BaseException:
        for pid in children() - before:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise


def children():
    """Processes that this one has started, dead ones that nobody has waited for among them."""
    found = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            found.update(map(int, task.read_text().split()))
    return found


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory, request):
    """A SeaweedFS server on loopback, one for all workers of pytest-xdist."""
    shared = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        shared = shared.parent
    with seaweed_server(shared / "seaweed") as server:
        yield server


@pytest.fixture
def s3_environment(s3_server: SeaweedServer, monkeypatch):
    """The server, with its credentials and endpoint in the environment as AWS tools expect them."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def s3_proxy(s3_server: SeaweedServer):
    """A proxy in front of the server that breaks things on command."""
    with FaultyProxy(*s3_server.address) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def offline_wandb(tmp_path_factory):
    """wandb 0.31.0 with directories of its own, which is told to ask no server of its maker."""
    directory = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DIR", "CACHE_DIR", "DATA_DIR", "CONFIG_DIR", "ARTIFACT_DIR"):
            patch.setenv(f"WANDB_{name}", str(directory / name.lower()))
        for name, value in {
            "MODE": "offline",
            "SILENT": "true",
            "ERROR_REPORTING": "false",
            "API_KEY": "x" * 40,
        }.items():
            patch.setenv(f"WANDB_{name}", value)
        import wandb

        assert wandb.__version__ == "0.31.0"
        gc.freeze()  # a full collection, of which there is one a test, takes 0.3 s with it
        yield wandb
