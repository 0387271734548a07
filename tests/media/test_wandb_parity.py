"""Files of media values: equal to the real client's byte for byte, and each client reads the other's."""

import datetime
import io
import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media.directory_artifact import DirectoryArtifact
from media.media_cases import CASES, describe

import artfs.media

# Where artfs writes something else than wandb 0.31.0 on purpose, and why.
DIFFERENT_FILES = {
    "audio_without_caption": "the caption is written as null: W&B cannot read an Audio without one",
    "bokeh": "Bokeh numbers the parts of a plot as they are made, so no two plots are equal files",
    "class_ids": "W&B keeps every set of classes of a column at media/cls, so a second set would be lost",
    "joined_unnamed": "W&B names an unnamed table by its memory address",
}
UNREADABLE_BY_WANDB = {
    "audio_without_caption": "as it writes it: KeyError",
}
VALUE_SUFFIX = re.compile(r"\.([a-z]*-?table|classes|mask|bounding-boxes|[a-zA-Z0-9]+-file)\.json$")


@pytest.fixture(params=CASES, ids=lambda case: case.__name__)
def case(request):
    return request.param


@pytest.fixture
def theirs(case, wandb_client, tmp_path):
    wandb_client.write(case.__name__, tmp_path / "theirs")
    return DirectoryArtifact(tmp_path / "theirs")


@pytest.fixture
def ours(case, tmp_path):
    artifact = DirectoryArtifact(tmp_path / "ours")
    case(artfs.media, artifact)
    return artifact


def values(artifact):
    return [path for path in artifact.paths() if VALUE_SUFFIX.search(path) and "/" not in path]


def test_files_are_equal(case, ours, theirs):
    if case.__name__ in DIFFERENT_FILES:
        assert ours.paths() != theirs.paths() or _contents(ours) != _contents(theirs), "the difference is gone"
        return
    assert ours.paths() == theirs.paths()
    assert _contents(ours) == _contents(theirs)


def _contents(artifact):
    return {path: (artifact.root / path).read_bytes() for path in artifact.paths()}


def test_artfs_reads_what_wandb_writes(ours, theirs):
    paths = values(ours)
    assert paths
    for path in paths:
        assert describe(theirs.get(path)) == describe(ours.get(path))


def test_wandb_reads_what_artfs_writes(ours, wandb_client):
    paths = values(ours)
    assert paths
    for path in paths:
        assert repr(wandb_client.read(ours.root, path)) == repr(describe(ours.get(path)))


def test_wandb_cannot_read_its_own_audio_without_a_caption(wandb_client, tmp_path):
    wandb_client.write("audio_without_caption", tmp_path)
    with pytest.raises(RuntimeError, match="KeyError"):
        wandb_client.read(tmp_path, "silence.audio-file.json")
    assert DirectoryArtifact(tmp_path).get("silence").caption is None


def test_wandb_reads_arrays_with_gaps(wandb_client, tmp_path):
    table = artfs.media.Table(columns=["array", "n"], data=[[np.eye(2), 1], [None, 2]])
    path = DirectoryArtifact(tmp_path).add(table, "value").path
    assert wandb_client.read(tmp_path, path)[2] == [[[[1.0, 0.0], [0.0, 1.0]], 1], [None, 2]]


def test_wandb_reads_shapes_of_every_format(wandb_client, tmp_path):
    shape = artfs.media.Object3D(io.BytesIO(b"v 0 0 0"), file_type="obj")
    path = DirectoryArtifact(tmp_path).add(shape, "value").path
    assert wandb_client.read(tmp_path, path) == describe(shape)


def test_wandb_reads_two_sets_of_classes(wandb_client, tmp_path):
    sets = [artfs.media.Classes([{"id": number, "name": "x"}]).get_type() for number in (3, 4)]
    table = artfs.media.Table(columns=["a", "b"], data=[[3, 4]], dtype=sets)
    path = DirectoryArtifact(tmp_path).add(table, "value").path
    assert wandb_client.read(tmp_path, path) == describe(table)


CELLS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats()
    | st.text(max_size=5)
    | st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(2100, 1, 1))  # noqa: DTZ001  # naive on purpose
    | st.dates(datetime.date(1970, 1, 2), datetime.date(2100, 1, 1))
    | st.sampled_from([np.float32(1.5), np.int8(3), np.bool_(False), b"bytes"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=4,
)
# In columns of their own: W&B fails on a list with an array in it, and never returns from an empty list among arrays.
ARRAYS = st.sampled_from([np.arange(3), np.arange(3) / 2, np.arange(2), None, "a text"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_tables_have_the_same_json_and_are_refused_alike(data, wandb_client, tmp_path):
    width = data.draw(st.integers(1, 3))
    cells = [data.draw(st.sampled_from([CELLS, CELLS, ARRAYS])) for _ in range(width)]
    rows = data.draw(st.lists(st.tuples(*cells), max_size=4))
    arguments = {
        "columns": [f"c{number}" for number in range(width)],
        "data": rows,
        "optional": data.draw(st.booleans()),
        "allow_mixed_types": data.draw(st.booleans()),
    }
    theirs = wandb_client.table_json(**arguments)
    artifact = DirectoryArtifact(tmp_path)
    if theirs == "TypeError":
        with pytest.raises(TypeError):
            artfs.media.Table(**arguments)
    else:
        assert json.dumps(artfs.media.Table(**arguments).to_json(artifact), sort_keys=True) == theirs
