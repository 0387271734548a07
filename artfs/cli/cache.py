"""``artfs cache``."""

from __future__ import annotations

from typing import TextIO

import attrs
import click

from artfs.cli.output import Progress, count, json_option, print_json, size
from artfs.config import load_settings


@click.group()
def command() -> None:
    """Look after the cache, which all mounts and commands of a user share."""


@command.command()
@json_option
def info(as_json: bool) -> None:
    """Show where the cache is, what it holds and what it may hold.

    \b
    Example:
      artfs cache info
    """
    from artfs.versions.repository import Repository

    with Repository(load_settings()) as repository:
        facts = attrs.asdict(repository.cache.info())
    if as_json:
        print_json(facts)
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        click.echo(f"{key:<{width}}  {value if key in {'directory', 'parts', 'catalogs'} else size(value)}")


@command.command(short_help="Fetch a version into the cache.")
@click.argument("name")
@click.option("--paths", default="*", metavar="GLOB", help="Only paths that match.")
@click.option(
    "--order",
    type=click.File(encoding="utf-8", errors="surrogateescape"),
    metavar="FILE",
    help="Only the paths in FILE (- for standard input), one a line, in that order.",
)
def warm(name: str, paths: str, order: TextIO | None) -> None:
    """Fetch a version into the cache, so that reading it needs no network.

    \b
    Examples:
      artfs cache warm acme/vision/mnist:v3 --paths 'train/*'
      artfs cache warm acme/vision/mnist:v3 --order epoch1.txt
    """
    from artfs.versions.repository import Repository
    from artfs.versions.warm import warm as warm_version

    with Repository(load_settings()) as repository, Progress("warmed") as progress:
        version = repository.find(name).version
        # No name of a file ends in \r: lists are made on Windows, too.
        lines = None if order is None else filter(None, (line.rstrip("\r\n") for line in order))
        files = warm_version(repository, repository.catalog(version), pattern=paths, order=lines, progress=progress)
    if order is None and paths == "*":
        click.echo(f"{version.name} is in the cache")
    else:
        click.echo(f"{count(files, 'file')} of {version.name} {'is' if files == 1 else 'are'} in the cache")


@command.command()
def clean() -> None:
    """Empty the cache. Mounts go on, and fetch again what they read.

    \b
    Example:
      artfs cache clean
    """
    from artfs.versions.repository import Repository

    with Repository(load_settings()) as repository:
        freed = repository.cache.clean()
    click.echo(f"freed {size(freed)}")
