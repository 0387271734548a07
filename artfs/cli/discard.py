"""``artfs discard``."""

from __future__ import annotations

import click

from artfs.cli.output import each
from artfs.config import load_settings


@click.command()
@click.argument("drafts", nargs=-1, required=True, metavar="DRAFT...")
def command(drafts: tuple[str, ...]) -> None:
    """Delete drafts, or what writable mounts left behind, with everything that was written.

    \b
    Example:
      artfs discard acme/vision/mnist:draft-1234abcd
    """
    from artfs.staging.session import discard_area, discard_draft, find
    from artfs.versions.repository import Repository

    with Repository(load_settings()) as repository:

        def discard(draft: str) -> None:
            left = find(repository, draft)
            if left is not None:
                discard_area(repository, left)
                click.echo(f"discarded {left.id}")
                return
            row = repository.registry.resolve(repository.parse(draft))
            discard_draft(repository, row)
            click.echo(f"discarded {row.name}")

        each(drafts, discard)
