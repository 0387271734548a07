"""A version on its way: its row in the registry, its packs, its catalog, and the commit that makes it visible.

Until ``commit`` or ``save_draft`` nothing is visible. What has reached the store by then stays known to the registry
for a while, so a second try after a failure finds it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs
import zstandard

from artfs.catalog import Catalog, CatalogBuilder, Entry, Extent, Summary, bounded_time
from artfs.errors import ArtfsError, DeadlineExceeded, DiskFull, LocalIOError, VersionNotFound
from artfs.faults import fault_point
from artfs.names import CollectionName
from artfs.registry import INHERIT, Content, KnownExtent, Registry, Ttl, VersionRow
from artfs.registry.rows import Origin
from artfs.store import Uploader, write_record
from artfs.versions.repository import Repository
from artfs.versions.scratch import scratch

log = logging.getLogger(__name__)

_LEASE = 60.0
"""Seconds between two signs of life to the registry."""
_CATALOG_DEADLINE = 600.0


@attrs.frozen
class Published:
    """The outcome."""

    version: VersionRow
    created: bool
    """False: the collection had this content already; ``version`` is the one that has it."""
    stored_bytes: int
    """Bytes that were new to the store, the catalog apart."""


class ClaimedPacks:
    """Where the extents of one version go: what the registry knows is claimed, the rest is uploaded, each once."""

    def __init__(self, registry: Registry, version_id: str, uploader: Uploader) -> None:
        self._registry = registry
        self._version_id = version_id
        self._uploader = uploader
        self._under_way: dict[bytes, Extent] = {}  # added, perhaps not yet registered
        self._renewed = time.monotonic()

    def claim(self, sha256s: Iterable[bytes]) -> dict[bytes, Extent]:
        """Those extents that are stored already, or on their way."""
        self._renew()
        found = {}
        unknown = []
        for digest in sha256s:
            extent = self._under_way.get(digest)
            if extent is None:
                unknown.append(digest)
            else:
                found[digest] = extent
        if unknown:
            for digest, known in self._registry.claim_extents(self._version_id, unknown).items():
                found[digest] = Extent(known.pack, known.offset, known.length)
        return found

    def add(self, digest: bytes, data: bytes | bytearray | memoryview) -> Extent:
        """Store an extent; waits while too much is under way."""
        extent = self._under_way.get(digest)
        if extent is None:
            extent = self._under_way[digest] = self._uploader.add(digest, data)
        return extent

    def registered(self, extents: Sequence[KnownExtent]) -> None:
        """A pack has been stored and registered: from now on the registry finds what it holds."""
        for extent in extents:
            self._under_way.pop(extent.sha256, None)

    def _renew(self) -> None:
        if time.monotonic() - self._renewed > _LEASE:
            self._renewed = time.monotonic()
            self._registry.renew(self._version_id)


def equal_versions(
    repository: Repository, collection: CollectionName, mine: Catalog, digest: str, tree_digest: str
) -> tuple[str, ...]:
    """Ids of the versions whose content, permission bits included, is that of the catalog ``mine`` with its digests.

    Equal digests mean equal paths, so that the permissions of two catalogs come in the same order.
    """
    found = []
    for row in repository.registry.versions(collection):
        if (row.digest, row.tree_digest) == (digest, tree_digest):
            with contextlib.closing(repository.catalog(row)) as theirs:
                if all(a == b for a, b in zip(mine.permissions(), theirs.permissions(), strict=True)):
                    found.append(row.id)
    return tuple(found)


class Publication:
    """Writes one version: add entries in path order, then commit. A context manager; leaving it early abandons it."""

    def __init__(
        self,
        repository: Repository,
        collection: CollectionName,
        type_: str,
        *,
        origin: Origin,
        base: str | None = None,
        run: str | None = None,
        client_id: str | None = None,
        version_id: str | None = None,
    ) -> None:
        """Begin; ``version_id`` goes on with a PENDING row that exists. Raises TypeMismatch."""
        self._collection = collection
        self._repository = repository
        self._registry = repository.registry
        self._store = repository.writable_store()
        self.id = version_id or self._registry.begin(
            collection, type_, base=base, origin=origin, run=run, client_id=client_id
        )
        self._done = version_id is not None  # a row that existed before is not ours to drop
        with contextlib.ExitStack() as opening:
            opening.callback(self._withdraw)
            directory = opening.enter_context(scratch(repository.settings.cache_dir))
            self._path = directory / "catalog"
            self._builder = opening.enter_context(CatalogBuilder(self._path))
            self._uploader = opening.enter_context(
                Uploader(self._store, self._registry, self.id, on_registered=self._registered)
            )
            self._closing = opening.pop_all()
        self.packs = ClaimedPacks(self._registry, self.id, self._uploader)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.__exit__(kind, error, trace)

    def add(self, entry: Entry) -> None:
        """Take in the next path; its extents come from ``packs`` or from a version that the registry knows."""
        self._builder.add(entry)

    def set_root(self, mode: int, mtime_ns: int) -> None:
        """Mode and mtime of the version's root directory."""
        self._builder.set_root(mode, bounded_time(mtime_ns))

    def commit(
        self,
        *,
        aliases: Sequence[str] = (),
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        ttl: Ttl = INHERIT,
        require_latest: bool = False,
        permissions: bool = False,
    ) -> Published:
        """Store what is missing and make the version visible in one step, or move the aliases to one that is equal.

        With ``permissions`` only one whose permission bits are the same is equal. Raises what the store and the
        registry raise.
        """
        summary = self._finish()
        among = self._equals(summary) if permissions else None
        settle = functools.partial(
            self._registry.commit,
            self.id,
            aliases=aliases,
            description=description,
            metadata=metadata,
            tags=tags,
            ttl=ttl,
            require_latest=require_latest,
            among=among,
        )
        committed = None
        if self._registry.find_content(self._collection, summary.digest, summary.tree_digest, among) is not None:
            committed = settle(self._content(summary, stored=False), only_known=True)
        if committed is None:
            committed = settle(self._content(summary))
        assert committed is not None
        fault_point("visible")
        self._done = True
        if committed.created:
            self.record(committed.version)
        return Published(committed.version, committed.created, self._uploader.stored_bytes)

    def save_draft(
        self,
        *,
        replaces: str | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Published:
        """Store what is missing and make the version a draft; ``replaces`` is a draft that goes away with it."""
        content = self._content(self._finish())
        version = self._registry.save_draft(
            self.id, content, replaces=replaces, description=description, metadata=metadata
        )
        self._done = True
        return Published(version, True, self._uploader.stored_bytes)

    def record(self, version: VersionRow) -> None:
        """Leave the JSON record in the store from which a lost registry can be rebuilt."""
        try:
            write_record(self._store, version, deadline=time.monotonic() + self._repository.settings.read_deadline)
        except ArtfsError as error:  # the version stands; the next `gc` writes what is missing
            log.warning("the record of %s could not be stored: %s", version.name, error)

    def _finish(self) -> Summary:
        self._uploader.finish()
        for row in self._registry.pack_checksums(self._builder.packs).values():
            self._builder.set_pack(row.key, row.size, row.checksums)
        return self._builder.finish()

    def _equals(self, summary: Summary) -> tuple[str, ...]:
        with contextlib.closing(Catalog(self._path, str(self._collection))) as mine:
            return equal_versions(self._repository, self._collection, mine, summary.digest, summary.tree_digest)

    def _content(self, summary: Summary, *, stored: bool = True) -> Content:
        """What the registry is told; the catalog goes to the store first unless ``stored`` is false."""
        key = f"catalogs/{uuid.uuid4().hex}.zst"
        sha256 = self._store_catalog(key) if stored else ""
        fault_point("catalog-stored")
        return Content(
            summary.digest,
            summary.tree_digest,
            summary.file_count,
            summary.size,
            key,
            sha256,
            self._path.stat().st_size,
            summary.packs,
            self._uploader.stored_bytes,
        )

    def _store_catalog(self, key: str) -> str:
        sha256 = hashlib.sha256()
        compressor = zstandard.ZstdCompressor(level=3, threads=2).compressobj(size=self._path.stat().st_size)
        packed = []
        with self._path.open("rb") as file:
            while chunk := file.read(1 << 20):
                sha256.update(chunk)
                packed.append(compressor.compress(chunk))
        packed.append(compressor.flush())
        self._store.put(key, [part for part in packed if part], deadline=time.monotonic() + _CATALOG_DEADLINE)
        self._keep_catalog(sha256.hexdigest())
        return sha256.hexdigest()

    def _keep_catalog(self, sha256: str) -> None:
        """Have the catalog in the cache, so that a mount of what was just logged starts warm."""

        def copy(target: Path) -> None:
            shutil.copyfile(self._path, target)

        try:
            self._repository.cache.catalog(sha256, copy)
        except (DiskFull, LocalIOError, DeadlineExceeded) as error:
            log.info("the catalog is not cached, it will be fetched: %s", error)

    def _registered(self, extents: Sequence[KnownExtent]) -> None:
        self.packs.registered(extents)

    def _withdraw(self) -> None:
        if self._done:
            return
        try:
            self._registry.abandon(self.id)
        except VersionNotFound:
            pass  # garbage collection gave it up first
        except ArtfsError as error:
            log.warning("a version that failed could not be withdrawn; gc does it later: %s", error)
