"""``artfs verify``."""

from __future__ import annotations

import click

from artfs.cli.output import Progress
from artfs.config import load_settings


@click.command()
@click.argument("name")
@click.argument("directory", required=False, type=click.Path(file_okay=False))
def command(name: str, directory: str | None) -> None:
    """Compare DIRECTORY (default: ./artifacts/NAME) with a version, and say every file that differs.

    References are not compared: their digests are not digests of their bytes.

    \b
    Example:
      artfs verify acme/vision/mnist:v3 ./mnist
    """
    from artfs.versions.download import verify
    from artfs.versions.repository import Repository

    with Repository(load_settings()) as repository, Progress("compared") as progress:
        version = repository.find(name).version
        default = f"artifacts/{version.source_name.collection}:{version.source_name.alias}"
        root = default if directory is None else directory
        verify(repository.catalog(version), root, progress=progress)
    click.echo(f"{root} holds {version.name}")
