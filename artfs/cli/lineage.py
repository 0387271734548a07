"""``artfs lineage``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TypeAlias

import attrs
import click

from artfs.cli.output import json_option, print_json
from artfs.config import load_settings
from artfs.registry import Registry, RunRow, VersionRow

_Node: TypeAlias = VersionRow | RunRow


@attrs.frozen
class _Step:
    """A version or a run that another one leads to."""

    relation: str
    node: _Node
    last: tuple[bool, ...]
    """For each level down to this one, whether it is the last of its siblings."""
    note: str
    """Where what is beyond it is shown, if not below it."""
    cut: bool
    """There is more beyond it than was to be followed."""
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
        version = repository.find(name).version
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
    yield _Step("", version, (), "", False, None)
    up, down = (_reach(registry, version, limit, forward=forward) for forward in (False, True))
    yield from _follow(up, version, limit, forward=False, more=bool(down.beyond[version.id]))
    yield from _follow(down, version, limit, forward=True, more=False)


@attrs.define
class _Reach:
    """Every node within a number of steps."""

    steps: dict[str, int]
    """The shortest way to each."""
    beyond: dict[str, list[_Node]]
    """What each leads to directly."""


def _reach(registry: Registry, start: _Node, limit: int, *, forward: bool) -> _Reach:
    reach = _Reach({start.id: 0}, {})
    waiting = deque([start])
    while waiting:
        node = waiting.popleft()
        further = reach.steps[node.id] + 1
        reach.beyond[node.id] = _after(registry, node) if forward else _before(registry, node)
        if further <= limit:
            for found in reach.beyond[node.id]:
                if found.id not in reach.steps:
                    reach.steps[found.id] = further
                    waiting.append(found)
    return reach


def _follow(reach: _Reach, start: _Node, limit: int, *, forward: bool, more: bool) -> Iterator[_Step]:
    """Each node once with all that is beyond it, where the way to it is shortest, so that the limit hides nothing."""
    followed = {start.id}
    none: tuple[bool, ...] = ()
    levels = [(start.id, deque(reach.beyond[start.id]), none)]
    while levels:
        parent, nodes, above = levels[-1]
        if not nodes:
            levels.pop()
            continue
        node = nodes.popleft()
        last = (*above, not nodes and (bool(above) or not more))
        here = reach.steps[node.id] == len(last) and node.id not in followed
        note = "" if here else "see above" if node.id in followed else "see below"
        beyond = reach.beyond[node.id] if here else []
        yield _Step(_relation(node, forward), node, last, note, bool(beyond) and len(last) == limit, parent)
        if here:
            followed.add(node.id)
            if len(last) < limit:
                levels.append((node.id, deque(beyond), last))


def _before(registry: Registry, node: _Node) -> list[_Node]:
    if isinstance(node, RunRow):
        return list(registry.run_inputs(node.id))
    run = registry.logged_by(node.id)
    return [] if run is None else [run]


def _after(registry: Registry, node: _Node) -> list[_Node]:
    return list(registry.run_outputs(node.id) if isinstance(node, RunRow) else registry.used_by(node.id))


def _relation(node: _Node, forward: bool) -> str:
    if isinstance(node, RunRow):
        return "used by" if forward else "logged by"
    return "logged" if forward else "used"


def _label(node: _Node) -> str:
    if isinstance(node, VersionRow):
        return f"{node.source_name} ({node.type}{'' if node.state == 'COMMITTED' else ', ' + node.state.lower()})"
    named = f" {node.name}" if node.name != node.id else ""
    return f"run {node.entity}/{node.project}/{node.id}{named}" + (f" ({node.job_type})" if node.job_type else "")


def _line(step: _Step) -> str:
    if not step.last:
        return _label(step.node)
    *above, last = step.last
    rails = "".join("   " if ended else "│  " for ended in above)
    note = f" ({step.note})" if step.note else " ... (more with --depth)" if step.cut else ""
    return f"{rails}{'└─ ' if last else '├─ '}{step.relation} {_label(step.node)}{note}"


def _graph(steps: list[_Step]) -> dict[str, object]:
    nodes = {step.node.id: _facts(step.node) for step in steps}
    cut = [step.node.id for step in steps if step.cut]
    edges = [list(edge) for edge in _edges(steps)]
    return {"root": steps[0].node.id, "nodes": list(nodes.values()), "edges": edges, "cut": cut}


def _facts(node: _Node) -> dict[str, object]:
    if isinstance(node, RunRow):
        place = {"entity": node.entity, "project": node.project}
        return {"id": node.id, "kind": "run", "name": node.name, "type": node.job_type, **place}
    name = str(node.source_name)
    return {"id": node.id, "kind": "version", "name": name, "type": node.type, "state": node.state.value}


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
