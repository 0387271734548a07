import contextlib

import pytest
from homes import open_repository

from artfs.names import CollectionName
from artfs.versions.log import Labels, log_path


@pytest.fixture
def collection():
    return CollectionName("acme", "vision", "mnist")


@pytest.fixture
def open_home(tmp_path):
    """``open_home(**settings)`` opens the repository in ``tmp_path/home``, each time anew; closes them."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(open_repository(tmp_path / "home", **options))


@pytest.fixture
def repository(open_home):
    return open_home()


@pytest.fixture
def log(repository, collection):
    """``log(source, "best", ...)`` logs to ``repository``."""

    def log_source(source, *aliases, **keywords):
        labels = Labels(aliases=aliases, **keywords.pop("labels", {}))
        return log_path(repository, source, collection, "dataset", labels=labels, **keywords)

    return log_source


@pytest.fixture
def remembered(monkeypatch):
    """Files count as settled at once, so that their hashes are remembered."""
    monkeypatch.setattr("artfs.versions.hashes._SETTLED_NS", 0)
