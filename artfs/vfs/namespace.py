"""Everything a registry holds as directories: entities, projects, versions, and aliases as symbolic links.

Below a project a version is a directory ``mnist:v3``, an alias a link ``mnist:latest -> mnist:v3``, and ``mnist`` a
link to ``mnist:latest``. What the registry says may change and is kept for seconds; inside a version nothing does.

Inodes: a version's root and what lies in it carry the membership's id in the top 24 bits over the catalog's own inode
in the low 40. The namespace's own nodes have zero on top, then four bits that say what they are: 1 an entity by its id,
2 a project by its id, 3 a link by a hash of where it stands and leads to, so that a moved alias is a new inode.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import attrs
import cachetools

from artfs.catalog import Kind
from artfs.errors import NotFound, RegistryUnavailable, VersionNotFound
from artfs.names import LATEST, PART_LIMIT, CollectionName, VersionName
from artfs.registry import CollectionRow, VersionRow
from artfs.versions.repository import Repository
from artfs.vfs.tree import ROOT_INODE, YEAR, Attributes, Capacity, DirectoryEntry, WouldBlock
from artfs.vfs.version import VersionTree

log = logging.getLogger(__name__)

LIFETIME: Final = 5.0
"""Seconds for which a kernel keeps what the registry said."""
_FRESH: Final = 1.0
"""Seconds for which an answer of the registry serves further questions."""
_OPEN_VERSIONS: Final = 64
_KNOWN_VERSIONS: Final = 1024
"""Versions that need not be resolved again (10 ms): what is in use and was deleted since can be opened again."""

CATALOG_BITS: Final = 40
_TAG_BITS: Final = 36
_ENTITY, _PROJECT, _LINK = 1, 2, 3
_MODE: Final = 0o755

_Known = TypeVar("_Known")

Level = tuple[str, ...]
"""Of a directory: (), (entity,) or (entity, project)."""


@attrs.frozen
class _Item:
    cookie: int
    attributes: Attributes


@attrs.frozen
class _Listing:
    items: Mapping[str, _Item]
    asked_at: float
    stale: bool = False
    """The registry did not answer when it was asked again, which has been logged."""


class Namespace:
    """A ``Tree`` over a registry, from ``level`` down."""

    def __init__(self, repository: Repository, level: Level) -> None:
        """Show what lies below ``level``, and close ``repository`` at the end; raises VersionNotFound."""
        self._repository = repository
        self._lock = threading.Lock()
        self._listings: dict[Level, _Listing] = {}
        self._cookies: dict[Level, dict[str, int]] = {}  # a name keeps its cookie: a listing under way misses nothing
        self._levels: dict[int, Level] = {ROOT_INODE: level}
        self._links: dict[int, tuple[str, int]] = {}  # target and mtime
        self._members: dict[int, tuple[VersionName, int]] = {}  # version and mtime by membership
        self._trees: cachetools.LRUCache[int, VersionTree] = cachetools.LRUCache(_OPEN_VERSIONS)
        self._rows: cachetools.LRUCache[int, VersionRow] = cachetools.LRUCache(_KNOWN_VERSIONS)  # by membership
        self._started = time.time_ns()
        self._ask(level)

    # -- Tree -----------------------------------------------------------------------------------------------------

    def lookup(self, parent: int, name: str, deadline: float | None) -> Attributes | None:
        """What a name is in the namespace or in a version."""
        if parent >> CATALOG_BITS:
            return self._tree(parent, deadline).lookup(parent, name, deadline)
        item = self._listing(self._level(parent, deadline), deadline).items.get(name)
        return None if item is None else item.attributes

    def absent_lifetime(self, parent: int) -> float:
        """A version may appear any moment; inside one nothing does."""
        return YEAR if parent >> CATALOG_BITS else LIFETIME

    def attributes(self, inode: int, deadline: float | None) -> Attributes:
        """What stat shows; of a version's root what the registry says, so that ``ls -l`` opens no catalog."""
        membership, inner = divmod(inode, 1 << CATALOG_BITS)
        if membership and inner != ROOT_INODE:
            return self._tree(inode, deadline).attributes(inode, deadline)
        if membership:
            return _directory(inode, self._member(membership, deadline)[1])
        if inode in self._links or inode >> _TAG_BITS == _LINK:
            return _link(inode, *self._target(inode, deadline))
        level = self._level(inode, deadline)
        return _directory(inode, self._changed(inode, level, deadline))

    def list(self, inode: int, cookie: int, deadline: float | None) -> Iterator[DirectoryEntry]:
        """The entries of a directory: first what there was at the beginning, by name, then what came later."""
        if inode >> CATALOG_BITS:
            yield from self._tree(inode, deadline).list(inode, cookie, deadline)
            return
        for name, item in self._listing(self._level(inode, deadline), deadline).items.items():
            if item.cookie > cookie:
                yield DirectoryEntry(item.cookie, name, *item.attributes)

    def readlink(self, inode: int, deadline: float | None) -> str:
        """The target of an alias or of a link in a version."""
        if inode >> CATALOG_BITS:
            return self._tree(inode, deadline).readlink(inode, deadline)
        return self._target(inode, deadline)[0]

    def read(
        self, inode: int, offset: int, size: int, deadline: float | None, room: memoryview | None = None
    ) -> bytes | bytearray | memoryview:
        """Bytes of a file in a version."""
        return self._tree(inode, deadline).read(inode, offset, size, deadline, room)

    def prefetch(self, inode: int, deadline: float | None) -> bool:
        """Of a version's file."""
        return bool(inode >> CATALOG_BITS) and self._tree(inode, deadline).prefetch(inode, deadline)

    def xattrs(self, inode: int, deadline: float | None) -> Mapping[str, bytes]:
        """Those of a version's file; the namespace's own nodes have none."""
        return self._tree(inode, deadline).xattrs(inode, deadline) if inode >> CATALOG_BITS else {}

    def capacity(self) -> Capacity:
        """Of the versions that are open: nobody asks the registry to sum up everything."""
        with self._lock:
            sizes = [tree.capacity() for tree in self._trees.values()]
        return Capacity(sum(c.size for c in sizes), 0, sum(c.files for c in sizes), 0)

    def statistics(self) -> Mapping[str, Any]:
        """The versions that are open."""
        with self._lock:
            trees = list(self._trees.values())
        return self._repository.statistics() | {
            "versions": [tree.statistics() for tree in trees],
            "listings": len(self._listings),
        }

    def close(self) -> None:
        """Close the versions."""
        with self._lock:
            while self._trees:
                self._trees.popitem()[1].close()
        self._repository.close()

    def path_of(self, inode: int) -> str:
        """For messages."""
        with self._lock:
            tree = self._trees.get(inode >> CATALOG_BITS)
        return f"inode {inode}" if tree is None else tree.path_of(inode)

    # -- versions -------------------------------------------------------------------------------------------------

    def _tree(self, inode: int, deadline: float | None) -> VersionTree:
        membership = inode >> CATALOG_BITS
        with self._lock:
            tree = self._trees.get(membership)
        if tree is not None:
            return tree
        if deadline is None:
            raise WouldBlock
        with self._lock:
            version = self._rows.get(membership)
        if version is None:
            version = self._repository.resolve(self._member(membership, deadline)[0]).version
        catalog = self._repository.catalog(version)
        tree = VersionTree(version, catalog, self._repository.reader(catalog), base=membership << CATALOG_BITS)
        with self._lock:
            self._rows[membership] = version
            rival = self._trees.get(membership)
            if rival is not None:
                tree.close()
                return rival
            if len(self._trees) >= _OPEN_VERSIONS:
                self._trees.popitem()[1].close()
            self._trees[membership] = tree
            return tree

    def _member(self, membership: int, deadline: float | None) -> tuple[VersionName, int]:
        return self._found(lambda: self._members.get(membership), membership << CATALOG_BITS, deadline)

    # -- the namespace's own nodes --------------------------------------------------------------------------------

    def _level(self, inode: int, deadline: float | None) -> Level:
        return self._found(lambda: self._levels.get(inode), inode, deadline)

    def _target(self, inode: int, deadline: float | None) -> tuple[str, int]:
        return self._found(lambda: self._links.get(inode), inode, deadline)

    def _found(self, get: Callable[[], _Known | None], inode: int, deadline: float | None) -> _Known:
        """What is known of an inode; where it was handed out by another process, everything is listed once."""
        found = get()
        if found is None:
            if deadline is None:
                raise WouldBlock
            self._list_all(self._levels[ROOT_INODE], deadline)
            found = get()
        if found is None:
            raise NotFound(what="inode", name=inode)
        return found

    def _list_all(self, level: Level, deadline: float) -> None:
        for name in self._listing(level, deadline).items:
            if len(level) < 2:
                self._list_all((*level, name), deadline)

    def _changed(self, inode: int, level: Level, deadline: float | None) -> int:
        """When something in a directory last changed: what the listing of its parent says."""
        if inode == ROOT_INODE:
            items = self._listing(level, deadline).items.values()
            return max((item.attributes.mtime_ns for item in items), default=self._started)
        item = self._listing(level[:-1], deadline).items.get(level[-1])
        if item is None:
            raise NotFound(what="directory", name="/".join(level))
        return item.attributes.mtime_ns

    def _listing(self, level: Level, deadline: float | None) -> _Listing:
        listing = self._listings.get(level)
        if listing is not None and time.monotonic() - listing.asked_at < _FRESH:
            return listing
        if deadline is None:
            raise WouldBlock
        try:
            return self._ask(level)
        except VersionNotFound:
            self._listings.pop(level, None)
            return _Listing({}, time.monotonic())
        except RegistryUnavailable as error:
            if listing is None:
                raise
            if not listing.stale:
                log.warning("%s; %s is shown as it was", error, "/".join(level) or "the namespace")
            again = self._listings[level] = attrs.evolve(listing, asked_at=time.monotonic(), stale=True)
            return again

    def _ask(self, level: Level) -> _Listing:
        registry = self._repository.registry
        found: dict[str, Attributes] = {}
        if not level:
            for entity in registry.entities():
                inode = _ENTITY << _TAG_BITS | entity.id
                self._levels[inode] = (entity.name,)
                found[entity.name] = _directory(inode, _ns(entity.changed_at))
        elif len(level) == 1:
            for project in registry.projects(level[0]):
                inode = _PROJECT << _TAG_BITS | project.id
                self._levels[inode] = (*level, project.name)
                found[project.name] = _directory(inode, _ns(project.changed_at))
        else:
            for collection in registry.collections(*level):
                found.update(self._versions(collection))
        with self._lock:
            cookies = self._cookies.setdefault(level, {})
            for name in sorted(found.keys() - cookies.keys()):
                cookies[name] = len(cookies) + 1
            items = {name: _Item(cookies[name], found[name]) for name in sorted(found, key=cookies.__getitem__)}
            listing = self._listings[level] = _Listing(items, time.monotonic())
        return listing

    def _versions(self, collection: CollectionRow) -> Iterable[tuple[str, Attributes]]:
        name = collection.name
        changed = _ns(collection.changed_at)
        for member in self._repository.registry.memberships(name):
            version = f"{name.collection}:v{member.index}"
            created = _ns(member.created_at)
            self._members[member.membership_id] = (name.at(f"v{member.index}"), created)
            inode = member.membership_id << CATALOG_BITS | ROOT_INODE
            yield version, _directory(inode, created)
            for alias in member.aliases:
                yield from self._alias(name, f"{name.collection}:{alias}", version, changed)
                if alias == LATEST:
                    yield from self._alias(name, name.collection, f"{name.collection}:{LATEST}", changed)

    def _alias(
        self, collection: CollectionName, name: str, target: str, changed: int
    ) -> Iterable[tuple[str, Attributes]]:
        if len(name.encode()) > PART_LIMIT:
            log.debug("%s has an alias too long for a file name, it is not shown", collection)
            return
        place = f"{collection}\0{name}\0{target}".encode()
        inode = _LINK << _TAG_BITS | int.from_bytes(hashlib.sha256(place).digest()[:4], "big")
        self._links[inode] = (target, changed)
        yield name, _link(inode, target, changed)


def _directory(inode: int, mtime_ns: int) -> Attributes:
    return Attributes(inode, Kind.DIRECTORY, _MODE, 0, mtime_ns, entry_lifetime=LIFETIME, lifetime=LIFETIME)


def _link(inode: int, target: str, mtime_ns: int) -> Attributes:
    size = len(target.encode())
    return Attributes(inode, Kind.SYMLINK, 0o777, size, mtime_ns, entry_lifetime=LIFETIME, lifetime=LIFETIME)


def _ns(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6) * 1000
