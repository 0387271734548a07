"""The types of a table's columns, which W&B calls dtypes: inferred from the data, checked against it, kept as JSON.

A type is a value. Assigning data to it gives the type that holds both, or ``INVALID``. Names, parameters and the rules
of assignment are those of wandb 0.31.0 (``sdk/data_types/_dtypes.py``); a type that this module does not know is kept
as it was read. Types of media register themselves where the media are defined.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Self

import attrs

from artfs.media.artifact import Artifact
from artfs.media.extras import is_array, is_from


class Type:
    """What values a column holds."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """W&B's name of the type: ``wb_type`` in the JSON."""
        raise NotImplementedError

    def params(self) -> dict[str, Any]:
        """What the type says beyond its name."""
        return {}

    def assign(self, value: Any) -> Type:
        """The type that also holds ``value``, or INVALID; ``self`` if nothing changes."""
        return self.assign_type(type_of(value))

    def assign_type(self, other: Type) -> Type:
        """The type that also holds what ``other`` holds, or INVALID."""
        return self if self == other else INVALID

    def to_json(self, artifact: Artifact) -> dict[str, Any]:
        """W&B's JSON for the type; adds the tables and classes that it names to ``artifact``."""
        params = _params_to_json(self.params(), artifact)
        return {"wb_type": self.name, "params": params} if params else {"wb_type": self.name}

    @classmethod
    def of(cls, value: Any) -> Type:
        """The type of ``value``, which is of a class registered with this type."""
        raise NotImplementedError

    @classmethod
    def from_params(cls, params: dict[str, Any], artifact: Artifact) -> Self:  # noqa: ARG003  # types that name tables need it
        """The type with these parameters, in which JSON types are types already."""
        return cls(**params)

    def __repr__(self) -> str:
        # W&B sorts the members of a union by this text, so it is part of the format.
        params = ", ".join(f"{key}:{value}" for key, value in self.params().items())
        return self.name.capitalize() + (f"({params})" if params else "")


@attrs.frozen(repr=False)
class Plain(Type):
    """A type that is its name, or one that another release wrote."""

    wb_type: str
    parameters: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def name(self) -> str:
        return self.wb_type

    def params(self) -> dict[str, Any]:
        return dict(self.parameters)


class _Any(Type):
    """Everything but None."""

    __slots__ = ()
    name = "any"

    def assign_type(self, other: Type) -> Type:
        return INVALID if other in (NONE, INVALID) else self


class _Unknown(Type):
    """Nothing yet: becomes what is assigned first, which cannot be None."""

    __slots__ = ()
    name = "unknown"

    def assign_type(self, other: Type) -> Type:
        return INVALID if other == NONE else other


ANY: Final = _Any()
UNKNOWN: Final = _Unknown()
INVALID: Final = Plain("invalid")
NONE: Final = Plain("none")
STRING: Final = Plain("string")
NUMBER: Final = Plain("number")
BOOLEAN: Final = Plain("boolean")
TIMESTAMP: Final = Plain("timestamp")
ARTIFACT_VERSION: Final = Plain("artifactVersion")


@attrs.frozen(repr=False)
class PythonObject(Type):
    """A class that has no type of its own, by its name."""

    name = "pythonObject"
    class_name: str

    def params(self) -> dict[str, Any]:
        return {"class_name": self.class_name}


@attrs.frozen(repr=False)
class Const(Type):
    """One value, or a set of them."""

    name = "const"
    val: Any = None
    is_set: bool = attrs.field(default=attrs.Factory(lambda self: isinstance(self.val, set), takes_self=True))

    def params(self) -> dict[str, Any]:
        return {"val": self.val, "is_set": self.is_set}

    def assign(self, value: Any) -> Type:
        return self.assign_type(Const(value))

    @classmethod
    def from_params(cls, params: dict[str, Any], artifact: Artifact) -> Const:  # noqa: ARG003  # the base's signature
        value, is_set = params.get("val"), bool(params.get("is_set"))
        return cls(set(value) if is_set and value is not None else value, is_set)

    def __repr__(self) -> str:
        return str(self.val)


def _members(types: Iterable[Type]) -> tuple[Type, ...]:
    flat = [member for kind in types for member in (kind.allowed_types if isinstance(kind, Union) else (kind,))]
    return tuple(sorted(flat, key=str))


@attrs.frozen(repr=False)
class Union(Type):
    """Any of several types, in the order of their text."""

    name = "union"
    allowed_types: tuple[Type, ...] = attrs.field(default=(), converter=_members)

    def params(self) -> dict[str, Any]:
        return {"allowed_types": list(self.allowed_types)}

    def assign(self, value: Any) -> Type:
        return self.grown(lambda member: member.assign(value))

    def assign_type(self, other: Type) -> Type:
        union: Type = self
        for added in other.allowed_types if isinstance(other, Union) else (other,):
            if not isinstance(union, Union):
                return INVALID
            union = union.grown(lambda member, added=added: member.assign_type(added))  # type: ignore[misc]  # bound now
        return union

    def grown(self, assign: Callable[[Type], Type]) -> Type:
        """Where ``assign`` assigns something to a member: the first that takes it grows, else an unknown one does."""
        for position, member in enumerate(self.allowed_types):
            if member is UNKNOWN:
                continue
            grown = assign(member)
            if grown is member:
                return self
            if grown != INVALID:
                return Union((*self.allowed_types[:position], grown, *self.allowed_types[position + 1 :]))
        if UNKNOWN not in self.allowed_types:
            return INVALID
        found = assign(UNKNOWN)
        if found == INVALID:
            return INVALID
        members = list(self.allowed_types)
        members[members.index(UNKNOWN)] = found
        return Union(members)

    def __repr__(self) -> str:
        return " or ".join(map(str, self.allowed_types))


@attrs.frozen(repr=False)
class List(Type):
    """A list, tuple or set whose elements are of one type; the length is that of the last one assigned."""

    name = "list"
    element_type: Type = UNKNOWN
    length: int | None = None

    def params(self) -> dict[str, Any]:
        return {"element_type": self.element_type, "length": self.length}

    @classmethod
    def of(cls, value: Any) -> Type:
        items = value.tolist() if hasattr(value, "tolist") else list(value)
        element: Type = nullable(UNKNOWN) if any(item is None for item in items) else UNKNOWN
        for item in items:
            element = element.assign(item)  # may become INVALID and stays a list, as in W&B
        return cls(element, len(items))

    def assign(self, value: Any) -> Type:
        if not hasattr(value, "__iter__"):  # W&B takes whatever can be iterated, texts and dicts too
            return INVALID
        element, items = self.element_type, list(value)
        for item in items:
            element = element.assign(item)
            if element == INVALID:
                return INVALID
        return self if element is self.element_type and len(items) == self.length else List(element, len(items))

    def assign_type(self, other: Type) -> Type:
        if not isinstance(other, List):
            return INVALID
        element = self.element_type.assign_type(other.element_type)
        if element == INVALID:
            return INVALID
        return List(element, self.length if self.length == other.length else None)

    def __repr__(self) -> str:
        return f"{self.element_type}[]"


@attrs.frozen(repr=False)
class NDArray(Type):
    """A numpy array of one shape; ``serialization_path`` says which npz file of the artifact holds the column."""

    name = "ndarray"
    shape: tuple[int, ...] = ()
    serialization_path: Mapping[str, str] | None = attrs.field(default=None, eq=False)

    def params(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "serialization_path": self.serialization_path}

    @classmethod
    def of(cls, value: Any) -> Type:
        if is_array(value):
            return cls(value.shape)
        shape = []
        while isinstance(value, list):
            shape.append(len(value))
            value = value[0] if value else None
        return cls(tuple(shape))

    @classmethod
    def from_params(cls, params: dict[str, Any], artifact: Artifact) -> NDArray:  # noqa: ARG003  # the base's signature
        return cls(tuple(params["shape"]), params.get("serialization_path"))

    def assign(self, value: Any) -> Type:
        return self.assign_type(NDArray.of(value)) if is_array(value) or isinstance(value, list) else INVALID

    def assign_type(self, other: Type) -> Type:
        return self if self == other or isinstance(other, List) else INVALID

    def __repr__(self) -> str:
        return f"Ndarray(shape:{list(self.shape)})"


@attrs.frozen(repr=False)
class TypedDict(Type):
    """A dictionary with a type for each key; keys may be missing where None may stand."""

    name = "typedDict"
    type_map: Mapping[str, Type] = attrs.field(factory=dict)

    def params(self) -> dict[str, Any]:
        return {"type_map": dict(self.type_map)}

    @classmethod
    def of(cls, value: Any) -> Type:
        return cls({key: type_of(item) for key, item in value.items()})

    def assign(self, value: Any) -> Type:
        if not isinstance(value, dict) or value.keys() - self.type_map.keys():
            return INVALID
        return self._grown({key: kind.assign(value.get(key)) for key, kind in self.type_map.items()})

    def assign_type(self, other: Type) -> Type:
        if not isinstance(other, TypedDict) or other.type_map.keys() - self.type_map.keys():
            return INVALID
        return self._grown(
            {key: kind.assign_type(other.type_map.get(key, UNKNOWN)) for key, kind in self.type_map.items()}
        )

    def _grown(self, type_map: dict[str, Type]) -> Type:
        if INVALID in type_map.values():
            return INVALID
        if all(kind is self.type_map[key] for key, kind in type_map.items()):
            return self
        return TypedDict(type_map)

    def __repr__(self) -> str:
        return str(dict(self.type_map))


# -- which type a value, a class or a JSON object has -------------------------------------------------------------

_BY_CLASS: Final[dict[type, Type | type[Type]]] = {
    type(None): NONE,
    str: STRING,
    int: NUMBER,
    float: NUMBER,
    bool: BOOLEAN,
    datetime.datetime: TIMESTAMP,
    datetime.date: TIMESTAMP,
    list: List,
    tuple: List,
    set: List,
    frozenset: List,
    dict: TypedDict,
}
_BY_NAME: Final[dict[str, Type | type[Type]]] = {
    **{kind.name: kind for kind in (ANY, UNKNOWN)},
    **{kind.name: kind for kind in (PythonObject, Const, Union, List, NDArray, TypedDict)},
    # names that earlier releases of W&B wrote
    "object": PythonObject,
    "dictionary": TypedDict,
}
_NUMPY_KINDS: Final = {"b": BOOLEAN, "i": NUMBER, "u": NUMBER, "f": NUMBER, "c": NUMBER, "M": TIMESTAMP}


def register(kind: Type | type[Type], *classes: type, names: Sequence[str]) -> None:
    """Make ``kind`` the type of values of ``classes``, written and read under ``names``."""
    _BY_CLASS.update(dict.fromkeys(classes, kind))
    _BY_NAME.update(dict.fromkeys(names, kind))


def type_of(value: Any) -> Type:
    """The type of one value; a NaN counts as None, as do pandas's NA and NaT."""
    if is_missing(value):
        return NONE
    if isinstance(value, str) and value.startswith("wandb-artifact://"):
        return ARTIFACT_VERSION
    if type(value) is dict and value.get("_type") == "artifactVersion":
        return ARTIFACT_VERSION
    kind = _BY_CLASS.get(type(value))
    if kind is None:
        return _type_of_foreign(value)
    return kind if isinstance(kind, Type) else kind.of(value)


def _type_of_foreign(value: Any) -> Type:
    if is_array(value):
        return NDArray.of(value)
    dtype = getattr(value, "dtype", None)
    if type(value).__module__ == "numpy" and dtype is not None and dtype.kind in _NUMPY_KINDS:
        return _NUMPY_KINDS[dtype.kind]
    return PythonObject(type(value).__name__)


def is_missing(value: Any) -> bool:
    """Whether ``value`` stands for nothing: None, NaN, and what pandas uses for them."""
    if value is None:
        return True
    if type(value) is float:
        return math.isnan(value)
    return type(value).__name__ in {"NAType", "NaTType"} and is_from(value, "pandas")


def as_type(dtype: Any) -> Type:
    """The type that a user's ``dtype`` means: a type, a class, a list or dict of these, or a constant."""
    match dtype:
        case Type():
            return dtype
        case type() if dtype in _BY_CLASS:
            kind = _BY_CLASS[dtype]
            return kind if isinstance(kind, Type) else kind()
        case type() if issubclass(dtype, Type):
            return dtype()
        case type():
            if dtype.__module__ == "numpy" and hasattr(dtype, "dtype") and dtype.__name__ != "ndarray":
                return _type_of_foreign(dtype())
            return PythonObject(dtype.__name__)
        case []:
            return List()
        case [element]:
            return List(as_type(element))
        case list():
            return Union([as_type(member) for member in dtype])
        case dict():
            return TypedDict({key: as_type(member) for key, member in dtype.items()})
        case _:
            return Const(dtype)


def nullable(kind: Type) -> Type:
    """``kind``, or None."""
    return Union((kind, NONE))


def type_from_json(json_obj: dict[str, Any], artifact: Artifact) -> Type:
    """The type that a JSON object stands for, whose tables and classes are in ``artifact``."""
    name, params = json_obj["wb_type"], json_obj.get("params") or {}
    kind = _BY_NAME.get(name)
    if kind is None:
        return Plain(name, params)
    if isinstance(kind, Type):
        return kind
    return kind.from_params(_params_from_json(params, artifact), artifact)


def _params_from_json(params: Any, artifact: Artifact) -> Any:
    if isinstance(params, dict):
        if "wb_type" in params:
            return type_from_json(params, artifact)
        return {key: _params_from_json(value, artifact) for key, value in params.items()}
    if isinstance(params, list):
        return [_params_from_json(value, artifact) for value in params]
    return params


def _params_to_json(params: Any, artifact: Artifact) -> Any:
    if isinstance(params, Type):
        return params.to_json(artifact)
    if isinstance(params, dict):
        return {str(key): _params_to_json(value, artifact) for key, value in params.items()}
    if isinstance(params, set | frozenset):
        # W&B writes a set in the order of the interpreter's hashes; sorted, equal tables are equal files.
        return [
            _params_to_json(value, artifact) for value in sorted(params, key=lambda value: (str(type(value)), value))
        ]
    if isinstance(params, list | tuple):
        return [_params_to_json(value, artifact) for value in params]
    return params
