"""``artfs lineage``."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import click

from artfs.cli.output import json_option, print_json
from artfs.config import load_settings
from artfs.registry import Registry, RunRow, VersionRow


@attrs.frozen
class _Step:
    """A version or a run that another one leads to."""

    relation: str
    node: VersionRow | RunRow
    depth: int
    last: tuple[bool, ...]
    """For each level down to this one, whether it is the last of its siblings."""
    seen: bool
    """It was shown before; what is beyond it is not shown again."""
    parent: str | None


@click.command()
@click.argument("name")
@click.option("--depth", type=click.IntRange(min=1), default=20, show_default=True, help="Steps to follow at most.")
@json_option
@click.option("--dot", is_flag=True, help="Print a graph for Graphviz.")
@click.pass_context
def command(context: click.Context, name: str, depth: int, as_json: bool, dot: bool) -> None:
    """Show which runs made a version out of what, and what was made out of it.

    \b
    Example:
      artfs lineage acme/vision/model:latest
      artfs lineage --dot model | dot -Tsvg > model.svg
    """
    from artfs.versions.repository import Repository

    if as_json and dot:
        raise click.UsageError("--json and --dot do not go together", context)
    with Repository(load_settings()) as repository:
        version = repository.resolve(repository.parse(name)).version
        steps = list(_walk(repository.registry, version, depth))
    if as_json:
        print_json(_graph(steps))
    elif dot:
        click.echo(_dot(steps))
    else:
        for step in steps:
            click.echo(_line(step))


def _walk(registry: Registry, version: VersionRow, limit: int) -> Iterator[_Step]:
    """The version, then everything it came from, then everything that came from it."""
    yield _Step("", version, 0, (), False, None)
    seen = {version.id}
    up, down = _before(registry, version), _after(registry, version)
    yield from _follow(registry, up, version.id, (), seen, limit, forward=False, more=bool(down))
    yield from _follow(registry, down, version.id, (), {version.id}, limit, forward=True)


def _follow(
    registry: Registry,
    nodes: list[VersionRow | RunRow],
    parent: str,
    above: tuple[bool, ...],
    seen: set[str],
    limit: int,
    *,
    forward: bool,
    more: bool = False,
) -> Iterator[_Step]:
    if len(above) >= limit:
        return
    for index, node in enumerate(nodes, 1):
        last = (*above, index == len(nodes) and not more)
        known = node.id in seen
        yield _Step(_relation(node, forward), node, len(last), last, known, parent)
        if not known:
            seen.add(node.id)
            beyond = _after(registry, node) if forward else _before(registry, node)
            yield from _follow(registry, beyond, node.id, last, seen, limit, forward=forward)


def _before(registry: Registry, node: VersionRow | RunRow) -> list[VersionRow | RunRow]:
    if isinstance(node, RunRow):
        return list(registry.run_inputs(node.id))
    run = registry.logged_by(node.id)
    return [] if run is None else [run]


def _after(registry: Registry, node: VersionRow | RunRow) -> list[VersionRow | RunRow]:
    return list(registry.run_outputs(node.id) if isinstance(node, RunRow) else registry.used_by(node.id))


def _relation(node: VersionRow | RunRow, forward: bool) -> str:
    if isinstance(node, RunRow):
        return "used by" if forward else "logged by"
    return "logged" if forward else "used"


def _label(node: VersionRow | RunRow) -> str:
    if isinstance(node, VersionRow):
        return f"{node.source_name} ({node.type}{'' if node.state == 'COMMITTED' else ', ' + node.state.lower()})"
    named = f" {node.name}" if node.name != node.id else ""
    return f"run {node.entity}/{node.project}/{node.id}{named}" + (f" ({node.job_type})" if node.job_type else "")


def _line(step: _Step) -> str:
    if not step.last:
        return _label(step.node)
    *above, last = step.last
    rails = "".join("   " if ended else "│  " for ended in above)
    again = " (see above)" if step.seen else ""
    return f"{rails}{'└─ ' if last else '├─ '}{step.relation} {_label(step.node)}{again}"


def _graph(steps: list[_Step]) -> dict[str, object]:
    nodes = {
        step.node.id: {
            "id": step.node.id,
            "kind": "run" if isinstance(step.node, RunRow) else "version",
            "name": step.node.name if isinstance(step.node, RunRow) else str(step.node.source_name),
            "type": step.node.job_type if isinstance(step.node, RunRow) else step.node.type,
        }
        for step in steps
    }
    return {"root": steps[0].node.id, "nodes": list(nodes.values()), "edges": [list(edge) for edge in _edges(steps)]}


def _edges(steps: list[_Step]) -> list[tuple[str, str]]:
    """What leads to what, in the direction of time."""
    edges: dict[tuple[str, str], None] = {}
    for step in steps:
        if step.parent is not None:
            forward = step.relation in {"used by", "logged"}
            edges[(step.parent, step.node.id) if forward else (step.node.id, step.parent)] = None
    return list(edges)


def _dot(steps: list[_Step]) -> str:
    lines = ["digraph lineage {", "  rankdir=LR;"]
    for node in {step.node.id: step.node for step in steps}.values():
        shape = "box" if isinstance(node, VersionRow) else "ellipse"
        quoted = _label(node).replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'  "{node.id}" [shape={shape}, label="{quoted}"];')
    lines += [f'  "{start}" -> "{end}";' for start, end in _edges(steps)]
    return "\n".join([*lines, "}"])
