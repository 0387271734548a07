"""``artfs info``."""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs
import click

from artfs.cli.mount import log_file
from artfs.cli.output import json_option, moment, print_json, printable, size
from artfs.cli.writable import status_file
from artfs.config import Settings, load_settings
from artfs.errors import InvalidName, NotFound, local_error

if TYPE_CHECKING:
    from artfs.fuse import Mount

_STATISTICS = "user.artfs.statistics"


@click.command()
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """Show what is known of a version; or, given the directory of a mount, of that mount and what it has done.

    \b
    Examples:
      artfs info acme/vision/mnist:v3
      artfs info ~/mnist
    """
    settings = load_settings()
    mount = _find_mount(settings, name)
    if mount is not None:
        facts = _mount(settings, mount)
    else:
        try:
            facts = _version(settings, name)
        except (InvalidName, NotFound) as error:
            if not os.path.isdir(name):
                raise
            raise type(error)(f"{error}; and the directory {name} is no artfs mount") from error
    if as_json:
        print_json(facts)
        return
    _show({key: _for_people(key, value) for key, value in facts.items()})


def _for_people(key: str, value: Any) -> Any:
    if value is None:
        return None
    if key in {"size", "stored"}:
        return size(value)
    if key in {"created", "started"}:
        return moment(value)
    if key == "expires_after":
        return f"{value / 86400:g} days"
    if key == "as_of":
        return f"{value:.0f} s ago: the registry is out of reach"
    return value


def _show(facts: dict[str, Any], indent: str = "") -> None:
    width = max((len(key) for key in facts), default=0)
    for key, value in facts.items():
        if isinstance(value, dict):
            click.echo(f"{indent}{printable(key)}:")
            _show(value, indent + "  ")
        elif isinstance(value, list):
            shown = ", ".join(json.dumps(item) if isinstance(item, dict) else str(item) for item in value)
            click.echo(f"{indent}{printable(key):<{width}}  {printable(shown)}")
        elif value is not None:
            click.echo(f"{indent}{printable(key):<{width}}  {printable(str(value))}")


def _version(settings: Settings, name: str) -> dict[str, Any]:
    from artfs.versions.repository import Repository

    with Repository(settings) as repository:
        resolved = repository.find(name)
    version = resolved.version
    facts: dict[str, Any] = {
        "name": str(version.name),
        "source": str(version.source_name) if version.is_link else None,
        "type": version.type,
        "state": str(version.state),
        "id": version.id,
        "digest": version.digest,
        "tree_digest": version.tree_digest,
        "files": version.file_count,
        "size": version.size,
        "stored": version.stored_bytes,
        "aliases": list(version.aliases),
        "tags": list(version.tags),
        "created": version.created_at,
        "expires_after": version.ttl_seconds,
        "base": version.base_id,
        "description": version.description,
        "metadata": dict(version.metadata),
    }
    if resolved.age:
        facts["as_of"] = resolved.age
    return facts


def _find_mount(settings: Settings, name: str) -> Mount | None:
    """The mount on the directory ``name``, None if that is rather a version's name."""
    from artfs.fuse import mounts
    from artfs.fuse.mountpoint import canonical

    mountpoint = canonical(name)
    found = next((mount for mount in mounts(settings.runtime_dir) if mount.mountpoint == mountpoint), None)
    if found is None and name.startswith(("/", "./", "../")):
        raise NotFound(f"{name} is not an artfs mount")
    return found


def _mount(settings: Settings, mount: Mount) -> dict[str, Any]:
    log = log_file(settings, mount.mountpoint)
    facts = attrs.asdict(mount) | {
        "started": None if mount.started is None else datetime.fromtimestamp(mount.started, UTC),
        "log": str(log) if log.exists() else None,  # a mount in the foreground has none
    }
    if mount.stale:
        return facts
    try:
        facts["statistics"] = json.loads(os.getxattr(mount.mountpoint, _STATISTICS))
    except OSError as error:
        if error.errno == errno.EACCES:  # another user's, without allow_other
            return facts
        if error.errno != errno.EOPNOTSUPP:
            raise local_error(mount.mountpoint, error) from error
        told = status_file(settings, mount.mountpoint).read()  # a writable mount answers no attributes
        facts["staging_area"] = None if told is None else str(settings.staging_dir / told.area)
    return facts
