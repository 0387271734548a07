"""``artfs umount``."""

from __future__ import annotations

import time

import click

from artfs.cli.output import each
from artfs.config import load_settings


@click.command()
@click.argument("directories", nargs=-1, required=True, metavar="DIR...")
@click.option("--lazy", is_flag=True, help="Detach a mount that is in use; it ends when its last user does.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for its process.",
)
def command(directories: tuple[str, ...], lazy: bool, wait: float) -> None:
    """End mounts, also one whose process was killed ("Transport endpoint is not connected").

    Of a writable mount: wait until what was written is stored, and print the name of the draft.

    \b
    Example:
      artfs umount ~/mnist
    """
    from artfs.cli.writable import status_of, unmount_writable
    from artfs.fuse import unmount

    settings = load_settings()

    def end(directory: str) -> None:
        status = status_of(settings, directory)
        if status is not None:
            unmount_writable(directory, settings, status, lazy=lazy)
        else:
            unmount(directory, runtime_dir=settings.runtime_dir, deadline=time.monotonic() + wait, lazy=lazy)

    each(directories, end)
