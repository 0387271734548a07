"""``artfs link``."""

from __future__ import annotations

import click

from artfs.config import load_settings
from artfs.names import check_alias, parse_collection_name


@click.command()
@click.argument("name")
@click.argument("portfolio")
@click.option("-a", "--alias", "aliases", multiple=True, help="Alias in the portfolio, beside latest.")
def command(name: str, portfolio: str, aliases: tuple[str, ...]) -> None:
    """Link a version into a portfolio, which numbers its versions itself; print its name there.

    \b
    Example:
      artfs link acme/vision/mnist:v3 acme/published/digits --alias production
    """
    from artfs.versions.repository import Repository

    for alias in aliases:
        check_alias(alias)
    settings = load_settings()
    with Repository(settings) as repository:
        version = repository.registry.resolve(repository.parse(name))
        target = parse_collection_name(portfolio, entity=version.source_name.entity, project=settings.project)
        linked = repository.registry.link(version.id, target, aliases)
    click.echo(str(linked.name))
