"""Object3D and Molecule: shapes in space."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

from artfs.errors import InvalidMedia
from artfs.media.dtypes import Plain, register
from artfs.media.extras import is_array, load
from artfs.media.files import LocalFile, MediaFile, temporary_path, user_file
from artfs.media.media import Media

_OBJECTS: Final = ("obj", "gltf", "glb", "babylon", "stl", "pts.json")
_MOLECULES: Final = ("pdb", "pqr", "mmcif", "mcif", "cif", "sdf", "sd", "gro", "mol2", "mmtf")
_CLOUD: Final = "lidar/beta"
"""The one type of scene that W&B has."""


class Object3D(Media):
    """A 3D object: a file, a stream (with ``file_type``), points or a scene.

    Points are an array with a row each: ``x y z``, ``x y z category`` (1 to 14) or ``x y z r g b``. A scene is a
    dictionary with ``type`` ``"lidar/beta"`` and arrays ``points``, ``boxes``, ``vectors``. Files are obj, gltf, glb,
    babylon, stl or pts.json. Raises InvalidMedia, SourceUnreadable.
    """

    artifact_type = "object3D-file"
    directory = "media/object3D"

    def __init__(self, data_or_path: Any, caption: str | None = None, *, file_type: str | None = None) -> None:
        if is_array(data_or_path):
            if data_or_path.ndim != 2 or data_or_path.shape[1] not in {3, 4, 6}:
                raise InvalidMedia(what="Object3D", why="points are rows of 3, 4 or 6 numbers")
            file: MediaFile = _points(data_or_path.tolist())
        elif isinstance(data_or_path, dict):
            if data_or_path.get("type") != _CLOUD:
                raise InvalidMedia(what="Object3D", why=f"a scene has the type {_CLOUD!r}")
            parts = {key: _plain(data_or_path.get(key, [])) for key in ("vectors", "points", "boxes")}
            file = _points({"type": _CLOUD, **parts})
        else:
            file = _file(data_or_path, _OBJECTS, file_type, "Object3D")
        super().__init__(file, caption)

    @classmethod
    def from_file(cls, data_or_path: Any, file_type: str | None = None) -> Self:
        """The object in a file, or in a stream of ``file_type``."""
        return cls(data_or_path, file_type=file_type)

    @classmethod
    def from_numpy(cls, data: Any) -> Self:
        """The points in an array; raises InvalidMedia if it is none."""
        if not is_array(data):
            raise InvalidMedia(what="Object3D", why="data must be a numpy array")
        return cls(data)

    @classmethod
    def from_point_cloud(
        cls,
        points: Sequence[Any],
        boxes: Sequence[Any],
        vectors: Sequence[Any] | None = None,
        point_cloud_type: str = _CLOUD,
    ) -> Self:
        """A scene of points, boxes (dictionaries with eight ``corners``, ``label``, ``color``) and vectors."""
        numpy = load("numpy", "a point cloud")
        scene = {"points": points, "boxes": boxes, "vectors": vectors or []}
        return cls({"type": point_cloud_type, **{key: numpy.array(value) for key, value in scene.items()}})


class Molecule(Media):
    """A molecule: a file or a stream (with ``file_type``): pdb, pqr, mmcif, mcif, cif, sdf, sd, gro, mol2 or mmtf.

    Raises InvalidMedia, SourceUnreadable.
    """

    artifact_type = "molecule-file"
    directory = "media/molecule"

    def __init__(self, data_or_path: Any, caption: str | None = None, *, file_type: str | None = None) -> None:
        super().__init__(_file(data_or_path, _MOLECULES, file_type, "Molecule"), caption)


def _file(source: Any, formats: Sequence[str], file_type: str | None, what: str) -> MediaFile:
    if hasattr(source, "name") and not isinstance(source, os.PathLike):
        source = source.name  # an open file
    if isinstance(source, str | os.PathLike):
        if not os.fspath(source).endswith(tuple(f".{name}" for name in formats)):
            raise InvalidMedia(what=what, why=f"a file must be one of {', '.join(formats)}")
        return user_file(source)
    if not hasattr(source, "read"):
        raise InvalidMedia(what=what, why=f"it cannot be made of a {type(source).__name__}")
    if file_type not in formats:
        raise InvalidMedia(what=what, why=f"a stream needs a file_type, one of {', '.join(formats)}")
    if hasattr(source, "seek"):
        source.seek(0)
    content = source.read()
    path = temporary_path(f".{file_type}")
    Path(path).write_bytes(content.encode() if isinstance(content, str) else content)
    return LocalFile(path, temporary=True)


def _points(data: Any) -> MediaFile:
    path = temporary_path(".pts.json")
    Path(path).write_text(json.dumps(data, separators=(",", ":"), ensure_ascii=False), "utf-8")
    return LocalFile(path, temporary=True)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


register(Plain(Object3D.artifact_type), Object3D, names=[Object3D.artifact_type])
register(Plain(Molecule.artifact_type), Molecule, names=[Molecule.artifact_type])
