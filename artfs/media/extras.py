"""Optional packages: imported when something needs them, named in the error when they are not there."""

from __future__ import annotations

import importlib
from typing import Any, Final

from artfs.errors import MissingExtra

_PACKAGES: Final = {"PIL": "pillow", "imageio_ffmpeg": "imageio-ffmpeg"}


def load(module: str, what: str, *, extra: str = "media") -> Any:
    """The module, imported now; raises MissingExtra, which says that ``what`` needs it and which extra brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise MissingExtra(what=what, package=_PACKAGES.get(package, package), extra=extra) from error


def is_from(value: object, package: str) -> bool:
    """Whether the class of ``value`` is one of ``package``, which this does not import."""
    return any(cls.__module__.partition(".")[0] == package for cls in type(value).__mro__)


def is_array(value: object) -> bool:
    """Whether ``value`` is a numpy array."""
    return type(value).__name__ == "ndarray" and is_from(value, "numpy")


def is_dataframe(value: object) -> bool:
    """Whether ``value`` is a pandas data frame."""
    return hasattr(value, "columns") and is_from(value, "pandas")
