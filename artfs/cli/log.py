"""``artfs log``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import click

from artfs.cli.output import Progress, count, json_option, print_json, size
from artfs.config import load_settings
from artfs.errors import InvalidMetadata
from artfs.names import parse_collection_name

_LONGEST_TTL: Final = 36500


@click.command()
@click.argument("path", type=click.Path())
@click.argument("name")
@click.option("-t", "--type", "type_", help="Type of the collection, such as dataset or model: for its first version.")
@click.option("-a", "--alias", "aliases", multiple=True, help="Alias of the new version, beside latest.")
@click.option("--tag", "tags", multiple=True, help="Tag of the new version.")
@click.option("--description", help="Free text, markdown.")
@click.option("--metadata", metavar="JSON|@FILE", help="A JSON object, or @ and the name of a file that holds one.")
@click.option("--ttl", metavar="DAYS", type=float, help="Days after which gc deletes the version.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="What to leave out, as in .gitignore.")
@click.option(
    "--symlinks",
    type=click.Choice(["keep", "follow", "error"]),
    default="keep",
    show_default=True,
    help="keep: links that stay inside stay links, others are followed; error: others are an error.",
)
@json_option
def command(
    path: str,
    name: str,
    type_: str | None,
    aliases: tuple[str, ...],
    tags: tuple[str, ...],
    description: str | None,
    metadata: str | None,
    ttl: float | None,
    exclude: tuple[str, ...],
    symlinks: str,
    as_json: bool,
) -> None:
    """Log a file or directory as a new version of NAME and print the version's name.

    What stands in a .artfsignore at the top of PATH is left out. Content that the collection has already makes no new
    version: the aliases move to the version that has it, which keeps its tags, description, metadata and time to live.

    \b
    Example:
      artfs log ./mnist acme/vision/mnist --type dataset --alias best
    """
    from artfs.registry import INHERIT
    from artfs.versions.log import Labels, log_path
    from artfs.versions.remembered import version_as_json
    from artfs.versions.repository import Repository
    from artfs.versions.scan import Symlinks

    if ttl is not None and not 0 < ttl <= _LONGEST_TTL:
        raise click.BadParameter(f"days above 0, at most {_LONGEST_TTL}", param_hint="--ttl")
    settings = load_settings()
    collection = parse_collection_name(name, entity=settings.entity, project=settings.project)
    labels = Labels(
        aliases,
        tags,
        description,
        metadata_of(metadata),
        INHERIT if ttl is None else math.ceil(ttl * 86400),
    )
    with Repository(settings) as repository, Progress("logged") as progress:
        published = log_path(
            repository,
            path,
            collection,
            type_,
            labels=labels,
            symlinks=Symlinks(symlinks),
            exclude=exclude,
            progress=progress,
        )
    version = published.version
    if as_json:
        print_json({**version_as_json(version), "created": published.created, "stored_bytes": published.stored_bytes})
    elif published.created:
        content = f"{count(version.file_count or 0, 'file')}, {size(version.size)}"
        click.echo(f"{content}, {size(published.stored_bytes)} new", err=True)
    else:
        click.echo(f"{version.name} has the same content: no new version, the aliases point to it", err=True)
    if not published.created:
        tell_dropped(tag=tags, description=description, metadata=metadata, ttl=ttl)
    if not as_json:
        click.echo(str(version.name))


def tell_dropped(**labels: object) -> None:
    """Say which options had no effect, as W&B's have none, where there was no new version to give them to."""
    options = [f"--{name}" for name, given in labels.items() if given]
    if options:
        click.echo(
            f"{', '.join(options)} had no effect: that version keeps its own; `artfs tag` changes tags, "
            "and Artifact.save() in Python the rest",
            err=True,
        )


def metadata_of(text: str | None) -> dict[str, Any] | None:
    """What ``--metadata`` gives: JSON, or @ and the name of a file that holds it; raises InvalidMetadata."""
    from artfs.versions.metadata import check_metadata

    if text == "@":
        raise InvalidMetadata(why="no name of a file follows the @")
    if text is not None and text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise InvalidMetadata(why=f"{text[1:]}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InvalidMetadata(why=f"{text[1:]} is not UTF-8") from error
    return None if text is None else check_metadata(text)
