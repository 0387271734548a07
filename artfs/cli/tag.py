"""``artfs tag``."""

from __future__ import annotations

import click

from artfs.config import load_settings


@click.command()
@click.argument("name")
@click.argument("tags", nargs=-1)
@click.option("-r", "--remove", "removed", multiple=True, help="Tag to take away.")
def command(name: str, tags: tuple[str, ...], removed: tuple[str, ...]) -> None:
    """Give a version tags; print those it has then. Unlike an alias, many versions may have one tag.

    \b
    Example:
      artfs tag acme/vision/mnist:v3 reviewed --remove raw
    """
    from artfs.versions.repository import Repository

    with Repository(load_settings()) as repository:
        registry = repository.registry
        version = registry.resolve(repository.parse(name))
        if tags or removed:
            version = registry.set_tags(version.id, sorted({*version.tags, *tags} - set(removed)))
    for tag in version.tags:
        click.echo(tag)
