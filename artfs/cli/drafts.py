"""``artfs drafts``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from artfs.cli.output import count, json_option, moment, print_json, size
from artfs.config import load_settings
from artfs.errors import RegistryUnavailable

if TYPE_CHECKING:
    from artfs.registry import VersionRow
    from artfs.staging.session import Left


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List drafts, and the staging areas of this machine: those that are mounted, and those that were left behind.

    While the registry is out of reach it lists the areas, of any registry, and then fails.

    \b
    Example:
      artfs drafts
    """
    from artfs.staging.session import left_behind, left_here
    from artfs.versions.repository import Repository

    failure: RegistryUnavailable | None = None
    drafts: Sequence[VersionRow] = ()
    with Repository(load_settings()) as repository:
        try:
            drafts = repository.registry.drafts()
            left = list(left_behind(repository))
        except RegistryUnavailable as error:  # what was written here is here all the same
            failure = error
            left = list(left_here(repository.settings.staging_dir))
    _show(drafts, left, as_json=as_json)
    if failure is not None:
        raise failure


def _show(drafts: Sequence[VersionRow], left: Sequence[Left], *, as_json: bool) -> None:
    if as_json:
        areas: list[dict[str, Any]] = [
            {
                "area": area.id,
                "collection": area.facts.collection,
                "base": area.facts.base,
                "created": area.facts.created,
                "process": area.process,
                "path": str(area.path),
            }
            for area in left
        ]
        print_json({"drafts": [_draft(draft) for draft in drafts], "areas": areas})
        return
    for draft in drafts:
        files = count(draft.file_count or 0, "file")
        click.echo(f"{draft.name}  {moment(draft.updated_at)}  {files}  {size(draft.size)}")
    for area in left:
        state = f"mounted by process {area.process}" if area.process else "left behind: commit or discard it"
        base = f" on {area.facts.base}" if area.facts.base else ""
        click.echo(f"{area.id}  {area.facts.collection}{base}  {state}")


def _draft(draft: VersionRow) -> dict[str, Any]:
    return {
        "name": str(draft.name),
        "files": draft.file_count,
        "size": draft.size,
        "base": draft.base_id,
        "updated_at": draft.updated_at,
    }
