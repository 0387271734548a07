"""Records of versions in the store, from which a lost registry can be rebuilt.

A record is an object ``versions/<entity>/<project>/<collection>/v<N>.<id>.json``, one for each place where a committed
version shows: its own sequence, and every portfolio that it is linked to. It holds one JSON object:

==============  ================================================================================================
format          1
id              the version's id, 32 hexadecimal digits
name            ``entity/project/collection:vN``
kind            ``sequence``; ``portfolio`` for a link
type            the artifact's type
aliases         list of the aliases it has in that collection
created_at      when it was committed or linked, ISO 8601, UTC
content         in a sequence: ``digest``, ``tree_digest``, ``file_count``, ``size``, ``stored_bytes``,
                ``catalog_key``, ``catalog_sha256``, ``catalog_size``, as in the registry; null for a link
description     text or null
metadata        object
tags            list
ttl             seconds, null (never expires) or ``"inherit"``
base_id         id of the version it was made from, or null
==============  ================================================================================================

Which packs it needs stands in its catalog.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from artfs.errors import Damaged
from artfs.names import parse_version_name
from artfs.registry import INHERIT, CollectionKind, Content, VersionRecord, VersionRow
from artfs.store.objects import ObjectStore

log = logging.getLogger(__name__)

PREFIX: Final = "versions"
FORMAT: Final = 1
RECORD_NAME: Final = re.compile(r"v\d+\.(?P<id>[0-9a-f]{32})\.json")
_CONTENT: Final = (
    "digest", "tree_digest", "file_count", "size", "stored_bytes", "catalog_key", "catalog_sha256", "catalog_size",
)  # fmt: skip


def record_key(version: VersionRow) -> str:
    """Where the record of a committed version is, for the collection by which ``version`` was found."""
    name = version.name
    return f"{PREFIX}/{name.entity}/{name.project}/{name.collection}/{name.alias}.{version.id}.json"


def write_record(store: ObjectStore, version: VersionRow, *, deadline: float) -> None:
    """Store the record of a committed version, in place of an older one."""
    text = json.dumps(_encoded(version), ensure_ascii=False, indent=1, sort_keys=True)
    # A lone surrogate, which older releases let into metadata, has no UTF-8; with a backslash it is JSON's own escape.
    store.put(record_key(version), text.encode(errors="backslashreplace"), deadline=deadline)


def read_record(store: ObjectStore, key: str, *, deadline: float) -> VersionRecord:
    """The record under a key; its content names no packs. Raises Damaged, ObjectNotFound."""
    text = store.get(key, deadline=deadline)
    try:
        return _decoded(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged(f"the record {key} in the object store {store.url} cannot be read: {error!r}") from error


def read_records(store: ObjectStore, *, timeout: float = 60.0) -> Iterator[VersionRecord]:
    """Every record, sequences before portfolios, so that a link comes after what it links to.

    One that cannot be read is logged and left out: the others still rebuild what they can. ``timeout``: seconds for
    each.
    """
    links = []
    for found in store.list(PREFIX):
        try:
            record = read_record(store, found.key, deadline=time.monotonic() + timeout)
        except Damaged as error:
            log.warning("%s", error)
            continue
        if record.kind is CollectionKind.PORTFOLIO:
            links.append(record)
        else:
            yield record
    yield from links


def _encoded(version: VersionRow) -> dict[str, Any]:
    link = version.is_link
    return {
        "format": FORMAT,
        "id": version.id,
        "name": str(version.name),
        "kind": version.collection_kind.value,
        "type": version.type,
        "aliases": sorted(version.aliases),
        "created_at": ((version.linked_at if link else None) or version.created_at).isoformat(),
        "content": None if link else {name: getattr(version, name) for name in _CONTENT},
        "description": version.description,
        "metadata": dict(version.metadata),
        "tags": sorted(version.tags),
        "ttl": "inherit" if version.ttl_inherited else version.ttl_seconds,
        "base_id": version.base_id,
    }


def _decoded(record: Mapping[str, Any]) -> VersionRecord:
    if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']} is unknown here")
    content = record["content"]
    created_at = datetime.fromisoformat(record["created_at"])
    if created_at.tzinfo is None:
        raise ValueError("created_at has no time zone")
    return VersionRecord(
        id=str(record["id"]),
        name=parse_version_name(record["name"], entity=""),
        kind=CollectionKind(record["kind"]),
        type=str(record["type"]),
        aliases=tuple(record["aliases"]),
        created_at=created_at,
        content=None if content is None else Content(**{name: content[name] for name in _CONTENT}, packs=()),
        description=record["description"],
        metadata=record["metadata"],
        tags=tuple(record["tags"]),
        ttl=INHERIT if record["ttl"] == "inherit" else record["ttl"],
        base_id=record["base_id"],
    )
