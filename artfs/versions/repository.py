"""Registry, store, cache and references of one configuration, each opened when it is first needed.

Nothing is opened before a fork: SQLite connections, obstore's runtime and file locks do not survive one. What only some
commands need is imported as late: `artfs ls` and `artfs tag` look at the registry alone.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import attrs

from artfs.config import Settings
from artfs.errors import (
    ArtfsError,
    CorruptCatalog,
    DiskFull,
    LocalIOError,
    ObjectNotFound,
    RegistryUnavailable,
    StoreUnavailable,
    VersionNotFound,
    local_error,
)
from artfs.names import VersionName, parse_version_name
from artfs.registry import Registry, VersionRow
from artfs.versions.remembered import RememberedNames

if TYPE_CHECKING:
    from artfs.cache import Cache
    from artfs.catalog import Catalog
    from artfs.references import References
    from artfs.store import ObjectStore
    from artfs.versions.content import ContentReader
    from artfs.versions.hashes import Hashes

log = logging.getLogger(__name__)

_Part = TypeVar("_Part")

_CATALOG_DEADLINE = 600.0
"""Seconds for one catalog to arrive: 26 MB a million entries."""


@attrs.frozen
class Resolved:
    """What a name led to."""

    version: VersionRow
    age: float
    """Seconds since the registry said so: 0 when it did just now, more when it is out of reach."""


class Repository:
    """The parts that one set of settings names. A context manager; thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._opening = threading.Lock()
        self._parts: dict[str, Any] = {}
        self._remembered = RememberedNames(settings.cache_dir / "names.db", settings.registry_url)
        self._claimed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def registry(self) -> Registry:
        """The registry; raises RegistryUnavailable, SchemaMismatch."""
        return self._part("registry", lambda settings: Registry.open(settings.registry_url))

    @property
    def store(self) -> ObjectStore:
        """The object store; does not talk to it yet."""

        def make(settings: Settings) -> ObjectStore:
            from artfs.store import open_store

            return open_store(
                settings.store_url, endpoint=settings.store_endpoint, request_timeout=settings.request_timeout
            )

        return self._part("store", make)

    @property
    def cache(self) -> Cache:
        """The cache that all of a user's processes share."""

        def make(settings: Settings) -> Cache:
            from artfs.cache import Cache

            return Cache(settings.cache_dir, limit=settings.cache_limit, free=settings.cache_free)

        return self._part("cache", make)

    @property
    def references(self) -> References:
        """Readers of bytes that live elsewhere."""

        def make(settings: Settings) -> References:
            from artfs.references import References

            return References(
                settings.cache_dir / "references",
                allow_file=settings.embedded if settings.file_references is None else settings.file_references,
                request_timeout=settings.request_timeout,
            )

        return self._part("references", make)

    @property
    def hashes(self) -> Hashes:
        """What source files hashed to when they were last logged."""

        def make(settings: Settings) -> Hashes:
            from artfs.versions.hashes import Hashes

            return Hashes(settings.cache_dir / "hashes.db")

        return self._part("hashes", make)

    def _part(self, name: str, make: Callable[[Settings], _Part]) -> _Part:
        with self._opening:
            if name not in self._parts:
                self._parts[name] = make(self.settings)
            part: _Part = self._parts[name]
            return part

    def writable_store(self) -> ObjectStore:
        """The store, after making sure that it is this registry's; raises StoreNotOurs."""
        from artfs.store import claim_store, store_owner

        if not self._claimed:
            deadline = time.monotonic() + self.settings.read_deadline
            if self._holds_versions():
                # So its store bears its mark: an empty one is another, or a disk that is not mounted.
                try:
                    store_owner(self.store, deadline=deadline)
                except ObjectNotFound as error:
                    why = "it holds nothing, but the registry knows versions; is its disk mounted, or was it moved?"
                    raise StoreUnavailable(store=self.store.url, why=why) from error
            claim_store(self.store, self.registry.id, deadline=deadline)
            self._claimed = True
        return self.store

    def _holds_versions(self) -> bool:
        registry = self.registry
        projects = (project for entity in registry.entities() for project in registry.projects(entity.name))
        return any(registry.collections(project.entity, project.name) for project in projects)

    def parse(self, name: str) -> VersionName:
        """A version's name as a user writes it, completed from the settings; raises InvalidName."""
        return parse_version_name(name, entity=self.settings.entity, project=self.settings.project)

    def find(self, text: str) -> Resolved:
        """What a name as users write it is now: ``parse``, then ``resolve``, and what these raise."""
        name = self.parse(text)
        try:
            return self.resolve(name)
        except VersionNotFound:
            if ":" in text or not self.is_level(text):
                raise
            hint = f": {text} holds collections and is none itself; see: artfs ls {text}/, artfs mount {text}/ DIR"
            raise VersionNotFound(name=name, hint=hint) from None

    def is_level(self, text: str) -> bool:
        """Whether a name without a slash at its end is that of an entity or a project."""
        parts = text.split("/")
        try:
            if len(parts) == 1:
                return any(entity.name == parts[0] for entity in self.registry.entities())
            return len(parts) == 2 and any(project.name == parts[1] for project in self.registry.projects(parts[0]))
        except ArtfsError:  # the first error says more
            return False

    def resolve(self, name: VersionName) -> Resolved:
        """What ``name`` is now, or, while the registry is out of reach, what it was when it last answered.

        Raises VersionNotFound, and RegistryUnavailable where nothing is remembered.
        """
        try:
            version = self.registry.resolve(name)
            if version.name != name:
                log.info("%s is %s", name, version.name)
        except RegistryUnavailable as error:
            remembered = self._remembered.get(name)
            if remembered is None:
                raise
            log.warning("%s; %s is what it was %.0f s ago", error, name, remembered.age)
            return Resolved(remembered.version, remembered.age)
        self._remembered.put(name, version)
        return Resolved(version, 0.0)

    def catalog(self, version: VersionRow) -> Catalog:
        """The catalog of a version, fetched into the cache if need be; the caller closes it.

        Where the cache cannot take it (full, read-only), it lives as long as it is open. Raises CorruptCatalog,
        VersionNotFound for a version that is still being written, and what the store raises.
        """
        from artfs.catalog import Catalog

        if version.catalog_sha256 is None:
            raise VersionNotFound(name=str(version.name), hint=": it is still being written")
        for last in (False, True):
            try:
                path = self.cache.catalog(version.catalog_sha256, lambda path: self._fetch_catalog(version, path))
            except (DiskFull, LocalIOError) as error:
                log.warning("%s; the catalog of %s is not kept", error, version.name)
                return self._passing_catalog(version)
            try:
                return Catalog(path, str(version.name))
            except CorruptCatalog as error:
                if last:
                    raise
                log.warning("%s; fetching it again", error)
                path.unlink(missing_ok=True)
            except LocalIOError:
                if last or path.exists():  # else another process evicted it just now
                    raise
        raise AssertionError("the last try returns or raises")

    def _passing_catalog(self, version: VersionRow) -> Catalog:
        from artfs.catalog import Catalog

        try:
            with tempfile.TemporaryDirectory(prefix="artfs-") as directory:
                path = Path(directory) / "catalog"
                self._fetch_catalog(version, path)
                return Catalog(path, str(version.name))  # what is open outlives its name
        except OSError as error:
            raise local_error(tempfile.gettempdir(), error, what="a catalog") from error

    def reader(self, catalog: Catalog, cache: Cache | None = None) -> ContentReader:
        """What reads the files of a version, through ``cache`` (the one that all share)."""
        from artfs.versions.content import ContentReader

        return ContentReader(catalog, cache or self.cache, self.store, lambda: self.references)

    def statistics(self) -> dict[str, Any]:
        """Counters of what has been opened so far, by part."""
        parts = ("registry", "store", "cache", "references")
        return {name: attrs.asdict(self._parts[name].statistics()) for name in parts if name in self._parts}

    def close(self) -> None:
        """Close what was opened."""
        with self._opening:
            self._parts.pop("store", None)  # has nothing to close
            for name in ("cache", "references", "hashes", "registry"):
                part = self._parts.pop(name, None)
                if part is not None:
                    part.close()

    def _fetch_catalog(self, version: VersionRow, path: Path) -> None:
        assert version.catalog_key is not None
        assert version.catalog_sha256 is not None
        fetch_catalog(self.store, version.catalog_key, version.catalog_sha256, path)


def fetch_catalog(store: ObjectStore, key: str, expected_sha256: str, path: Path) -> None:
    """Write a catalog of the store to ``path``, uncompressed; raises CorruptCatalog if it is not what was logged."""
    import zstandard

    packed = store.get(key, deadline=time.monotonic() + _CATALOG_DEADLINE)
    sha256 = hashlib.sha256()
    try:
        with path.open("wb") as file:
            for chunk in zstandard.ZstdDecompressor().read_to_iter(packed):
                sha256.update(chunk)
                file.write(chunk)
    except zstandard.ZstdError as error:
        raise CorruptCatalog(name=key, why=f"it cannot be decompressed ({error})") from error
    if sha256.hexdigest() != expected_sha256:
        raise CorruptCatalog(name=key, why="it is not what was logged")
