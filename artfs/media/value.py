"""Values that an artifact holds as typed JSON: what ``Artifact.add`` writes and ``Artifact.get`` reads.

The format is that of wandb 0.31.0 (``sdk/data_types``): ``<name>.<type>.json``, an object whose ``_type`` says which
class reads it, keys sorted, with the files it speaks of as entries of the same artifact.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from artfs.errors import ArtfsError, InvalidMedia
from artfs.media.artifact import Artifact
from artfs.media.files import temporary_path
from artfs.names import check_path

_TYPES: Final[dict[str, type[WBValue]]] = {}

_DIGEST_NAMED: Final = "media/tables"
"""W&B names the tables in this directory by their digest, whatever name was asked for."""


class WBValue:
    """A value that an artifact can hold."""

    artifact_type: ClassVar[str] = ""
    """W&B's name of the type: ``_type`` in the JSON, and in the file's name."""

    home: tuple[Artifact, str] | None = None
    """The artifact and path that it was last added as, or read from."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "artifact_type" in vars(cls):
            _TYPES[cls.artifact_type] = cls

    def to_json(self, artifact: Artifact) -> Any:
        """The JSON for this value; adds the files that it speaks of to ``artifact``."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, json_obj: Any, artifact: Artifact) -> Self:
        """The value that :meth:`to_json` wrote into ``artifact``."""
        raise NotImplementedError

    def to_data_array(self) -> list[Any]:
        """The value as nested lists of numbers; raises InvalidMedia where that makes no sense."""
        raise InvalidMedia(what=type(self).__name__, why="it has no form as an array")

    def same(self, other: Any) -> bool:
        """Whether ``other``, which is of the same class, is equal by content."""
        return self is other

    def __eq__(self, other: object) -> bool:
        return self.same(other) if type(self) is type(other) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # values change, and comparing them can take long

    @classmethod
    def with_suffix(cls, name: str, filetype: str = "json") -> str:
        """``name`` with the suffix of this type, unless it ends so already."""
        suffix = f"{cls.artifact_type}.{filetype}"
        return name if name.endswith(suffix) else f"{name}.{suffix}"


def add_value(artifact: Artifact, value: WBValue, name: str, *, overwrite: bool = False) -> str:
    """Write ``value`` into ``artifact`` as ``<name>.<type>.json``; returns the entry's path.

    Where the artifact has an entry of that name, that one stays unless ``overwrite``. Below ``media/tables`` the name
    is the content's digest. Raises InvalidMedia (a TypeError) for what is not a media value or cannot be serialised,
    and InvalidPath.
    """
    if not isinstance(value, WBValue) or not value.artifact_type:
        raise InvalidMedia(what="value", why=f"{type(value).__name__} is not a media type that an artifact can hold")
    path = value.with_suffix(check_path(name))
    if path.startswith(_DIGEST_NAMED):
        file = temporary_path(".json")
        Path(file).write_text(_dumps(value, artifact), "utf-8")
        path = artifact.add_file(file, path, is_tmp=True).path
    elif overwrite or artifact.manifest.get_entry_by_path(path) is None:
        text = _dumps(value, artifact)
        with artifact.new_file(path, mode="w" if overwrite else "x", encoding="utf-8") as stream:
            stream.write(text)
    value.home = (artifact, path)
    return path


def ensure_added(artifact: Artifact, value: WBValue, name: str) -> str:
    """The path of ``value`` in ``artifact``, where it is added as ``name`` unless it is there already."""
    if value.home is not None:
        home, path = value.home
        if home is artifact and artifact.manifest.get_entry_by_path(path) is not None:
            return path
    return add_value(artifact, value, name)


def value_path(artifact: Artifact, name: str) -> str | None:
    """The path of the value added as ``name``, whose suffix may be left out; None if there is none."""
    path = _find(artifact, name)
    return path[0] if path else None


def get_value(artifact: Artifact, name: str) -> WBValue | None:
    """The value added as ``name``, whose suffix may be left out; None if there is none.

    Files that the value speaks of are fetched when they are used. Raises InvalidMedia if the JSON is not what the type
    writes, MissingExtra, and what the artifact raises.
    """
    found = _find(artifact, name)
    if found is None:
        return None
    path, cls = found
    try:
        json_obj = json.loads(Path(artifact.get_path(path).download()).read_bytes())
        if isinstance(json_obj, dict):  # the names of W&B's tables end alike, and boxes are a list
            cls = _TYPES[json_obj["_type"]]
        value = cls.from_json(json_obj, artifact)
    except ArtfsError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InvalidMedia(what=path, why=f"it is not what {cls.__name__} writes ({error!r})") from error
    value.home = (artifact, path)
    return value


def value_from_json(json_obj: dict[str, Any], artifact: Artifact) -> WBValue | None:
    """The value that a JSON object with a ``_type`` stands for; None if the type is unknown."""
    cls = _TYPES.get(json_obj["_type"])
    return None if cls is None else cls.from_json(json_obj, artifact)


def _find(artifact: Artifact, name: str) -> tuple[str, type[WBValue]] | None:
    for cls in _TYPES.values():
        path = cls.with_suffix(name)
        if artifact.manifest.get_entry_by_path(path) is not None:
            return path, cls
    return None


def _dumps(value: WBValue, artifact: Artifact) -> str:
    try:
        return json.dumps(value.to_json(artifact), sort_keys=True)
    except ArtfsError:
        raise
    except TypeError as error:
        raise InvalidMedia(what=type(value).__name__, why=f"it holds what JSON cannot carry ({error})") from error
