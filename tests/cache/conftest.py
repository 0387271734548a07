from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from file_source import FileSource

from artfs.cache import Cache

GIB = 1 << 30


@pytest.fixture(scope="session")
def content() -> bytes:
    return random.Random(7).randbytes((20 << 20) + 1000)


@pytest.fixture
def make_source(tmp_path: Path, content: bytes) -> Callable[..., FileSource]:
    def make(size: int = 3 * (1 << 20) + 12345, name: str = "0a1b2c", **options) -> FileSource:
        directory = tmp_path / "origin"
        directory.mkdir(exist_ok=True)
        path = directory / name
        shift = sum(name.encode()) % 1000
        path.write_bytes(content[shift : shift + size])
        return FileSource(path, **options)

    return make


@pytest.fixture
def source(make_source) -> FileSource:
    return make_source()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def open_cache(directory: Path) -> Iterator[Callable[..., Cache]]:
    caches: list[Cache] = []

    def make(where: Path = directory, *, limit: int = GIB, free: int = 0) -> Cache:
        caches.append(Cache(where, limit=limit, free=free))
        return caches[-1]

    yield make
    for cache in caches:
        cache.close()


@pytest.fixture
def cache(open_cache) -> Cache:
    return open_cache()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many bytes; a second call on it changes nothing."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        where = tmp_path / f"disk{len(mounted)}"
        where.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "artfs-test", str(where)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting a tmpfs is not permitted here")
        mounted.append(where)
        return where

    yield mount
    for where in mounted:
        subprocess.run(["umount", "-l", str(where)], check=True)
