"""The architecture, held against the imports: nothing lower imports anything higher."""

import ast
from pathlib import Path

import pytest

import artfs

LAYERS = [
    "errors", "faults", "names", "digests", "config", "catalog", "registry", "store", "references", "cache", "versions",
    "vfs", "staging", "media", ("fuse", "sdk"), "cli",
]  # fmt: skip
PACKAGE = Path(artfs.__file__).parent
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in ([names] if isinstance(names, str) else names)}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "artfs":
                yield from (f"artfs.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def layer(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_lead_downward(path):
    own = layer(path)
    assert own in RANK, f"{own} has no place in the layers"
    for module in imports(path):
        if module.startswith("artfs."):
            other = module.split(".")[1]
            assert other == own or RANK[other] < RANK[own], f"{path} imports {module}"


def test_only_fuse_knows_fuse():
    users = {layer(path) for path in MODULES if "pyfuse3" in set(imports(path))}
    assert users <= {"fuse"}
