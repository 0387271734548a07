"""``artfs commit``."""

from __future__ import annotations

import attrs
import click

from artfs.cli.log import metadata_of, tell_dropped
from artfs.cli.output import Progress
from artfs.config import load_settings


@click.command()
@click.argument("draft")
@click.option("-a", "--alias", "aliases", multiple=True, help="Alias of the version, beside latest.")
@click.option("--tag", "tags", multiple=True, help="Tag of the version.")
@click.option("--description", help="Free text, markdown.")
@click.option("--metadata", metavar="JSON|@FILE", help="A JSON object, or @ and the name of a file that holds one.")
@click.option("--require-latest", is_flag=True, help="Only if nobody has logged a version since the draft was begun.")
def command(
    draft: str,
    aliases: tuple[str, ...],
    tags: tuple[str, ...],
    description: str | None,
    metadata: str | None,
    require_latest: bool,
) -> None:
    """Make the next version of DRAFT, or of what a writable mount left behind; print the version's name.

    DRAFT is a name that `artfs drafts` shows: entity/project/collection:draft-1234abcd, or the id of a staging area.

    \b
    Example:
      artfs commit acme/vision/mnist:draft-1234abcd --alias best
    """
    from artfs.cli.writable import tell_name, tell_outcome, tell_overlap
    from artfs.staging.overlap import overlap_of_draft
    from artfs.staging.session import commit_area, commit_draft, find
    from artfs.versions.log import Labels
    from artfs.versions.repository import Repository

    labels = Labels(aliases, tags, description, metadata_of(metadata))
    with Repository(load_settings()) as repository, Progress("published") as progress:
        left = find(repository, draft)
        if left is not None:
            outcome = commit_area(repository, left, labels, require_latest=require_latest, progress=progress)
            tell_outcome(attrs.asdict(outcome))
            if outcome.name and not outcome.created:
                tell_dropped(tag=tags, description=description, metadata=metadata)
            return
        row = repository.registry.resolve(repository.parse(draft))
        overlap = overlap_of_draft(repository, row)
        done = commit_draft(repository, row, labels, require_latest=require_latest)
    tell_overlap(*overlap)
    tell_name(str(done.version.name), created=done.created)
    if not done.created:
        tell_dropped(tag=tags, description=description, metadata=metadata)
