"""A home for artfs in a temporary directory, and sources to log."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import stat
import tempfile
import time
from pathlib import Path

from artfs.config import load_settings
from artfs.registry import Registry
from artfs.versions.repository import Repository

OLD = 1_500_000_000_123_456_789


class Link(str):
    """The target of a symlink in a description of a tree."""

    __slots__ = ()


def settings_of(home, **options):
    environment = {"ARTFS_HOME": str(home), "ARTFS_ENTITY": "acme", "USER": "acme"}
    return load_settings(environment, cache_free="0", **options)


def open_repository(home, **options):
    registry = Path(home, "registry.db")
    if not registry.exists():
        give_registry(registry)
    return Repository(settings_of(home, **options))


def give_registry(path):
    """Lay an empty registry at ``path``. To make one takes 50 ms of CPU time, and the tests need 400."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(_empty_registry())
    path.chmod(0o600)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE registry SET id = lower(hex(randomblob(16)))")


@functools.cache
def _empty_registry():
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "registry.db")
        Registry.open(f"sqlite:///{path}").close()
        return path.read_bytes()


def make_tree(root, content):
    """``content``: path -> bytes, Link, or None for a directory. All times are ``OLD``."""
    root.mkdir(parents=True, exist_ok=True)
    for name, value in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if value is None:
            path.mkdir(exist_ok=True)
        elif isinstance(value, Link):
            os.symlink(value, path)
        else:
            path.write_bytes(value)
    for directory, _, files in os.walk(root, topdown=False):
        for name in files:
            os.utime(os.path.join(directory, name), ns=(OLD, OLD), follow_symlinks=False)
        os.utime(directory, ns=(OLD, OLD))
    return root


def tree_of(root):
    """path -> bytes, Link, or None for an empty directory."""
    found = {}
    for directory, directories, files in os.walk(root):
        relative = os.path.relpath(directory, root)
        if not directories and not files and relative != ".":
            found[relative] = None
        for name in [*files, *directories]:
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            key = os.path.normpath(os.path.join(relative, name))
            if stat.S_ISLNK(mode):
                found[key] = Link(os.readlink(path))
            elif stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    found[key] = file.read()
    return found


def soon(seconds=30.0):
    """A deadline that no test comes to."""
    return time.monotonic() + seconds


def wait_until(condition, what, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.01)


@contextlib.contextmanager
def as_nobody(*owned):
    """Run as an ordinary user who owns these paths, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    for path in owned:
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
