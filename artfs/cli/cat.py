"""``artfs cat``."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Final

import click

from artfs.config import load_settings
from artfs.errors import IsDirectory, PathNotFound

if TYPE_CHECKING:
    from artfs.catalog import Catalog, Node

_MOST_LINKS: Final = 40
"""On the way to one file, as in the kernel's own walk (MAXSYMLINKS)."""


@click.command()
@click.argument("name")
@click.argument("path")
def command(name: str, path: str) -> None:
    """Write a file of a version to standard output, fetching what is not cached. Symbolic links are followed.

    \b
    Example:
      artfs cat acme/vision/mnist:v3 labels.csv | head
    """
    from artfs.catalog import Kind
    from artfs.catalog.layout import BLOCK
    from artfs.names import check_path
    from artfs.versions.repository import Repository

    settings = load_settings()
    with Repository(settings) as repository:
        version = repository.find(name).version
        catalog = repository.catalog(version)
        node = follow(catalog, check_path(path))
        if node is None:
            raise PathNotFound(path=path, name=version.name)
        if node.kind == Kind.DIRECTORY:
            raise IsDirectory(f"{path!r} is a directory; `artfs ls {version.name} {shlex.quote(path)}` lists it")
        reader = repository.reader(catalog)
        offset = 0
        while data := reader.read(node, offset, BLOCK, time.monotonic() + settings.read_deadline):
            sys.stdout.buffer.write(data)
            offset += len(data)


def follow(catalog: Catalog, path: str) -> Node | None:
    """The row that a path leads to through symbolic links, as in a mount; None if it leads nowhere in the version."""
    from artfs.catalog import Kind

    way = [catalog.resolve("")]
    ahead = path.split("/")[::-1]
    links = 0
    while ahead:
        name = ahead.pop()
        here = way[-1]
        if here is None or (name == ".." and len(way) == 1):
            return None
        if name == "..":
            way.pop()
        elif name not in {"", "."}:
            node = catalog.lookup(here.inode, name)
            if node is not None and node.kind == Kind.SYMLINK:
                links += 1
                target = (node.digest or b"").decode()
                if links > _MOST_LINKS or target.startswith("/"):
                    return None
                ahead += target.split("/")[::-1]
            else:
                way.append(node)
    return way[-1]
