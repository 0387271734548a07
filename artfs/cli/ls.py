"""``artfs ls``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from artfs.cli.output import count, json_option, moment, print_json, size
from artfs.config import load_settings
from artfs.errors import InvalidName, NotFound, PathNotFound
from artfs.names import check_entity, check_path, check_project, parse_collection_name

if TYPE_CHECKING:
    from artfs.catalog import Catalog, Node
    from artfs.registry import Registry


@click.command()
@click.argument("name", required=False)
@click.argument("path", default="")
@click.option("-R", "--recursive", is_flag=True, help="Everything below PATH.")
@json_option
def command(name: str | None, path: str, recursive: bool, as_json: bool) -> None:
    """List entities, projects, collections and versions, or the files of a version.

    A slash at the end of NAME asks for a level: `acme/` for its projects, `acme/vision/` for its collections;
    a collection lists its versions, a version its files.

    \b
    Examples:
      artfs ls                              every entity
      artfs ls acme/vision/                 the collections of a project
      artfs ls acme/vision/mnist            the versions of a collection
      artfs ls acme/vision/mnist:v3 train   what a directory of a version holds
    """
    from artfs.versions.repository import Repository

    settings = load_settings()
    with Repository(settings) as repository:
        if name is None or name.endswith("/"):
            rows = list(_level(repository.registry, name or ""))
        elif ":" not in name and not path:
            collection = parse_collection_name(name, entity=settings.entity, project=settings.project)
            try:
                versions = repository.registry.versions(collection)
            except NotFound:
                if not repository.is_level(name):
                    raise
                hint = f"{name} is no collection but a level: `artfs ls {name}/` lists what it holds"
                raise NotFound(hint) from None
            rows = [
                {
                    "name": str(version.name),
                    "files": version.file_count,
                    "size": version.size,
                    "created_at": version.created_at,
                    "aliases": list(version.aliases),
                    "tags": list(version.tags),
                }
                for version in versions
            ]
        else:
            version = repository.find(name).version
            _files(repository.catalog(version), path, recursive=recursive, as_json=as_json)
            return
    if as_json:
        print_json(rows)
        return
    for row in rows:
        labels = " ".join([*row.get("aliases", ()), *(f"#{tag}" for tag in row.get("tags", ()))])
        if "files" in row:
            facts = f"{moment(row['created_at'])}  {count(row['files'], 'file'):>14}  {size(row['size']):>10}"
            click.echo(f"{row['name']}  {facts}  {labels}".rstrip())
        else:
            click.echo(f"{row['name']}  {row.get('type', '')}".rstrip())


def _level(registry: Registry, name: str) -> Iterator[dict[str, Any]]:
    level = [part for part in name.split("/") if part]
    for part, check in zip(level, (check_entity, check_project), strict=False):
        check(part)
    if not level:
        yield from ({"name": f"{entity.name}/"} for entity in registry.entities())
    elif len(level) == 1:
        yield from ({"name": f"{level[0]}/{project.name}/"} for project in registry.projects(level[0]))
    elif len(level) == 2:
        for collection in registry.collections(*level):
            yield {"name": str(collection.name), "type": collection.type, "kind": str(collection.kind)}
    else:
        raise InvalidName(what="level", name=name, why="a project has collections, and these have no levels below")


_KINDS = {1: "directory", 2: "file", 3: "symlink", 4: "reference"}


def _files(catalog: Catalog, path: str, *, recursive: bool, as_json: bool) -> None:
    path = path.strip("/")
    path = "" if path in {"", "."} else check_path(path)
    node = catalog.resolve(path)
    if node is None:
        raise PathNotFound(path=path, name=catalog.name)
    rows = _below(catalog, node, path, recursive=recursive)
    if as_json:
        print_json([_facts(full, found) for full, found in rows])
        return
    for full, found in rows:
        when = moment(datetime.fromtimestamp(found.mtime_ns / 1e9, UTC))
        mode = {1: "d", 2: "-", 3: "l", 4: "r"}[found.kind] + _bits(found.mode)
        target = f" -> {(found.digest or b'').decode()}" if found.kind == 3 else "/" if found.kind == 1 else ""
        click.echo(f"{mode} {'?' if found.size is None else found.size:>12} {when} {full}{target}")


def _below(catalog: Catalog, node: Node, path: str, *, recursive: bool) -> Iterator[tuple[str, Node]]:
    if node.kind != 1:
        yield path, node
        return
    for child in catalog.children(node.inode):
        full = f"{path}/{child.name}" if path and recursive else child.name
        yield full, child
        if recursive and child.kind == 1:
            yield from _below(catalog, child, full, recursive=True)


def _facts(path: str, node: Node) -> dict[str, Any]:
    return {
        "path": path,
        "kind": _KINDS[node.kind],
        "size": node.size,
        "mode": f"{node.mode:04o}",
        "mtime_ns": node.mtime_ns,
    }


def _bits(mode: int) -> str:
    return "".join(letter if mode >> 8 - position & 1 else "-" for position, letter in enumerate("rwxrwxrwx"))
