"""Image: a picture, perhaps with boxes, masks and the classes that they speak of."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import attrs

from artfs.errors import InvalidMedia
from artfs.media.artifact import Artifact
from artfs.media.classes import Classes
from artfs.media.dtypes import INVALID, Const, Type, register
from artfs.media.extras import is_from, load
from artfs.media.files import LocalFile, RemoteFile, is_remote, temporary_path, user_file
from artfs.media.media import Media
from artfs.media.overlays import BoundingBoxes2D, ImageMask

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

_FORMATS: Final = ("png", "jpg", "jpeg", "bmp")


class Image(Media):
    """A picture; ``width`` and ``height`` are in pixels, None for one that is remote.

    ``data_or_path`` is a path, a ``gs``, ``s3`` or ``http(s)`` URI, another Image, a PIL image, a matplotlib figure, a
    numpy array (height, width, channel) or a torch tensor (channel, height, width), whose values are 0 to 255.
    ``mode`` is PIL's mode for array data, ``file_type`` the format that data are stored in (png unless given).
    ``boxes`` and ``masks`` are dictionaries of :class:`BoundingBoxes2D` and :class:`ImageMask`, or of what these are
    made of. Raises InvalidMedia, SourceUnreadable, MissingExtra.
    """

    artifact_type = "image-file"
    directory = "media/images"

    def __init__(
        self,
        data_or_path: Any,
        mode: str | None = None,
        caption: str | None = None,
        grouping: int | None = None,
        classes: Classes | Iterable[Mapping[str, Any]] | None = None,
        boxes: Mapping[str, BoundingBoxes2D | Mapping[str, Any]] | None = None,
        masks: Mapping[str, ImageMask | Mapping[str, Any]] | None = None,
        file_type: str | None = None,
    ) -> None:
        self.format: str
        self.width: int | None = None
        self.height: int | None = None
        self.grouping = grouping
        self.classes: Classes | None = None
        if isinstance(data_or_path, Image):
            source = data_or_path
            super().__init__(source.file, source.caption if caption is None else caption)
            self.format, self.width, self.height = source.format, source.width, source.height
            self.grouping = source.grouping if grouping is None else grouping
            self.classes = source.classes
        elif is_remote(data_or_path):
            super().__init__(RemoteFile(data_or_path), caption)
            self.format = urlsplit(data_or_path).path.rpartition("/")[2].rpartition(".")[2]
        elif isinstance(data_or_path, str | os.PathLike):
            super().__init__(user_file(data_or_path), caption)
            self.format = os.path.splitext(self.path)[1][1:]
            with load("PIL.Image", "an Image").open(self.path) as image:
                self.width, self.height = image.size
        else:
            self.format = file_type or "png"
            image = _pil_image(data_or_path, mode, self.format)
            path = temporary_path(f".{self.format}")
            image.save(path, transparency=None)
            super().__init__(LocalFile(path, temporary=True), caption)
            self.width, self.height = image.size
        self.boxes = {
            key: box if isinstance(box, BoundingBoxes2D) else BoundingBoxes2D(box, key)
            for key, box in _layers(boxes, "boxes").items()
        }
        self.masks = {
            key: mask if isinstance(mask, ImageMask) else ImageMask(mask, key)
            for key, mask in _layers(masks, "masks").items()
        }
        self.classes = self._all_classes(classes) or self.classes

    def _all_classes(self, given: Classes | Iterable[Mapping[str, Any]] | None) -> Classes | None:
        names: dict[Any, str] = {}
        layers: list[BoundingBoxes2D | ImageMask] = [*self.boxes.values(), *self.masks.values()]
        for layer in layers:
            names.update(layer.class_labels)
        if given is not None:
            names.update((given if isinstance(given, Classes) else Classes(given)).names())
        return Classes([{"id": key, "name": name} for key, name in names.items()]) if names else None

    @property
    def image(self) -> PILImage | None:
        """The picture, decoded now (and each time); None if it is remote."""
        if isinstance(self.file, RemoteFile):
            return None
        with load("PIL.Image", "an Image").open(self.path) as image:
            image.load()
            return cast("PILImage", image)

    def to_data_array(self) -> list[Any]:
        """Rows of pixels."""
        return cast("list[Any]", load("numpy", "an Image as an array").asarray(self.image).tolist())

    def to_json(self, artifact: Artifact) -> dict[str, Any]:
        """W&B's ``image-file``; raises InvalidMedia if there are boxes or masks without classes."""
        if (self.boxes or self.masks) and self.classes is None:
            raise InvalidMedia(what="Image", why="boxes and masks need classes in an artifact")
        json_obj = super().to_json(artifact)
        json_obj["format"] = self.format
        if self.width is not None:
            json_obj["width"], json_obj["height"] = self.width, self.height
        if self.grouping:
            json_obj["grouping"] = self.grouping
        if self.classes is not None:
            json_obj["classes"] = self.classes.file_json(artifact)
        if self.boxes:
            json_obj["boxes"] = {key: box.to_json(artifact) for key, box in self.boxes.items()}
        if self.masks:
            json_obj["masks"] = {key: mask.to_json(artifact) for key, mask in self.masks.items()}
        return json_obj

    def restore(self, json_obj: dict[str, Any], artifact: Artifact) -> None:
        super().restore(json_obj, artifact)
        self.format = json_obj["format"]
        self.width, self.height = json_obj.get("width"), json_obj.get("height")
        self.grouping = json_obj.get("grouping")
        found = artifact.get(json_obj["classes"]["path"]) if json_obj.get("classes") else None
        self.classes = found if isinstance(found, Classes) else None
        names = self.classes.names() if self.classes else {}
        self.boxes = {}
        for key, boxes in (json_obj.get("boxes") or {}).items():
            ids = sorted({box["class_id"] for box in boxes if "class_id" in box})
            labels = {number: names.get(number, f"class_{number}") for number in ids}
            self.boxes[key] = BoundingBoxes2D({"box_data": boxes, "class_labels": labels}, key)
        masks = json_obj.get("masks") or {}
        self.masks = {key: ImageMask.from_json(mask, artifact) for key, mask in masks.items()}

    def same(self, other: Any) -> bool:
        if (self.grouping, self.caption, self.classes) != (other.grouping, other.caption, other.classes):
            return False
        if self.sha256 == other.sha256:
            return True
        own, others = self.image, other.image
        if own is None or others is None or (own.mode, own.size) != (others.mode, others.size):
            return False
        return bool(own.tobytes() == others.tobytes())


def _layers(layers: Any, what: str) -> Mapping[str, Any]:
    if layers and not isinstance(layers, Mapping):
        raise InvalidMedia(what="Image", why=f"{what} must be a dictionary")
    return layers or {}


def _pil_image(data: Any, mode: str | None, file_format: str) -> Any:
    if file_format not in _FORMATS:
        raise InvalidMedia(what="Image", why=f"file_type must be one of {', '.join(_FORMATS)}")
    pil = load("PIL.Image", "an Image")
    if isinstance(data, pil.Image):
        return data
    if hasattr(data, "savefig") or is_from(data, "matplotlib"):
        buffer = BytesIO()
        (data if hasattr(data, "savefig") else data.figure).savefig(buffer, format=file_format)
        return pil.open(buffer)
    array = _array(data)
    mode = mode or _mode(array, file_format)
    return pil.fromarray(array).convert(mode)


def _array(data: Any) -> Any:
    """``data`` as height, width and perhaps channels, in bytes."""
    numpy = load("numpy", "an Image of an array")
    if is_from(data, "torch"):
        data = data.detach().permute(1, 2, 0).cpu()
    array = numpy.asarray(data.numpy() if hasattr(data, "numpy") else data)
    if array.ndim > 2:
        array = array.squeeze()
    return array.astype(numpy.uint8)


def _mode(array: Any, file_format: str) -> str:
    channels = 1 if array.ndim == 2 else array.shape[-1]
    if array.ndim not in {2, 3} or channels not in {1, 3, 4}:
        raise InvalidMedia(what="Image", why=f"an array of shape {list(array.shape)} is no picture")
    transparent = "RGB" if file_format in {"jpg", "jpeg"} else "RGBA"  # JPEG has no transparency
    return {1: "L", 3: "RGB", 4: transparent}[channels]


@attrs.frozen(repr=False)
class ImageType(Type):
    """A column of images: which boxes, scores, masks and classes they have among them."""

    name = "image-file"
    box_layers: Mapping[str, set[int]] = attrs.field(factory=dict)
    box_score_keys: set[str] = attrs.field(factory=set)
    mask_layers: Mapping[str, set[int]] = attrs.field(factory=dict)
    box_class_maps: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)
    mask_class_maps: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)
    class_map: Mapping[str, str] = attrs.field(factory=dict)

    def params(self) -> dict[str, Any]:
        return {key: Const(value) for key, value in attrs.asdict(self, recurse=False).items()}

    @classmethod
    def of(cls, value: Any) -> Type:
        every_box = [box for boxes in value.boxes.values() for box in boxes.boxes]
        labelled = {key: mask.class_labels for key, mask in value.masks.items() if mask.class_labels}
        return cls(
            box_layers={key: set(boxes.class_labels) for key, boxes in value.boxes.items()},
            box_score_keys={key for box in every_box for key in box.get("scores", ())},
            mask_layers={key: set(mask.class_labels) for key, mask in value.masks.items()},
            box_class_maps={key: _by_text(boxes.class_labels) for key, boxes in value.boxes.items()},
            mask_class_maps={key: _by_text(labels) for key, labels in labelled.items()},
            class_map=_by_text(value.classes.names()) if value.classes else {},
        )

    def assign_type(self, other: Type) -> Type:
        if not isinstance(other, ImageType):
            return INVALID
        if self == other:
            return self
        return ImageType(
            box_layers=_union(self.box_layers, other.box_layers),
            box_score_keys=self.box_score_keys | other.box_score_keys,
            mask_layers=_union(self.mask_layers, other.mask_layers),
            box_class_maps=_merged(self.box_class_maps, other.box_class_maps),
            mask_class_maps=_merged(self.mask_class_maps, other.mask_class_maps),
            class_map={**other.class_map, **self.class_map},
        )

    @classmethod
    def from_params(cls, params: dict[str, Any], artifact: Artifact) -> ImageType:  # noqa: ARG003  # the base's signature
        known = {field.name for field in attrs.fields(cls)}
        values = {key: kind.val if isinstance(kind, Const) else kind for key, kind in params.items() if key in known}
        values = {key: value for key, value in values.items() if value}
        for key in ("box_layers", "mask_layers"):
            values[key] = {layer: set(ids) for layer, ids in values.get(key, {}).items()}
        values["box_score_keys"] = set(values.get("box_score_keys", ()))
        return cls(**values)


def _by_text(names: Mapping[Any, str]) -> dict[str, str]:
    return {str(key): name for key, name in names.items()}


def _union(mine: Mapping[str, set[int]], others: Mapping[str, set[int]]) -> dict[str, set[int]]:
    return {key: mine.get(key, set()) | others.get(key, set()) for key in {**mine, **others}}


_Names = Mapping[str, Mapping[str, str]]


def _merged(mine: _Names, others: _Names) -> _Names:
    return {key: {**others.get(key, {}), **mine.get(key, {})} for key in {**mine, **others}}


register(ImageType, Image, names=["image-file", "wandb.Image"])
