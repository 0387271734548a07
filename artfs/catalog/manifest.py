"""W&B's v1 JSON manifest: written from a catalog, read into entries.

Format: wandb 0.31.0, ``artifact_manifests/artifact_manifest_v1.py``. A manifest knows neither modes, mtimes, symlinks
nor empty directories; they are left out on the way out and take defaults on the way in.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import IO, Any

import ijson

from artfs.catalog.entry import Entry, Extent, Kind, Reference
from artfs.catalog.read import Catalog
from artfs.digests import md5_raw
from artfs.errors import InvalidManifest
from artfs.names import check_path

VERSION = 1
POLICY = "wandb-storage-policy-v1"

Locate = Callable[[str, str, int], tuple[Extent, ...]]
"""Given path, digest and size of a file: where its bytes are stored."""


def manifest_entry(entry: Entry) -> dict[str, object]:
    """One value of the manifest's ``contents``."""
    if entry.reference is None:
        return {"digest": entry.digest, "size": entry.size}
    reference = entry.reference
    fields: dict[str, object] = {"digest": reference.digest, "ref": reference.uri}
    if reference.extra:
        fields["extra"] = dict(reference.extra)
    if reference.size is not None:
        fields["size"] = reference.size
    return fields


def write_manifest(catalog: Catalog, file: IO[str]) -> None:
    """Write the manifest of a catalog, one entry a line."""
    head = {"version": VERSION, "storagePolicy": POLICY, "storagePolicyConfig": {"storageLayout": "V2"}}
    file.write(json.dumps(head)[:-1] + ', "contents": {')
    separator = "\n"
    for entry in catalog.leaves():
        if entry.kind in {Kind.FILE, Kind.REFERENCE}:
            file.write(f"{separator}{json.dumps(entry.path)}: {json.dumps(manifest_entry(entry))}")
            separator = ",\n"
    file.write("\n}}\n")


def read_manifest(file: IO[bytes], locate: Locate) -> Iterator[Entry]:
    """The entries of a manifest in path order, as a catalog is built from them; raises InvalidManifest, InvalidPath.

    The file is read twice and must be seekable. Entries wait in a temporary SQLite database, which sorts them.
    """
    database = sqlite3.connect("")
    try:
        database.execute("CREATE TABLE entry (path TEXT PRIMARY KEY, fields TEXT) WITHOUT ROWID")
        try:
            _check_version(file)
            database.executemany(
                "INSERT OR REPLACE INTO entry VALUES (?, ?)",
                ((path, json.dumps(fields)) for path, fields in ijson.kvitems(file, "contents", use_float=True)),
            )
        except ijson.JSONError as error:
            raise InvalidManifest(why=f"it is not JSON: {error}") from error
        for path, fields in database.execute("SELECT path, fields FROM entry ORDER BY path"):
            yield _entry(path, json.loads(fields), locate)
    finally:
        database.close()


def _check_version(file: IO[bytes]) -> None:
    version = next(ijson.items(file, "version"), None)
    if version is None:
        raise InvalidManifest(why="it has no version field")
    if version != VERSION:
        raise InvalidManifest(why=f"it has version {version}, only {VERSION} is known")
    file.seek(0)


def _entry(path: str, fields: Any, locate: Locate) -> Entry:
    if check_path(path) != path:
        raise InvalidManifest(why=f"the path {path!r} is not plain")
    try:
        digest, size = str(fields["digest"]), fields.get("size")
        if "ref" in fields:
            extra = {key: str(value) for key, value in (fields.get("extra") or {}).items()}
            # W&B's core writes 0 where nobody knows the size (references/wandb: manifest.go).
            return Entry(path, Kind.REFERENCE, reference=Reference(str(fields["ref"]), digest, size or None, extra))
        md5_raw(digest)
        size = int(size or 0)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise InvalidManifest(why=f"the entry {path!r} is not understood: {error!r}") from error
    return Entry(path, Kind.FILE, size=size, digest=digest, extents=locate(path, digest, size))
