"""``artfs init``."""

from __future__ import annotations

import re

import click

from artfs.cli.output import size
from artfs.config import Settings, load_settings, write_config
from artfs.errors import ConfigurationError


@click.command()
@click.argument("store_url", required=False)
@click.option("--registry", help="SQLAlchemy URL of the registry, for example postgresql://user@host/artfs.")
@click.option("--endpoint", help="URL of an S3-compatible server.")
@click.option("--entity", help="Default entity of names.")
@click.option("--project", help="Default project of names.")
@click.option("--cache-limit", help="Most that the cache may take, for example 200GiB.")
@click.option(
    "--rebuild", is_flag=True, help="Fill a new registry from the store; the one before, if not lost, is refused."
)
def command(
    store_url: str | None,
    registry: str | None,
    endpoint: str | None,
    entity: str | None,
    project: str | None,
    cache_limit: str | None,
    rebuild: bool,
) -> None:
    """Choose where versions are kept, and write that down.

    With no arguments everything is local: a SQLite registry and a directory. Nothing else needs `init`: the local
    set-up is made when it is first used.

    \b
    Example:
      artfs init s3://my-bucket/artifacts --registry postgresql://artfs@db/artfs
    """
    given = {
        "store_url": _store_url(store_url) if store_url else None,
        "registry_url": registry,
        "store_endpoint": endpoint,
        "entity": entity,
        "project": project,
        "cache_limit": cache_limit,
    }
    values = {key: value for key, value in given.items() if value is not None}
    settings = load_settings(**values)
    _try_out(settings, rebuild=rebuild)
    write_config(settings.config_file, values)
    click.echo(f"configuration: {settings.config_file}")


def _store_url(text: str) -> str:
    if re.match(r"(s3|gs|az)://[^/]|file:///[^/]", text):
        return text.rstrip("/")
    if "://" in text:
        raise ConfigurationError(why=f"{text!r} is not a store: use s3://BUCKET/PREFIX, gs://, az:// or a directory")
    from pathlib import Path

    return Path(text).expanduser().absolute().as_uri()


def _try_out(settings: Settings, *, rebuild: bool) -> None:
    """A wrong bucket, key or password is said now, not at the first `log`."""
    from artfs.versions.rebuild import rebuild as rebuild_registry
    from artfs.versions.repository import Repository

    with Repository(settings) as repository:
        registry = repository.registry
        if rebuild:
            done = rebuild_registry(repository)
            click.echo(f"rebuilt:       {done.versions} versions and links, {len(done.lost)} lost")
        store = repository.writable_store()
        click.echo(f"registry:      {registry.url_redacted}")
        click.echo(f"store:         {store.url}")
        click.echo(f"cache:         {settings.cache_dir}, up to {size(settings.cache_limit)}")
