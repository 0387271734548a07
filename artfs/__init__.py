"""Versioned datasets and models as ordinary directories, with W&B's artifact API: ``import artfs as wandb``.

The names of the API are imported when they are first used, so that ``import artfs`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from artfs.errors import (
        ArtfsError as Error,
    )
    from artfs.errors import (
        ArtifactFinalizedError,
        ArtifactNotLoggedError,
        ArtifactStatusError,
        WaitTimeoutError,
    )
    from artfs.media import (
        Audio,
        Bokeh,
        BoundingBoxes2D,
        Classes,
        Html,
        Image,
        ImageMask,
        JoinedTable,
        Molecule,
        Object3D,
        PartitionedTable,
        Table,
        Video,
    )
    from artfs.sdk import (
        Api,
        Artifact,
        ArtifactCollection,
        ArtifactManifest,
        ArtifactManifestEntry,
        ArtifactTTL,
        ArtifactType,
        Run,
        finish,
        finish_artifact,
        init,
        link_artifact,
        link_model,
        log_artifact,
        log_model,
        prefetch,
        upsert_artifact,
        use_artifact,
        use_model,
    )

    run: Run | None
    """The current run."""

__all__ = [
    "Api",
    "Artifact",
    "ArtifactCollection",
    "ArtifactFinalizedError",
    "ArtifactManifest",
    "ArtifactManifestEntry",
    "ArtifactNotLoggedError",
    "ArtifactStatusError",
    "ArtifactTTL",
    "ArtifactType",
    "Audio",
    "Bokeh",
    "BoundingBoxes2D",
    "Classes",
    "Error",
    "Html",
    "Image",
    "ImageMask",
    "JoinedTable",
    "Molecule",
    "Object3D",
    "PartitionedTable",
    "Run",
    "Table",
    "Video",
    "WaitTimeoutError",
    "finish",
    "finish_artifact",
    "init",
    "link_artifact",
    "link_model",
    "log_artifact",
    "log_model",
    "prefetch",
    "run",
    "upsert_artifact",
    "use_artifact",
    "use_model",
]

_HOMES = ("artfs.errors", "artfs.sdk", "artfs.media")


def __getattr__(name: str) -> Any:
    if name == "run":  # another one after every init()
        return importlib.import_module("artfs.sdk.current").current()
    if name == "data_types":  # where W&B has its media
        return importlib.import_module("artfs.media")
    if name == "Error":
        return importlib.import_module("artfs.errors").ArtfsError
    if name in __all__:
        for home in map(importlib.import_module, _HOMES):
            if hasattr(home, name):
                return globals().setdefault(name, getattr(home, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
