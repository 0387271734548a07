"""``artfs rm``."""

from __future__ import annotations

import click

from artfs.cli.output import each
from artfs.config import load_settings


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--delete-aliases", is_flag=True, help="Delete the version even if aliases name it.")
def command(names: tuple[str, ...], delete_aliases: bool) -> None:
    """Delete versions; `artfs gc` frees what only they stored, after a grace period.

    \b
    Example:
      artfs rm acme/vision/mnist:v3
    """
    from artfs.versions.repository import Repository

    with Repository(load_settings()) as repository:

        def delete(name: str) -> None:
            version = repository.registry.resolve(repository.parse(name))
            repository.registry.delete_version(version.id, delete_aliases=delete_aliases)
            click.echo(f"deleted {version.source_name}")

        each(names, delete)
