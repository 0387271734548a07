"""``artfs diff``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from artfs.cli.output import json_option, print_json, size
from artfs.config import load_settings
from artfs.errors import InvalidName, NotFound

if TYPE_CHECKING:
    from artfs.catalog import Catalog, Difference
    from artfs.versions.repository import Repository

_MARKS = {"added": "A", "removed": "D", "changed": "M", "renamed": "R"}


@click.command()
@click.argument("a")
@click.argument("b", required=False)
@json_option
@click.pass_context
def command(context: click.Context, a: str, b: str | None, as_json: bool) -> None:
    """Compare two versions: what was added, changed, removed or renamed on the way from A to B.

    A alone may be the directory of a writable mount: what has been changed in it so far.

    \b
    Example:
      artfs diff acme/vision/mnist:v3 acme/vision/mnist:latest
    """
    from artfs.catalog import diff
    from artfs.versions.repository import Repository

    if b is None:
        if not os.path.isdir(a):
            raise click.UsageError("give two versions, or the directory of a writable mount", context)
        from artfs.cli.status import show_status

        show_status(a, as_json=as_json)
        return
    with Repository(load_settings()) as repository:
        old, new = (_catalog(repository, name, given=(a, b)) for name in (a, b))
        print_differences(diff(old, new), as_json=as_json)


def _catalog(repository: Repository, name: str, *, given: tuple[str, str]) -> Catalog:
    try:
        return repository.catalog(repository.find(name).version)
    except (InvalidName, NotFound) as error:
        if not os.path.isdir(name):
            raise
        other = given[0] if name == given[1] else given[1]
        hint = f"`artfs verify {shlex.quote(other)} {shlex.quote(name)}` compares a version with a directory"
        raise type(error)(f"{error}; {hint}") from error


def print_differences(differences: Iterable[Difference], *, as_json: bool) -> None:
    """A line for each, as git marks them: A added, D removed, M changed, R renamed."""
    if as_json:
        print_json(
            [
                {"change": d.change.value, "path": d.path, "old_path": d.old_path, "size": d.size, "what": d.what}
                for d in differences
            ]
        )
        return
    for d in differences:
        source = f"{d.old_path} -> " if d.old_path else ""
        detail = f" ({d.what})" if d.what not in {"", "content"} else ""
        click.echo(f"{_MARKS[d.change.value]} {source}{d.path}{detail}  {size(d.size)}")
