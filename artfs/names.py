"""Artifact names, aliases, tags, types and the paths inside a version: every rule in one place.

The rules are those of wandb 0.31.0 (``sdk/artifacts/_validators.py``, ``lib/paths.py``). artfs refuses more where a
mount or a digest would break: ``.`` and ``..``, control characters, a trailing newline, names that are not UTF-8.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from artfs.errors import InvalidName, InvalidPath, InvalidText

NAME_LIMIT: Final = 128
"""Characters in a name, alias, tag or type (W&B's schema)."""
PART_LIMIT: Final = 255
"""Bytes in one part of a path: NAME_MAX of Linux."""
PATH_LIMIT: Final = 4096
"""Bytes in a path inside a version: PATH_MAX of Linux."""

DEFAULT_PROJECT: Final = "uncategorized"
LATEST: Final = "latest"
DRAFT_PREFIX: Final = "draft-"
RESERVED_TYPE_PREFIX: Final = "wandb-"

_ARTIFACT_NAME = re.compile(r"[a-zA-Z0-9_\-.]+")
_TAG = re.compile(r"[-\w]+( +[-\w]+)*")
_VERSION_ALIAS = re.compile(r"v(0|[1-9]\d*)", re.ASCII)
_PLAIN_PATH = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*", re.ASCII)
"""What most paths are like, where there is nothing to refuse or to change: told in 1 us instead of 3."""
# C0, DEL, C1, the two Unicode line separators, and lone surrogates (how Python spells bytes that are not UTF-8).
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DRIVE = re.compile(r"[a-zA-Z]:[/\\]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def check_artifact_name(name: str) -> str:
    """``name`` itself, if it can name a collection: letters, digits, ``_ - .``, at most 128; raises InvalidName."""
    if not _ARTIFACT_NAME.fullmatch(name):
        raise InvalidName(
            what="artifact name",
            name=name,
            why="use letters, digits, underscores, hyphens and dots",
        )
    return _bounded("artifact name", name)


def check_type(name: str) -> str:
    """``name`` itself, if it can be a type: any printable text that W&B does not reserve; raises InvalidName."""
    if name == "job" or name.startswith(RESERVED_TYPE_PREFIX):
        raise InvalidName(what="artifact type", name=name, why="'job' and names that begin with 'wandb-' are reserved")
    return _bounded("artifact type", name)


def check_alias(alias: str) -> str:
    """``alias`` itself, if it can be given to a version: no ``/``, ``:``, not ``vN``; raises InvalidName."""
    if "/" in alias or ":" in alias:
        raise InvalidName(what="alias", name=alias, why="aliases cannot hold '/' or ':'")
    if _VERSION_ALIAS.fullmatch(alias) or alias.startswith(DRAFT_PREFIX):
        raise InvalidName(what="alias", name=alias, why="v<number> and draft-<id> name versions themselves")
    return _bounded("alias", alias)


def check_tag(tag: str) -> str:
    """``tag`` itself, if it can be a tag: words of letters, digits, ``_`` and ``-``; raises InvalidName."""
    if not _TAG.fullmatch(tag):
        raise InvalidName(what="tag", name=tag, why="use words of letters, digits, underscores and hyphens")
    return _bounded("tag", tag)


def check_project(name: str) -> str:
    """``name`` itself, if it can be a project; raises InvalidName."""
    return _check_level("project", name)


def check_entity(name: str) -> str:
    """``name`` itself, if it can be an entity; raises InvalidName."""
    return _check_level("entity", name)


def _check_level(what: str, name: str) -> str:
    if any(c in name for c in "/\\#?%:"):
        raise InvalidName(what=what, name=name, why=r"none of / \ # ? % : can stand in it")
    if len(name.encode("utf-8", "replace")) > PART_LIMIT:
        raise InvalidName(what=what, name=name, why=f"it is longer than {PART_LIMIT} bytes")
    return _bounded(what, name)


def _bounded(what: str, name: str) -> str:
    if not name:
        raise InvalidName(what=what, name=name, why="it is empty")
    if len(name) > NAME_LIMIT:
        raise InvalidName(what=what, name=name, why=f"it is longer than {NAME_LIMIT} characters")
    if name in {".", ".."}:
        raise InvalidName(what=what, name=name, why="it names a directory itself")
    if _CONTROL.search(name) or _SURROGATE.search(name):
        raise InvalidName(what=what, name=name, why="it holds control characters or is not UTF-8")
    return name


def is_text(text: str) -> bool:
    """Whether SQLite, PostgreSQL and JSON can all hold it: Unicode without NUL and without lone surrogates."""
    return "\0" not in text and not _SURROGATE.search(text)


def check_text(what: str, text: str) -> str:
    """``text`` itself, such as a description, if it can be kept; raises InvalidText."""
    if not is_text(text):
        raise InvalidText(what=what, text=text[:64], why="it holds a NUL or is not UTF-8")
    return text


def version_number(alias: str) -> int | None:
    """The number in ``v12``, or None if ``alias`` is not a version's own name."""
    match = _VERSION_ALIAS.fullmatch(alias)
    return int(match[1]) if match else None


def check_path(path: str) -> str:
    """A path inside a version, normalised as W&B does (``a//b``, ``./a``, ``a/`` become plain); raises InvalidPath."""
    if len(path) <= PART_LIMIT and _PLAIN_PATH.fullmatch(path):
        return path
    if path.startswith("/"):
        raise InvalidPath(path=path, why="it is absolute")
    if _DRIVE.match(path):
        raise InvalidPath(path=path, why="it names a drive")
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if not parts:
        raise InvalidPath(path=path, why="it names no file")
    if len(path.encode("utf-8", "replace")) > PATH_LIMIT:
        raise InvalidPath(path=path[:64] + "...", why=f"it is longer than {PATH_LIMIT} bytes")
    for part in parts:
        check_part(part, path)
    return "/".join(parts)


def check_part(part: str, path: str | None = None) -> str:
    """One file name, if it can stand in a version; raises InvalidPath naming ``path``."""
    whole = part if path is None else path
    if part in {"", ".", ".."} or "/" in part:
        raise InvalidPath(path=whole, why=f"{part!r} cannot be a file name")
    if part.isascii() and part.isprintable() and len(part) <= PART_LIMIT:
        return part
    if _SURROGATE.search(part):
        raise InvalidPath(path=whole, why="it is not UTF-8")
    if _CONTROL.search(part):
        raise InvalidPath(path=whole, why="it holds control characters")
    if len(part.encode()) > PART_LIMIT:
        raise InvalidPath(path=whole, why=f"a part is longer than {PART_LIMIT} bytes")
    return part


@attrs.frozen(order=True)
class CollectionName:
    """``entity/project/collection``."""

    entity: str
    project: str
    collection: str

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.collection}"

    def at(self, alias: str) -> VersionName:
        """The version of this collection that ``alias`` names."""
        return VersionName(self.entity, self.project, self.collection, alias)


@attrs.frozen(order=True)
class VersionName:
    """``entity/project/collection:alias``; the alias may be ``vN`` or ``draft-<id>``."""

    entity: str
    project: str
    collection: str
    alias: str

    @property
    def collection_name(self) -> CollectionName:
        """The name without its alias."""
        return CollectionName(self.entity, self.project, self.collection)

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.collection}:{self.alias}"


def parse_version_name(text: str, *, entity: str, project: str = DEFAULT_PROJECT, alias: str = LATEST) -> VersionName:
    """Read ``[[entity/]project/]collection[:alias]``, split at the first colon as W&B does; raises InvalidName."""
    path, colon, given = text.partition(":")
    name = _parse_collection(text, path, entity, project)
    if colon and not given:
        raise InvalidName(what="artifact name", name=text, why="nothing follows the colon")
    found = given or alias
    if "/" in found or ":" in found:
        raise InvalidName(what="alias", name=found, why="aliases cannot hold '/' or ':'")
    return name.at(_bounded("alias", found))


def parse_collection_name(text: str, *, entity: str, project: str = DEFAULT_PROJECT) -> CollectionName:
    """Read ``[[entity/]project/]collection``; raises InvalidName."""
    if ":" in text:
        raise InvalidName(what="artifact name", name=text, why="an alias has no place here")
    return _parse_collection(text, text, entity, project)


def _parse_collection(text: str, path: str, entity: str, project: str) -> CollectionName:
    parts = path.split("/")
    if len(parts) > 3:
        raise InvalidName(what="artifact path", name=text, why="expected [[entity/]project/]collection[:alias]")
    found_entity, found_project, collection = [entity, project][: 3 - len(parts)] + parts
    return CollectionName(check_entity(found_entity), check_project(found_project), check_artifact_name(collection))
