"""JoinedTable and PartitionedTable: tables made of other tables of the same artifact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from artfs.digests import md5_raw
from artfs.errors import InvalidMedia
from artfs.media.artifact import Artifact, Entry
from artfs.media.dtypes import Plain, register
from artfs.media.table import Table
from artfs.media.value import WBValue, ensure_added


class PartitionedTable(WBValue):
    """The tables below ``parts_path`` as one; their columns must be the same."""

    artifact_type = "partitioned-table"

    def __init__(self, parts_path: str) -> None:
        self.parts_path = parts_path
        self._artifact: Artifact | None = None

    def to_json(self, artifact: Artifact) -> dict[str, Any]:
        """``_type`` and ``parts_path``; adds the parts of another artifact that it was read from."""
        if self._artifact is not None and self._artifact is not artifact:
            for path, part in self._parts():
                ensure_added(artifact, part, path.removesuffix(".table.json"))
        return {"_type": self.artifact_type, "parts_path": self.parts_path}

    @classmethod
    def from_json(cls, json_obj: Any, artifact: Artifact) -> PartitionedTable:
        """The table whose parts are in ``artifact``."""
        table = cls(json_obj["parts_path"])
        table._artifact = artifact
        return table

    def iterrows(self) -> Iterator[tuple[int, list[Any]]]:
        """Numbers from 0 on and rows, one part in memory at a time; raises InvalidMedia where columns differ.

        A table that was not read from an artifact has no rows.
        """
        number, columns = 0, None
        for _, part in self._parts():
            columns = part.columns if columns is None else columns
            if columns != part.columns:
                raise InvalidMedia(what="PartitionedTable", why=f"its parts have columns {columns} and {part.columns}")
            for row in part.data:
                yield number, row
                number += 1

    def _parts(self) -> Iterator[tuple[str, Table]]:
        if self._artifact is None:
            return
        for entry in self._artifact.manifest.get_entries_in_directory(self.parts_path):
            part = self._artifact.get(entry.path)
            if isinstance(part, Table):
                yield entry.path, part

    def same(self, other: Any) -> bool:
        return bool(self.parts_path == other.parts_path)


class JoinedTable(WBValue):
    """Two tables, joined on a column of one name, or on two.

    A table is a Table or PartitionedTable, the path of one in the artifact (``*.table.json``), or an entry of another
    artifact. Raises InvalidMedia (a ValueError).
    """

    artifact_type = "joined-table"

    def __init__(self, table1: Any, table2: Any, join_key: str | Sequence[str]) -> None:
        if not isinstance(join_key, str) and len(join_key) != 2:
            raise InvalidMedia(what="JoinedTable", why="join_key is a column, or two")
        for table in (table1, table2):
            _check_table(table)
        self.table1, self.table2 = table1, table2
        self.join_key = join_key if isinstance(join_key, str) else list(join_key)

    def to_json(self, artifact: Artifact) -> dict[str, Any]:
        """``_type``, ``table1``, ``table2`` and ``join_key``; adds tables that are not in ``artifact`` yet."""
        return {
            "_type": self.artifact_type,
            "table1": _path(self.table1, artifact),
            "table2": _path(self.table2, artifact),
            "join_key": self.join_key,
        }

    @classmethod
    def from_json(cls, json_obj: Any, artifact: Artifact) -> JoinedTable:
        """The joined table, whose two tables are read as well."""
        first, second = json_obj["table1"], json_obj["table2"]
        return cls(artifact.get(first) or first, artifact.get(second) or second, json_obj["join_key"])

    def same(self, other: Any) -> bool:
        return (self.join_key, self.table1, self.table2) == (other.join_key, other.table1, other.table2)


def _check_table(table: Any) -> None:
    if isinstance(table, Table | PartitionedTable):
        return
    path = table if isinstance(table, str) else table.path if hasattr(table, "ref_url") else ""
    if not path.endswith((".table.json", ".partitioned-table.json")):
        raise InvalidMedia(what="JoinedTable", why="a table is a Table, or the path or entry of one in an artifact")


def _path(table: Table | PartitionedTable | Entry | str, artifact: Artifact) -> str:
    if isinstance(table, WBValue):
        path = ensure_added(artifact, table, "media/tables/t")
    elif isinstance(table, str):
        path = table
    else:
        suffix = table.path.split(".")[-2]
        name = f"{md5_raw(table.digest).hex()[:20]}.{suffix}.json"
        path = artifact.add_reference(table.ref_url(), name=name)[0].path
    if artifact.manifest.get_entry_by_path(path) is None:
        raise InvalidMedia(what="JoinedTable", why=f"{path} is not in the artifact; add that table first")
    return path


for _cls in (JoinedTable, PartitionedTable):
    register(Plain(_cls.artifact_type), _cls, names=[_cls.artifact_type])
