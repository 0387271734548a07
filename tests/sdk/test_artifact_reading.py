"""download, checkout, verify, file, files, get_entry: and what W&B's users complain about."""

import io
import os
import signal
import subprocess
import sys
import tempfile
import textwrap

import pytest

import artfs
from artfs.errors import ReferenceMissing, ReferenceUnsupported, VerificationFailed
from artfs.sdk import session


def requests():
    """What was asked of the store so far."""
    return session.repository().store.statistics().requests


def tree(root):
    return sorted(
        os.path.relpath(os.path.join(directory, name), root) for directory, _, names in os.walk(root) for name in names
    )


def identity(root):
    """What changes when anything below is written."""
    return {
        path: (os.stat(os.path.join(root, path)).st_ino, os.stat(os.path.join(root, path)).st_mtime_ns)
        for path in tree(root)
    }


def test_download(logged, work, monkeypatch):
    artifact = logged(aliases=["best"])
    (work / "artifacts").mkdir()
    link = artifact.link("portfolio")
    for found in (artifact, artfs.Api().artifact("mnist:best"), link):
        assert found.download() == "./artifacts/mnist:v0"
    assert artifact.download(root="there") == "there"
    assert tree("there") == ["a.txt", "sub/b.txt"]
    monkeypatch.setenv("WANDB_ARTIFACT_DIR", str(work / "elsewhere"))
    assert artifact.download() == str(work / "elsewhere/mnist:v0")
    assert artifact.download(work / "part", path_prefix="sub/") == str(work / "part")
    assert tree("part") == ["sub/b.txt"]


def test_download_leaves_other_files_alone_and_checkout_does_not(logged, write, work):
    artifact = logged()
    write("out/mine", "1")
    write("out/a.txt", "wrong")
    artifact.download("out")
    assert tree("out") == ["a.txt", "mine", "sub/b.txt"]
    assert (work / "out/a.txt").read_text() == "A"
    assert artifact.checkout("out") == "out"
    assert tree("out") == ["a.txt", "sub/b.txt"]
    assert artifact.checkout() == "./artifacts/mnist"


def test_a_second_download_writes_nothing_and_asks_nobody(logged):
    artifact = logged()
    artifact.download("out")
    before, asked = identity("out"), requests()
    artifact.download("out")
    artifact.get_entry("a.txt").download("out")
    assert identity("out") == before
    assert requests() == asked


def test_a_cached_version_is_copied_without_asking_anybody(logged, work):
    logged()
    artfs.Api().artifact("mnist").download("first")
    session.close()
    artifact = artfs.Api().artifact("mnist")
    artifact.download("second")
    assert tree("second") == tree("first")
    assert requests() == 0


def test_skip_cache_leaves_nothing_behind(logged, home):
    artifact = logged()
    assert artifact.download("out", skip_cache=True) == "out"
    assert tree("out") == ["a.txt", "sub/b.txt"]
    assert not [path for path in (home / "cache").rglob("*") if "parts" in path.parts and path.is_file()]
    assert not list((home / "cache").glob("passing-*"))
    artifact.download("again")
    assert tree("again") == tree("out")
    assert [path for path in (home / "cache").rglob("*") if "parts" in path.parts and path.is_file()]


def test_verify_names_every_file(logged, write, work):
    artifact = logged(files={"a": "1", "b": "2", "c": "3", "d/e": "4"})
    artifact.download("out")
    artifact.verify("out")
    write("out/a", "x")
    write("out/b", "longer")
    os.unlink("out/c")
    write("out/d/extra", "y")
    with pytest.raises(ValueError, match="differs from") as caught:
        artifact.verify("out")
    assert isinstance(caught.value, VerificationFailed)
    for problem in ("different a", "different b", "missing c", "unexpected d/extra"):
        assert problem in str(caught.value)


def test_verify_downloads_to_the_default_directory_if_there_is_none(logged, write):
    artifact = logged()
    artifact.verify()
    assert tree("artifacts/mnist:v0") == ["a.txt", "sub/b.txt"]
    write("artifacts/mnist:v0/a.txt", "damaged")
    with pytest.raises(ValueError, match=r"different a\.txt"):
        artifact.verify()


def test_verify_does_not_look_at_references(run, write, work):
    artifact = artfs.Artifact("a", "t")
    artifact.add_reference("foo://bar", name="r")
    with artifact.new_file("f") as file:
        file.write("1")
    run.log_artifact(artifact).wait()
    artifact.download("out", allow_missing_references=True)
    artifact.verify("out")


def test_file(logged, work):
    assert logged(files={"d/f": "1"}).file() == "./artifacts/mnist:v0/d/f"
    assert (work / "artifacts/mnist:v0/d/f").read_text() == "1"
    with pytest.raises(ValueError, match="contains 2 files"):
        logged().file("out")


def test_files(logged, work):
    artifact = logged(files={f"f{index}": str(index) for index in range(120)})
    files = artifact.files(per_page=7)
    assert len(files) == 120
    assert [file.name for file in files] == sorted(f"f{index}" for index in range(120))
    assert files[0].name == "f0"
    assert files[-1].name == "f99"
    with pytest.raises(IndexError):
        files[120]
    assert [next(files).name for _ in range(2)] == ["f0", "f1"]
    assert next(artifact.files(start=files.cursor)).name == "f10"
    (one,) = artifact.files(names=["f7", "nothing"])
    assert (one.name, one.size, one.digest, one.mimetype) == ("f7", 1, one.md5, None)
    with one.download("out") as stream:
        assert stream.read() == "7"
    with pytest.raises(ValueError, match="already exists"):
        one.download("out")
    one.download("out", exist_ok=True).close()
    one.download("out", replace=True).close()


def test_entries(logged, work):
    artifact = logged()
    entry = artifact.get_path("sub/b.txt")
    assert entry.path == artifact.get_entry("./sub//b.txt").path == "sub/b.txt"
    assert entry.parent_artifact() is artifact
    assert entry.download() == "./artifacts/mnist:v0/sub/b.txt"
    assert entry.download(root="there") == "there/sub/b.txt"
    assert tree("there") == ["sub/b.txt"]
    assert entry.ref_url() == f"wandb-artifact://{artifact.id}/sub/b.txt"
    with pytest.raises(ValueError, match="Only reference entries"):
        entry.ref_target()
    for missing in ("nothing", "sub", "../a.txt", ""):
        with pytest.raises(KeyError, match="Path not contained in artifact"):
            artifact.get_entry(missing)
    assert artifact.get("nothing") is None
    assert artifact["nothing"] is None


def test_an_unreadable_reference_does_not_stop_the_rest(run, write, work):
    artifact = artfs.Artifact("a", "t")
    artifact.add_reference("foo://bar", name="a-unknown")
    artifact.add_reference(f"file://{write('gone', '1')}", name="b-gone")
    with artifact.new_file("z") as file:
        file.write("1")
    run.log_artifact(artifact).wait()
    os.unlink("gone")
    with pytest.raises((ReferenceMissing, ReferenceUnsupported)):
        artifact.download("out")
    assert tree("out") == ["z"]
    artifact.download("again", allow_missing_references=True)
    assert tree("again") == ["z"]
    assert artifact.get_entry("a-unknown").ref_target() == "foo://bar"


def test_damage_in_the_store_is_never_handed_out(logged, home, write):
    artifact = logged(files={"a": "A" * 5000})
    (pack,) = [path for path in (home / "store").rglob("*") if path.is_file() and "packs" in path.parts]
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    data[100] ^= 1
    pack.write_bytes(data)
    with pytest.raises(artfs.Error, match="is damaged in the store"):
        artifact.download("out")
    assert tree("out") == []


def test_nothing_is_stored_twice_on_the_way_up(run, home, write, monkeypatch):
    """No staging copy: a file of the size of all that was written exists only in the store."""
    (home / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(home / "temporary"))
    size = 3_000_000
    path = write("big", os.urandom(size))
    artifact = artfs.Artifact("a", "t")
    artifact.add_file(path)
    run.log_artifact(artifact).wait()
    held = {
        top: sum(
            os.stat(directory + "/" + name).st_blocks * 512
            for directory, _, names in os.walk(home / top)
            for name in names
        )
        for top in os.listdir(home)
        if (home / top).is_dir()
    }
    assert held.pop("store") >= size
    assert sum(held.values()) < size / 10


def test_versions_can_be_used_offline(logged, home, caplog):
    logged(aliases=["best"])
    artfs.Api().artifact("mnist:best").download("first")
    artfs.finish()
    session.close()
    os.rename(home / "registry.db", home / "away")
    (home / "registry.db").mkdir()  # a registry that does not open
    with artfs.init() as run:
        artifact = run.use_artifact("mnist:best")
        artifact.download("second")
    assert tree("second") == tree("first")
    assert "is not recorded" in caplog.text


def test_an_interrupted_download(logged, work):
    """Ctrl-C: no half file, and the next download completes it."""
    logged(files={f"{index:03}": "x" * 1000 for index in range(400)})
    program = """
        import artfs, os, signal
        from artfs.versions.write import Target
        write, calls = Target.write, []
        def interrupted(self, *arguments):
            calls.append(1)
            if len(calls) == 20:
                os.kill(os.getpid(), signal.SIGINT)
            write(self, *arguments)
        Target.write = interrupted
        artfs.Api().artifact("mnist").download("out")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], timeout=60, capture_output=True, text=True, check=False
    )
    assert "KeyboardInterrupt" in ended.stderr
    assert ended.returncode == -signal.SIGINT
    done = tree("out")
    assert len(done) < 400
    assert not [name for name in done if os.stat(f"out/{name}").st_size != 1000 or name.startswith(".")]
    artfs.Api().artifact("mnist").download("out")
    assert len(tree("out")) == 400


def test_progress_on_a_terminal(logged, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    from artfs.sdk import progress

    monkeypatch.setattr(progress, "_FIRST", 0.0)
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    artifact = logged()
    monkeypatch.setattr(sys, "stderr", Terminal())
    artifact.download("out")
    assert "artfs: downloaded 2 files, 0.0 MB (100 %)" in sys.stderr.getvalue()
    logged("another", {"c": "C"})
    assert "artfs: logged 1 files, 0.0 MB (100 %)" in sys.stderr.getvalue()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    artifact.download("again")
    assert sys.stderr.getvalue() == ""
