"""``artfs checkout``."""

from __future__ import annotations

import click

from artfs.cli.output import Progress
from artfs.config import load_settings


@click.command()
@click.argument("name")
@click.argument("directory", type=click.Path(file_okay=False))
def command(name: str, directory: str) -> None:
    """Make DIRECTORY hold exactly a version's files: every other file in it is DELETED.

    A directory that is or holds one where artfs keeps its own files, or lies in its store or cache, is refused.

    \b
    Example:
      artfs checkout acme/vision/mnist:v3 ./mnist
    """
    from artfs.versions.download import checkout
    from artfs.versions.repository import Repository

    with Repository(load_settings()) as repository, Progress("checked out") as progress:
        version = repository.find(name).version
        checkout(repository, repository.catalog(version), directory, progress=progress)
    click.echo(directory)
