"""Filling an artifact, and what its manifest shows before and after it is logged."""

import os
import time
from pathlib import Path

import pytest

import artfs
from artfs.errors import PathConflict, SourceChanged, SourceUnreadable


@pytest.fixture
def artifact(home):
    return artfs.Artifact("mnist", "dataset")


@pytest.fixture
def later(monkeypatch):
    """A clock by which files written now are a while old: they are not hashed when they are added."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 60_000_000_000)


def test_add_file(artifact, write):
    entry = artifact.add_file(write("path/to/file.txt", "x"))
    assert (entry.path, entry.size, entry.ref, entry.digest) == ("file.txt", 1, None, "ndTkYSaMgDT1yFZOFVxnpg==")
    assert artifact.add_file("path/to/file.txt", name="new/path/file.txt").path == "new/path/file.txt"
    assert list(artifact.manifest.entries) == ["file.txt", "new/path/file.txt"]
    assert artifact.size == 2


def test_is_tmp_names_by_digest(artifact, write):
    entry = artifact.add_file(write("foo.tar.gz", "x"), name="d/foo.tar.gz", is_tmp=True)
    assert entry.path == "d/9dd4e461268c8034f5c8.tar.gz"


def test_the_same_path_again(artifact, write):
    artifact.add_file(write("a", "1"))
    artifact.add_file("a")
    artifact.add_file(write("copy/a", "1"))
    with pytest.raises(ValueError, match="Cannot add the same path twice: 'a'"):
        artifact.add_file(write("other/a", "2"))
    assert artifact.add_file("other/a", overwrite=True).digest == artifact.manifest.entries["a"].digest
    assert len(artifact.manifest) == 1


def test_add_dir(artifact, write, work):
    write("my_dir/a", "1")
    write("my_dir/sub/b", "2")
    artifact.add_dir("my_dir/")
    artifact.add_dir("my_dir/", name="destination")
    assert list(artifact.manifest.entries) == ["a", "destination/a", "destination/sub/b", "sub/b"]
    write("my_dir/a", "changed")
    with pytest.raises(PathConflict):
        artifact.add_dir("my_dir")
    artifact.add_dir("my_dir", merge=True)
    assert artifact.manifest.entries["a"].size == 7


def test_empty_directories_modes_and_links_survive(run, write, work):
    os.chmod(write("d/tool", "#!/bin/sh"), 0o755)
    (work / "d/empty").mkdir()
    os.symlink("tool", work / "d/link")
    artifact = artfs.Artifact("tools", "code")
    artifact.add_dir("d", symlinks="keep")
    run.log_artifact(artifact).wait().download("out")
    assert (work / "out/empty").is_dir()
    assert os.readlink(work / "out/link") == "tool"
    assert os.stat(work / "out/tool").st_mode & 0o111
    assert list(artifact.manifest.entries) == ["tool"]


def test_new_file(artifact):
    with artifact.new_file("hello.txt") as f:
        f.write("hello!")
    with pytest.raises(ValueError, match="already exists"), artifact.new_file("hello.txt"):
        pass
    with artifact.new_file("hello.txt", mode="w", encoding="utf-8") as f:
        f.write("é")
    assert artifact.manifest.entries["hello.txt"].size == 2


def test_a_new_file_that_failed_is_not_added(artifact):
    with pytest.raises(TypeError), artifact.new_file("f") as f:
        f.write(b"no text")
    assert len(artifact.manifest) == 0
    with artifact.new_file("f") as f:
        f.write("whole")


def test_a_replacement_that_failed_leaves_what_was_there(artifact):
    with artifact.new_file("a") as file:
        file.write("first")

    def replace():
        with artifact.new_file("a", "w") as file:
            file.write("half")
            file.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        replace()
    assert Path(artifact.manifest.entries["a"].local_path).read_text() == "first"
    with artifact.new_file("a", "w") as file:
        file.write("second")
    with artifact.new_file("a", "a") as file:
        file.write(", third")
    assert Path(artifact.manifest.entries["a"].local_path).read_text() == "second, third"


def test_new_files_of_one_name_at_once(run, artifact):
    def both():
        with artifact.new_file("a") as outer, artifact.new_file("a") as inner:
            outer.write("outer")
            inner.write("inner")

    with pytest.raises(ValueError, match="already exists"):
        both()
    assert Path(artifact.manifest.entries["a"].local_path).read_text() == "inner"
    with pytest.raises(artfs.ArtifactFinalizedError), artifact.new_file("b"):
        run.log_artifact(artifact).wait()


def test_new_files_that_cannot_be(artifact):
    with artifact.new_file("a/b"):
        pass
    for path in ("a", "a/b/c"):
        with pytest.raises(PathConflict), artifact.new_file(path, "w"):
            pass
    with pytest.raises(ValueError, match="does not make a file"), artifact.new_file("c", "r"):
        pass
    assert list(artifact.manifest.entries) == ["a/b"]


@pytest.mark.parametrize(("name", "path"), [(None, "f"), ("", "f"), (".", "f"), ("./", "f"), ("...", ".../f")])
def test_names_of_directories(artifact, write, work, name, path):
    write("d/f")
    artifact.add_dir("d", name=name)
    assert list(artifact.manifest.entries) == [path]


@pytest.mark.parametrize("name", ["..", "/", "//", "a/../b"])
def test_names_that_lead_elsewhere(artifact, write, name):
    write("d/f")
    with pytest.raises(ValueError, match="invalid path"):
        artifact.add_dir("d", name=name)


def test_remove(artifact, write):
    for path in ("a", "d/b", "d/e/c", "dd"):
        artifact.add_file(write(path, path), name=path)
    entry = artifact.manifest.entries["a"]
    artifact.remove(entry)
    artifact.remove("d")
    assert list(artifact.manifest.entries) == ["dd"]
    for gone in (entry, "d", "d/b"):
        with pytest.raises(FileNotFoundError, match="is not in mnist"):
            artifact.remove(gone)
    artifact.add_file("d/b", name="d")  # what is gone is not in the way


@pytest.mark.parametrize(("first", "second"), [("x", "x/y"), ("x/y", "x"), ("x/y/z", "x/y"), ("x/y", "x/y/z/w")])
def test_a_path_is_a_file_or_a_directory(artifact, write, first, second):
    write("f", "1")
    artifact.add_file("f", name=first)
    with pytest.raises(PathConflict):
        artifact.add_file("f", name=second)
    assert list(artifact.manifest.entries) == [first]


def test_local_paths(artifact, write, work):
    artifact.add_file(write("path/to/file.txt", "x"), name="artifact/path/file.txt")
    assert artifact.get_added_local_path_name("path/to/file.txt") == "artifact/path/file.txt"
    assert artifact.get_added_local_path_name(str(work / "path/to/file.txt")) == "artifact/path/file.txt"
    assert artifact.get_added_local_path_name("path") is None


def test_the_working_directory_may_change(run, write, work, monkeypatch):
    artifact = artfs.Artifact("a", "t")
    artifact.add_file(write("f", "1") and "f")
    (work / "elsewhere").mkdir()
    monkeypatch.chdir(work / "elsewhere")
    assert run.log_artifact(artifact).wait().size == 1


@pytest.mark.parametrize("old", [True, False])
def test_a_file_that_changes_after_it_was_added(run, write, old, request):
    """Not copied, so not logged either: W&B logs the copy it made."""
    path = write("f", "1")
    if old:
        os.utime(path, (1, 1))
        request.getfixturevalue("later")
    artifact = artfs.Artifact("a", "t")
    artifact.add_file(path)
    write("f", "2")  # as long, perhaps within one tick of the clock
    with pytest.raises(SourceChanged, match="changed while"):
        run.log_artifact(artifact).wait()
    with pytest.raises(SourceChanged):
        run.finish()


def test_the_digest_of_a_file_that_changed(artifact, write, later):
    path = write("f", "1")
    os.utime(path, (1, 1))
    entry = artifact.add_file(path)
    write("f", "2")
    with pytest.raises(SourceChanged):
        _ = entry.digest


def test_an_unreadable_source(artifact, write, work):
    os.mkfifo(work / "pipe")
    with pytest.raises(SourceUnreadable):
        artifact.add_file("pipe")


def test_entries_of_a_draft_answer_after_it_is_logged(run, write, later):
    artifact = artfs.Artifact("a", "t")
    path = write("f", "1")
    entry = artifact.add_file(path)
    run.log_artifact(artifact).wait()
    os.unlink(path)
    assert entry.digest == "xMpCOKC5I4INzFCab3WEmw=="
    assert entry.parent_artifact() is artifact
    assert entry.download("out") == "out/f"


def test_the_manifest(logged):
    manifest = logged().manifest
    assert [*manifest.entries] == [entry.path for entry in manifest.entries.values()] == ["a.txt", "sub/b.txt"]
    assert [path for path, _ in manifest.entries.items()] == ["a.txt", "sub/b.txt"]
    assert "sub" not in manifest.entries
    with pytest.raises(KeyError):
        manifest.entries["sub"]
    assert [entry.path for entry in manifest.get_entries_in_directory("sub")] == ["sub/b.txt"]
    assert manifest.get_entry_by_path("../x") is None
    assert manifest.to_manifest_json()["contents"]["a.txt"] == {"digest": "f8VicOenD6gaWTW3Lqy+KQ==", "size": 1}
    assert manifest.size() == 2


def test_the_digest_does_not_change_when_logged(run, write):
    artifact = artfs.Artifact("a", "t")
    for index in range(300):
        artifact.add_file(write(f"d/{index}", str(index)), name=f"{index % 7}/{index}")
    before = artifact.digest, artifact.size, artifact.manifest.to_manifest_json()
    run.log_artifact(artifact).wait()
    assert (artifact.digest, artifact.size, artifact.manifest.to_manifest_json()) == before
    assert artifact.file_count == 300


def test_a_file_with_a_time_that_is_out_of_bounds(run, write):
    path = write("f", "1")
    os.utime(path, ns=(1 << 63, 1 << 63))  # in 2262
    artifact = artfs.Artifact("mnist", "dataset")
    artifact.add_file(path)
    assert run.log_artifact(artifact).wait().file_count == 1
