"""``artfs gc``."""

from __future__ import annotations

import attrs
import click

from artfs.cli.output import json_option, print_json, size
from artfs.config import LONGEST, load_settings


@click.command()
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option(
    "--grace",
    type=float,
    metavar="HOURS",
    help="How long what nothing refers to is kept (default 24).",
)
@json_option
def command(dry_run: bool, grace: float | None, as_json: bool) -> None:
    """Delete versions past their time to live, and stored bytes that nothing has referred to for the grace period.

    Safe beside anything else: what a running `log`, a draft or another version needs is kept.

    \b
    Example:
      artfs gc --dry-run
    """
    from artfs.store import collect
    from artfs.versions.repository import Repository

    if grace is not None and not 0 <= grace * 3600 < LONGEST:
        raise click.BadParameter(f"hours from 0 to {LONGEST / 3600:.0f}", param_hint="--grace")
    settings = load_settings()
    seconds = settings.gc_grace if grace is None else grace * 3600
    with Repository(settings) as repository:
        report = collect(repository.registry, repository.writable_store(), seconds, dry_run=dry_run)
    if as_json:
        print_json(attrs.asdict(report))
        return
    for key, value in attrs.asdict(report).items():
        shown = size(value) if "bytes" in key else ", ".join(map(str, value)) if isinstance(value, tuple) else value
        click.echo(f"{key.replace('_', ' ')}: {shown or 'none'}")
