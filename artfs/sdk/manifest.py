"""What an artifact holds, as W&B's manifest: a view of its draft or of its catalog, one entry at a time."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, Protocol

from artfs.catalog import Catalog, Kind
from artfs.catalog.manifest import POLICY, VERSION
from artfs.errors import EntryNotFound, InvalidPath
from artfs.names import check_path
from artfs.sdk.draft import Draft
from artfs.sdk.entry import ArtifactManifestEntry, of_entry, of_row

if TYPE_CHECKING:
    from artfs.sdk.artifact import Artifact


class Contents(Protocol):
    """Where a manifest's entries come from."""

    def get(self, path: str) -> ArtifactManifestEntry | None:
        """The entry of a path."""

    def walk(self, directory: str) -> Iterator[ArtifactManifestEntry]:
        """Every entry (below a directory) in path order."""

    def count(self) -> int:
        """How many there are."""

    def size(self) -> int:
        """Bytes of all, as far as they are known."""

    def digest(self) -> str:
        """W&B's digest."""


class LiveContents:
    """Of an artifact, whatever has become of it since."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact

    def get(self, path: str) -> ArtifactManifestEntry | None:
        """The entry of a path."""
        return self._artifact.contents().get(path)

    def walk(self, directory: str) -> Iterator[ArtifactManifestEntry]:
        """Every entry (below a directory) in path order, as it is when this begins."""
        return self._artifact.contents().walk(directory)

    def count(self) -> int:
        """How many there are."""
        return self._artifact.contents().count()

    def size(self) -> int:
        """Bytes of all, as far as they are known."""
        return self._artifact.contents().size()

    def digest(self) -> str:
        """W&B's digest."""
        return self._artifact.contents().digest()


class DraftContents:
    """Of an artifact that is not logged."""

    def __init__(self, draft: Draft, parent: Artifact) -> None:
        self._draft = draft
        self._parent = parent
        self.count = draft.count
        self.size = draft.size
        self.digest = draft.digest

    def get(self, path: str) -> ArtifactManifestEntry | None:
        """The entry of a path."""
        row = self._draft.get(path)
        return None if row is None or row.kind == Kind.SYMLINK else of_row(row, self._parent)

    def walk(self, directory: str) -> Iterator[ArtifactManifestEntry]:
        """Every entry (below a directory) in path order."""
        return (of_row(row, self._parent) for row in self._draft.rows(directory) if row.kind != Kind.SYMLINK)


class CatalogContents:
    """Of an artifact that is logged."""

    def __init__(self, catalog: Catalog, parent: Artifact) -> None:
        self._catalog = catalog
        self._parent = parent

    def get(self, path: str) -> ArtifactManifestEntry | None:
        """The entry of a path."""
        node = self._catalog.resolve(path)
        if node is None or node.kind not in {Kind.FILE, Kind.REFERENCE}:
            return None
        return of_entry(next(self._catalog.entries(path)), self._parent)

    def walk(self, directory: str) -> Iterator[ArtifactManifestEntry]:
        """Every entry (below a directory) in path order."""
        for entry in self._catalog.leaves(directory):
            if entry.kind in {Kind.FILE, Kind.REFERENCE} and entry.path != directory:
                yield of_entry(entry, self._parent)

    def count(self) -> int:
        """How many there are."""
        return self._catalog.file_count

    def size(self) -> int:
        """Bytes of all, as far as they are known."""
        return self._catalog.size

    def digest(self) -> str:
        """W&B's digest."""
        return self._catalog.digest


class Entries(Mapping[str, ArtifactManifestEntry]):
    """Entries by path, in path order, read as they are asked for."""

    def __init__(self, contents: Contents, name: str) -> None:
        self._contents = contents
        self._name = name

    def __getitem__(self, path: str) -> ArtifactManifestEntry:
        entry = self._contents.get(path)
        if entry is None:
            raise EntryNotFound(path=path, name=self._name)
        return entry

    def __iter__(self) -> Iterator[str]:
        return (entry.path for entry in self._contents.walk(""))

    def __len__(self) -> int:
        return self._contents.count()

    def walk(self) -> Iterator[ArtifactManifestEntry]:
        """The entries, in path order."""
        return self._contents.walk("")

    def values(self) -> ValuesView[ArtifactManifestEntry]:
        """The entries; read in one pass, not looked up one by one."""
        return _Values(self)

    def items(self) -> ItemsView[str, ArtifactManifestEntry]:
        """Paths and entries; read in one pass."""
        return _Items(self)


class _Values(ValuesView[ArtifactManifestEntry]):
    _mapping: Entries

    def __iter__(self) -> Iterator[ArtifactManifestEntry]:
        return self._mapping.walk()


class _Items(ItemsView[str, ArtifactManifestEntry]):
    _mapping: Entries

    def __iter__(self) -> Iterator[tuple[str, ArtifactManifestEntry]]:
        return ((entry.path, entry) for entry in self._mapping.walk())


class ArtifactManifest:
    """The manifest of an artifact, format v1."""

    version = VERSION

    def __init__(self, contents: Contents, name: str) -> None:
        self._contents = contents
        self.entries = Entries(contents, name)
        """A mapping of paths to entries. Do not make a list of a large one: it has no limit."""

    def __len__(self) -> int:
        return len(self.entries)

    def digest(self) -> str:
        """The artifact's digest; hashes files that were not hashed yet."""
        return self._contents.digest()

    def size(self) -> int:
        """Bytes of files and references together, as far as they are known."""
        return self._contents.size()

    def get_entry_by_path(self, path: str) -> ArtifactManifestEntry | None:
        """The entry of a path, or None."""
        try:
            return self._contents.get(check_path(path))
        except InvalidPath:
            return None

    def get_entries_in_directory(self, directory: str) -> Iterator[ArtifactManifestEntry]:
        """The entries below a directory, in path order."""
        return self._contents.walk(directory)

    def to_manifest_json(self) -> dict[str, Any]:
        """The manifest as W&B writes it. Holds every entry in memory; ``artfs.catalog.manifest`` writes large ones."""
        return {
            "version": VERSION,
            "storagePolicy": POLICY,
            "storagePolicyConfig": {"storageLayout": "V2"},
            "contents": {entry.path: entry.manifest_fields() for entry in self._contents.walk("")},
        }
