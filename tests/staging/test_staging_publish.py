"""From a staging area to a draft or version: what is stored, what is kept when it fails, what two people get."""

import contextlib
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
import time

import pytest
from homes import make_tree, open_repository, tree_of, wait_until

from artfs.digests import md5_base64
from artfs.errors import BaseOutdated, DraftInUse, DraftNeeded, InvalidPath, NotFound, TypeRequired, VersionNotFound
from artfs.names import CollectionName
from artfs.staging.mounted import Plan, StagedMount, Status, StatusFile
from artfs.staging.overlap import overlap_of_draft
from artfs.staging.session import begin, commit_area, commit_draft, discard_area, discard_draft, find, left_behind
from artfs.versions.download import download
from artfs.versions.log import Labels, log_path

COLLECTION = CollectionName("acme", "uncategorized", "data")
LONG_10G = pytest.param(10 << 30, id="10G", marks=[pytest.mark.long, pytest.mark.timeout(1800)])
BASE = {"a/one": b"1" * 100, "a/two": b"2" * 5000, "keep": b"kept", "empty": None}


def nobody(_files, _size):
    """Progress that nobody watches."""


def soon():
    return time.monotonic() + 20


def resolve(tree, path):
    inode = 1
    for name in path.split("/") if path else ():
        found = tree.lookup(inode, name, soon())
        assert found is not None, path
        inode = found.inode
    return inode


def put(tree, path, data, offset=0):
    parent, _, name = path.rpartition("/")
    directory = resolve(tree, parent)
    found = tree.lookup(directory, name, soon())
    if found is None:
        inode = tree.create(directory, name, 0o644).inode
    else:
        inode = found.inode
        tree.open(inode)
    tree.write(inode, offset, data, soon())
    tree.release(inode)


@pytest.fixture
def home(tmp_path):
    with open_repository(tmp_path / "home") as repository:
        log_path(repository, make_tree(tmp_path / "source", BASE), COLLECTION, "dataset")
    return tmp_path / "home"


@pytest.fixture
def stage(home, tmp_path):
    """``stage(name)`` mounts writable, without a kernel."""
    mounts = []

    def open_stage(name="data", *, plan=Plan(), type_=None):  # noqa: B008 - frozen
        repository = open_repository(home)
        try:
            area, base = begin(repository, repository.parse(name), type_)
        except BaseException:
            repository.close()
            raise
        status = StatusFile(tmp_path / f"status{len(mounts)}.json")
        mounts.append(StagedMount(repository, area, base, plan, status))
        return mounts[-1], status

    yield open_stage
    for mount in mounts:
        if not mount._closing:
            mount.close()


@pytest.fixture
def repository(home):
    with open_repository(home) as opened:
        yield opened


def content(repository, name, directory):
    version = repository.resolve(repository.parse(name)).version
    download(repository, repository.catalog(version), str(directory))
    return tree_of(directory)


def test_unmounting_makes_a_draft_of_what_changed(stage, repository, tmp_path):
    mount, status = stage()
    put(mount, "a/three", b"3")
    put(mount, "keep", b"KE")
    mount.unlink(resolve(mount, "a"), "one")
    mount.rename(resolve(mount, "a"), "two", 1, "moved")
    mount.close()
    told = status.read()
    assert told.state == "done"
    assert told.outcome["counts"] == {"added": 1, "changed": 2, "removed": 1}
    (draft,) = repository.registry.drafts()
    assert told.outcome["name"] == str(draft.name)
    expected = {"a/three": b"3", "keep": b"KEpt", "moved": b"2" * 5000, "empty": None}
    assert content(repository, str(draft.name), tmp_path / "draft") == expected
    assert list(left_behind(repository)) == []
    assert str(repository.registry.resolve(repository.parse("data")).name) == "acme/uncategorized/data:v0"
    done = commit_draft(repository, draft, Labels(("best",)))
    assert str(done.version.name) == "acme/uncategorized/data:v1"
    assert set(done.version.aliases) == {"latest", "best"}
    assert content(repository, "data:best", tmp_path / "version") == expected
    with pytest.raises(NotFound):
        commit_draft(repository, done.version, Labels())


def test_no_change_makes_no_draft_and_says_so(stage, repository):
    mount, status = stage()
    put(mount, "new", b"x")
    mount.unlink(1, "new")
    mount.close()
    assert status.read().state == "nothing"
    assert repository.registry.drafts() == ()
    assert list(left_behind(repository)) == []


def test_commit_at_unmount(stage, repository):
    mount, status = stage(plan=Plan(Labels(("cleaned",))))
    put(mount, "keep", b"KEPT")
    mount.close()
    assert status.read().outcome["committed"]
    assert str(repository.registry.resolve(repository.parse("data:cleaned")).name).endswith(":v1")


def test_a_collection_that_does_not_exist_starts_empty(stage, repository, tmp_path):
    with pytest.raises(TypeRequired):
        stage("fresh")
    with pytest.raises(VersionNotFound):
        stage("data:nothing")
    mount, _ = stage("fresh", type_="model", plan=Plan(Labels()))
    put(mount, "weights", b"w" * 1000)
    mount.close()
    assert content(repository, "fresh:v0", tmp_path / "fresh") == {"weights": b"w" * 1000}


def test_an_edit_in_the_middle_of_a_large_file_stores_the_blocks_it_touches(stage, repository, tmp_path, home):
    data = random.Random(1).randbytes(24 << 20)
    source = make_tree(tmp_path / "large", {"big": data})
    log_path(repository, source, CollectionName("acme", "uncategorized", "large"), "dataset")
    mount, status = stage("large")
    put(mount, "big", b"edited", offset=(5 << 20) + 17)
    put(mount, "big", b"tail", offset=len(data))
    mount.close()
    assert 1 << 20 <= status.read().outcome["stored_bytes"] < (1 << 20) + 100_000
    (draft,) = repository.registry.drafts()
    expected = bytearray(data)
    expected[(5 << 20) + 17 : (5 << 20) + 23] = b"edited"
    assert content(repository, str(draft.name), tmp_path / "got") == {"big": bytes(expected) + b"tail"}


@pytest.mark.parametrize("size", [pytest.param(150 << 20, id="150M"), LONG_10G])
def test_a_large_file_is_not_fetched_to_be_edited(stage, repository, tmp_path, size):
    """The source is sparse, so that it is cheap; a reader fetches what it reads all the same."""
    source = make_tree(tmp_path / "large", {"big": b""})
    os.truncate(source / "big", size)
    log_path(repository, source, CollectionName("acme", "uncategorized", "large"), "dataset")
    mount, status = stage("large")
    offset = (size // 3 & ~0xFFFFF) + 4096
    put(mount, "big", b"e" * 4096, offset=offset)
    statistics = mount.statistics()
    assert statistics["store"]["bytes_in"] == statistics["cache"]["bytes_read"] == 0
    mount.close()
    assert 1 << 20 <= status.read().outcome["stored_bytes"] < (1 << 20) + 100_000
    (draft,) = repository.registry.drafts()
    with contextlib.closing(repository.catalog(draft)) as catalog:
        (big,) = (entry for entry in catalog.leaves() if entry.path == "big")
    expected = hashlib.md5(usedforsecurity=False)
    for start in range(0, size, 1 << 20):
        block = bytearray(min(1 << 20, size - start))
        if start <= offset < start + len(block):
            block[offset - start : offset - start + 4096] = b"e" * 4096
        expected.update(block)
    assert (big.size, big.digest) == (size, md5_base64(expected.digest()))


def test_going_on_with_a_draft_makes_a_new_one_in_its_place(stage, repository, tmp_path):
    first, _ = stage()
    put(first, "one", b"1")
    first.close()
    (draft,) = repository.registry.drafts()
    second, _ = stage(str(draft.name))
    with pytest.raises(DraftInUse):
        stage(str(draft.name))
    with pytest.raises(DraftInUse):
        commit_draft(repository, draft, Labels())
    with pytest.raises(DraftInUse):
        discard_draft(repository, draft)
    put(second, "two", b"2")
    second.close()
    (again,) = repository.registry.drafts()
    assert again.id != draft.id
    assert again.base_id == draft.base_id
    found = content(repository, str(again.name), tmp_path / "draft")
    assert (found["one"], found["two"]) == (b"1", b"2")


def test_two_people_from_one_base(stage, repository):
    first, told_first = stage(plan=Plan(Labels()))
    second, told_second = stage(plan=Plan(Labels()))
    third, told_third = stage(plan=Plan(Labels(), require_latest=True))
    for mount, word in ((first, b"f"), (second, b"s"), (third, b"t")):
        put(mount, "keep", word)
        put(mount, f"of-{word.decode()}", word)
    first.close()
    second.close()
    third.close()
    assert told_first.read().outcome["newer"] == ""
    outcome = told_second.read().outcome
    assert outcome["name"] == "acme/uncategorized/data:v2"
    assert outcome["newer"] == "acme/uncategorized/data:v1"
    assert outcome["overlap"] == ["keep"]
    kept = told_third.read()
    assert kept.state == "kept"
    assert kept.exit_code == BaseOutdated.exit_code
    (left,) = left_behind(repository)
    assert left.process is None
    commit_area(repository, left, Labels(), require_latest=False, progress=nobody)
    assert repository.registry.resolve(repository.parse("data")).index == 3


def test_a_rename_clashes_with_a_change_of_what_was_renamed(stage, repository):
    # SEMANTICS: a rename concerns both of its paths
    first, _ = stage(plan=Plan(Labels()))
    second, told_second = stage(plan=Plan(Labels()))
    third, _ = stage()
    first.rename(resolve(first, "a"), "two", 1, "moved")
    first.close()
    put(second, "a/two", b"edited")
    second.close()
    assert told_second.read().outcome["overlap"] == ["a/two"]
    third.rename(1, "keep", 1, "kept")
    third.unlink(resolve(third, "a"), "two")
    third.close()
    (draft,) = repository.registry.drafts()
    assert overlap_of_draft(repository, draft) == ("acme/uncategorized/data:v2", ("a/two",))


def test_committing_what_was_not_changed_leaves_latest_where_it_is(stage, repository):
    # SEMANTICS: nothing changed makes no version either, and leaves `latest` where others have taken it meanwhile
    idle, told = stage(plan=Plan(Labels()))
    busy, _ = stage(plan=Plan(Labels()))
    put(busy, "keep", b"new")
    busy.close()
    idle.close()
    assert told.read().state == "nothing"
    assert str(repository.registry.resolve(repository.parse("data")).name) == "acme/uncategorized/data:v1"


def test_aliases_of_what_was_not_changed_go_to_the_base(stage, repository):
    # SEMANTICS: the aliases that were asked for go to the base
    idle, told = stage(plan=Plan(Labels(("asked",))))
    busy, _ = stage(plan=Plan(Labels()))
    put(busy, "keep", b"new")
    busy.close()
    idle.close()
    assert told.read().outcome["name"] == "acme/uncategorized/data:v0"
    assert not told.read().outcome["created"]
    assert repository.registry.aliases(COLLECTION) == {"asked": 0, "latest": 1}
    assert list(left_behind(repository)) == []
    fresh, told = stage("fresh", type_="model", plan=Plan(Labels(("asked",))))
    fresh.close()
    assert told.read().state == "nothing"


def modes(repository, name):
    version = repository.resolve(repository.parse(name)).version
    with contextlib.closing(repository.catalog(version)) as catalog:
        return {entry.path: entry.mode for entry in catalog.entries()} | {".": catalog.node(1).mode}


@pytest.mark.parametrize("path", ["keep", "a", "empty", ""], ids=["file", "directory", "empty directory", "root"])
@pytest.mark.parametrize("how", ["draft", "commit"])
def test_changed_permissions_alone_make_a_version(stage, repository, path, how):
    mount, told = stage(plan=Plan(Labels() if how == "commit" else None))
    busy, _ = stage(plan=Plan(Labels()))
    put(busy, "keep", b"new")
    busy.close()
    mount.set_attributes(resolve(mount, path), 0o640, None, None, soon())
    mount.close()
    assert told.read().outcome["counts"] == {"added": 0, "changed": 1, "removed": 0}
    if how == "draft":
        (draft,) = repository.registry.drafts()
        assert str(commit_draft(repository, draft, Labels()).version.name) == "acme/uncategorized/data:v2"
    assert repository.registry.aliases(COLLECTION) == {"latest": 2}
    assert modes(repository, "data:latest") == modes(repository, "data:v0") | {path or ".": 0o640}


def test_permissions_changed_back_are_the_version_that_had_them(stage, repository):
    for mode in (0o600, 0o644):
        mount, told = stage("data:latest", plan=Plan(Labels()))
        mount.set_attributes(resolve(mount, "keep"), mode, None, None, soon())
        mount.close()
    outcome = told.read().outcome
    assert (outcome["name"], outcome["created"]) == ("acme/uncategorized/data:v0", False)
    assert len(repository.registry.versions(COLLECTION)) == 2


def test_a_draft_to_which_nothing_was_added_is_committed_at_unmount(stage, repository):
    first, _ = stage()
    put(first, "keep", b"drafted")
    first.close()
    (draft,) = repository.registry.drafts()
    second, told = stage(str(draft.name), plan=Plan(Labels()))
    second.close()
    assert told.read().outcome["name"] == "acme/uncategorized/data:v1"


def test_drafts_of_new_collections_overlap_in_what_both_hold(stage, repository):
    for word in (b"f", b"s"):
        mount, _ = stage("fresh", type_="model")
        put(mount, "both", word)
        put(mount, f"of-{word.decode()}", word)
        mount.close()
    one, other = repository.registry.drafts()
    assert overlap_of_draft(repository, one) == ("", ())
    commit_draft(repository, one, Labels())
    assert overlap_of_draft(repository, other) == ("acme/uncategorized/fresh:v0", ("both",))


def test_the_end_of_one_mount_is_not_told_over_the_next_one(tmp_path):
    status = StatusFile(tmp_path / "status.json")
    status.write(Status("mounted", area="first"))
    status.write(Status("mounted", area="second"))
    status.write(Status("done", area="first"))
    assert status.read() == Status("mounted", area="second")


def test_store_out_of_reach_at_unmount(stage, repository, home, tmp_path):
    mount, status = stage()
    put(mount, "new", b"n" * 3000)
    (home / "store").rename(home / "away")
    (home / "store").write_bytes(b"")  # what is no directory cannot be used
    mount.close()
    told = status.read()
    assert told.state == "kept"
    assert told.error
    (left,) = left_behind(repository)
    assert find(repository, left.id[:6]).id == left.id
    (home / "store").unlink()
    (home / "away").rename(home / "store")
    outcome = commit_area(repository, left, Labels(), require_latest=False, progress=nobody)
    assert outcome.committed
    assert content(repository, "data", tmp_path / "got")["new"] == b"n" * 3000
    assert list(left_behind(repository)) == []


def test_a_draft_that_an_area_needs_is_not_discarded(stage, repository):
    first, _ = stage()
    put(first, "one", b"1")
    first.close()
    (draft,) = repository.registry.drafts()
    area, base = begin(repository, repository.parse(str(draft.name)), None)
    base.close()
    area.close()  # it stays, as when its daemon was killed
    with pytest.raises(DraftNeeded):
        discard_draft(repository, draft)
    (left,) = left_behind(repository)
    discard_area(repository, left)
    discard_draft(repository, draft)
    assert repository.registry.drafts() == ()


def test_discarding_what_was_left_behind(stage, repository, home):
    mount, _ = stage(plan=Plan(Labels(), require_latest=True))
    put(mount, "keep", b"x")
    other, _ = stage(plan=Plan(Labels()))
    put(other, "keep", b"y")
    other.close()
    mount.close()
    (left,) = left_behind(repository)
    discard_area(repository, left)
    assert list(left_behind(repository)) == []
    assert not left.path.exists()


def test_closed_files_that_have_rested_are_stored_while_the_user_works(stage, repository, home, monkeypatch):
    monkeypatch.setattr("artfs.staging.mounted._REST", 0)
    monkeypatch.setattr("artfs.staging.mounted._ROUND", 0.02)
    mount, _ = stage()
    data = random.Random(2).randbytes(70 << 20)
    for start in range(0, len(data), 10 << 20):  # more than a pack holds, so one is sealed and stored
        put(mount, f"part{start}", data[start : start + (10 << 20)])
    end = time.monotonic() + 30
    while not any((home / "store" / "packs").glob("*/*/")) and len(list((home / "store" / "packs").glob("*/*"))) < 2:
        assert time.monotonic() < end, "nothing was uploaded while the mount was in use"
        time.sleep(0.02)
    assert repository.registry.drafts() == ()
    mount.close()
    assert len(repository.registry.drafts()) == 1


def test_an_area_whose_files_have_times_beyond_64_bits_is_published(stage, repository, tmp_path):
    mount, told = stage()
    put(mount, "new", b"new")
    put(mount, "keep", b"KEPT")
    far = 10_413_792_000 * 10**9  # 2300
    for name in ("new", "keep"):
        os.utime(mount._files.path(resolve(mount, name)), ns=(far, far))
    mount.close()
    assert told.read().state == "done"
    assert content(repository, told.read().outcome["name"], tmp_path / "got")["new"] == b"new"


def test_a_defect_in_uploading_ahead_is_logged_and_does_not_end_it(stage, monkeypatch, caplog):
    tries = []

    def broken(_mount):
        tries.append(1)
        raise RuntimeError("a defect")

    monkeypatch.setattr("artfs.staging.mounted._ROUND", 0.01)
    monkeypatch.setattr("artfs.staging.mounted._RETRY", 0.01)
    monkeypatch.setattr(StagedMount, "_upload_rested", broken)
    mount, told = stage()
    wait_until(lambda: len(tries) > 1, "it is tried again")
    put(mount, "new", b"new")
    mount.close()
    assert told.read().state == "done"
    assert "a defect" in caplog.text


def test_a_path_that_a_rename_made_too_long_is_refused_and_the_area_kept(stage, repository):
    # SEMANTICS: what lies beneath it may then exceed 4,096 bytes, which publishing refuses, naming the path.
    mount, told = stage()
    tops = []
    for letter in "xy":
        parent = 1
        for _ in range(9):
            parent = mount.make_directory(parent, letter * 255, 0o755).inode
        tops.append(parent)
    put_in = mount.create(tops[1], "f", 0o644).inode
    mount.release(put_in)
    mount.rename(1, "y" * 255, tops[0], "y")
    mount.close()
    status = told.read()
    assert (status.state, status.exit_code) == ("kept", 4)
    assert "longer than 4096 bytes" in status.error
    (left,) = left_behind(repository)
    with pytest.raises(InvalidPath, match="x" * 64):
        commit_area(repository, left, Labels(), require_latest=False, progress=nobody)
    assert left.path.exists()


CHILD = """
import sys
from homes import open_repository
from test_staging_publish import put
from artfs.staging.mounted import Plan, StagedMount
from artfs.staging.session import begin
from artfs.versions.log import Labels
repository = open_repository(sys.argv[1])
area, base = begin(repository, repository.parse("data"), None)
mount = StagedMount(repository, area, base, Plan(Labels() if sys.argv[2] == "commit" else None))
put(mount, "new", b"n" * 3000)
put(mount, "keep", b"KEPT")
mount.close()
print("closed")
"""


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        *itertools.product(["hashed", "published"], ["draft", "commit"]),
        *itertools.product(["pack-stored", "pack-registered", "catalog-stored"], ["draft"]),
        ("visible", "commit"),
    ],
)
def test_killed_between_two_steps_nothing_is_lost_and_nothing_half_visible(home, repository, tmp_path, fault, end):
    paths = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]
    environment = os.environ | {"ARTFS_FAULT": fault, "PYTHONPATH": os.pathsep.join(paths)}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(home), end], env=environment, capture_output=True, check=False
    )
    assert child.returncode == -9, child.stderr.decode()
    expected = BASE | {"new": b"n" * 3000, "keep": b"KEPT"}
    visible = [str(row.name) for row in repository.registry.versions(COLLECTION)]
    if fault in {"published", "visible"} and end == "commit":
        assert len(visible) == 2
    else:
        assert len(visible) == 1
    (left,) = left_behind(repository)
    outcome = commit_area(repository, left, Labels(), require_latest=False, progress=nobody)
    assert content(repository, outcome.name, tmp_path / "got") == expected
    assert len(repository.registry.versions(COLLECTION)) == 2
    assert list(left_behind(repository)) == []


def test_the_status_file_is_never_half_written(tmp_path):
    status = StatusFile(tmp_path / "deep" / "status.json")
    assert status.read() is None
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "status.json").write_text(json.dumps({"unknown": 1}))
    assert status.read() is None
