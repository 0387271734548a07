"""``artfs unlink``."""

from __future__ import annotations

import click

from artfs.config import load_settings
from artfs.errors import Conflict


@click.command()
@click.argument("name")
def command(name: str) -> None:
    """Take a version out of a portfolio; the version itself stays.

    \b
    Example:
      artfs unlink acme/published/digits:v0
    """
    from artfs.versions.repository import Repository

    with Repository(load_settings()) as repository:
        version = repository.registry.resolve(repository.parse(name))
        if not version.is_link:
            raise Conflict(f"{version.name} is no link but the version itself; use `artfs rm` to delete it")
        repository.registry.unlink(version.id, version.name.collection_name)
