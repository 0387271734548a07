import pytest

from artfs.errors import Conflict, InvalidText, NotFound, VersionNotFound
from artfs.registry import State


def make_run(registry, name="train", project="vision"):
    return registry.create_run("acme", project, name, "training", {"lr": 0.1})


def test_a_run_from_beginning_to_end(registry):
    key = make_run(registry)
    assert len(key) == 8
    run = registry.run(key)
    assert (run.entity, run.project, run.name, run.job_type) == ("acme", "vision", "train", "training")
    assert (run.config, run.state, run.finished_at) == ({"lr": 0.1}, "running", None)
    registry.finish_run(key, "failed")
    run = registry.run(key)
    assert run.state == "failed"
    assert run.finished_at >= run.created_at
    with pytest.raises(NotFound):
        registry.finish_run("nothing")


def test_a_run_is_resumed_by_its_id(registry):
    key = registry.create_run("acme", "vision", run_id="mine")
    assert registry.run(key).name == "mine"
    registry.finish_run(key)
    assert registry.create_run("acme", "vision", run_id="mine") == "mine"
    assert registry.run(key).state == "running"
    with pytest.raises(Conflict):
        registry.create_run("acme", "other", run_id="mine")


@pytest.mark.parametrize("what", ["name", "job_type", "run_id"])
def test_what_is_no_text_does_not_describe_a_run(registry, what):
    with pytest.raises(InvalidText):
        registry.create_run("acme", "vision", **{what: "\udcff"})


def test_runs_of_a_project_come_newest_first(registry):
    keys = []
    for i in range(3):
        keys.append(make_run(registry, f"r{i}"))
        while registry.now() <= registry.run(keys[-1]).created_at:
            pass
    make_run(registry, project="other")
    assert [run.id for run in registry.runs("acme", "vision")] == keys[::-1]
    with pytest.raises(VersionNotFound):
        registry.runs("acme", "none")


def test_lineage(registry, shelf):
    first, second = make_run(registry), make_run(registry)
    version = shelf.log("a", begin={"run": first}).version
    assert version.run_id == first
    assert registry.logged_by(version.id).id == first
    assert registry.used_by(version.id) == ()
    for _ in range(2):
        registry.record_input(second, version.id)
    assert [run.id for run in registry.used_by(version.id)] == [second]
    assert [row.id for row in registry.run_outputs(first)] == [version.id]
    assert [row.id for row in registry.run_inputs(second)] == [version.id]
    assert registry.run_inputs(first) == ()
    with pytest.raises(NotFound):
        registry.record_output("nothing", version.id)
    with pytest.raises(VersionNotFound):
        registry.record_output(first, "nothing")


def test_a_run_that_logs_known_content_is_remembered_but_not_as_its_origin(registry, shelf):
    first, second = make_run(registry), make_run(registry)
    version = shelf.log("a", begin={"run": first}).version
    while registry.now() <= version.linked_at:
        pass
    assert not shelf.log("a", begin={"run": second}).created
    assert registry.logged_by(version.id).id == first
    assert [row.id for row in registry.run_outputs(second)] == [version.id]


def test_lineage_outlives_deletion(registry, shelf):
    run = make_run(registry)
    version = shelf.log("a", begin={"run": run}).version
    registry.delete_version(version.id, delete_aliases=True)
    (output,) = registry.run_outputs(run)
    assert output.state is State.DELETED
    assert str(output.source_name) == "acme/vision/mnist:v0"


def test_a_version_without_a_run_has_no_logger(registry, shelf):
    assert registry.logged_by(shelf.log().version.id) is None


def test_a_version_is_begun_only_for_a_run_that_exists(registry, shelf):
    with pytest.raises(NotFound, match="nothing"):
        shelf.begin(run="nothing")
