"""Very many entries: making them, and how long listing and the first byte take."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import obstore
from contenders import Artfs, JuiceFS, Peer
from harness import Results, drop_caches, read_whole
from obstore.store import S3Store
from servers.seaweed import SeaweedServer

_BUILD = """
import hashlib, os
from artfs.catalog import Entry, Kind
from artfs.config import load_settings
from artfs.digests import md5_base64, sha256
from artfs.names import CollectionName
from artfs.versions.publication import Publication
from artfs.versions.repository import Repository
data = b"x" * 1000
digest = md5_base64(hashlib.md5(data).digest())
collection = CollectionName("bench", "uncategorized", os.environ["NAME"])
with Repository(load_settings()) as repository, Publication(repository, collection, "d", origin="log") as publication:
    extents = (publication.packs.add(sha256(data), data),)
    for index in range(int(os.environ["ENTRIES"])):
        path = f"{index // 1000:04}/image-{index:07}.jpg"
        publication.add(Entry(path, Kind.FILE, 0o644, 10**18 + index, len(data), digest, extents=extents))
    publication.commit()
"""


def entry(index: int) -> str:
    """Path of one of many."""
    return f"{index // 1000:04}/image-{index:07}.jpg"


def build_version(artfs: Artfs, name: str, entries: int) -> None:
    """A version of very many entries: its files have one content, so only the tree is large."""
    print(f"building a version of {entries:,} entries", flush=True)
    environment = artfs.environment | {"ENTRIES": str(entries), "NAME": name}
    subprocess.run([sys.executable, "-c", _BUILD], env=environment, check=True)


def store_objects(server: SeaweedServer, bucket: str, prefix: str, root: Path | None, count: int = 0) -> None:
    """Put the files below ``root`` into the bucket; without it, ``count`` objects of 1,000 bytes named as above."""
    store = S3Store(
        bucket,
        endpoint=server.endpoint_url,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        region=server.region,
        client_options={"allow_http": True, "timeout": "60s"},
    )

    def objects() -> Iterator[tuple[str, Path | bytes]]:
        if root is None:
            yield from ((entry(index), b"x" * 1000) for index in range(count))
        else:
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    yield str(path.relative_to(root)), path

    async def work(todo: Iterator[tuple[str, Path | bytes]]) -> None:
        for name, content in todo:
            await obstore.put_async(store, f"{prefix}/{name}", content)

    async def every() -> None:
        todo = objects()
        await asyncio.gather(*(work(todo) for _ in range(16)))

    asyncio.run(every())


def list_entries(results: Results, contender: Artfs | Peer, entries: int) -> None:
    """``find`` and ``ls -lR``; and from nothing in any cache to the first byte of a version of 100,000 files."""
    if isinstance(contender, JuiceFS):  # has its own format: copying 100,000 files in takes longer than all the rest
        return
    if isinstance(contender, Artfs):
        root = contender.mount("many")
        _walk(results, contender, root, entries)
        contender.unmount()
    contender.forget(catalogs=True)
    drop_caches()
    began = time.perf_counter()
    root = contender.mount("hundred")
    read_whole(root / entry(77_777))
    results.add(contender.name, "100,000 files: mount to first byte, s", time.perf_counter() - began)
    _walk(results, contender, root, 100_000)
    contender.unmount()


def _walk(results: Results, contender: Artfs | Peer, root: Path, entries: int) -> None:
    for label, command in (("find", ["find", root, "-type", "f"]), ("ls -lR", ["ls", "-lR", root])):
        drop_caches()
        began = time.perf_counter()
        listed = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | {"LC_ALL": "C"}).stdout
        results.add(contender.name, f"{label} of {entries:,} entries, s", time.perf_counter() - began)
        found = listed.count(b".jpg\n")
        if found != entries:
            raise AssertionError(f"{label} saw {found} of {entries}")
