"""One cell of a table as JSON, the way W&B writes it, and back."""

from __future__ import annotations

import datetime
import enum
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from artfs.errors import InvalidMedia
from artfs.media.artifact import Artifact
from artfs.media.dtypes import is_missing
from artfs.media.value import WBValue, value_from_json

_NANOSECONDS: Final = 1_000_000
"""In a millisecond, in which W&B counts time since 1970."""


def cell_to_json(value: Any, artifact: Artifact) -> Any:
    """What W&B writes for ``value``; media add their files to ``artifact``. Raises InvalidMedia for other objects."""
    if isinstance(value, WBValue):
        return value.to_json(artifact)
    if is_missing(value):
        return None
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, str | int | float):
        return _number(value.tolist()) if hasattr(value, "tolist") else value
    if isinstance(value, Mapping):
        return {key: cell_to_json(item, artifact) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [cell_to_json(item, artifact) for item in value]
    if hasattr(value, "tolist"):
        plain = value.tolist()
        if type(value).__name__ == "datetime64" and isinstance(plain, int):
            return plain / _NANOSECONDS
        return cell_to_json(plain, artifact)
    return _scalar_to_json(value)


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _scalar_to_json(value: Any) -> Any:
    match value:
        case datetime.datetime():
            aware = value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
            return int(aware.timestamp() * 1000)
        case datetime.date():
            midnight = datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC)
            return int(midnight.timestamp() * 1000)
        case Decimal():
            return float(value)
        case bytes():
            return value.decode("utf-8")
        case _ if callable(value):
            return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else str(value)
    raise InvalidMedia(what="cell", why=f"a table cannot hold a {type(value).__name__}")


def cell_from_json(item: Any, artifact: Artifact, *, timestamp: bool) -> Any:
    """The value of a cell, in a column that may hold a ``timestamp`` or not."""
    if timestamp and isinstance(item, int | float):
        return datetime.datetime.fromtimestamp(item / 1000, tz=datetime.UTC)
    if isinstance(item, dict) and "_type" in item:
        value = value_from_json(item, artifact)
        return item if value is None else value
    return item
