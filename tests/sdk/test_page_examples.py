"""Every example of the API page, word for word; only the import is another.

Those of references are in tests/references/test_references_in_artifacts.py, with the servers that they need.
"""

import textwrap
from pathlib import Path

import pytest

import artfs

PRELUDE = "import artfs as wandb\n"


def execute(*examples, **names):
    """Run examples one after the other, as cells of a notebook."""
    for example in examples:
        exec(PRELUDE + textwrap.dedent(example), names)
    return names


@pytest.fixture
def sources(home, write):
    for path in ("mnist/train/7.png", "my_dir/a", "my_dir/sub/b", "path/to/file.txt"):
        write(path, path)


ARTIFACT = """
    wandb.init()

    artifact = wandb.Artifact("mnist", type="dataset")
    artifact.add_dir("mnist/")
    wandb.log_artifact(artifact)
"""


def test_artifact(sources):
    execute(ARTIFACT, "wandb.finish()")
    assert list(artfs.Api().artifact("mnist").manifest.entries) == ["train/7.png"]


ADD_DIR = """
    # All files in `my_dir/` are added at the root of the artifact.
    artifact.add_dir("my_dir/")
"""
ADD_DIR_NAMED = """
    # All files in `my_dir/` are added under `destination/`.
    artifact.add_dir("my_dir/", name="destination")
"""
ADD_FILE = """
    # Add as `file.txt'
    artifact.add_file("path/to/file.txt")
"""
ADD_FILE_NAMED = """
    # Add as 'new/path/file.txt'
    artifact.add_file("path/to/file.txt", name="new/path/file.txt")
"""


def test_add_dir_and_add_file(sources):
    artifact = artfs.Artifact("a", type="dataset")
    execute(ADD_DIR, ADD_DIR_NAMED, ADD_FILE, ADD_FILE_NAMED, artifact=artifact)
    assert list(artifact.manifest.entries) == [
        "a", "destination/a", "destination/sub/b", "file.txt", "new/path/file.txt", "sub/b",
    ]  # fmt: skip


NEW_FILE = """
    artifact = wandb.Artifact("my_data", type="dataset")
    with artifact.new_file("hello.txt") as f:
        f.write("hello!")
    wandb.log_artifact(artifact)
"""


def test_new_file(sources):
    assert Path(execute(NEW_FILE)["artifact"].file()).read_text() == "hello!"


GET_ADDED = """
    artifact = wandb.Artifact("my_dataset", type="dataset")
    artifact.add_file("path/to/file.txt", name="artifact/path/file.txt")

    # Returns `artifact/path/file.txt`:
    name = artifact.get_added_local_path_name("path/to/file.txt")
"""


def test_get_added_local_path_name(sources):
    assert execute(GET_ADDED)["name"] == "artifact/path/file.txt"


GET_PATH = """
    # Run logging the artifact
    with wandb.init() as r:
        artifact = wandb.Artifact("my_dataset", type="dataset")
        artifact.add_file("path/to/file.txt")
        wandb.log_artifact(artifact)

    # Run using the artifact
    with wandb.init() as r:
        artifact = r.use_artifact("my_dataset:latest")
        path = artifact.get_path("file.txt")

        # Can now download 'file.txt' directly:
        path.download()
"""


def test_get_path(sources, work):
    execute(GET_PATH)
    assert (work / "artifacts/my_dataset:v0/file.txt").read_text() == "path/to/file.txt"


DELETE = """
    runs = api.runs(path="my_entity/my_project")
    for run in runs:
        for artifact in run.logged_artifacts():
            if artifact.type == "model":
                artifact.delete(delete_aliases=True)
"""


def test_delete(sources):
    with artfs.init(entity="my_entity", project="my_project") as run:
        run.log_artifact("my_dir", name="m", type="model")
        run.log_artifact("my_dir", name="d", type="dataset")
    api = artfs.Api()
    execute(DELETE, api=api)
    assert not api.artifact_exists("my_entity/my_project/m")
    assert api.artifact_exists("my_entity/my_project/d")


ADD = """
    artifact = wandb.Artifact("my_table", type="dataset")
    table = wandb.Table(
        columns=["a", "b", "c"], data=[(i, i * 2, 2**i) for i in range(10)]
    )
    artifact.add(table, "my_table")

    wandb.log_artifact(artifact)
"""
RETRIEVE = """
    artifact = wandb.use_artifact("my_table:latest")
    table = artifact.get("my_table")
"""
SET_ITEM = """
    artifact = wandb.Artifact("my_table", type="dataset")
    table = wandb.Table(
        columns=["a", "b", "c"], data=[(i, i * 2, 2**i) for i in range(10)]
    )
    artifact["my_table"] = table

    wandb.log_artifact(artifact)
"""
GET_ITEM = """
    artifact = wandb.use_artifact("my_table:latest")
    table = artifact["my_table"]
"""
GET = """
    # Run logging the artifact
    with wandb.init() as r:
        artifact = wandb.Artifact("my_dataset", type="dataset")
        table = wandb.Table(
            columns=["a", "b", "c"], data=[(i, i * 2, 2**i) for i in range(10)]
        )
        artifact.add(table, "my_table")
        wandb.log_artifact(artifact)

    # Run using the artifact
    with wandb.init() as r:
        artifact = r.use_artifact("my_dataset:latest")
        table = artifact.get("my_table")
"""


@pytest.mark.parametrize(
    "examples", [(ADD, RETRIEVE), (SET_ITEM, GET_ITEM), (GET,), (ADD, GET_ITEM), (SET_ITEM, RETRIEVE)]
)
def test_tables(sources, examples):
    written = artfs.Table(columns=["a", "b", "c"], data=[(i, i * 2, 2**i) for i in range(10)])
    table = execute(*examples)["table"]
    assert table.columns == ["a", "b", "c"]
    assert [tuple(row) for row in table.data] == [tuple(row) for row in written.data]
