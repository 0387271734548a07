"""``artfs cat``."""

from __future__ import annotations

import sys
import time

import click

from artfs.config import load_settings
from artfs.errors import PathNotFound


@click.command()
@click.argument("name")
@click.argument("path")
def command(name: str, path: str) -> None:
    """Write a file of a version to standard output, fetching what is not cached.

    \b
    Example:
      artfs cat acme/vision/mnist:v3 labels.csv | head
    """
    from artfs.catalog import Kind
    from artfs.catalog.layout import NEIGHBOURHOOD
    from artfs.names import check_path
    from artfs.versions.repository import Repository

    settings = load_settings()
    with Repository(settings) as repository:
        version = repository.resolve(repository.parse(name)).version
        catalog = repository.catalog(version)
        node = catalog.resolve(check_path(path))
        if node is None or node.kind not in {Kind.FILE, Kind.REFERENCE}:
            raise PathNotFound(path=path, name=version.name)
        reader = repository.reader(catalog)
        offset = 0
        while data := reader.read(node, offset, NEIGHBOURHOOD, time.monotonic() + settings.read_deadline):
            sys.stdout.buffer.write(data)
            offset += len(data)
