"""Which bytes of a base file were written here: table ``range`` of the schema."""

from __future__ import annotations

from typing import NamedTuple

from artfs.staging.database import Database

# The last range that begins at or before the first byte asked for is the only one of those that can reach it.
_FROM = "coalesce((SELECT max(start) FROM range WHERE inode=?1 AND start<=?2), ?2)"
_NEAR = f"SELECT start, stop FROM range WHERE inode=?1 AND start>={_FROM} AND start<=?3 AND stop>=?2 ORDER BY start"


class Run(NamedTuple):
    """Bytes that come from one place."""

    start: int
    stop: int
    local: bool


def runs(database: Database, inode: int, start: int, stop: int, shown: int) -> list[Run]:
    """Where the bytes from ``start`` to ``stop`` are, in order: written here, or the base's."""
    found = []
    position = start
    edge = min(stop, shown)
    if position < edge:
        for first, last in database.all(_NEAR, inode, start, edge):
            if position < first < edge:
                found.append(Run(position, first, local=False))
            begin, end = max(first, start), min(last, edge)
            if begin < end:
                found.append(Run(begin, end, local=True))
                position = end
        if position < edge:
            found.append(Run(position, edge, local=False))
        position = edge
    if position < stop:
        found.append(Run(position, stop, local=True))
    return found


def covers(database: Database, inode: int, start: int, stop: int) -> bool:
    """Whether all of it was written here."""
    row = database.one("SELECT stop FROM range WHERE inode=? AND start<=? ORDER BY start DESC LIMIT 1", inode, start)
    return row is not None and int(row[0]) >= stop


def add(database: Database, inode: int, start: int, stop: int) -> None:
    """Record bytes as written here, joining what touches; inside a transaction."""
    near = database.all(_NEAR, inode, start, stop)
    if near:
        database.change("DELETE FROM range WHERE inode=? AND start>=? AND start<=?", inode, near[0][0], near[-1][0])
        start, stop = min(start, near[0][0]), max(stop, near[-1][1])
    database.change("INSERT INTO range VALUES (?, ?, ?)", inode, start, stop)


def cut(database: Database, inode: int, size: int) -> None:
    """Forget what lies at ``size`` or beyond; inside a transaction."""
    database.change("DELETE FROM range WHERE inode=? AND start>=?", inode, size)
    database.change("UPDATE range SET stop=? WHERE inode=? AND stop>?", size, inode, size)
