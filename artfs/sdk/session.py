"""What all calls of a process share: the open repository of each configuration, and artifacts that have no id yet."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import TYPE_CHECKING, Final

from artfs.config import Settings, load_settings
from artfs.versions.repository import Repository

if TYPE_CHECKING:
    from artfs.sdk.artifact import Artifact

_lock = threading.Lock()
_repositories: dict[tuple[int, Settings], Repository] = {}

by_client_id: Final[weakref.WeakValueDictionary[str, Artifact]] = weakref.WeakValueDictionary()
"""Artifacts made by this process: references to one that is not logged yet name it by its client id."""


def repository(settings: Settings | None = None) -> Repository:
    """The repository of ``settings`` (those in force), opened once a process."""
    key = (os.getpid(), load_settings() if settings is None else settings)
    with _lock:
        found = _repositories.get(key)
        if found is None:
            found = _repositories[key] = Repository(key[1])
        return found


def close() -> None:
    """Close what this process opened."""
    with _lock:
        for key in [key for key in _repositories if key[0] == os.getpid()]:
            _repositories.pop(key).close()


atexit.register(close)
