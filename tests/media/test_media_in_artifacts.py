"""Media values in the artifacts of a registry: logged, used again, handed on to another artifact."""

import pytest
from media.directory_artifact import DirectoryArtifact
from media.media_cases import CASES, annotated, describe, image_table

import artfs
import artfs.media
from artfs.media import Image, Table


@pytest.fixture
def log(home):
    with artfs.init() as run:

        def log(name, fill):
            artifact = artfs.Artifact(name, "dataset")
            fill(artifact)
            run.log_artifact(artifact).wait()
            return run.use_artifact(f"{name}:latest")

        yield log


def test_what_was_logged_comes_back(log, tmp_path):
    for case in CASES:
        plain = DirectoryArtifact(tmp_path / case.__name__)
        case(artfs.media, plain)
        artifact = log(case.__name__, lambda artifact, case=case: case(artfs.media, artifact))
        if case.__name__ != "bokeh":  # numbers its parts anew each time
            assert list(artifact.manifest.entries) == plain.paths()
        for path in plain.paths():
            if path.endswith(".json") and "/" not in path:
                assert describe(artifact.get(path)) == describe(plain.get(path)), path


def test_the_same_values_are_the_same_version(log):
    first = log("media", lambda artifact: image_table(artfs.media, artifact))
    again = log("media", lambda artifact: image_table(artfs.media, artifact))
    assert (first.digest, first.version) == (again.digest, again.version)


def test_a_value_goes_from_artifact_to_artifact(log):
    source = log("source", lambda artifact: image_table(artfs.media, artifact))
    target = log("target", lambda artifact: artifact.add(source.get("images"), "images"))
    assert describe(target.get("images")) == describe(source.get("images"))
    pictures = [entry for entry in target.manifest.entries.values() if entry.path.endswith(".png")]
    assert pictures
    assert all(entry.ref for entry in pictures)


def test_a_partitioned_table_takes_its_parts_along(log):
    def fill(artifact):
        artifact.add(Table(columns=["id", "n"], data=[["a", 1], ["b", 2]]), "parts/1")
        artifact.add(Table(columns=["id", "n"], data=[["c", 3]]), "parts/2")
        artifact.add(artfs.media.PartitionedTable("parts"), "whole")

    rows = [(0, ["a", 1]), (1, ["b", 2]), (2, ["c", 3])]
    whole = log("source", fill).get("whole")
    assert list(whole.iterrows()) == rows
    other = Table(columns=["id", "m"], data=[["a", 4]])

    def join(artifact):
        artifact.add(artfs.media.JoinedTable(whole, other, "id"), "joined")

    copy = log("copy", lambda artifact: artifact.add(whole, "whole"))
    joined = log("joined", join)
    artfs.Api().artifact("source:v0").delete(delete_aliases=True)
    assert list(copy.get("whole").iterrows()) == rows
    assert list(joined.get("joined").table1.iterrows()) == rows


def test_brackets_add_and_get(log):
    def fill(artifact):
        artifact["image"] = annotated(artfs.media)

    assert log("media", fill)["image"] == annotated(artfs.media)


def test_setting_an_item_answers_its_entry():
    artifact = artfs.Artifact("media", "dataset")
    entry = artifact.__setitem__("t", Table(columns=["a"], data=[[1]]))
    assert entry.path == "t.table.json"
    assert entry.digest == artifact.manifest.entries["t.table.json"].digest


def test_a_new_version_of_a_value(log):
    log("media", lambda artifact: artifact.add(Table(columns=["a"], data=[[1]]), "t"))
    artifact = log("media", lambda artifact: artifact.add(Table(columns=["a"], data=[[2]]), "t"))
    assert (artifact.version, artifact.get("t").data) == ("v1", [[2]])
    draft = artifact.new_draft()
    draft.add(Table(columns=["a"], data=[[3]]), "t", overwrite=True)
    draft.add(Image(annotated(artfs.media)), "image")
    draft.save()
    draft.wait()
    assert draft.get("t").data == [[3]]
