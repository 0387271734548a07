"""What names led to when they were last resolved, so that a mount works while the registry is out of reach."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from artfs.names import VersionName
from artfs.registry import VersionRow
from artfs.versions.hashes import discard_if_corrupt

if TYPE_CHECKING:
    from cattrs.preconf.json import JsonConverter

log = logging.getLogger(__name__)

_LIMIT = 10_000
"""Names kept; the oldest go first."""


@functools.cache
def _converter() -> JsonConverter:
    from cattrs.preconf.json import make_converter  # only where a version is looked at or remembered

    return make_converter()


@attrs.frozen
class Remembered:
    """An earlier answer."""

    version: VersionRow
    age: float
    """Seconds since the registry gave it."""


class RememberedNames:
    """A small SQLite database in the cache directory; losing it only costs the offline answers."""

    def __init__(self, path: Path, registry_url: str) -> None:
        """Answers of one registry do not pass for those of another; its URL, which may hold a password, is not kept."""
        self._path = path
        self._registry = hashlib.sha256(registry_url.encode()).hexdigest()[:16]

    def put(self, name: VersionName, version: VersionRow) -> None:
        """Remember an answer of the registry."""
        text = _converter().dumps(version)
        try:
            with self._open() as database:
                database.execute("INSERT OR REPLACE INTO name VALUES (?, ?, ?)", (self._key(name), text, time.time()))
                database.execute(
                    "DELETE FROM name WHERE rowid IN (SELECT rowid FROM name ORDER BY at DESC LIMIT -1 OFFSET ?)",
                    (_LIMIT,),
                )
        except (sqlite3.Error, OSError) as error:
            log.warning("cannot remember what %s is for use offline: %s", name, error)
            discard_if_corrupt(self._path, error)

    def get(self, name: VersionName) -> Remembered | None:
        """The last answer for a name, if there was one."""
        from cattrs.errors import BaseValidationError

        try:
            with self._open() as database:
                row = database.execute("SELECT version, at FROM name WHERE name=?", (self._key(name),)).fetchone()
            return Remembered(_converter().loads(row[0], VersionRow), time.time() - row[1]) if row else None
        except (sqlite3.Error, OSError, ValueError, BaseValidationError) as error:
            log.warning("cannot look up what %s was when it was last resolved: %s", name, error)
            return None

    def _key(self, name: VersionName) -> str:
        return f"{self._registry} {name}"

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=5)
        try:
            with database:  # a transaction
                database.execute("CREATE TABLE IF NOT EXISTS name (name TEXT PRIMARY KEY, version TEXT, at REAL)")
                self._path.chmod(0o600)
                yield database
        finally:
            database.close()


def version_as_json(version: VersionRow) -> dict[str, object]:
    """Everything the registry knows of a version, JSON-ready."""
    unstructured: dict[str, object] = _converter().unstructure(version)
    return unstructured | {"name": str(version.name), "source_name": str(version.source_name)}
