"""``artfs alias``."""

from __future__ import annotations

import click

from artfs.cli.output import json_option, print_json
from artfs.config import load_settings
from artfs.errors import NotFound
from artfs.names import check_alias


@click.command()
@click.argument("name")
@click.argument("aliases", nargs=-1)
@click.option("-r", "--remove", "removed", multiple=True, help="Alias to take away.")
@json_option
def command(name: str, aliases: tuple[str, ...], removed: tuple[str, ...], as_json: bool) -> None:
    """Give a version aliases, taking them from the version that had them; print those it has then.

    \b
    Example:
      artfs alias acme/vision/mnist:v3 best --remove candidate
    """
    from artfs.versions.repository import Repository

    for alias in aliases:
        check_alias(alias)
    with Repository(load_settings()) as repository:
        registry = repository.registry
        version = registry.resolve(repository.parse(name))
        absent = sorted({*removed} - {*version.aliases, *aliases})
        if absent:
            has = ", ".join(version.aliases) or "none"
            raise NotFound(f"{version.name} has no alias {absent[0]!r}; it has {has}")
        if aliases:
            version = registry.add_aliases(version.id, aliases, version.name.collection_name)
        if removed:
            version = registry.remove_aliases(version.id, removed, version.name.collection_name)
    if as_json:
        print_json({"name": str(version.name), "aliases": list(version.aliases)})
        return
    for alias in version.aliases:
        click.echo(alias)
