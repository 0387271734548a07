"""Classes: the names behind the class ids of boxes, masks and columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from artfs.errors import InvalidMedia
from artfs.media.artifact import Artifact
from artfs.media.dtypes import INVALID, Const, Type, Union, register
from artfs.media.value import WBValue, ensure_added


class Classes(WBValue):
    """A set of classes, each a dictionary with an ``id`` and a ``name`` (and whatever else)."""

    artifact_type = "classes"

    def __init__(self, class_set: Iterable[Mapping[str, Any]]) -> None:
        self.class_set = [dict(item) for item in class_set]
        if not all("id" in item and "name" in item for item in self.class_set):
            raise InvalidMedia(what="Classes", why="each class needs an id and a name")

    def names(self) -> dict[Any, str]:
        """Class names by id."""
        return {item["id"]: item["name"] for item in self.class_set}

    def to_json(self, artifact: Artifact) -> dict[str, Any]:  # noqa: ARG002  # it has no files
        """``_type`` and ``class_set``."""
        return {"_type": self.artifact_type, "class_set": self.class_set}

    @classmethod
    def from_json(cls, json_obj: Any, artifact: Artifact) -> Classes:  # noqa: ARG003  # it has no files
        """The classes in ``class_set``."""
        return cls(json_obj["class_set"])

    def file_json(self, artifact: Artifact) -> dict[str, str]:
        """How other values refer to these classes, which become a file of ``artifact`` named by their content."""
        digest = hashlib.md5(str(self.class_set).encode(), usedforsecurity=False).hexdigest()
        path = ensure_added(artifact, self, f"media/classes/{digest}_cls")
        entry = artifact.manifest.get_entry_by_path(path)
        assert entry is not None, f"{path} was added a moment ago"
        return {"type": "classes-file", "path": path, "digest": entry.digest}

    def get_type(self) -> ClassesId:
        """The type of a column that holds ids of these classes."""
        return ClassesId(self)

    def same(self, other: Any) -> bool:
        return bool(self.class_set == other.class_set)


@attrs.frozen(repr=False)
class ClassesId(Type):
    """The id of one of a set of classes."""

    name = "classesId"
    classes: Classes = attrs.field(factory=lambda: Classes([]))

    @property
    def valid_ids(self) -> Union:
        """The ids, as constants."""
        return Union([Const(item["id"]) for item in self.classes.class_set])

    def params(self) -> dict[str, Any]:
        return {"valid_ids": self.valid_ids}

    def assign(self, value: Any) -> Type:
        return self if any(item["id"] == value for item in self.classes.class_set) else INVALID

    def assign_type(self, other: Type) -> Type:
        return INVALID if self.valid_ids.assign_type(other) == INVALID else self

    @classmethod
    def of(cls, value: Any) -> Type:
        return cls(value)

    def to_json(self, artifact: Artifact) -> dict[str, Any]:
        json_obj = super().to_json(artifact)
        json_obj["params"]["classes_obj"] = self.classes.file_json(artifact)
        return json_obj

    @classmethod
    def from_params(cls, params: dict[str, Any], artifact: Artifact) -> ClassesId:
        classes = params["classes_obj"]
        if classes.get("type") != "classes-file":
            return cls(Classes.from_json(classes, artifact))
        found = artifact.get(classes["path"])
        if not isinstance(found, Classes):
            raise InvalidMedia(what="column type", why=f"{classes['path']} holds no classes")
        return cls(found)


register(ClassesId, Classes, names=["classesId", "wandb.Classes_id"])
