"""Runs, lineage and the Api."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

import artfs
from artfs.errors import InvalidName, NotFound, SourceUnreadable, TypeMismatch, VersionNotFound
from artfs.sdk import run as run_module


def of(name, text="1", type="dataset"):  # noqa: A002 - the API's word
    artifact = artfs.Artifact(name, type)
    with artifact.new_file("f") as file:
        file.write(text)
    return artifact


@pytest.fixture
def chain(home):
    """raw -> train -> model -> evaluate -> report."""
    with artfs.init(job_type="import") as run:
        run.log_artifact(of("raw"))
    with artfs.init(job_type="train", name="nightly", config={"lr": 0.1}) as run:
        run.use_artifact("raw:latest")
        run.log_artifact(of("model", type="model"))
    with artfs.init(job_type="evaluate") as run:
        run.use_artifact("model")
        run.log_artifact(of("report", type="report"))


def test_inputs_and_outputs(chain):
    api = artfs.Api()
    model = api.artifact("model")
    train = model.logged_by()
    assert (train.job_type, train.name, train.config, train.state) == ("train", "nightly", {"lr": 0.1}, "finished")
    assert [run.job_type for run in model.used_by()] == ["evaluate"]
    assert [artifact.name for artifact in train.used_artifacts()] == ["raw:v0"]
    assert [artifact.name for artifact in train.logged_artifacts()] == ["model:v0"]
    assert train.path == ["acme", "vision", train.id]
    assert api.run("/".join(train.path)).id == api.run(train.id).id == train.id
    with pytest.raises(NotFound):
        api.run(f"other/{train.id}")
    with pytest.raises(NotFound):
        api.run("nothing")
    assert [run.job_type for run in api.runs("acme/vision")] == ["import", "train", "evaluate"]
    assert [run.job_type for run in api.runs(order="-created_at")] == ["evaluate", "train", "import"]


def test_delete_what_runs_logged(chain):
    api = artfs.Api()
    for run in api.runs(path="acme/vision"):
        for artifact in run.logged_artifacts():
            if artifact.type == "model":
                artifact.delete(delete_aliases=True)
    assert not api.artifact_exists("model")
    assert api.artifact_exists("raw")


@pytest.mark.parametrize("name", ["raw", "model", "report"])
def test_lineage_command(chain, name):
    from artfs.cli.lineage import command

    text = CliRunner().invoke(command, [name], catch_exceptions=False).output
    assert text.startswith(f"acme/vision/{name}:v0 (")
    assert all(found in text for found in ("raw:v0", "(train)", "model:v0", "(evaluate)", "report:v0"))
    graph = json.loads(CliRunner().invoke(command, [name, "--json"], catch_exceptions=False).output)
    names = {node["id"]: node["name"] for node in graph["nodes"]}
    assert len(graph["edges"]) == 5
    assert ("acme/vision/raw:v0", "nightly") in {(names[a], names[b]) for a, b in graph["edges"]}
    dot = CliRunner().invoke(command, [name, "--dot"], catch_exceptions=False).output
    assert dot.startswith("digraph")
    assert dot.count("->") == 5


def test_lineage_tree(chain):
    from artfs.cli.lineage import command

    lines = CliRunner().invoke(command, ["model"]).output.splitlines()
    assert [line.split("run")[0].rstrip() for line in lines] == [
        "acme/vision/model:v0 (model)",
        "├─ logged by",
        "│  └─ used acme/vision/raw:v0 (dataset)",
        "│     └─ logged by",
        "└─ used by",
        "   └─ logged acme/vision/report:v0 (report)",
    ]


def link(run_id, uses, logs):
    with artfs.init(id=run_id) as run:
        for name in uses:
            run.use_artifact(name)
        run.log_artifact(of(logs)).wait()


def test_lineage_shows_all_within_its_depth_and_says_where_there_is_more(home):
    from artfs.cli.lineage import command

    def lines(*arguments):
        output = CliRunner().invoke(command, arguments, catch_exceptions=False).output
        return output.replace(" (dataset)", "").splitlines()

    link("r0", [], "z")
    link("rb", ["z"], "b")
    link("ra", ["b"], "a")
    link("rv", ["a", "b"], "v")
    assert lines("v", "--depth", "4") == [
        "acme/vision/v:v0",
        "└─ logged by run acme/vision/rv",
        "   ├─ used acme/vision/a:v0",
        "   │  └─ logged by run acme/vision/ra",
        "   │     └─ used acme/vision/b:v0 (see below)",
        "   └─ used acme/vision/b:v0",
        "      └─ logged by run acme/vision/rb",
        "         └─ used acme/vision/z:v0 ... (more with --depth)",
    ]
    graph = json.loads(CliRunner().invoke(command, ["v", "--depth", "4", "--json"]).output)
    assert (len(graph["nodes"]), len(graph["edges"]), len(graph["cut"])) == (7, 7, 1)
    assert {node["state"] for node in graph["nodes"] if node["kind"] == "version"} == {"COMMITTED"}
    assert {(node["entity"], node["project"]) for node in graph["nodes"] if node["kind"] == "run"} == {
        ("acme", "vision")
    }
    assert lines("v")[-1] == "            └─ logged by run acme/vision/r0"


def test_use_artifact(home):
    with artfs.init() as run:
        pending = run.log_artifact(of("a"), aliases=["best"])
        used = run.use_artifact("a:best", type="dataset")  # what the run is logging is waited for
        assert used.id == pending.wait().id
        assert run.use_artifact("acme/vision/a").name == "a:v0"
        assert run.use_artifact("vision/a:v0").qualified_name == "acme/vision/a:v0"
        with pytest.raises(ValueError, match="Supplied type model does not match type dataset"):
            run.use_artifact("a", type="model")
        with pytest.raises(VersionNotFound, match="did you mean a"):
            run.use_artifact("aa")
        with pytest.raises(InvalidName):
            run.use_artifact("a/b/c/d")
        draft = of("b")
        assert run.use_artifact(draft, aliases=["x"]).aliases == ["latest", "x"]
        assert [artifact.name for artifact in run.used_artifacts()] == ["a:v0", "b:v0"]
        with pytest.raises(ValueError, match="You must pass an artifact name"):
            run.use_artifact(5)


def test_logging_a_logged_artifact_again(home):
    with artfs.init():
        artifact = artfs.log_artifact(of("a")).wait()
    with artfs.init() as run:
        assert run.log_artifact(artifact, aliases=["again"], tags="twice").version == "v0"
        assert artifact.tags == ["twice"]
        assert [found.name for found in run.logged_artifacts()] == ["a:v0"]
    assert artfs.Api().artifact("a:again").id == artifact.id


def test_the_current_run(home):
    assert artfs.run is None
    with artfs.init(mode="online", notes="ignored") as outer:
        assert artfs.run is outer
        assert artfs.init() is outer
        with artfs.init(reinit="create_new", project="other") as inner:
            assert artfs.run is inner
        assert artfs.run is outer
        following = artfs.init(reinit="finish_previous", id="mine")
        assert artfs.Api().run(outer.id).state == "finished"
    artfs.finish()
    assert artfs.run is None
    assert artfs.Api().run("mine").id == following.id
    with artfs.init(id="mine"):
        assert artfs.Api().run("mine").state == "running"


def test_how_runs_end(home):
    api = artfs.Api()
    with pytest.raises(ZeroDivisionError), artfs.init(id="failed"):
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), artfs.init(id="crashed"):
        raise KeyboardInterrupt
    artfs.init(id="exit").finish(exit_code=1)
    assert [api.run(name).state for name in ("failed", "crashed", "exit")] == ["failed", "crashed", "failed"]


def test_a_failure_surfaces_at_finish(home, write):
    artifact = artfs.Artifact("a", "t")
    artifact.add_file(write("f", "1"))
    run = artfs.init(id="broken")
    write("f", "other")
    run.log_artifact(artifact)
    with pytest.raises(artfs.Error, match="changed while it was being logged"):
        run.finish()
    assert artfs.Api().run("broken").state == "failed"
    assert not artfs.Api().artifact_exists("a")


def test_without_a_run(home):
    """W&B refuses; here a run of type "auto" is made."""
    artifact = artfs.log_artifact(of("a"))
    assert artifact.version == "v0"
    assert artfs.use_artifact("a:latest").id == artifact.id
    assert artfs.link_artifact(artifact, "shelf").is_link
    assert {run.job_type for run in artfs.Api().runs()} == {"auto"}


def test_api_lists(home):
    with artfs.init() as run:
        for text in "123":
            run.log_artifact(of("a", text), tags=["odd"] if text in "13" else None)
        run.log_artifact(of("b", type="model")).wait().link("shelf")
        run.log_artifact(of("c")).wait()
    api = artfs.Api()
    assert [artifact.version for artifact in api.artifacts("dataset", "a")] == ["v2", "v1", "v0"]
    assert [artifact.version for artifact in api.artifacts("dataset", "vision/a", order="+created_at")] == [
        "v0",
        "v1",
        "v2",
    ]
    assert [artifact.version for artifact in api.artifacts("dataset", "a", tags="odd")] == ["v2", "v0"]
    assert len(api.artifact_versions("dataset", "a")) == api.artifacts("dataset", "a").length == 3
    assert [found.name for found in api.artifact_collections("vision", "dataset")] == ["a", "c"]
    assert [found.name for found in api.artifact_types("acme/vision")] == ["dataset", "model"]
    assert [found.name for found in api.artifact_type("model").collections()] == ["b", "shelf"]
    collection = api.artifact_collection("dataset", "a")
    assert (collection.entity, collection.project, collection.type) == ("acme", "vision", "dataset")
    assert collection.aliases == ["latest"]
    assert collection.is_sequence()
    assert [artifact.version for artifact in collection.artifacts()[:2]] == ["v2", "v1"]
    collection.description = "digits"
    collection.save()
    assert api.artifact_collection("dataset", "a").description == "digits"
    for missing in (
        lambda: api.artifact_collection("model", "a"),
        lambda: api.artifact_type("x"),
        lambda: api.artifact("x"),
    ):
        with pytest.raises(VersionNotFound):
            missing()
    assert api.artifact_exists("a:v1", type="dataset")
    assert not api.artifact_exists("a:v1", type="model")
    assert not api.artifact_exists("a:v9")
    assert api.artifact_collection_exists("a", "dataset")
    assert not api.artifact_collection_exists("a", "model")
    with pytest.raises(ValueError, match="Supplied type"):
        api.artifact("a", type="model")
    assert artfs.Api(overrides={"project": "nowhere"}).artifact_exists("a") is False
    collection.delete()
    assert not api.artifact_exists("a")


def test_a_program_that_just_ends(home, work, write):
    """As the documentation's first example: no finish(), no wait()."""
    write("mnist/1.png", "x")
    program = """
        import artfs as wandb
        wandb.init()
        artifact = wandb.Artifact("mnist", type="dataset")
        artifact.add_dir("mnist/")
        wandb.log_artifact(artifact)
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(program)], cwd=work, check=True, timeout=60)
    artifact = artfs.Api().artifact("mnist")
    assert artifact.logged_by().state == "finished"


@pytest.mark.parametrize("where", ["run._interrupted.wait()", "run.finish()", "saving.wait()"])
def test_an_interrupted_program(home, work, write, where):
    """Ctrl-C while logging: the run is crashed, no version is made, nothing hangs."""
    for index in range(300):
        write(f"d/{index}", str(index))
    program = """
        import artfs, artfs.sdk.publish as publish, os, signal, threading
        ingest, interrupted = publish.ingest, []
        def slow(*args):
            for entry in ingest(*args):
                yield entry
                if not interrupted:
                    interrupted.append(True)
                    os.kill(os.getpid(), signal.SIGINT)
                run._interrupted.wait(30)
        publish.ingest = slow
        artifact = artfs.Artifact("d", "t")
        artifact.add_dir("d")
        run = artfs.init(id="mine")
        saving = run.log_artifact(artifact)
    """
    code = textwrap.dedent(program) + where
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=work, timeout=60, capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in ended.stderr
    assert artfs.Api().run("mine").state == "crashed"
    assert not artfs.Api().artifact_exists("d")


def test_type_mismatch_names_both(home):
    artfs.log_artifact(of("a"))
    with pytest.raises(TypeMismatch, match="already exists with type 'dataset'; cannot log a version of type 'model'"):
        artfs.log_artifact(of("a", type="model"))


def test_threads_that_log_one_artifact_make_one_version(home, monkeypatch):
    published = []
    publish = run_module.publish
    monkeypatch.setattr(run_module, "publish", lambda plan: (published.append(plan), publish(plan))[1])
    with artfs.init() as run:
        for number in range(10):
            artifact = artfs.Artifact("shared", "dataset")
            for index in range(50):
                artifact.add_reference(f"foo://x/{number}/{index}", name=f"f{index}")
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda alias, one=artifact: run.log_artifact(one, aliases=alias).wait(), "abcd"))
            assert (artifact.version, len(published)) == (f"v{number}", number + 1)
            assert artfs.Api().artifact("shared").aliases == ["a", "b", "c", "d", "latest"]


def test_what_fails_in_a_forked_child_is_raised_there(home):
    run = artfs.init()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            artifact = of("doomed")
            os.unlink(artifact.manifest.entries["f"].local_path)
            run.log_artifact(artifact)
            run.finish()
        except SourceUnreadable:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert artfs.Api().run(run.path).state == "running"


def test_what_a_parent_is_logging_is_not_waited_for_in_its_child(home, monkeypatch):
    go = threading.Event()
    publish = run_module.publish
    monkeypatch.setattr(run_module, "publish", lambda plan: (go.wait(30), publish(plan))[1])
    run = artfs.init()
    artifact = run.log_artifact(of("slow"))
    pid = os.fork()
    if pid == 0:
        try:
            artifact.wait()
        except artfs.ArtifactNotLoggedError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    go.set()
    assert artifact.wait().version == "v0"


IN_A_CHILD = """
    import artfs, os, sys
    def of(text):
        artifact = artfs.Artifact("forked", "dataset")
        with artifact.new_file("f") as file:
            file.write(text)
        return artifact
    run = artfs.init()
    run.log_artifact(of("1")).wait()
    kept = of("3")
    pid = os.fork()
    if pid == 0:
        {child}
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert artfs.Api().run(run.path).state == "running"
    print(run.log_artifact(kept).wait().version)
"""


@pytest.mark.parametrize(
    ("child", "version"),
    [
        ("run.log_artifact(of('2')).wait(); os._exit(0)", "v2"),
        ("run.log_artifact(of('2')).wait(); sys.exit()", "v2"),
        ("artfs.finish(); run.finish(); sys.exit()", "v1"),
        ("del kept; sys.exit()", "v1"),
    ],
    ids=["logs", "logs and ends", "finishes", "forgets"],
)
def test_a_forked_child_logs_to_its_parents_run_and_takes_nothing_from_it(home, child, version):
    program = textwrap.dedent(IN_A_CHILD).format(child=child)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program], check=True, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == [version]


def test_reinit_as_in_wandb(home):
    first = artfs.init()
    for same in (None, False, "default", "return_previous"):
        assert artfs.init(reinit=same) is first
    second = artfs.init("other", "elsewhere", reinit=True)
    assert artfs.Api().run(first.path).state == "finished"
    assert second.path.startswith("other/elsewhere/")
    assert artfs.init(reinit="create_new") is not second
    with pytest.raises(ValueError, match="'zzz' is none of"):
        artfs.init(reinit="zzz")
    while artfs.run:
        artfs.finish()


def test_models(home, tmp_path):
    (tmp_path / "weights").write_text("w")
    with artfs.init() as run:
        run.log_model(tmp_path / "weights", "net", aliases="best")
        assert Path(run.use_model("net:best")).read_text() == "w"
        linked = artfs.link_model(tmp_path / "weights", "champion", "net")
        assert linked.qualified_name == "acme/model-registry/champion:v0"
        run.log_artifact(of("data"))
        with pytest.raises(ValueError, match="substring 'model'"):
            artfs.use_model("data")
        with pytest.raises(ValueError, match="only the name of the registered model"):
            run.link_model(tmp_path / "weights", "a/b")
        with pytest.raises(ValueError, match="substring 'model'"):
            run.link_model(tmp_path / "weights", "champion", "data")


def test_arguments_of_wandb(chain):
    api = artfs.Api({"entity": "acme"}, timeout=19, api_key="x")
    names = [found.name for found in api.artifact_collections("vision", "dataset", order="-created_at")]
    assert names == ["raw"]
    with pytest.raises(ValueError, match="cannot be ordered by 'name'"):
        api.artifact_collections("vision", "dataset", order="name")
    with pytest.raises(ValueError, match="cannot be filtered"):
        api.runs("vision", {"state": "finished"})
    assert artfs.data_types.Table is artfs.Table
    files = api.artifact("raw").files()
    assert [file.name for file in files[0:1]] == ["f"]
    assert [file.name for file in files[::-1]] == ["f"]
