"""``artfs status``."""

from __future__ import annotations

import click

from artfs.cli.diff import print_differences
from artfs.cli.output import json_option
from artfs.config import load_settings
from artfs.errors import NotFound


@click.command()
@click.argument("directory")
@json_option
def command(directory: str, as_json: bool) -> None:
    """Show what has been changed so far in the writable mount on DIRECTORY; `artfs diff DIRECTORY` does the same.

    \b
    Example:
      artfs status ~/stage
    """
    show_status(directory, as_json=as_json)


def show_status(directory: str, *, as_json: bool) -> None:
    """Print the differences between a writable mount and its base; raises NotFound."""
    from artfs.cli.writable import status_of
    from artfs.fuse.mountpoint import FILESYSTEM_TYPE, canonical, mounted_on
    from artfs.staging.peek import peek

    settings = load_settings()
    status = status_of(settings, directory)
    told = None if status is None else status.read()
    if told is None or told.state != "mounted":
        entry = mounted_on(canonical(directory))
        theirs = entry is not None and entry.type == FILESYSTEM_TYPE and not entry.read_only
        raise NotFound(
            f"{directory} is served by another user's artfs, or one with another ARTFS_HOME"
            if theirs
            else f"{directory} is no writable artfs mount"
        )
    with peek(settings.staging_dir / told.area) as differences:
        print_differences(differences, as_json=as_json)
