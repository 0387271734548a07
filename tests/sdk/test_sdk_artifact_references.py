"""References to another artifact's entries: resolved when they are added, alive without the other artifact."""

import os
import pathlib

import pytest

import artfs
from artfs.errors import InvalidReference, PathNotFound, SourceUnreadable, VersionNotFound
from artfs.sdk import session
from artfs.versions.warm import warm


def referring(target, name="copy", path="r", **options):
    artifact = artfs.Artifact(name, "t")
    artifact.add_reference(target, name=path, **options)
    return artifact


def test_an_entry(run, logged, work):
    target = logged()
    for uri in (target.get_path("sub/b.txt"), f"artfs-artifact://{target.id}/sub/b.txt"):
        artifact = referring(uri)
        entry = artifact.manifest.entries["r"]
        assert entry.digest == target.get_path("sub/b.txt").digest
        assert entry.ref == entry.ref_target() == f"wandb-artifact://{target.id}/sub/b.txt"
        assert entry.size == 1
        run.log_artifact(artifact).wait()
        artifact.download("out")
        assert (work / "out/r").read_text() == "B"
        assert artifact.manifest.entries["r"].ref == f"wandb-artifact://{target.id}/sub/b.txt"
    assert artifact.version == "v0"
    assert artifact.size == 1
    assert [e.path for e in artfs.Artifact("x", "t").add_reference(target.get_path("sub/b.txt"))] == ["b.txt"]


def test_a_chain_leads_to_the_last_artifact(run, logged, work):
    target = logged()
    first = run.log_artifact(referring(target.get_path("a.txt"), "first")).wait()
    second = run.log_artifact(referring(first.get_path("r"), "second")).wait()
    assert second.get_path("r").ref == f"wandb-artifact://{target.id}/a.txt"


def test_a_chain_that_ends_elsewhere(run, write, work):
    first = run.log_artifact(referring(f"file://{write('f', 'x')}", "first")).wait()
    second = run.log_artifact(referring(first.get_path("r"), "second", "q")).wait()
    entry = second.get_path("q")
    assert (entry.ref, entry.digest) == (f"file://{work}/f", first.get_path("r").digest)
    assert entry.download() == "./artifacts/second:v0/q"


def test_it_survives_the_other_artifact(run, logged, work):
    target = logged(files={"big": "x" * 2_000_000, "empty": "", "small": "s"})
    artifact = referring(target.get_path("big"))
    artifact.add_reference(target.get_path("empty"))
    run.log_artifact(artifact).wait()
    target.delete(delete_aliases=True)
    repository = session.repository()
    assert repository.registry.condemn_packs(0) == ()
    session.close()
    assert artfs.Api().artifact("copy").download("out") == "out"
    assert os.stat("out/r").st_size == 2_000_000
    assert os.stat("out/empty").st_size == 0


def test_what_it_holds_is_checked_and_verified(run, logged, write):
    artifact = run.log_artifact(referring(logged().get_path("a.txt"))).wait()
    artifact.download("out")
    artifact.verify("out")
    write("out/r", "x")
    with pytest.raises(ValueError, match="different r"):
        artifact.verify("out")


def test_a_draft_is_referred_to_before_it_is_logged(run, work):
    target = artfs.Artifact("target", "t")
    with target.new_file("f") as file:
        file.write("content")
    artifact = referring(target.manifest.entries["f"])
    assert artifact.manifest.entries["r"].digest == target.manifest.entries["f"].digest
    digest = artifact.digest
    run.log_artifact(target)
    run.log_artifact(artifact).wait()
    assert artifact.digest == digest
    assert artifact.get_path("r").ref == f"wandb-artifact://{target.id}/f"
    artifact.download("out")
    assert (work / "out/r").read_text() == "content"


def test_a_draft_that_was_never_logged(run):
    target = artfs.Artifact("target", "t")
    with target.new_file("f") as file:
        file.write("content")
    artifact = run.log_artifact(referring(target.manifest.entries["f"]))
    with pytest.raises(InvalidReference, match="target was not logged"):
        artifact.wait()
    with pytest.raises(InvalidReference):
        run.finish()


def test_what_leads_nowhere(logged):
    target = logged()
    artifact = artfs.Artifact("copy", "t")
    with pytest.raises(PathNotFound, match="'nothing' is not in acme/vision/mnist:v0"):
        artifact.add_reference(f"wandb-artifact://{target.id}/nothing")
    with pytest.raises(VersionNotFound):
        artifact.add_reference("wandb-artifact://0123456789abcdef/x")


def test_recursive_downloads_what_is_referred_to(run, logged, work):
    artifact = run.log_artifact(referring(logged().get_path("a.txt"))).wait()
    artifact.download("out", recursive=True)
    assert (work / "artifacts/mnist:v0/sub/b.txt").read_text() == "B"


def test_recursive_passes_over_what_was_deleted(run, logged, work, caplog):
    source = logged()
    artifact = run.log_artifact(referring(source.get_path("a.txt"))).wait()
    source.delete(delete_aliases=True)
    artifact.download("out", recursive=True)
    assert (work / "out/r").read_text() == "A"
    assert not (work / "artifacts/mnist:v0").exists()
    assert "what r refers to was deleted" in caplog.text


def test_a_new_draft_keeps_references(run, logged):
    artifact = run.log_artifact(referring(logged().get_path("a.txt"))).wait()
    draft = artifact.new_draft()
    with draft.new_file("more") as file:
        file.write("x")
    digest = draft.manifest.entries["r"].digest
    run.log_artifact(draft).wait()
    assert draft.get_path("r").digest == digest
    assert draft.get_path("r").download("out") == "out/r"


@pytest.mark.parametrize("checksum", [True, False])
def test_references_are_warmed(run, write, checksum):
    source = write("data/a.bin", "content")
    artifact = artfs.Artifact("warm", "dataset")
    artifact.add_reference(f"file://{source}", checksum=checksum)
    artifact.add_reference(f"file://{write('empty')}", checksum=checksum)
    run.log_artifact(artifact).wait()
    assert warm(artifact.repository, artifact.catalog()) == 2
    os.unlink(source)
    assert pathlib.Path(artifact.get_entry("a.bin").download()).read_text() == "content"


def test_a_directory_that_cannot_be_referred_to_in_full_is_not_in_part(home, write):
    artifact = artfs.Artifact("x", "t")
    directory = os.path.dirname(write("data/1"))
    write("data/2")
    artifact.add_reference(f"file://{write('other')}")
    with pytest.raises(ValueError, match="Exceeded 1 objects"):
        artifact.add_reference(f"file://{directory}", max_objects=1)
    os.mkfifo(f"{directory}/3")
    with pytest.raises(SourceUnreadable):
        artifact.add_reference(f"file://{directory}")
    assert list(artifact.manifest.entries) == ["other"]
