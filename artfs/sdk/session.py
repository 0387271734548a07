"""What all calls of a process share: the open repository of each configuration, and artifacts that have no id yet."""

from __future__ import annotations

import atexit
import hashlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Final

from artfs.config import Settings, load_settings
from artfs.errors import ConfigurationError
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


def mark(repository: Repository) -> str:
    """What tells a repository from others in another process; its registry's URL may hold a password."""
    return hashlib.sha256(repository.settings.registry_url.encode()).hexdigest()[:16]


def marked(wanted: str) -> Repository:
    """The repository with a mark: one that is open, or that of the settings in force; raises ConfigurationError."""
    with _lock:
        found = [opened for (process, _), opened in _repositories.items() if process == os.getpid()]
    for candidate in found:
        if mark(candidate) == wanted:
            return candidate
    if mark(repository()) != wanted:
        raise ConfigurationError(why="the artifact is of another registry than the one that is configured here")
    return repository()


def close() -> None:
    """Close what this process opened."""
    with _lock:
        for key in [key for key in _repositories if key[0] == os.getpid()]:
            _repositories.pop(key).close()


# A child begins with the lock free, whichever thread of its parent had it.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
atexit.register(close)
