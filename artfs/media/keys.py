"""Cells that point into tables: keys and row numbers, and the types of their columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import attrs

from artfs.errors import InvalidMedia
from artfs.media.artifact import Artifact
from artfs.media.dtypes import INVALID, NUMBER, STRING, Type, register
from artfs.media.value import ensure_added

if TYPE_CHECKING:
    from artfs.media.table import Table


class TableKey(str):
    """A key of a table: text that knows its table and column."""

    __slots__ = ("column", "table")

    table: Table
    column: str | int

    def __new__(cls, text: str, table: Table, column: str | int) -> Self:
        key = super().__new__(cls, text)
        key.table, key.column = table, column
        return key


class TableIndex(int):
    """A row number that knows its table."""

    table: Table

    def __new__(cls, number: int, table: Table) -> Self:
        index = super().__new__(cls, number)
        index.table = table
        return index

    def get_row(self) -> dict[str | int, Any]:
        """The row, by column."""
        return dict(zip(self.table.columns, self.table.data[self], strict=True))


class PrimaryKey(Type):
    """Texts by which other tables name the rows of this one."""

    __slots__ = ()
    name = "primaryKey"

    def assign_type(self, other: Type) -> Type:
        return self if other == STRING or isinstance(other, PrimaryKey | ForeignKey) else INVALID

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrimaryKey)

    def __hash__(self) -> int:
        return hash(self.name)


@attrs.frozen(repr=False, eq=False)
class _Foreign(Type):
    """What points into another table, which becomes a file of the same artifact."""

    table: Table

    def __eq__(self, other: object) -> bool:
        # By identity, or comparing two types would compare two tables.
        return isinstance(other, type(self)) and self.table is other.table

    def __hash__(self) -> int:
        return id(self.table)

    def to_json(self, artifact: Artifact) -> dict[str, Any]:
        params = {**self.params(), "table": ensure_added(artifact, self.table, "media/tables/t")}
        return {"wb_type": self.name, "params": params}

    def __repr__(self) -> str:
        return self.name.capitalize()


@attrs.frozen(repr=False, eq=False)
class ForeignKey(_Foreign):
    """Keys of a column of another table."""

    name = "foreignKey"
    col_name: str | int

    def params(self) -> dict[str, Any]:
        return {"col_name": self.col_name}

    def assign_type(self, other: Type) -> Type:
        return self if other == STRING or (self == other and self.params() == other.params()) else INVALID

    @classmethod
    def of(cls, value: Any) -> Type:
        return cls(value.table, value.column)

    @classmethod
    def from_params(cls, params: dict[str, Any], artifact: Artifact) -> ForeignKey:
        return cls(_table(params["table"], artifact), params["col_name"])


@attrs.frozen(repr=False, eq=False)
class ForeignIndex(_Foreign):
    """Row numbers of another table."""

    name = "foreignIndex"

    def assign_type(self, other: Type) -> Type:
        return self if other in (NUMBER, self) else INVALID

    @classmethod
    def of(cls, value: Any) -> Type:
        return cls(value.table)

    @classmethod
    def from_params(cls, params: dict[str, Any], artifact: Artifact) -> ForeignIndex:
        return cls(_table(params["table"], artifact))


def _table(path: str, artifact: Artifact) -> Any:
    table = artifact.get(path)
    if table is None or table.artifact_type != "table":
        raise InvalidMedia(what="column type", why=f"{path} holds no table")
    return table


register(PrimaryKey(), names=["primaryKey", "wandb.TablePrimaryKey"])
register(ForeignKey, TableKey, names=["foreignKey", "wandb.TableForeignKey"])
register(ForeignIndex, TableIndex, names=["foreignIndex", "wandb.TableForeignIndex"])
