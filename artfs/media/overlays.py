"""What is drawn over an image: boxes and masks, each with the names of its classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Number
from typing import Any

from artfs.errors import InvalidMedia
from artfs.media.artifact import Artifact
from artfs.media.extras import is_from, load
from artfs.media.files import LocalFile, temporary_path, user_file
from artfs.media.media import Media
from artfs.media.value import WBValue

_CORNERS = ("minX", "maxX", "minY", "maxY")


class BoundingBoxes2D(WBValue):
    """Boxes over an image.

    ``val`` holds ``box_data``, a list of dictionaries, and perhaps ``class_labels``, names by class id (else
    ``class_<id>``). A box has a ``position`` (``minX maxX minY maxY``, or ``middle width height``; fractions of the
    image, or pixels where ``domain`` is ``"pixel"``), and may have a ``class_id``, ``scores`` and a ``box_caption``.
    ``key`` names the set. Raises InvalidMedia (a TypeError).
    """

    artifact_type = "bounding-boxes"

    def __init__(self, val: Mapping[str, Any], key: str = "") -> None:
        self.boxes: list[dict[str, Any]] = [
            _plain_box(box) for box in _require(val, "box_data", list, "BoundingBoxes2D")
        ]
        for box in self.boxes:
            _check_box(box)
        self.class_labels = _class_labels(val, (box["class_id"] for box in self.boxes if "class_id" in box))
        self.key = key

    def to_json(self, artifact: Artifact) -> list[dict[str, Any]]:  # noqa: ARG002  # it has no files
        """The boxes alone: W&B keeps the names in the image's classes."""
        return self.boxes

    @classmethod
    def from_json(cls, json_obj: Any, artifact: Artifact) -> BoundingBoxes2D:  # noqa: ARG003  # it has no files
        """The boxes in a list."""
        return cls({"box_data": json_obj})

    def same(self, other: Any) -> bool:
        return bool(self.boxes == other.boxes)


class ImageMask(Media):
    """A class id for each pixel of an image.

    ``val`` holds ``mask_data``, a two-dimensional array of integers from 0 to 255, or the ``path`` of an image file;
    and perhaps ``class_labels``, names by class id (else ``class_<id>`` for the ids in the array). ``key`` names the
    mask. Raises InvalidMedia (a TypeError).
    """

    artifact_type = "mask"
    directory = "media/images/mask"

    def __init__(self, val: Mapping[str, Any], key: str = "") -> None:
        if "path" in val:
            super().__init__(user_file(val["path"]))
            self.class_labels = _class_labels(val, ())
        else:
            numpy = load("numpy", "a mask")
            data: Any = val.get("mask_data")
            data = numpy.asarray(data.cpu() if is_from(data, "torch") else data)
            if data.ndim != 2:
                raise InvalidMedia(what="ImageMask", why="mask_data must be a two-dimensional array")
            if not ((data >= 0) & (data <= 255)).all():
                raise InvalidMedia(what="ImageMask", why="mask_data must be integers from 0 to 255")
            self.class_labels = _class_labels(val, numpy.unique(data).astype(int).tolist())
            path = temporary_path(".mask.png")
            load("PIL.Image", "a mask").fromarray(data.astype(numpy.uint8)).save(path, transparency=None)
            super().__init__(LocalFile(path, temporary=True))
        self.key = key

    def restore(self, json_obj: dict[str, Any], artifact: Artifact) -> None:
        super().restore(json_obj, artifact)
        self.class_labels = {}
        self.key = ""


def _class_labels(val: Mapping[str, Any], ids: Iterable[int]) -> dict[int, str]:
    if "class_labels" not in val:
        return {number: f"class_{number}" for number in sorted(set(ids))}
    labels = dict(val["class_labels"])
    if not all(isinstance(key, Number) and isinstance(name, str) for key, name in labels.items()):
        raise InvalidMedia(what="class labels", why="they are a dictionary of numbers to names")
    return labels


def _require(val: Mapping[str, Any], key: str, kind: type, what: str) -> Any:
    if not isinstance(val.get(key), kind):
        raise InvalidMedia(what=what, why=f"{key} must be a {kind.__name__}")
    return val[key]


def _plain_box(box: dict[str, Any]) -> dict[str, Any]:
    position = box.get("position")
    if isinstance(position, dict) and hasattr(position.get("middle"), "tolist"):
        return {**box, "position": {**position, "middle": position["middle"].tolist()}}
    return box


def _check_box(box: dict[str, Any]) -> None:
    position = _require(box, "position", dict, "box")
    middle = position.get("middle", ())
    by_middle = len(middle) == 2 and all(isinstance(position.get(key), Number) for key in ("width", "height"))
    if not by_middle and not all(isinstance(position.get(key), Number) for key in _CORNERS):
        raise InvalidMedia(what="box", why="its position needs middle, width and height, or minX, maxX, minY and maxY")
    if "class_id" in box:
        _require(box, "class_id", int, "box")
    if "box_caption" in box:
        _require(box, "box_caption", str, "box")
    if "scores" in box:
        scores = _require(box, "scores", dict, "box")
        if not all(isinstance(key, str) and isinstance(score, Number) for key, score in scores.items()):
            raise InvalidMedia(what="box", why="its scores are a dictionary of names to numbers")
