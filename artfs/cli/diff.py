"""``artfs diff``."""

from __future__ import annotations

import click

from artfs.cli.output import json_option, print_json, size
from artfs.config import load_settings

_MARKS = {"added": "A", "removed": "D", "changed": "M", "renamed": "R"}


@click.command()
@click.argument("a")
@click.argument("b")
@json_option
def command(a: str, b: str, as_json: bool) -> None:
    """Compare two versions: what was added, changed, removed or renamed on the way from A to B.

    \b
    Example:
      artfs diff acme/vision/mnist:v3 acme/vision/mnist:latest
    """
    from artfs.catalog import diff
    from artfs.versions.repository import Repository

    with Repository(load_settings()) as repository:
        old, new = (repository.catalog(repository.resolve(repository.parse(name)).version) for name in (a, b))
        rows = diff(old, new)
        if as_json:
            print_json(
                [
                    {"change": d.change.value, "path": d.path, "old_path": d.old_path, "size": d.size, "what": d.what}
                    for d in rows
                ]
            )
            return
        for d in rows:
            source = f"{d.old_path} -> " if d.old_path else ""
            detail = f" ({d.what})" if d.what not in {"", "content"} else ""
            click.echo(f"{_MARKS[d.change.value]} {source}{d.path}{detail}  {size(d.size)}")
