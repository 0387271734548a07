"""Logging: what becomes a version, what is stored for it, and what failures leave behind."""

import contextlib
import hashlib
import os
import subprocess
import sys

import pytest
from homes import OLD, Link, as_nobody, make_tree, open_repository, settings_of, soon, wait_until

from artfs.catalog import Kind, diff
from artfs.errors import (
    InvalidMetadata,
    InvalidName,
    InvalidText,
    SourceChanged,
    SourceUnreadable,
    TypeMismatch,
    VersionNotFound,
)
from artfs.names import CollectionName
from artfs.versions import ingest
from artfs.versions.log import Labels, log_path
from artfs.versions.metadata import check_metadata
from artfs.versions.repository import Repository

CONTENT = {
    "a.txt": b"first",
    "d/b.bin": bytes(range(256)) * 300,
    "d/link": Link("../a.txt"),
    "empty": None,
    "nothing": b"",
    "run.sh": b"#!/bin/sh\n",
}


def stored(repository):
    return {found.key: found.size for found in repository.store.list("packs")}


def nothing_visible(repository, collection):
    """No version, no row that is being written, no scratch directory."""
    assert not list(repository.settings.cache_dir.glob("publish-*"))
    assert repository.registry.drafts() == ()
    with pytest.raises(VersionNotFound):
        repository.registry.resolve(collection.at("latest"))
    with repository.registry.database.read() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM version").scalar_one() == 0


# -- what a version holds


def test_a_version_holds_all_that_the_source_does(tmp_path, repository, log):
    # SEMANTICS: Kept: content, permission bits (`& 0777`), mtime in nanoseconds, symbolic links, empty directories.
    source = make_tree(tmp_path / "src", CONTENT)
    (source / "run.sh").chmod(0o750)
    published = log(source, "best", labels={"description": "d", "metadata": {"k": [1]}, "tags": ("t",)})
    version = published.version
    assert published.created
    assert (str(version.name), version.aliases, version.tags) == ("acme/vision/mnist:v0", ("best", "latest"), ("t",))
    assert (version.description, version.metadata, version.file_count) == ("d", {"k": [1]}, 4)
    assert version.size == sum(len(data) for data in CONTENT.values() if type(data) is bytes)
    catalog = repository.catalog(version)
    entries = {entry.path: entry for entry in catalog.entries()}
    assert list(entries) == ["a.txt", "d", "d/b.bin", "d/link", "empty", "nothing", "run.sh"]
    assert (entries["run.sh"].mode, entries["d/link"].target, entries["empty"].kind) == (
        0o750,
        "../a.txt",
        Kind.DIRECTORY,
    )
    assert {entry.mtime_ns for entry in entries.values()} == {OLD}
    assert catalog.node(1).mtime_ns == OLD
    catalog.close()


def test_a_single_file(tmp_path, repository, log):
    (tmp_path / "model.bin").write_bytes(b"weights")
    version = log(tmp_path / "model.bin").version
    catalog = repository.catalog(version)
    assert [(entry.path, entry.size) for entry in catalog.entries()] == [("model.bin", 7)]
    catalog.close()


def test_an_empty_directory(tmp_path, log):
    version = log(make_tree(tmp_path / "src", {})).version
    assert (version.file_count, version.size) == (0, 0)


def test_excluded_and_ignored_files_stay_out(tmp_path, repository, log):
    source = make_tree(tmp_path / "src", {"keep": b"1", "a.tmp": b"2", "logs/x": b"3", ".artfsignore": b"*.tmp\n"})
    catalog = repository.catalog(log(source, exclude=["logs/"]).version)
    assert [entry.path for entry in catalog.entries()] == [".artfsignore", "keep"]
    catalog.close()


# -- what makes a new version


def test_the_same_content_makes_no_version_and_moves_the_aliases(tmp_path, repository, log):
    # SEMANTICS: Logging content equal to an existing version of the collection makes no new version:
    source = make_tree(tmp_path / "src", CONTENT)
    first = log(source)
    (source / "a.txt").write_bytes(b"second")
    assert str(log(source, "best").version.name).endswith(":v1")
    (source / "a.txt").write_bytes(b"first")
    before = stored(repository)
    catalogs = list(repository.store.list("catalogs"))
    again = log(source, "best")
    assert (again.created, again.version.id, again.stored_bytes) == (False, first.version.id, 0)
    assert again.version.aliases == ("best", "latest")
    assert stored(repository) == before
    assert list(repository.store.list("catalogs")) == catalogs


def test_an_mtime_alone_makes_no_version(tmp_path, log):
    # SEMANTICS: a changed mtime alone does not.
    source = make_tree(tmp_path / "src", CONTENT)
    log(source)
    os.utime(source / "a.txt")
    assert not log(source).created


def test_a_time_that_64_bits_do_not_hold_becomes_the_nearest(tmp_path, repository, log, remembered):
    # SEMANTICS: Modification times are kept from 1677 to 2262, which is what 64 bits of nanoseconds hold;
    source = make_tree(tmp_path / "src", CONTENT)
    far = 10_413_792_000 * 10**9  # 2300
    for path in (source / "a.txt", source / "d/link", source / "d", source / "empty", source):
        os.utime(path, ns=(far, far), follow_symlinks=False)
    version = log(source).version
    with contextlib.closing(repository.catalog(version)) as catalog:
        assert catalog.node(1).mtime_ns == 2**63 - 1
        times = {entry.path: entry.mtime_ns for entry in catalog.entries()}
    assert {path for path, time in times.items() if time == 2**63 - 1} == {"a.txt", "d/link", "d", "empty"}


@pytest.mark.parametrize(
    "change",
    [
        lambda source: (source / "a.txt").chmod(0o755),
        lambda source: (source / "empty").rmdir(),
        lambda source: (source / "d/link").unlink(),
        lambda source: (source / "d/link2").symlink_to("b.bin"),
        lambda source: (source / "a.txt").rename(source / "A.txt"),
    ],
    ids=["executable bit", "empty directory gone", "link gone", "link added", "renamed"],
)
def test_a_change_of_anything_else_makes_a_version(tmp_path, repository, log, change):
    # SEMANTICS: A changed executable bit, link or empty directory makes a version;
    source = make_tree(tmp_path / "src", CONTENT)
    log(source)
    change(source)
    published = log(source)
    assert published.created
    assert len(stored(repository)) == 1  # no content is new


def test_only_the_change_is_stored(tmp_path, repository, log):
    content = {f"d{i % 3}/{i:03}": os.urandom(20_000) for i in range(100)}
    source = make_tree(tmp_path / "src", content)
    first = log(source)
    (source / "d1/001").write_bytes(os.urandom(20_000))
    second = log(source)
    assert 2_000_000 < first.stored_bytes < 2_100_000
    assert 20_000 < second.stored_bytes < 25_000
    old, new = (repository.catalog(each.version) for each in (first, second))
    assert [difference.path for difference in diff(old, new)] == ["d1/001"]
    old.close()
    new.close()


def test_equal_files_are_stored_once(tmp_path, repository, log):
    source = make_tree(tmp_path / "src", {f"{i}": b"x" * 100_000 for i in range(20)})
    assert log(source).stored_bytes < 110_000


def test_large_files_share_the_extents_that_are_equal(tmp_path, repository, log, monkeypatch):
    monkeypatch.setattr(ingest, "PACK_DATA", 1 << 20)
    data = os.urandom(5 << 20)
    source = make_tree(tmp_path / "src", {"a": data, "b": data[: 3 << 20] + os.urandom(1 << 20)})
    published = log(source)
    assert 6 << 20 < published.stored_bytes < (6 << 20) + 10_000
    (source / "c").write_bytes(data + b"appended")
    assert log(source).stored_bytes < 10_000


def test_a_large_file_of_real_extents(tmp_path, repository, log):
    source = tmp_path / "src"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        for extent in range(3):
            file.seek(extent * (64 << 20))
            file.write(b"extent %d" % extent)
        file.truncate(200_000_000)
    published = log(source)
    catalog = repository.catalog(published.version)
    (entry,) = catalog.entries()
    assert [extent.length for extent in entry.extents] == [64 << 20] * 2 + [200_000_000 - (128 << 20)]
    reader = repository.reader(catalog)
    node = catalog.resolve("sparse")
    assert reader.read(node, (64 << 20) - 4, 12, soon()) == bytes(4) + b"extent 1"
    assert reader.read(node, 199_999_990, 100, soon()) == bytes(10)
    with (source / "sparse").open("rb") as file:
        assert hashlib.file_digest(file, "md5").digest() == node.digest
    catalog.close()


# -- what is read


def test_unchanged_files_are_not_read_again(tmp_path, log, remembered, monkeypatch):
    # SEMANTICS: Files whose size, mtime, ctime, device and inode are as last time are not read again.
    read = []
    real = ingest._open
    monkeypatch.setattr(ingest, "_open", lambda file: read.append(file.path) or real(file))
    monkeypatch.setattr(ingest, "PACK_DATA", 1 << 20)
    source = make_tree(tmp_path / "src", {"a": b"1", "large": os.urandom(3 << 20), "z": b"3"})
    log(source)
    assert sorted(read) == ["a", "large", "z"]
    read.clear()
    log(source)
    assert read == []
    (source / "z").write_bytes(b"4")
    log(source)
    assert read == ["z"]


def test_what_only_its_hash_is_known_of_is_read_when_its_bytes_are_gone(tmp_path, log, remembered, repository):
    source = make_tree(tmp_path / "src", {"a": b"1" * 1000})
    log(source)
    with repository.registry.database.write() as connection:  # as if garbage collection had taken the pack
        connection.exec_driver_sql("UPDATE pack SET condemned_at = 1")
    (source / "b").write_bytes(b"new")
    published = log(source)
    assert published.created
    assert published.stored_bytes > 1000


# -- failures


class Disturbed:
    """Changes a source file after it has been listed and before it is read."""

    def __init__(self, monkeypatch, name, change):
        from artfs.versions import log as module

        real = module.scan

        def scan(*args, **keywords):
            for file in real(*args, **keywords):
                if file.path == name:
                    change(file.source)
                yield file

        monkeypatch.setattr(module, "scan", scan)


def append(path):
    with open(path, "ab") as file:
        file.write(b"more")


def replace(path):
    """Another file of the same size and mtime takes the place."""
    status = os.stat(path)
    with open(path + ".new", "wb") as file:
        file.write(b"x" * status.st_size)
    os.utime(path + ".new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.rename(path + ".new", path)


@pytest.mark.parametrize("size", [1000, 3 << 20], ids=["small", "large"])
@pytest.mark.parametrize(
    "change", [append, replace, lambda path: os.truncate(path, 10)], ids=["append", "replace", "cut"]
)
def test_a_source_that_changes_is_refused(tmp_path, repository, collection, log, monkeypatch, size, change):
    # SEMANTICS: A file that changes while it is logged fails the `log` with a sentence that names it.
    monkeypatch.setattr(ingest, "PACK_DATA", 1 << 20)
    source = make_tree(tmp_path / "src", {"a": b"1", "b": os.urandom(size)})
    Disturbed(monkeypatch, "b", change)
    with pytest.raises(SourceChanged, match="src/b changed while it was being logged; log again") as caught:
        log(source)
    assert caught.value.exit_code == 5
    assert nothing_visible(repository, collection)


def test_a_source_that_vanishes_is_named(tmp_path, repository, collection, log, monkeypatch):
    source = make_tree(tmp_path / "src", {"a": b"1", "b": b"2"})
    Disturbed(monkeypatch, "b", os.unlink)
    with pytest.raises(SourceUnreadable, match=r"cannot read .*/b: No such file"):
        log(source)
    assert nothing_visible(repository, collection)


@pytest.mark.parametrize("name", ["d/secret", "d"])
def test_an_unreadable_source_is_named(tmp_path, collection, name):
    source = make_tree(tmp_path / "src", {"a": b"1", "d/secret": b"2"})
    (source / name).chmod(0)
    home = tmp_path / "home"
    home.mkdir()
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    with as_nobody(home, source, source / "d", source / "d/secret"), open_repository(home) as repository:
        with pytest.raises(SourceUnreadable, match=f"cannot read {source}/{name}: Permission denied"):
            log_path(repository, source, collection, "dataset")
        assert nothing_visible(repository, collection)


def test_an_absent_source_and_a_dangling_link(tmp_path, log):
    with pytest.raises(SourceUnreadable, match=r"cannot read .*/absent: No such file"):
        log(tmp_path / "absent")
    source = make_tree(tmp_path / "src", {"link": Link("/nowhere")})
    with pytest.raises(SourceUnreadable, match=r"cannot read .*/link: it is a symbolic link to nothing"):
        log(source)


def test_another_type_is_refused(tmp_path, repository, collection, log):
    source = make_tree(tmp_path / "src", {"a": b"1"})
    log(source)
    with pytest.raises(TypeMismatch, match="already exists with type 'dataset'; cannot log a version of type 'model'"):
        log_path(repository, source, collection, "model")


def test_a_directory_whose_name_is_not_utf8(tmp_path, log, remembered):
    source = tmp_path / os.fsdecode(b"\xff")
    make_tree(source, {"a": b"1"})
    assert log(source).version == log(source).version


def test_labels_are_checked_before_anything_is_read():
    with pytest.raises(InvalidName, match="v<number>"):
        Labels(aliases=("v7",))
    with pytest.raises(InvalidName, match="tag"):
        Labels(tags=("a/b",))
    with pytest.raises(InvalidText, match="description"):
        Labels(description="\udcff")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("{", "not JSON"),
        ("[1]", "no object"),
        ("[" * 100_000, "not JSON"),
        ({f"k{i}": i for i in range(101)}, "101 keys"),
        ({"a": float("inf")}, "infinity"),
        ({"a": object()}, "not JSON serializable"),
    ],
    ids=["not json", "list", "deep", "many", "infinity", "object"],
)
def test_bad_metadata_is_refused(given, why):
    with pytest.raises(InvalidMetadata, match=why):
        check_metadata(given)


def test_metadata_as_it_is_kept():
    assert check_metadata('{"a": NaN, "b": {"c": [1]}}') == {"a": None, "b": {"c": [1]}}
    assert check_metadata({"s": {1}, "t": (1, 2), 3: None}) == {"s": [1], "t": [1, 2], "3": None}
    assert check_metadata(None) == {}
    with pytest.raises(TypeError):
        check_metadata([1])


# -- interrupted


LOG_WITH_SMALL_PACKS = """
import sys
from artfs.catalog import layout
layout.PACK_DATA = 1 << 20
from pathlib import Path
from homes import settings_of
from artfs.names import CollectionName
from artfs.versions.log import log_path
from artfs.versions.repository import Repository
home, source, store, endpoint = sys.argv[1:]
with Repository(settings_of(Path(home), store_url=store, store_endpoint=endpoint)) as repository:
    print(log_path(repository, source, CollectionName("acme", "vision", "mnist"), "dataset").version.name)
"""


def test_a_second_try_uses_what_a_killed_one_stored(tmp_path, s3_environment, s3_proxy):
    # SEMANTICS: An interrupted `log` leaves nothing visible, and a second try re-uses what had arrived in the store.
    source = make_tree(tmp_path / "src", {f"{i:02}": os.urandom(700_000) for i in range(12)})  # a pack each
    store_url = f"s3://{s3_environment.make_bucket()}/artifacts"
    arguments = [tmp_path / "home", source, store_url, s3_proxy.url]
    command = [sys.executable, "-c", LOG_WITH_SMALL_PACKS, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(__file__))}
    settings = settings_of(tmp_path / "home", store_url=store_url, store_endpoint=s3_proxy.url)
    collection = CollectionName("acme", "vision", "mnist")

    def packs():
        if not (tmp_path / "home" / "registry.db").exists():
            return 0
        with repository.registry.database.read() as connection:
            return connection.exec_driver_sql("SELECT count(*) FROM pack").scalar_one()

    s3_proxy.fail("delay", 1e9, method="PUT", path="/packs/", seconds=0.5)
    first = subprocess.Popen(command, env=environment)
    try:
        with Repository(settings) as repository:
            wait_until(lambda: packs() >= 2, "two packs are registered")
            first.kill()
            first.wait()
            s3_proxy.heal()
            arrived = packs()
            assert 2 <= arrived < 12
            with pytest.raises(VersionNotFound):
                repository.registry.resolve(collection.at("latest"))
            assert repository.registry.drafts() == ()
            s3_proxy.requests.clear()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            sent = [r for r in s3_proxy.requests if r.method == "PUT" and "/packs/" in r.path]
            assert len(sent) == 12 - arrived
            version = repository.resolve(collection.at("latest")).version
            assert (str(version.name), version.file_count) == ("acme/vision/mnist:v0", 12)
            assert version.stored_bytes < (12 - arrived) * 701_000
    finally:
        first.kill()
        first.wait()


def test_the_scratch_of_a_killed_process_goes_when_the_next_begins(tmp_path, repository, log):
    source = make_tree(tmp_path / "src", {"a": b"1"})
    left = repository.settings.cache_dir / "publish-dead"
    left.mkdir(parents=True)
    os.utime(left, (1, 1))
    log(source)
    assert not left.exists()
