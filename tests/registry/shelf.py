"""What the registry's tests write versions with."""

from __future__ import annotations

import itertools
import os
import uuid

import attrs

from artfs.names import CollectionName
from artfs.registry import Committed, Content, KnownExtent, Registry

MNIST = CollectionName("acme", "vision", "mnist")
_counter = itertools.count()


def content(mark: str = "a", packs=(), tree: str = "t") -> Content:
    return Content(
        digest=f"digest-{mark}",
        tree_digest=f"tree-{mark}-{tree}",
        file_count=3,
        size=300,
        catalog_key=f"catalogs/{next(_counter)}-{os.getpid()}",
        catalog_sha256="ab" * 32,
        catalog_size=4096,
        packs=packs,
        stored_bytes=100,
    )


def extent_of(number: int, pack: str = "") -> KnownExtent:
    return KnownExtent(number.to_bytes(32, "big"), pack, 10 * number, 10)


@attrs.define
class Shelf:
    """Logs versions as the rest of artfs does."""

    registry: Registry

    def begin(self, name: CollectionName = MNIST, **kwargs) -> str:
        return self.registry.begin(name, kwargs.pop("type", "dataset"), origin=kwargs.pop("origin", "log"), **kwargs)

    def pack(self, version_id: str | None, *numbers: int) -> str:
        """Register a pack that holds extents of these numbers."""
        key = f"packs/{uuid.uuid4().hex}"
        extents = [extent_of(number, key) for number in numbers]
        self.registry.register_pack(version_id, key, 10 * len(numbers), b"checksum", extents)
        return key

    def log(self, mark: str = "a", name: CollectionName = MNIST, packs=(), begin=None, **kwargs) -> Committed:
        return self.registry.commit(self.begin(name, **(begin or {})), content(mark, packs), **kwargs)

    def log_pack(self, mark: str, *numbers: int, name: CollectionName = MNIST) -> tuple[Committed, str]:
        version_id = self.begin(name)
        key = self.pack(version_id, *numbers)
        return self.registry.commit(version_id, content(mark, [key])), key
