"""A version with its profile: what the last run read is fetched first, and what this one reads may be recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from artfs.catalog import Catalog
from artfs.registry import VersionRow
from artfs.versions.profile import Recorder, Replay
from artfs.versions.repository import Repository
from artfs.vfs.version import VersionTree


class ProfiledTree(VersionTree):
    """A ``VersionTree`` that replays the version's profile, if there is one, and records its own if that is wanted."""

    def __init__(
        self, version: VersionRow, catalog: Catalog, repository: Repository, *, record: bool, first: bool
    ) -> None:
        """``first``: whether this is the first process of the mount, which replays, and begins the new profile."""
        reader = repository.reader(catalog)
        super().__init__(version, catalog, reader, repository=repository)
        path = _path(repository, version)
        self._replay = Replay(path, reader) if first else None
        self._recorder = Recorder(path, anew=first) if record else None

    def read(
        self, inode: int, offset: int, size: int, deadline: float | None, room: memoryview | None = None
    ) -> bytes | bytearray | memoryview:
        """Bytes of a file or reference."""
        data = super().read(inode, offset, size, deadline, room)
        if self._recorder is not None:
            self._recorder.record(self._catalog, self._node(inode), offset, len(data))
        return data

    def statistics(self) -> Mapping[str, Any]:
        """With what was recorded."""
        if self._recorder is None:
            return super().statistics()
        return {**super().statistics(), "profile": attrs.asdict(self._recorder.statistics())}

    def close(self) -> None:
        """Stop replaying and recording."""
        if self._replay is not None:
            self._replay.close()
        if self._recorder is not None:
            self._recorder.close()
        super().close()


def has_profile(repository: Repository, version: VersionRow) -> bool:
    """Whether a run of the version was recorded."""
    return _path(repository, version).exists()


def _path(repository: Repository, version: VersionRow) -> Path:
    assert version.catalog_sha256 is not None
    return repository.settings.cache_dir / "profiles" / version.catalog_sha256
