"""First answers of references that recorded no identity or no size, kept in the cache directory."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path

from artfs.errors import LocalIOError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pin (scope TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (scope, key))
WITHOUT ROWID
"""


class Pins:
    """A small table (scope, key) -> JSON object that all processes of a user share. Thread-safe.

    Values hold validators and sizes, never URIs, which may hold credentials. A pin once written never changes.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the table at ``path``; raises LocalIOError."""
        self._path = path
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            self._db.execute("PRAGMA journal_mode = WAL")
            # In WAL mode NORMAL cannot corrupt the file, and a lost pin is only taken again: no fsync each.
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(_SCHEMA)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def get(self, scope: str, key: str) -> dict[str, object] | None:
        """What is pinned, or None."""
        query = "SELECT value FROM pin WHERE scope = ? AND key = ?"
        try:
            with self._lock:
                row = self._db.execute(query, (scope, key)).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return None if row is None else dict(json.loads(row[0]))

    def put(self, scope: str, key: str, value: dict[str, object]) -> dict[str, object]:
        """Pin ``value`` unless another thread or process was first; what is pinned now."""
        try:
            with self._lock:
                insert = "INSERT INTO pin VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
                self._db.execute(insert, (scope, key, json.dumps(value, sort_keys=True)))
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return self.get(scope, key) or value

    def close(self) -> None:
        """Close the table."""
        with self._lock:
            self._db.close()

    def _failed(self, error: sqlite3.Error) -> LocalIOError:
        return LocalIOError(
            path=self._path, why=f"{error}; it may be deleted, the next read asks the remote side again"
        )
