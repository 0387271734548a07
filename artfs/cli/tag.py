"""``artfs tag``."""

from __future__ import annotations

import click

from artfs.cli.output import json_option, print_json
from artfs.config import load_settings
from artfs.errors import NotFound


@click.command()
@click.argument("name")
@click.argument("tags", nargs=-1)
@click.option("-r", "--remove", "removed", multiple=True, help="Tag to take away.")
@json_option
def command(name: str, tags: tuple[str, ...], removed: tuple[str, ...], as_json: bool) -> None:
    """Give a version tags; print those it has then. Unlike an alias, many versions may have one tag.

    \b
    Example:
      artfs tag acme/vision/mnist:v3 reviewed --remove raw
    """
    from artfs.versions.repository import Repository

    with Repository(load_settings()) as repository:
        registry = repository.registry
        version = registry.resolve(repository.parse(name))
        absent = sorted({*removed} - {*version.tags, *tags})
        if absent:
            has = ", ".join(version.tags) or "none"
            raise NotFound(f"{version.name} has no tag {absent[0]!r}; it has {has}")
        if tags or removed:
            version = registry.change_tags(version.id, tags, removed)
    if as_json:
        print_json({"name": str(version.name), "tags": list(version.tags)})
        return
    for tag in version.tags:
        click.echo(tag)
