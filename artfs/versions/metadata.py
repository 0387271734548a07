"""A version's metadata: a JSON object, made of what programs have at hand as W&B makes it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from datetime import date
from enum import Enum
from typing import Any, Final

from artfs.errors import InvalidMetadata

METADATA_KEYS: Final = 100
"""Most top-level keys of a version's metadata (W&B's limit)."""
_ARRAY: Final = 32
"""Elements of the largest array that is kept as a list; of a larger one its text is, as in W&B."""


def check_metadata(metadata: object) -> dict[str, Any]:
    """Metadata as it is kept: a JSON object (or the text of one) of at most 100 top-level keys, a copy of its own.

    What W&B makes JSON is made the same (wandb 0.31.0, ``json_friendly_val``): NaN null, NumPy's and PyTorch's values
    and arrays numbers and lists, times ISO 8601, sets and other sequences lists, an enumeration's member its name,
    dataclasses objects, and objects of other classes their text. Raises InvalidMetadata, for infinities too, and
    TypeError for what is no mapping.
    """
    if metadata is None:
        return {}
    if isinstance(metadata, str):
        try:
            metadata = json.loads(metadata)
        except (ValueError, RecursionError) as error:
            raise InvalidMetadata(why=f"it is not JSON: {error}") from error
        if not isinstance(metadata, dict):
            raise InvalidMetadata(why='it is JSON, but no object: write {"key": value}')
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a dict, not {type(metadata).__name__}")
    if len(metadata) > METADATA_KEYS:
        raise InvalidMetadata(why=f"it has {len(metadata)} keys, at most {METADATA_KEYS} are allowed")
    try:
        text = json.dumps(_plain(metadata), allow_nan=False, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidMetadata(why="it holds text that is not Unicode") from error
    except InvalidMetadata:  # is a ValueError, too
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMetadata(why=str(error)) from error
    plain: dict[str, Any] = json.loads(text)
    return plain


def _plain(value: Any) -> Any:
    match value:
        case Enum():
            return value.name
        case None | bool() | int() | str():
            return value
        case float():
            if math.isinf(value):
                raise InvalidMetadata(why="infinity cannot be stored")
            return None if math.isnan(value) else float(value)
        case bytes():
            return value.decode()
        case date():
            return value.isoformat()
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case slice():
            return {"slice_start": value.start, "slice_step": value.step, "slice_stop": value.stop}
        case set() | frozenset() | Sequence():
            return [_plain(item) for item in value]
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # a tensor of PyTorch
        value = value.detach().cpu().numpy()
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # a value or an array of NumPy
        plain = value.tolist() if value.size <= _ARRAY else str(value)
        return float(plain) if hasattr(plain, "dtype") else _plain(plain)  # of more than 64 bits
    return _plain_object(value)


def _plain_object(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    # json refuses what is left of the built-in types.
    return value if type(value).__module__ == "builtins" else str(value)
