"""``artfs download``."""

from __future__ import annotations

import click

from artfs.cli.output import Progress, count
from artfs.config import load_settings


@click.command()
@click.argument("name")
@click.argument("directory", required=False, type=click.Path(file_okay=False))
@click.option("--prefix", default="", help="Only paths that begin with this.")
@click.option("--allow-missing-references", is_flag=True, help="Succeed without references that are gone.")
def command(name: str, directory: str | None, prefix: str, allow_missing_references: bool) -> None:
    """Copy a version's files into DIRECTORY (default: ./artifacts/NAME) and print where they are.

    Other files there are left alone, and files that are right already are not written again.

    \b
    Example:
      artfs download acme/vision/mnist:v3 ./mnist
    """
    from artfs.versions.download import download
    from artfs.versions.repository import Repository

    with Repository(load_settings()) as repository, Progress("downloaded") as progress:
        version = repository.find(name).version
        default = f"artifacts/{version.source_name.collection}:{version.source_name.alias}"
        root = default if directory is None else directory
        done = download(
            repository,
            repository.catalog(version),
            root,
            prefix=prefix,
            allow_missing_references=allow_missing_references,
            progress=progress,
        )
    click.echo(f"{count(done.written, 'file')} written, {done.kept} already there", err=True)
    click.echo(root)
