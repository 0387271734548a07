"""What differs between two versions: a merge of two sorted listings, renames paired by content."""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Iterator

import attrs

from artfs.catalog.entry import Entry, Kind
from artfs.catalog.read import Catalog


class Change(enum.Enum):
    """How a path differs."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    RENAMED = "renamed"


@attrs.frozen
class Difference:
    """One path that differs between an old and a new version."""

    change: Change
    path: str
    """In the new version; for what was removed, in the old one."""
    old_path: str | None = None
    """Of a rename."""
    size: int = 0
    """Bytes in the new version; for what was removed, in the old one."""
    what: str = ""
    """Of a change: ``content``, ``mode``, ``kind``, ``target``, ``reference``."""


def diff(old: Catalog, new: Catalog) -> Iterator[Difference]:
    """Every path that differs, by path. A different mtime alone is no difference; the root is called ``.``.

    A directory that holds something is no path of its own: of it only other permission bits are a difference.

    A file that vanished in one place and came up with the same content in another is a rename. The differences wait
    in a temporary SQLite database, so memory does not grow with their number.
    """
    database = sqlite3.connect("")  # a temporary file that SQLite deletes
    try:
        database.execute("CREATE TABLE difference (change, path, size, what, content)")
        database.executemany("INSERT INTO difference VALUES (?, ?, ?, ?, ?)", _merge(old.leaves(), new.leaves()))
        database.execute("CREATE INDEX by_path ON difference (path)")
        database.executemany(_ADD_MODE, ((path, path) for path in _directories(old.directories(), new.directories())))
        database.executescript(_PAIR)
        for change, path, old_path, size, what in database.execute(_RESULT):
            yield Difference(Change(change), path, old_path, size, what)
    finally:
        database.close()


# Unless the directory holds something in one version only, and is there already.
_ADD_MODE = """
INSERT INTO difference SELECT 'changed', ?, 0, 'mode', NULL
WHERE NOT EXISTS (SELECT * FROM difference WHERE path=?)
"""
# The n-th vanished path of a content is paired with the n-th new one.
_PAIR = """
CREATE TABLE renamed AS
WITH numbered AS (
    SELECT rowid AS id, change, path, content, row_number() OVER (PARTITION BY change, content ORDER BY path) AS n
    FROM difference WHERE content IS NOT NULL
)
SELECT a.id AS added, r.id AS removed, r.path AS old_path
FROM numbered a JOIN numbered r USING (content, n) WHERE a.change='added' AND r.change='removed';
CREATE INDEX by_added ON renamed (added);
CREATE INDEX by_removed ON renamed (removed);
"""
_RESULT = """
SELECT CASE WHEN old_path IS NULL THEN change ELSE 'renamed' END, path, old_path, size, what
FROM difference d LEFT JOIN renamed ON added = d.rowid
WHERE d.rowid NOT IN (SELECT removed FROM renamed) ORDER BY path
"""


def _merge(old: Iterator[Entry], new: Iterator[Entry]) -> Iterator[tuple[str, str, int, str, str | None]]:
    a, b = next(old, None), next(new, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a.path < b.path):
            assert a is not None
            yield ("removed", a.path, _size(a), "", _content(a))
            a = next(old, None)
        elif a is None or b.path < a.path:
            yield ("added", b.path, _size(b), "", _content(b))
            b = next(new, None)
        else:
            if what := difference_of(a, b):
                yield ("changed", b.path, _size(b), what, None)
            a, b = next(old, None), next(new, None)


def _directories(old: Iterator[tuple[str, int]], new: Iterator[tuple[str, int]]) -> Iterator[str]:
    """Those of both versions whose permission bits differ."""
    a, b = next(old, None), next(new, None)
    while a is not None and b is not None:
        before, after = f"{a[0]}/", f"{b[0]}/"
        if before == after and a[1] != b[1]:
            yield a[0] or "."
        a, b = next(old, None) if before <= after else a, next(new, None) if after <= before else b


def difference_of(a: Entry, b: Entry) -> str:
    """What differs between two entries of one path, or an empty string."""
    if a.kind is not b.kind:
        return "kind"
    if a.digest != b.digest or a.size != b.size:
        return "content"
    if a.target != b.target:
        return "target"
    if a.reference != b.reference:
        return "reference"
    return "mode" if a.kind in {Kind.FILE, Kind.REFERENCE} and a.mode != b.mode else ""


def _size(entry: Entry) -> int:
    return entry.size if entry.reference is None else entry.reference.size or 0


def _content(entry: Entry) -> str | None:
    """What must be equal in a rename; empty things are alike by chance, and so are the ETags of different URIs."""
    if entry.reference is not None and not entry.digest:
        return f"{entry.kind}{entry.manifest_digest} {entry.reference.uri}"
    return f"{entry.kind}{entry.manifest_digest}" if entry.kind in {Kind.FILE, Kind.REFERENCE} and entry.size else None
