"""Logging, versions, aliases, tags, TTL, links, deletion, drafts, incremental and distributed artifacts."""

import copy
import gc
import os
import pickle
import threading
import tracemalloc
from datetime import timedelta

import numpy as np
import pytest

import artfs
from artfs.errors import (
    AliasesExist,
    ConfigurationError,
    InvalidName,
    NoRun,
    SourceUnreadable,
    TypeMismatch,
    VersionNotFound,
)
from artfs.sdk import run as run_module
from artfs.sdk import session


def of(files, name="mnist", type="dataset", **options):  # noqa: A002 - the API's word
    artifact = artfs.Artifact(name, type, **options)
    for path, text in files.items():
        with artifact.new_file(path) as file:
            file.write(text)
    return artifact


def texts(artifact, work):
    root = artifact.download("texts")
    return {entry.path: (work / root / entry.path).read_text() for entry in artifact.manifest.entries.values()}


def test_logging_returns_at_once_and_wait_makes_it_known(run):
    artifact = of({"a": "1"}, description="d", metadata={"k": 1})
    assert artifact.is_draft()
    assert artifact.state == "PENDING"
    assert run.log_artifact(artifact, aliases=["best"], tags=["nice one"]) is artifact
    with pytest.raises(artfs.ArtifactFinalizedError):
        artifact.remove("a")
    with pytest.raises(artfs.ArtifactNotLoggedError, match=r"'Artifact.version' used prior to logging"):
        _ = artifact.version
    assert artifact.wait() is artifact.wait(timeout=1)
    assert not artifact.is_draft()
    assert (artifact.state, artifact.version, artifact.name) == ("COMMITTED", "v0", "mnist:v0")
    assert artifact.qualified_name == artifact.source_qualified_name == "acme/vision/mnist:v0"
    assert (
        (artifact.entity, artifact.project) == (artifact.source_entity, artifact.source_project) == ("acme", "vision")
    )
    assert (artifact.source_name, artifact.source_version) == ("mnist:v0", "v0")
    assert artifact.aliases == ["best", "latest"]
    assert artifact.tags == ["nice one"]
    assert (artifact.description, artifact.metadata) == ("d", {"k": 1})
    assert (artifact.file_count, artifact.size) == (1, 1)
    assert artifact.collection.name == artifact.source_collection.name == "mnist"
    assert len(artifact.commit_hash) == 64
    assert artifact.created_at.endswith("Z")
    assert artifact.created_at <= artifact.updated_at
    assert artifact.history_step is None
    assert not artifact.is_link
    assert artifact.source_artifact is artifact
    assert artifact.linked_at is None
    assert artifact.url == "artfs:acme/vision/mnist:v0"
    assert artifact.json_encode() == {
        "_type": "artifactVersion", "_version": "v0", "id": artifact.id, "version": "v0", "sequenceName": "mnist",
        "usedAs": None,
    }  # fmt: skip


def test_equal_content_makes_no_version(run):
    first = run.log_artifact(of({"a": "1"}), aliases=["one"]).wait()
    second = run.log_artifact(of({"a": "2"})).wait()
    again = run.log_artifact(of({"a": "1"}), aliases=["two"]).wait()
    assert [first.version, second.version, again.version] == ["v0", "v1", "v0"]
    assert again.id == first.id
    assert again.aliases == ["latest", "one", "two"]


def test_the_type_of_a_collection_is_fixed(run):
    run.log_artifact(of({"a": "1"})).wait()
    with pytest.raises(TypeMismatch, match="already exists with type 'dataset'"):
        run.log_artifact(of({"a": "1"}, type="model"))


def test_artifacts_of_one_name_are_logged_in_order(run):
    artifacts = [run.log_artifact(of({"a": str(index)})) for index in range(6)]
    assert [artifact.wait().version for artifact in artifacts] == [f"v{index}" for index in range(6)]


@pytest.mark.parametrize("bad", ["a/b", "a:b", "v3", ""])
def test_bad_aliases_are_refused_at_once(run, bad):
    with pytest.raises(InvalidName):
        run.log_artifact(of({"a": "1"}), aliases=[bad])


def test_paths_are_made_artifacts(run, write, work):
    write("file.txt", "1")
    write("dir/f", "2")
    assert run.log_artifact("file.txt").wait().name == f"run-{run.id}-file.txt:v0"
    logged = run.log_artifact(work / "dir", name="d", type="x").wait()
    assert (logged.type, list(logged.manifest.entries)) == ("x", ["f"])
    assert run.log_artifact(f"file://{work}/file.txt", name="r").wait().manifest.entries["file.txt"].ref
    with pytest.raises(ValueError, match="path must be a file"):
        run.log_artifact("nothing")
    with pytest.raises(TypeError):
        run.log_artifact(5)


def test_waiting(run, monkeypatch):
    with pytest.raises(artfs.ArtifactNotLoggedError):
        of({}).wait()
    import threading

    go = threading.Event()
    from artfs.sdk import run as module

    publish = module.publish
    monkeypatch.setattr(module, "publish", lambda plan: (go.wait(30), publish(plan))[1])
    artifact = run.log_artifact(of({"a": "1"}))
    with pytest.raises(artfs.WaitTimeoutError, match=r"mnist was not logged within 0.01 s"):
        artifact.wait(timeout=0.01)
    go.set()
    assert artifact.wait().version == "v0"


def test_save_in_and_out_of_a_run(home):
    artifact = of({"a": "1"})
    artifact.save(project="other")
    assert artifact.qualified_name == "acme/other/mnist:v0"
    assert artifact.logged_by().job_type == "auto"
    assert artifact.logged_by().state == "finished"
    with artfs.init(project="mine") as run:
        inside = of({"a": "1"})
        inside.save()
        assert inside.wait().project == "mine"
        assert inside.logged_by().id == run.id


def test_save_persists_changes(logged):
    artifact = logged(aliases=["old", "kept"])
    artifact.aliases.append("new")
    artifact.aliases.remove("old")
    artifact.description = "text"
    artifact.metadata["k"] = [1]
    artifact.tags = ["b", "a"]
    artifact.ttl = timedelta(days=3)
    artifact.save()
    found = artfs.Api().artifact("mnist")
    assert found.aliases == ["kept", "latest", "new"]
    assert (found.description, found.metadata, found.tags, found.ttl) == (
        "text",
        {"k": [1]},
        ["a", "b"],
        timedelta(days=3),
    )
    with pytest.raises(InvalidName):
        artifact.aliases = ["a/b"]
    with pytest.raises(ValueError, match="tag"):
        artifact.tags = ["a.b"]


def test_saving_an_alias_leaves_those_that_others_gave(logged):
    mine, theirs = logged(), artfs.Api().artifact("mnist:latest")
    theirs.aliases.append("theirs")
    theirs.save()
    mine.aliases.append("mine")
    mine.save()
    assert mine.aliases == ["latest", "mine", "theirs"]


def test_ttl(run):
    artifact = of({"a": "1"})
    with pytest.raises(artfs.ArtifactNotLoggedError):
        _ = artifact.ttl
    for wrong in (timedelta(0), timedelta(days=-1)):
        with pytest.raises(ValueError, match="has to be positive"):
            artifact.ttl = wrong
    artifact.ttl = timedelta(hours=1)
    assert artifact.ttl == timedelta(hours=1)
    run.log_artifact(artifact).wait()
    collection = artifact.collection
    collection.ttl = timedelta(days=7)
    collection.save()
    inheriting = run.log_artifact(of({"a": "2"})).wait()
    assert (artifact.ttl, inheriting.ttl) == (timedelta(hours=1), timedelta(days=7))
    artifact.ttl = None
    artifact.save()
    assert artfs.Api().artifact("mnist:v0").ttl is None
    artifact.ttl = artfs.ArtifactTTL.INHERIT
    artifact.save()
    assert artifact.ttl == timedelta(days=7)
    with pytest.raises(ValueError, match="link"):
        artifact.link("portfolio").ttl = timedelta(days=1)


def test_links(logged):
    logged(files={"x": "0"})
    source = logged(aliases=["best"])
    link = source.link("models/portfolio", aliases=["prod"])
    assert (link.qualified_name, link.version, link.aliases) == ("acme/models/portfolio:v0", "v0", ["latest", "prod"])
    assert (link.source_qualified_name, link.source_version) == ("acme/vision/mnist:v1", "v1")
    assert link.is_link
    assert link.linked_at
    assert link.source_artifact.qualified_name == "acme/vision/mnist:v1"
    assert link.collection.name == "portfolio"
    assert not link.collection.is_sequence()
    assert link.source_collection.name == "mnist"
    assert [found.qualified_name for found in source.linked_artifacts] == ["acme/models/portfolio:v0"]
    link.aliases.append("here")
    link.save()
    assert artfs.Api().artifact("models/portfolio:here").aliases == ["here", "latest", "prod"]
    assert artfs.Api().artifact("mnist").aliases == ["best", "latest"]
    with pytest.raises(ValueError, match="is not a linked artifact"):
        source.unlink()
    link.unlink()
    assert source.linked_artifacts == []


def test_deleting_a_link_only_unlinks(logged, caplog):
    source = logged()
    source.link("portfolio").delete()
    assert source.linked_artifacts == []
    assert artfs.Api().artifact_exists("mnist:v0")
    assert "only the link is deleted" in caplog.text


def test_link_logs_a_draft_first(run):
    assert of({"a": "1"}).link("shelf").source_name == "mnist:v0"
    assert run.link_artifact(of({"a": "2"}), "shelf", aliases=["x"]).qualified_name == "acme/vision/shelf:v1"


def test_deleting_says_what_blocks_it(logged):
    artifact = logged(aliases=["best"])
    artifact.link("portfolio", aliases=["prod"])
    with pytest.raises(AliasesExist) as caught:
        artifact.delete()
    for name in ("mnist:best", "mnist:latest", "portfolio:prod", "portfolio:latest"):
        assert name in str(caught.value)
    artifact.delete(delete_aliases=True)
    assert artifact.state == "DELETED"
    with pytest.raises(VersionNotFound):
        artfs.Api().artifact("mnist:v0")


def test_new_draft(logged, run, work):
    base = logged(files={"a": "1", "b": "2", "d/c": "3"})
    base.description = "text"
    draft = base.new_draft()
    assert draft.is_draft()
    assert (draft.name, draft.type, draft.description, draft.digest) == ("mnist", "dataset", "text", base.digest)
    draft.remove("d")
    with draft.new_file("a", mode="w") as file:
        file.write("changed")
    with draft.new_file("new") as file:
        file.write("4")
    requests = session.repository().store.statistics()
    run.log_artifact(draft).wait()
    assert draft.version == "v1"
    assert texts(draft, work) == {"a": "changed", "b": "2", "new": "4"}
    assert session.repository().store.statistics() != requests
    assert list(base.manifest.entries) == ["a", "b", "d/c"]


def test_a_new_draft_goes_to_its_own_sequence(logged):
    base = logged()
    with artfs.init(project="elsewhere", reinit="create_new") as other:
        draft = base.new_draft()
        with draft.new_file("more") as file:
            file.write("x")
        assert other.log_artifact(draft).wait().qualified_name == "acme/vision/mnist:v1"


def test_incremental(run, work):
    run.log_artifact(of({"a": "1"}, incremental=True)).wait()
    run.log_artifact(of({"b": "2"}, incremental=True)).wait()
    last = run.log_artifact(of({"a": "new", "c": "3"}, incremental=True)).wait()
    assert last.version == "v2"
    assert texts(last, work) == {"a": "new", "b": "2", "c": "3"}


def test_distributed(home, work):
    for rank in range(3):
        with artfs.init(group="job-7", name=f"rank-{rank}", reinit="create_new") as run:
            part = of({f"part-{rank}": str(rank), "who": str(rank)})
            assert run.upsert_artifact(part).wait().is_draft()
    with pytest.raises(VersionNotFound):
        artfs.Api().artifact("mnist:v0")
    with artfs.init(group="job-7") as run:
        whole = run.finish_artifact(of({"end": "x"})).wait()
        assert whole.version == "v0"
    assert texts(whole, work) == {"part-0": "0", "part-1": "1", "part-2": "2", "who": "2", "end": "x"}
    assert session.repository().registry.drafts() == ()


def test_distributed_needs_an_id(run):
    for call in (run.upsert_artifact, run.finish_artifact):
        with pytest.raises(TypeError):
            call(of({}))
    assert run.finish_artifact(of({"a": "1"}), distributed_id="x").wait().version == "v0"


def test_calls_that_need_a_run(home):
    with pytest.raises(NoRun, match=r"artfs.init\(\)"):
        artfs.upsert_artifact(of({}))
    with artfs.init() as run:
        pass
    with pytest.raises(NoRun, match="is finished"):
        run.log_artifact(of({}))


def test_what_failed_may_be_logged_again(run, write):
    artifact = artfs.Artifact("a", "t")
    artifact.add_file(write("d/f", "1"))
    os.rename("d", "away")
    run.log_artifact(artifact)
    for _ in range(2):
        with pytest.raises(SourceUnreadable):
            artifact.wait()
    os.rename("away", "d")
    assert run.log_artifact(artifact).wait().version == "v0"


def test_incremental_and_distributed_together(run, work):
    run.log_artifact(of({"base": "0", "a": "old"})).wait()
    run.upsert_artifact(of({"a": "new"}), distributed_id="x").wait()
    whole = run.finish_artifact(of({"b": "1"}, incremental=True), distributed_id="x").wait()
    assert texts(whole, work) == {"base": "0", "a": "new", "b": "1"}


def test_memory_does_not_grow_with_the_entries(home):
    artifact = artfs.Artifact("a", "t")

    def add(first, last):
        for index in range(first, last):
            artifact.add_reference(f"s3://bucket/{index}", name=f"{index // 100}/{index}", checksum=False)
        gc.collect()

    add(0, 500)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        add(500, 4500)
        assert tracemalloc.get_traced_memory()[0] - before < 100_000  # 25 bytes an entry
    finally:
        tracemalloc.stop()
    assert len(artifact.manifest) == 4500


def test_what_is_set_while_it_is_being_logged_is_kept_for_save(run, monkeypatch):
    go = threading.Event()
    publish = run_module.publish
    monkeypatch.setattr(run_module, "publish", lambda plan: (go.wait(30), publish(plan))[1])
    artifact = run.log_artifact(of({"a": "1"}, description="before"))
    artifact.description = "after"
    artifact.metadata["k"] = 1
    artifact.ttl = timedelta(days=3)
    go.set()
    artifact.wait()
    assert (artifact.description, artifact.metadata) == ("after", {"k": 1})
    assert artfs.Api().artifact("mnist").description == "before"
    artifact.save()
    found = artfs.Api().artifact("mnist")
    assert (found.description, found.metadata, found.ttl) == ("after", {"k": 1}, timedelta(days=3))


def test_only_what_was_set_while_it_was_being_logged_is_kept(run, monkeypatch):
    run.log_artifact(of({"a": "1"}, description="first's", metadata={"k": 0})).wait()
    go = threading.Event()
    publish = run_module.publish
    monkeypatch.setattr(run_module, "publish", lambda plan: (go.wait(30), publish(plan))[1])
    again = run.log_artifact(of({"a": "1"}))  # the same content: it becomes the first
    again.metadata["k"] = np.zeros(3)
    go.set()
    again.wait().save()
    found = artfs.Api().artifact("mnist")
    assert (found.version, found.description, found.metadata) == ("v0", "first's", {"k": [0.0, 0.0, 0.0]})


def test_metadata_that_only_the_check_makes_plain(run, tmp_path):
    artifact = of({"a": "1"})
    artifact.metadata["complex"] = 1j
    with pytest.raises(ValueError, match="invalid metadata"):
        run.log_artifact(artifact)
    with (tmp_path / "open").open("w") as file:
        artifact.metadata = {"array": np.arange(2), "file": file}
        assert not file.closed
        file.write("still open")
    assert run.log_artifact(artifact).wait().metadata["array"] == [0, 1]


def test_saving_what_is_being_logged_waits_and_saves(run, monkeypatch):
    go = threading.Event()
    publish, wait = run_module.publish, artfs.Artifact.wait
    monkeypatch.setattr(run_module, "publish", lambda plan: (go.wait(30), publish(plan))[1])
    monkeypatch.setattr(artfs.Artifact, "wait", lambda self, timeout=None: (go.set(), wait(self, timeout))[1])
    artifact = run.log_artifact(of({"a": "1"}))
    artifact.description = "later"
    artifact.save()
    assert artfs.Api().artifact("mnist").description == "later"


def test_changes_deep_in_the_metadata_are_saved(run):
    artifact = run.log_artifact(of({"a": "1"}, metadata={"x": {"y": 1}, "l": [1]})).wait()
    artifact.metadata["x"]["y"] = 2
    artifact.metadata["l"].append(3)
    artifact.save()
    assert artifact.metadata == artfs.Api().artifact("mnist").metadata == {"x": {"y": 2}, "l": [1, 3]}


def test_tags_that_others_change_meanwhile_stay(logged):
    logged(tags=["old"])
    one, other = artfs.Api().artifact("mnist"), artfs.Api().artifact("mnist")
    one.tags.append("A")
    one.save()
    other.tags.append("B")
    other.tags.remove("old")
    other.save()
    assert artfs.Api().artifact("mnist").tags == ["A", "B"]


def test_what_was_deleted_is_gone_for_its_own_object_too(run, logged):
    artifact = logged()
    artifact.delete(delete_aliases=True)
    assert (artifact.state, artifact.aliases) == ("DELETED", [])
    again = (lambda: run.use_artifact(artifact), lambda: run.log_artifact(artifact))
    for use in (artifact.download, artifact.new_draft, artifact.manifest.size, *again):
        with pytest.raises(VersionNotFound, match="it was deleted"):
            use()


def test_a_refused_call_leaves_the_artifact_open(run):
    artifact = of({"a": "1"})
    for refused in ({"aliases": ["a/b"]}, {"tags": ["a.b"]}):
        with pytest.raises(InvalidName):
            run.log_artifact(artifact, **refused)
    with pytest.raises(InvalidName):
        artifact.link("too/many/levels/here")
    assert not artfs.Api().artifact_exists("mnist")
    with artifact.new_file("b") as file:
        file.write("2")
    assert run.log_artifact(artifact).wait().file_count == 2


def test_a_manifest_in_hand_answers_after_logging(run):
    artifact = of({"a": "1", "b": "2"})
    manifest = artifact.manifest
    entries = iter(manifest.entries.values())
    digest = manifest.digest()
    run.log_artifact(artifact).wait()
    assert sorted(manifest.entries) == ["a", "b"]
    assert (manifest.digest(), len(manifest)) == (digest, 2)
    assert [entry.path for entry in entries] == ["a", "b"]


def test_a_logged_artifact_travels(logged):
    artifact = logged(tags=["t"])
    for twin in (pickle.loads(pickle.dumps(artifact)), copy.deepcopy(artifact)):
        assert (twin.id, twin.qualified_name, twin.tags) == (artifact.id, artifact.qualified_name, ["t"])
        assert twin.manifest.digest() == artifact.digest
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        copy.deepcopy(of({}))


def test_a_logged_artifact_travels_to_its_own_registry_only(logged, tmp_path, monkeypatch):
    pickled = pickle.dumps(logged())
    monkeypatch.setenv("ARTFS_HOME", str(tmp_path / "other"))
    assert pickle.loads(pickled).version == "v0"  # its repository is open still
    session.close()
    with pytest.raises(ConfigurationError, match="of another registry"):
        pickle.loads(pickled)
