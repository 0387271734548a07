"""Table: rows of scalars, texts, arrays and media, with typed columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal

import attrs

from artfs.errors import InvalidMedia
from artfs.media.artifact import Artifact
from artfs.media.cells import cell_from_json, cell_to_json
from artfs.media.dtypes import (
    ANY,
    INVALID,
    NUMBER,
    TIMESTAMP,
    UNKNOWN,
    List,
    NDArray,
    Type,
    TypedDict,
    Union,
    as_type,
    is_missing,
    nullable,
    register,
    type_from_json,
    type_of,
)
from artfs.media.extras import is_array, is_dataframe, load
from artfs.media.files import temporary_path
from artfs.media.keys import ForeignIndex, ForeignKey, PrimaryKey, TableIndex, TableKey
from artfs.media.value import WBValue

Column = str | int

_DEFAULT_COLUMNS: Final = ("Input", "Output", "Expected")
_LOG_MODES: Final = ("IMMUTABLE", "MUTABLE")
_KEYS: Final = (PrimaryKey, ForeignKey, ForeignIndex)
_EMBEDDING: Final = 150
"""Elements up to which W&B writes a one-dimensional array into the table itself."""


class Table(WBValue):
    """A table.

    ``columns`` are names (or numbers); ``data`` (or ``rows``) a list of rows, a two-dimensional numpy array or a
    pandas data frame, which may also come as ``dataframe`` and brings its own columns. ``dtype`` is the type of all
    columns, or a list with one for each: a class (``int``, ``Image``), a type, a constant; without it types are
    inferred. ``optional`` says, likewise, whether None may stand in them. ``allow_mixed_types`` allows everything but
    None. ``log_mode`` is kept for W&B. Raises InvalidMedia (a TypeError and a ValueError) if a row does not fit.
    """

    artifact_type = "table"

    def __init__(
        self,
        columns: Iterable[Column] | None = None,
        data: Any = None,
        rows: Iterable[Iterable[Any]] | None = None,
        dataframe: Any = None,
        dtype: Any = None,
        optional: bool | list[bool] = True,
        allow_mixed_types: bool = False,
        log_mode: str | None = "IMMUTABLE",
    ) -> None:
        if log_mode not in _LOG_MODES:
            raise InvalidMedia(what="log_mode", why=f"{log_mode!r} is not one of {', '.join(_LOG_MODES)}")
        self.log_mode = log_mode
        self.data: list[list[Any]] = []
        given = rows if data is None else data
        frame: Any = dataframe if dataframe is not None else given if is_dataframe(given) else None
        if frame is not None:
            columns = list(frame.columns)
            given = zip(*(frame[column].values for column in columns), strict=True)
        if isinstance(columns, str) or isinstance(given, str | dict):
            raise InvalidMedia(what="Table", why="columns and data are lists")
        self.columns: list[Column] = list(_DEFAULT_COLUMNS if columns is None else columns)
        self._check_columns()
        self._types: dict[Column, Type] = dict.fromkeys(self.columns, UNKNOWN)
        dtypes = _per_column(ANY if allow_mixed_types else UNKNOWN if dtype is None else dtype, self.columns)
        for column, kind, may_miss in zip(self.columns, dtypes, _per_column(optional, self.columns), strict=True):
            self.cast(column, kind, may_miss)
        for row in given if given is not None else ():
            self.add_data(*row)

    # -- rows and columns -------------------------------------------------------------------------------------------

    def add_data(self, *data: Any) -> None:
        """Append a row; raises InvalidMedia if it has another length than ``columns``, or values of other types."""
        if len(data) != len(self.columns):
            raise InvalidMedia(what="row", why=f"this table has the columns {self.columns}, the row {len(data)} values")
        grown = {}
        for column, value in zip(self.columns, data, strict=True):
            kind = self._types[column]
            if isinstance(value, TableKey | TableIndex) and not isinstance(kind, _KEYS):
                kind = self.cast(column, type_of(value))
            assigned = kind.assign(value)
            if assigned == INVALID:
                raise InvalidMedia(what="row", why=f"column {column!r} holds {kind}, {value!r} is {type_of(value)}")
            if assigned is not self._types[column]:
                grown[column] = assigned
        self._types.update(grown)
        self.data.append(list(data))
        self._link_keys(self.data[-1:])

    def add_row(self, *row: Any) -> None:
        """The old name of :meth:`add_data`."""
        self.add_data(*row)

    def add_column(self, name: str, data: Any, optional: bool = False) -> None:
        """Append a column of one type; raises InvalidMedia if it exists, or has another length than the table."""
        if not isinstance(name, str) or name in self.columns:
            raise InvalidMedia(what="column", why=f"{name!r} is no text or exists already")
        values = list(data)
        if self.columns and len(values) != len(self.data):
            raise InvalidMedia(what="column", why=f"the table has {len(self.data)} rows, the column {len(values)}")
        kind = _grown(nullable(UNKNOWN) if optional else UNKNOWN, values, name)
        if not self.columns:
            self.data = [[] for _ in values]
        for row, value in zip(self.data, values, strict=True):
            row.append(value)
        self.columns.append(name)
        self._types[name] = kind
        self._link_keys(self.data)

    def add_computed_columns(self, fn: Callable[[int, dict[Column, Any]], dict[str, Any]]) -> None:
        """Append the columns that ``fn(index, row)`` gives for each row, as a dictionary by column."""
        added: dict[str, list[Any]] = {}
        for index, row in self.iterrows():
            for column, value in fn(index, dict(zip(self.columns, row, strict=True))).items():
                added.setdefault(column, []).append(value)
        for column, values in added.items():
            self.add_column(column, values)

    def get_column(self, name: Column, convert_to: Literal["numpy"] | None = None) -> Any:
        """The values of a column, as a list or a numpy array; raises InvalidMedia if it does not exist."""
        position = self._position(name)
        if convert_to not in {None, "numpy"}:
            raise InvalidMedia(what="conversion", why=f"a column cannot become {convert_to!r}")
        values = [row[position] for row in self.data]
        if convert_to is None:
            return values
        plain = [value.to_data_array() if isinstance(value, WBValue) else value for value in values]
        return load("numpy", "a column as an array").array(plain)

    def get_index(self) -> list[TableIndex]:
        """The numbers of all rows; in a column of another table they link it to this one."""
        return [TableIndex(number, self) for number in range(len(self.data))]

    def index_ref(self, index: int) -> TableIndex:
        """The number of one row, as in :meth:`get_index`."""
        if index >= len(self.data):
            raise InvalidMedia(what="row number", why=f"the table has {len(self.data)} rows")
        return TableIndex(index, self)

    def iterrows(self) -> Iterator[tuple[TableIndex, list[Any]]]:
        """Row numbers, which link as in :meth:`get_index`, and rows."""
        for number, row in enumerate(self.data):
            yield TableIndex(number, self), row

    def get_dataframe(self) -> Any:
        """The table as a pandas data frame; raises MissingExtra."""
        return load("pandas", "a table as a data frame").DataFrame.from_records(self.data, columns=self.columns)

    # -- types ------------------------------------------------------------------------------------------------------

    def cast(self, col_name: Column, dtype: Any, optional: bool = False) -> Type:
        """Give a column a type, which ``optional`` lets hold None; raises InvalidMedia if its data do not fit."""
        position = self._position(col_name)
        kind = nullable(as_type(dtype)) if optional else as_type(dtype)
        if isinstance(self._types[col_name], _KEYS) and type(kind) is not type(self._types[col_name]):
            raise InvalidMedia(what="cast", why=f"column {col_name!r} holds keys and stays so")
        if isinstance(kind, ForeignKey | ForeignIndex) and kind.table is self:
            raise InvalidMedia(what="cast", why="a table cannot point into itself")
        if isinstance(kind, PrimaryKey) and any(
            isinstance(other, PrimaryKey) for column, other in self._types.items() if column != col_name
        ):
            raise InvalidMedia(what="cast", why="a table has one primary key")
        self._types[col_name] = _grown(kind, (row[position] for row in self.data), col_name)
        self._link_keys(self.data)
        return self._types[col_name]

    def set_pk(self, col_name: Column) -> None:
        """Make a column of texts the primary key."""
        self.cast(col_name, PrimaryKey())

    def set_fk(self, col_name: Column, table: Table, table_col: Column) -> None:
        """Make a column of texts keys of ``table_col`` of another table."""
        table._position(table_col)
        self.cast(col_name, ForeignKey(table, table_col))

    @property
    def column_types(self) -> TypedDict:
        """The types of all columns."""
        return TypedDict({str(column): kind for column, kind in self._types.items()})

    def _link_keys(self, rows: list[list[Any]]) -> None:
        for position, column in enumerate(self.columns):
            match self._types[column]:
                case PrimaryKey():
                    for row in rows:
                        row[position] = TableKey(row[position], self, column)
                case ForeignKey(table=table, col_name=name):
                    for row in rows:
                        row[position] = TableKey(row[position], table, name)
                case ForeignIndex(table=table):
                    for row in rows:
                        row[position] = TableIndex(row[position], table)

    def _position(self, column: Column) -> int:
        if column not in self.columns:
            raise InvalidMedia(what="column", why=f"{column!r} is not in {self.columns}")
        return self.columns.index(column)

    def _check_columns(self) -> None:
        if not all(type(column) in {str, int} for column in self.columns):
            raise InvalidMedia(what="Table", why="columns are texts or numbers")
        if len(set(map(str, self.columns))) != len(self.columns):
            raise InvalidMedia(what="Table", why=f"the columns {self.columns} are not all different")

    # -- JSON -------------------------------------------------------------------------------------------------------

    def to_json(self, artifact: Artifact) -> dict[str, Any]:
        """W&B's ``table``: all rows, media and large arrays as files of their own."""
        types = dict(self._types)
        stored = set()
        for position, column in enumerate(self.columns):
            array = _array_type(types[column])
            if array is None:
                continue
            if len(array.shape) == 1 and array.shape[0] <= _EMBEDDING:
                types[column] = List(NUMBER, array.shape[0])
                continue
            path = self._store_arrays(column, artifact)
            if path is not None:
                placed = attrs.evolve(array, serialization_path={"path": path, "key": str(column)})
                types[column] = _replaced(types[column], array, placed)
                stored.add(position)
        data = [
            [None if position in stored else cell_to_json(value, artifact) for position, value in enumerate(row)]
            for row in self.data
        ]
        return {
            "_type": self.artifact_type,
            "columns": self.columns,
            "data": data,
            "ncols": len(self.columns),
            "nrows": len(data),
            "column_types": TypedDict({str(column): kind for column, kind in types.items()}).to_json(artifact),
            "log_mode": self.log_mode,
        }

    def _store_arrays(self, column: Column, artifact: Artifact) -> str | None:
        """The entry of an npz file with a column of arrays; None where JSON must do: for gaps and objects."""
        numpy = load("numpy", "a column of arrays")
        values = self.get_column(column)
        if any(value is None for value in values):
            return None
        whole = numpy.array(values)
        if whole.dtype.hasobject:
            return None
        path = temporary_path(".npz")
        numpy.savez_compressed(path, **{str(column): whole})
        return artifact.add_file(path, "media/serialized_data/column.npz", is_tmp=True).path

    @classmethod
    def from_json(cls, json_obj: Any, artifact: Artifact) -> Table:
        """The table that :meth:`to_json`, or W&B, wrote; its media are fetched when they are used."""
        mode = json_obj.get("log_mode")
        table = cls(json_obj["columns"], log_mode=mode if mode in _LOG_MODES else "IMMUTABLE")
        types = json_obj.get("column_types")
        if types is None:
            for row in json_obj["data"]:
                table.add_data(*(cell_from_json(item, artifact, timestamp=False) for item in row))
            return table
        column_types = type_from_json(types, artifact)
        if not isinstance(column_types, TypedDict):
            raise InvalidMedia(what="column types", why="they are no dictionary")
        readers = []
        for column in table.columns:
            kind = column_types.type_map[str(column)]
            table._types[column], reader = _reader(kind, artifact)
            readers.append(reader)
        for number, row in enumerate(json_obj["data"]):
            table.data.append([read(item, number) for read, item in zip(readers, row, strict=True)])
        table._link_keys(table.data)
        return table

    def same(self, other: Any) -> bool:
        if (self.columns, self.column_types, len(self.data)) != (other.columns, other.column_types, len(other.data)):
            return False
        pairs = zip(self.data, other.data, strict=True)
        return all(_equal(mine, its) for row, row2 in pairs for mine, its in zip(row, row2, strict=True))


def _per_column(value: Any, columns: list[Column]) -> list[Any]:
    values = value if isinstance(value, list) else [value] * len(columns)
    if len(values) != len(columns):
        raise InvalidMedia(what="Table", why=f"{len(values)} types for {len(columns)} columns")
    return values


def _grown(kind: Type, values: Iterable[Any], column: Column) -> Type:
    for value in values:
        assigned = kind.assign(value)
        if assigned == INVALID:
            raise InvalidMedia(what="column", why=f"{column!r} holds {kind}, {value!r} is {type_of(value)}")
        kind = assigned
    return kind


def _array_type(kind: Type) -> NDArray | None:
    members = kind.allowed_types if isinstance(kind, Union) else (kind,)
    return next((member for member in members if isinstance(member, NDArray)), None)


def _replaced(kind: Type, old: NDArray, new: NDArray) -> Type:
    if not isinstance(kind, Union):
        return new
    return Union([new if member is old else member for member in kind.allowed_types])


def _reader(kind: Type, artifact: Artifact) -> tuple[Type, Callable[[Any, int], Any]]:
    """The type of a column once it is read, and what makes a value of its JSON and row number."""
    array = _array_type(kind)
    if array is not None and array.serialization_path is not None:
        place = array.serialization_path
        column = load("numpy", "a column of arrays").load(artifact.get_path(place["path"]).download())[place["key"]]
        return _replaced(kind, array, attrs.evolve(array, serialization_path=None)), lambda _, number: column[number]
    if array is not None:
        numpy = load("numpy", "a column of arrays")
        return kind, lambda item, _: None if item is None else numpy.array(item)
    members = kind.allowed_types if isinstance(kind, Union) else (kind,)
    timestamp = TIMESTAMP in members
    return kind, lambda item, _: cell_from_json(item, artifact, timestamp=timestamp)


def _equal(mine: Any, its: Any) -> bool:
    if is_array(mine) or is_array(its):
        return bool(load("numpy", "a column of arrays").array_equal(mine, its))
    return is_missing(its) if is_missing(mine) else bool(mine == its)


@attrs.frozen(repr=False)
class TableType(Type):
    """A column of tables, by the types of their columns."""

    name = "table"
    column_types: Type = UNKNOWN

    def params(self) -> dict[str, Any]:
        return {"column_types": self.column_types}

    @classmethod
    def of(cls, value: Any) -> Type:
        return cls(value.column_types)

    def assign_type(self, other: Type) -> Type:
        if not isinstance(other, TableType):
            return INVALID
        types = self.column_types.assign_type(other.column_types)
        return INVALID if types == INVALID else TableType(types)


register(TableType, Table, names=["table", "wandb.Table"])
