"""The same calls on wandb 0.31.0, offline, and on artfs: equal manifests, digests, names and exceptions.

Where artfs differs on purpose, the name of the test says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import enum
import functools
import json
import os
import pathlib
import tempfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import artfs
from artfs.errors import InvalidMetadata

pytestmark = [
    pytest.mark.usefixtures("home"),
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning"),  # the oracle's
    pytest.mark.filterwarnings("ignore:unclosed running multiprocessing pool:ResourceWarning"),  # the oracle's
]

SAME = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Names that both accept; the others have tests of their own.
PART = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"], exclude_characters="/\\:"),
    min_size=1,
    max_size=12,
).filter(lambda part: part not in {".", ".."} and len(part.encode()) <= 255)
PATH = st.lists(PART, min_size=1, max_size=3).map("/".join)
ANY_TEXT = st.text(st.sampled_from("aB7-_. /:\\.\n\x00é~#%"), max_size=8)


def is_tree(paths):
    """Whether no path is a file and a directory."""
    return not any(f"{a}/" == b[: len(a) + 1] for a in paths for b in paths)


def outcome(call):
    """The answer, or the exception."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001  it is what the test is about
        return error


KINDS = (KeyError, FileNotFoundError, TypeError, AttributeError, ValueError)


def agree(ours, theirs):
    """Whether both answer the same, or an except clause for what the one raises catches what the other raises."""
    if isinstance(theirs, Exception):
        return isinstance(ours, next(kind for kind in KINDS if isinstance(theirs, kind)))
    return ours == theirs


def compare(oracle, call):
    """Call with either library."""
    ours, theirs = outcome(lambda: call(artfs)), outcome(lambda: call(oracle))
    assert agree(ours, theirs), (ours, theirs)


@contextlib.contextmanager
def files(tree):
    """A new directory with files: path -> bytes."""
    with tempfile.TemporaryDirectory() as directory:
        for path, data in tree.items():
            target = Path(directory, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        yield directory


def both(oracle, fill):
    for library in (oracle, artfs):
        artifact = library.Artifact("a", "t")
        fill(artifact)
        yield artifact


def assert_same(oracle, fill):
    theirs, ours = both(oracle, fill)
    assert ours.manifest.to_manifest_json() == theirs.manifest.to_manifest_json()
    assert ours.digest == ours.manifest.digest() == theirs.digest
    assert ours.size == theirs.size
    assert len(ours.manifest.entries) == len(theirs.manifest.entries)


@given(tree=st.dictionaries(PATH, st.binary(max_size=40), max_size=8), prefix=st.none() | PATH)
@SAME
def test_directories(oracle, tree, prefix):
    assume(is_tree(tree))
    with files(tree) as directory:
        assert_same(oracle, lambda artifact: artifact.add_dir(directory, name=prefix))


@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(["add", "tmp", "overwrite", "new", "rewrite", "remove", "reference"]),
            st.sampled_from(["a", "b.tar.gz", "d/a", "d/b", "d/e/c", "./a", "d//b", "q/"]),
            st.sampled_from([b"", b"1", b"2"]),
        ),
        max_size=12,
    )
)
@SAME
def test_sequences_of_calls(oracle, calls):
    """Every call has the same outcome on both, and what they leave is the same."""
    with files({"one": b"1", "two": b"2", "none": b""}) as directory:
        source = {b"": "none", b"1": "one", b"2": "two"}

        def perform(artifact, what, name, data):
            path = os.path.join(directory, source[data])
            match what:
                case "add" | "tmp" | "overwrite":
                    return artifact.add_file(path, name, is_tmp=what == "tmp", overwrite=what == "overwrite").digest
                case "new" | "rewrite":
                    with artifact.new_file(name.rstrip("/"), mode="xb" if what == "new" else "wb") as file:
                        file.write(data)
                    return None
                case "remove":
                    return artifact.remove(name)
                case _:
                    return [e.ref for e in artifact.add_reference(f"foo://{data.decode()}", name=name)]

        theirs, ours = oracle.Artifact("a", "t"), artfs.Artifact("a", "t")
        for call in calls:
            results = [outcome(functools.partial(perform, artifact, *call)) for artifact in (ours, theirs)]
            assert agree(*results), (call, results)
        assert ours.manifest.to_manifest_json() == theirs.manifest.to_manifest_json()
        assert ours.digest == theirs.digest
        assert ours.size == theirs.size


# artfs quotes a percent sign in the URI, so that the path can be read back out of it.
UNQUOTED = PATH.map(lambda path: path.replace("%", "p"))


@given(tree=st.dictionaries(UNQUOTED, st.binary(max_size=20), min_size=1, max_size=5), checksum=st.booleans())
@SAME
def test_file_references(oracle, tree, checksum):
    assume(is_tree(tree))
    with files(tree) as directory:
        assert_same(oracle, lambda artifact: artifact.add_reference(f"file://{directory}", checksum=checksum))


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("name", [None, "x/y"])
def test_a_reference_to_one_file(oracle, name, checksum):
    with files({"d/f": b"x"}) as directory:
        assert_same(oracle, lambda artifact: artifact.add_reference(f"file://{directory}/d/f", name, checksum=checksum))


def test_too_many_objects(oracle):
    with files({"a": b"", "b": b""}) as directory:
        for artifact in both(oracle, lambda artifact: None):
            with pytest.raises(ValueError, match="Exceeded 1 objects tracked"):
                artifact.add_reference(f"file://{directory}", max_objects=1)


@given(name=ANY_TEXT)
@SAME
def test_artifact_names(oracle, name):
    assume(name not in {".", ".."})  # and a mount could show neither, nor a name with a newline
    assume(not name.endswith("\n"))
    compare(oracle, lambda library: library.Artifact(name, "t").name)


@pytest.mark.parametrize("name", [".", "..", "a\n"])
def test_names_that_are_no_directory_names_are_refused(oracle, name):
    assert oracle.Artifact(name, "t").name == name
    with pytest.raises(ValueError, match="invalid artifact name"):
        artfs.Artifact(name, "t")


@pytest.mark.parametrize("length", [128, 129])
def test_lengths_of_names(oracle, length):
    compare(oracle, lambda library: library.Artifact("n" * length, "t").name)


@pytest.mark.parametrize(
    ("type_", "name"),
    [("t", "a"), ("a b", "a"), ("job", "a"), ("wandb-x", "a"), ("run_table", "run-1"), ("run_table", "a"),
     ("code", "source-1"), ("code", "a"), ("x:y/z", "a")],
)  # fmt: skip
def test_types(oracle, type_, name):
    compare(oracle, lambda library: library.Artifact(name, type_).type)


def test_an_empty_or_overlong_type_is_refused_by_artfs_alone(oracle):
    for type_ in ("", "t" * 129):
        assert oracle.Artifact("a", type_).type == type_
        with pytest.raises(ValueError, match="artifact type"):
            artfs.Artifact("a", type_)


@given(path=ANY_TEXT)
@SAME
def test_paths(oracle, path):
    assume(not any(c in path for c in "\n\x00"))
    windows = PureWindowsPath(path)
    assume(PurePosixPath(path).anchor or not windows.anchor)
    assume(".." in PurePosixPath(path).parts or ".." not in windows.parts)
    with files({"f": b"x"}) as directory:
        compare(oracle, lambda library: library.Artifact("a", "t").add_file(f"{directory}/f", name=path).path)


@pytest.mark.parametrize("path", ["a:b", "\\x", "a\\..\\b"])
def test_paths_that_only_windows_misreads_are_taken(oracle, path):
    with files({"f": b"x"}) as directory:
        with pytest.raises(ValueError, match="Invalid artifact path"):
            oracle.Artifact("a", "t").add_file(f"{directory}/f", name=path)
        assert artfs.Artifact("a", "t").add_file(f"{directory}/f", name=path).path == path


def test_control_characters_are_refused(oracle):
    """In W&B's digest they are ambiguous: a newline ends an entry."""
    with files({"f": b"x"}) as directory:
        for library in (oracle, artfs):
            artifact = library.Artifact("a", "t")
            if library is artfs:
                with pytest.raises(ValueError, match="control characters"):
                    artifact.add_file(f"{directory}/f", name="a\nb")
            else:
                assert artifact.add_file(f"{directory}/f", name="a\nb").path == "a\nb"


def test_a_file_that_is_also_a_directory_is_refused(oracle):
    """W&B takes both and then downloads only one of them."""
    with files({"f": b"x"}) as directory:
        theirs, ours = oracle.Artifact("a", "t"), artfs.Artifact("a", "t")
        for artifact in (theirs, ours):
            artifact.add_file(f"{directory}/f", name="x")
        theirs.add_file(f"{directory}/f", name="x/y")
        with pytest.raises(ValueError, match="'x' would be both a file and a directory"):
            ours.add_file(f"{directory}/f", name="x/y")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(metadata=st.none() | st.dictionaries(st.text(max_size=4), JSON, max_size=4))
@SAME
def test_metadata(oracle, metadata):
    compare(oracle, lambda library: library.Artifact("a", "t", metadata=metadata).metadata)


@pytest.mark.parametrize(
    "metadata",
    ["", '{"a": 1}', "{", [1], 5, {"s": {1}}, {str(i): i for i in range(100)}, {str(i): i for i in range(101)},
     {"a": {str(i): i for i in range(500)}}],
)  # fmt: skip
def test_metadata_of_other_forms(oracle, metadata):
    compare(oracle, lambda library: library.Artifact("a", "t", metadata=metadata).metadata)


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int
    y: object


class Plain:
    def __str__(self):
        return "plain"


VALUES = [
    np.float32(0.5), np.float64("nan"), np.longdouble(1.5), np.int8(3), np.bool_(True), np.datetime64("2020-01-01"),
    np.arange(3), np.arange(40), np.zeros((2, 2)), np.array([]), np.array([np.nan, 1.0]),
    datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.UTC), datetime.date(2020, 1, 2), datetime.timedelta(1), b"x",
    range(3), (1, {2}), slice(1, 2),
    Color.RED, Point(1, np.int64(2)), Plain(), Plain, len, pathlib.PurePosixPath("/a"), decimal.Decimal("1.5"),
    {None: 3, True: 4, 1.5: 5}, {"a": {"b": np.float16(2)}},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_metadata_of_what_programs_have_at_hand(oracle, value):
    compare(oracle, lambda library: library.Artifact("a", "t", metadata={"value": [value], "v": value}).metadata)


def test_metadata_that_differs_on_purpose(oracle):
    """W&B makes text of an array of one element, and refuses frozen sets."""
    for value, theirs, ours in ((np.array([7]), "7", [7]), (np.array(0.5), "0.5", 0.5)):
        assert oracle.Artifact("a", "t", metadata={"v": value}).metadata == {"v": theirs}
        assert artfs.Artifact("a", "t", metadata={"v": value}).metadata == {"v": ours}
    assert artfs.Artifact("a", "t", metadata={"v": frozenset({1})}).metadata == {"v": [1]}


@pytest.mark.parametrize("text", ["\ud800", "a\udcff"])
def test_metadata_that_is_not_unicode(text):
    for metadata in ({"a": text}, {text: 1}, json.dumps({"a": text})):
        with pytest.raises(InvalidMetadata, match="text that is not Unicode"):
            artfs.Artifact("a", "t", metadata=metadata)


def test_metadata_that_json_cannot_carry_is_a_value_error_here(oracle):
    for metadata in ({"a": object()}, "[1]"):
        with pytest.raises(TypeError):
            oracle.Artifact("a", "t", metadata=metadata)
        with pytest.raises(ValueError, match="invalid metadata"):
            artfs.Artifact("a", "t", metadata=metadata)


ATTRIBUTES = [
    "aliases", "collection", "commit_hash", "created_at", "description", "digest", "distributed_id", "entity",
    "file_count", "history_step", "id", "incremental", "is_link", "linked_artifacts", "linked_at", "manifest",
    "metadata", "name", "project", "qualified_name", "size", "source_artifact", "source_collection", "source_entity",
    "source_name", "source_project", "source_qualified_name", "source_version", "tags", "ttl", "type",
    "updated_at", "url", "version",
]  # fmt: skip


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_what_a_draft_has(oracle, name):
    theirs, ours = both(oracle, lambda artifact: None)
    value, expected = outcome(lambda: getattr(ours, name)), outcome(lambda: getattr(theirs, name))
    if name == "manifest":
        value, expected = value.to_manifest_json(), expected.to_manifest_json()
    assert agree(value, expected)
    assert hasattr(ours, name) == hasattr(theirs, name)


def test_the_state_of_a_draft(oracle):
    theirs, ours = both(oracle, lambda artifact: None)
    assert ours.state == theirs.state == "PENDING"
    assert ours.is_draft() is theirs.is_draft() is True


CALLS = {
    "download": lambda a: a.download(),
    "checkout": lambda a: a.checkout(),
    "verify": lambda a: a.verify(),
    "file": lambda a: a.file(),
    "files": lambda a: a.files(),
    "get_entry": lambda a: a.get_entry("x"),
    "get": lambda a: a.get("x"),
    "getitem": lambda a: a["x"],
    "new_draft": lambda a: a.new_draft(),
    "json_encode": lambda a: a.json_encode(),
    "delete": lambda a: a.delete(),
    "unlink": lambda a: a.unlink(),
    "logged_by": lambda a: a.logged_by(),
    "used_by": lambda a: a.used_by(),
    "wait": lambda a: a.wait(),
    "set aliases": lambda a: setattr(a, "aliases", ["x"]),
    "set tags": lambda a: setattr(a, "tags", ["x"]),
    "remove what is not there": lambda a: a.remove("nope"),
    "no scheme": lambda a: a.add_reference("/tmp/x"),
    "unknown scheme without name": lambda a: a.add_reference("foo://x"),
    "no such file": lambda a: a.add_file("/nowhere"),
    "no such directory": lambda a: a.add_dir("/nowhere"),
    "a directory as file": lambda a: a.add_file("/tmp"),
    "a policy": lambda a: a.add_file(__file__, policy="x"),
    "media": lambda a: a.add(5, "x"),
    "unknown local path": lambda a: a.get_added_local_path_name("x"),
    "metadata": lambda a: setattr(a, "metadata", [1]),
    "ttl": lambda a: setattr(a, "ttl", __import__("datetime").timedelta(0)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_exceptions_of_a_draft(oracle, call):
    compare(oracle, lambda library: call(library.Artifact("a", "t")))


WRITES = ["add", "add_dir", "add_file", "add_reference", "new_file", "remove"]


@pytest.mark.parametrize("name", WRITES)
def test_a_finalized_artifact(oracle, name):
    for artifact in both(oracle, lambda artifact: artifact.finalize()):
        with pytest.raises(AttributeError, match=f"Artifact.{name}' used on logged artifact. Can't modify"):
            getattr(artifact, name)("x")
    assert issubclass(artfs.ArtifactFinalizedError, artfs.ArtifactStatusError)
    assert issubclass(artfs.ArtifactNotLoggedError, artfs.ArtifactStatusError)


def test_a_dangling_link_in_a_directory(oracle):
    with files({"f": b"x"}) as directory:
        os.symlink("nowhere", os.path.join(directory, "link"))
        for artifact in both(oracle, lambda artifact: None):
            with pytest.raises(FileNotFoundError):
                artifact.add_dir(directory)


def test_links_are_followed(oracle):
    with files({"d/f": b"x"}) as directory:
        os.symlink("d", os.path.join(directory, "to-directory"))
        os.symlink("d/f", os.path.join(directory, "to-file"))
        assert_same(oracle, lambda artifact: artifact.add_dir(directory))


def test_vectors():
    """Of the empty artifact, and of one with four files (recorded from wandb 0.31.0)."""
    artifact = artfs.Artifact("a", "t")
    assert artifact.digest == "64e7c61456b10382e2f3b571ac24b659"
    for name, data in {"A.txt": b"A", "a.txt": b"A", "b.txt": b"B", "sub/c.bin": bytes(3)}.items():
        with artifact.new_file(name, "xb") as file:
            file.write(data)
    assert artifact.digest == "f3cdf2f2b713ceef15d927dcad91e331"
    assert artifact.manifest.entries["a.txt"].digest == "f8VicOenD6gaWTW3Lqy+KQ=="
