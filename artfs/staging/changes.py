"""What a staging area has changed against its base: a walk of the directories that were touched, and no others.

Files are told apart by inode, not by content: nothing is read or hashed. So a file that was written counts as changed
although it may hold the same bytes as before, and a renamed one is recognised whatever its size.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import attrs

from artfs.catalog import Change, Difference, Kind, Node
from artfs.staging.schema import FIRST
from artfs.staging.view import ROOT, Child, Inode, View

_TABLES = """
CREATE TABLE touched (inode INTEGER PRIMARY KEY);
CREATE TABLE found (path PRIMARY KEY, change, size, what, inode) WITHOUT ROWID;
"""
# A path that is gone and there again, as something else, has changed.
_FOUND = """
INSERT INTO found VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET change='changed', what='kind', inode=NULL, size=max(size, excluded.size)
"""
# The first new path of an inode takes the place of the one that is gone. inode is NULL where content was written.
_RESULT = """
WITH pair AS (
    SELECT min(a.path) AS path, r.path AS old_path FROM found a JOIN found r USING (inode)
    WHERE a.change='added' AND r.change='removed' GROUP BY inode
)
SELECT CASE WHEN p.path IS NULL THEN change ELSE 'renamed' END, f.path, p.old_path, size, what
FROM found f LEFT JOIN pair p USING (path)
WHERE f.path NOT IN (SELECT old_path FROM pair) ORDER BY f.path
"""


@attrs.define
class _Pair:
    """A directory as it was and as it is; either may be missing."""

    prefix: str
    old: int | None
    new: int | None
    names: Iterator[tuple[Node | None, Child | None]]
    chmod: bool = False
    """Both are there, and their permission bits differ."""
    old_empty: bool = True
    new_empty: bool = True


def changes(view: View) -> Iterator[Difference]:
    """Every path that differs from the base, by path, as ``catalog.diff`` has them; memory does not grow with them."""
    database = sqlite3.connect("", isolation_level=None)  # a temporary file that SQLite deletes
    try:
        database.executescript(_TABLES + "BEGIN")
        _mark_touched(view, database)
        for path, change, size, what, inode in _compare(view, database):
            database.execute(_FOUND, (path, change.value, size, what, inode))
        for change, path, old_path, size, what in database.execute(_RESULT):
            yield Difference(Change(change), path, old_path, size, what)
    finally:
        database.close()


def _mark_touched(view: View, database: sqlite3.Connection) -> None:
    """Directories in which something changed, and all above them, where they were and where they are."""
    for directory in _directories(view):
        climb = [directory]
        while climb:
            inode = climb.pop()
            if database.execute("INSERT OR IGNORE INTO touched VALUES (?)", (inode,)).rowcount and inode != ROOT:
                climb.append(view.get(inode).parent or ROOT)
                node = view.base.node(inode) if inode < FIRST else None
                if node is not None:
                    climb.append(node.parent)


def _directories(view: View) -> Iterator[int]:
    parent = 0
    while row := view.database.one("SELECT parent FROM name WHERE parent>? ORDER BY parent LIMIT 1", parent):
        parent = row[0]
        yield parent
    inode = 0
    query = "SELECT inode FROM inode WHERE inode>? AND inode<? ORDER BY inode LIMIT 1"
    while row := view.database.one(query, inode, FIRST):
        inode = row[0]
        node = view.base.node(inode)
        if node is not None:
            yield inode if node.kind == Kind.DIRECTORY else node.parent


def _compare(view: View, database: sqlite3.Connection) -> Iterator[tuple[str, Change, int, str, int | None]]:
    stack = [_pair(view, "", view.base.node(ROOT), view.get(ROOT))]
    while stack:
        pair = stack[-1]
        old, new = next(pair.names, (None, None))
        if old is None and new is None:
            stack.pop()
            yield from _directory(pair)
            continue
        pair.old_empty &= old is None
        pair.new_empty &= new is None
        path = pair.prefix + (old.name if old is not None else new.name if new is not None else "")
        old_directory = old is not None and old.kind == Kind.DIRECTORY
        new_directory = new is not None and new.inode.kind == Kind.DIRECTORY
        if old_directory or new_directory:
            was = old if old_directory else None
            is_ = new.inode if new is not None and new_directory else None
            below = _pair(view, path + "/", was, is_)
            touched = "SELECT 1 FROM touched WHERE inode=?"
            if below.old != below.new or database.execute(touched, (below.old,)).fetchone():
                stack.append(below)
        if old is not None and new is not None and not old_directory and not new_directory:
            if what := _difference(view, old, new.inode):
                yield (path, Change.CHANGED, view.size_and_mtime(new.inode)[0] or 0, what, None)
            continue
        if old is not None and not old_directory:
            yield (path, Change.REMOVED, old.size or 0, "", old.inode)
        if new is not None and not new_directory:
            size, _ = view.size_and_mtime(new.inode)
            yield (path, Change.ADDED, size or 0, "", new.inode.inode if new.inode.shown is None else None)


def _pair(view: View, prefix: str, old: Node | None, new: Inode | None) -> _Pair:
    a, b = None if old is None else old.inode, None if new is None else new.inode
    chmod = old is not None and new is not None and old.mode != new.mode
    return _Pair(prefix, a, b, _names(view, a, b), chmod)


def _directory(pair: _Pair) -> Iterator[tuple[str, Change, int, str, int | None]]:
    """An empty directory is a path of its own; one that holds something is not, unless its permissions changed."""
    was, is_ = pair.old is not None and pair.old_empty, pair.new is not None and pair.new_empty
    if was != is_ and pair.prefix:
        yield (pair.prefix[:-1], Change.REMOVED if was else Change.ADDED, 0, "", None)
    elif pair.chmod:
        yield (pair.prefix[:-1] or ".", Change.CHANGED, 0, "mode", None)


def _names(view: View, old: int | None, new: int | None) -> Iterator[tuple[Node | None, Child | None]]:
    """The names of both directories, merged."""
    a = iter(()) if old is None else view.base.children(old)
    b = iter(()) if new is None else view.children_by_name(new)
    left, right = next(a, None), next(b, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.name < right.name):
            yield left, None
            left = next(a, None)
        elif left is None or right.name < left.name:
            yield None, right
            right = next(b, None)
        else:
            yield left, right
            left, right = next(a, None), next(b, None)


def _difference(view: View, old: Node, new: Inode) -> str:
    """What differs between two leaves of one path, or an empty string."""
    if old.kind != new.kind:
        return "kind"
    if new.kind == Kind.SYMLINK:
        return "" if new.target == (old.digest or b"").decode() else "target"
    if new.shown is not None:
        return "content"
    if new.inode != old.inode:
        moved = view.base.node(new.inode)
        assert moved is not None  # without content of its own it is the base's
        if (moved.digest, moved.size) != (old.digest, old.size):
            return "content"
        if new.kind == Kind.REFERENCE and view.base.reference(moved.inode) != view.base.reference(old.inode):
            return "reference"
    return "mode" if new.mode != old.mode else ""
