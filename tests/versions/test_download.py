"""Copying a version into a directory, making a directory equal to one, comparing with one, warming the cache."""

import os
import subprocess
from contextlib import closing

import pytest
from homes import OLD, Link, as_nobody, make_tree, open_repository, tree_of

from artfs.catalog import Entry, Kind, Reference
from artfs.errors import (
    ArtfsError,
    DiskFull,
    InvalidTarget,
    LocalIOError,
    NotFound,
    ObjectNotFound,
    ReferenceMissing,
    ReferenceUnsupported,
    VerificationFailed,
)
from artfs.versions.download import checkout, download, verify
from artfs.versions.publication import Publication
from artfs.versions.warm import warm

CONTENT = {
    "a.txt": b"first",
    "d/b.bin": bytes(range(256)) * 300,
    "d/deep/er/c": b"c" * 70_000,
    "d/link": Link("../a.txt"),
    "empty": None,
    "nothing": b"",
    "run.sh": b"#!/bin/sh\n",
}


@pytest.fixture
def catalog(tmp_path, repository, log):
    source = make_tree(tmp_path / "src", CONTENT)
    (source / "run.sh").chmod(0o755)
    found = repository.catalog(log(source).version)
    yield found
    found.close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "target"


def snapshot(root):
    """What tells that a file was not touched."""
    return {
        path: (s.st_ino, s.st_mtime_ns, s.st_ctime_ns)
        for path in root.rglob("*")
        if (s := path.lstat()) and path.is_file()
    }


# -- download


def test_a_download_is_the_source(repository, catalog, target):
    seen = []
    done = download(repository, catalog, str(target), progress=lambda files, size: seen.append((files, size)))
    assert tree_of(target) == CONTENT
    assert (done.written, done.kept, done.missing) == (6, 0, ())
    assert sum(files for files, _ in seen) == 5
    assert sum(size for _, size in seen) == catalog.size
    assert (target / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (target / "a.txt").stat().st_mtime_ns == OLD
    verify(catalog, str(target))


def test_what_is_right_already_is_not_touched_and_the_rest_is_left_alone(repository, catalog, target):
    # SEMANTICS: `download` does not write a file again that is right already;
    download(repository, catalog, str(target))
    (target / "mine").write_bytes(b"mine")
    (target / "d/b.bin").write_bytes(b"wrong")
    (target / "d/link").unlink()
    (target / "d/link").symlink_to("elsewhere")
    before = snapshot(target)
    done = download(repository, catalog, str(target))
    assert (done.written, done.kept) == (2, 4)
    changed = {path for path, facts in snapshot(target).items() if before.get(path) != facts}
    assert changed == {target / "d/b.bin", target / "d/link"}
    assert tree_of(target) == CONTENT | {"mine": b"mine"}


def test_part_of_a_version(repository, catalog, target):
    download(repository, catalog, str(target), prefix="d/")
    assert tree_of(target) == {path: data for path, data in CONTENT.items() if path.startswith("d/")}


def test_nothing_is_written_through_links(tmp_path, repository, log, target):
    # SEMANTICS: `download` and `checkout` never write through a symbolic link.
    content = {f"d/sub/{i}": b"%d" % i for i in range(200)} | {"f": b"right"}
    catalog = repository.catalog(log(make_tree(tmp_path / "many", content)).version)
    outside = make_tree(tmp_path / "outside", {"sub/5": b"precious", "f": b"precious"})
    target.mkdir()
    (target / "d").symlink_to(outside)  # many threads come to it at once
    (target / "f").symlink_to(outside / "f")
    download(repository, catalog, str(target))
    assert tree_of(outside) == {"sub/5": b"precious", "f": b"precious"}
    assert tree_of(target) == content
    catalog.close()


def test_a_file_of_the_users_in_the_way_stays(repository, catalog, target):
    make_tree(target, {"d": b"mine"})
    with pytest.raises(LocalIOError, match=r"cannot use .*/target/d/.*: Not a directory"):
        download(repository, catalog, str(target))
    assert (target / "d").read_bytes() == b"mine"
    make_tree(target, {"x": None})
    os.remove(target / "d")
    os.remove(target / "a.txt")
    (target / "a.txt").mkdir()
    with pytest.raises(LocalIOError, match=r"cannot use .*/a.txt: Is a directory"):
        download(repository, catalog, str(target))
    assert not list(target.rglob(".artfs-*"))


def test_a_target_without_permission(tmp_path, catalog, repository):
    place = tmp_path / "locked"
    place.mkdir(mode=0o500)
    repository.store  # noqa: B018  opened while it can be
    for parent in [tmp_path, *tmp_path.parents[:3]]:
        parent.chmod(parent.stat().st_mode | 0o055)
    with as_nobody(place), pytest.raises(LocalIOError, match=r"cannot use .*/locked.*: Permission denied"):
        download(repository, catalog, str(place / "x"))


def reference_version(repository, collection, tmp_path, *uris):
    with Publication(repository, collection, "dataset", origin="sdk") as publication:
        for index, uri in enumerate(uris):
            reference = Reference(uri, uri, 4, {})
            publication.add(Entry(f"r{index}", Kind.REFERENCE, reference=reference))
        return publication.commit().version


def test_references_that_are_gone(tmp_path, repository, collection, target):
    (tmp_path / "there").write_bytes(b"here")
    uris = [f"file://{tmp_path}/there", f"file://{tmp_path}/gone", "ftp://example.org/x"]
    catalog = repository.catalog(reference_version(repository, collection, tmp_path, *uris))
    with pytest.raises(ArtfsError, match=r"gone|ftp") as caught:
        download(repository, catalog, str(target))
    assert isinstance(caught.value, ReferenceMissing | ReferenceUnsupported)
    assert tree_of(target) == {"r0": b"here"}
    done = download(repository, catalog, str(target), allow_missing_references=True)
    assert sorted(done.missing) == ["r1", "r2"]
    catalog.close()


# -- checkout


def test_checkout_makes_the_directory_equal(tmp_path, repository, catalog, target):
    # SEMANTICS: `checkout` deletes every file that the version does not have.
    download(repository, catalog, str(target))
    outside = make_tree(tmp_path / "outside", {"precious": b"1"})
    make_tree(target, {"stranger": b"1", "new/dir/f": b"2", "void/deep": None, "d/x": b"3"})
    (target / "out").symlink_to(outside)
    (target / "dangling").symlink_to("nowhere")
    with open(os.fsencode(target) + b"/\xff\xfe", "wb"):
        pass
    (target / "a.txt").unlink()
    make_tree(target / "a.txt", {"in/the/way": b"4"})
    (target / "empty").rmdir()
    (target / "empty").write_bytes(b"a file where a directory belongs")
    before = snapshot(target)
    checkout(repository, catalog, str(target))
    assert tree_of(target) == CONTENT
    assert {path for path in target.rglob("*") if path.is_dir() and not path.is_symlink()} == {
        target / name for name in ("d", "d/deep", "d/deep/er", "empty")
    }
    assert snapshot(target)[target / "d/b.bin"] == before[target / "d/b.bin"]
    assert tree_of(outside) == {"precious": b"1"}
    assert os.listdir(target.parent / "outside") == ["precious"]
    verify(catalog, str(target))


def test_checkout_into_what_does_not_exist(repository, catalog, target):
    checkout(repository, catalog, str(target / "below"))
    assert tree_of(target / "below") == CONTENT


def test_an_empty_name_is_not_the_working_directory(repository, catalog, target, monkeypatch):
    make_tree(target, {"precious": b"1"})
    monkeypatch.chdir(target)
    for act in (checkout, download):
        with pytest.raises(InvalidTarget, match="the name is empty"):
            act(repository, catalog, "")
    assert tree_of(target) == {"precious": b"1"}


@pytest.mark.parametrize("place", ["home", "home/store/packs", "home/cache/new", ".", "link"])
def test_checkout_refuses_where_artfs_keeps_its_own(tmp_path, repository, catalog, place):
    (tmp_path / "link").symlink_to(tmp_path / "home")
    before = tree_of(tmp_path)
    with pytest.raises(InvalidTarget, match="artfs keeps its own files"):
        checkout(repository, catalog, str(tmp_path / place))
    assert tree_of(tmp_path) == before


def test_checkout_where_one_works_at_home(tmp_path, repository, catalog):
    checkout(repository, catalog, str(tmp_path / "home" / "artifacts" / "mnist:v0"))
    assert tree_of(tmp_path / "home" / "artifacts" / "mnist:v0") == CONTENT


def test_a_loop_of_links_is_refused(repository, catalog, target):
    target.symlink_to(target)
    with pytest.raises(LocalIOError):
        checkout(repository, catalog, str(target))


def test_checkout_refuses_a_directory_with_the_configuration_or_the_registry(tmp_path, open_home, catalog, target):
    elsewhere = open_home(registry_url=f"sqlite:///{target}/registry.db")
    target.mkdir()
    with pytest.raises(InvalidTarget, match=r"registry\.db lies in it"):
        checkout(elsewhere, catalog, str(target))
    assert os.listdir(target) == []
    checkout(elsewhere, catalog, str(target / "beside"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_checkout_empties_no_mount(repository, catalog, target):
    make_tree(target, {"precious": b"1", "below/mnt": None})
    subprocess.run(["mount", "-t", "tmpfs", "none", target / "below/mnt"], check=True)
    try:
        make_tree(target / "below/mnt", {"f": b"2"})
        with pytest.raises(InvalidTarget, match=r"something is mounted on .*/below/mnt"):
            checkout(repository, catalog, str(target))
        assert tree_of(target) == {"precious": b"1", "below/mnt/f": b"2"}
    finally:
        subprocess.run(["umount", "-l", target / "below/mnt"], check=True)


def test_checkout_deletes_nothing_while_the_store_does_not_answer(tmp_path, repository, catalog, target):
    make_tree(target, {"precious": b"1"})
    repository.cache.clean()
    (tmp_path / "home/store").rename(tmp_path / "moved")
    with pytest.raises(ArtfsError, match="does not exist"):
        checkout(repository, catalog, str(target))
    assert tree_of(target) == {"precious": b"1"}


def test_checkout_of_what_is_cached_needs_no_store(tmp_path, repository, catalog, target):
    make_tree(target, {"stranger": b"1"})
    warm(repository, catalog)
    (tmp_path / "home/store").rename(tmp_path / "moved")
    checkout(repository, catalog, str(target))
    assert tree_of(target) == CONTENT


# -- verify


def test_verify_names_everything_that_differs(repository, catalog, target):
    # SEMANTICS: `verify` names every file that differs, not the first.
    download(repository, catalog, str(target))
    (target / "a.txt").write_bytes(b"first!")
    (target / "d/b.bin").write_bytes(bytes(76_800))
    (target / "nothing").unlink()
    (target / "run.sh").unlink()
    (target / "run.sh").symlink_to("a.txt")
    (target / "d/link").unlink()
    (target / "d/link").symlink_to("../b.txt")
    (target / "stranger").write_bytes(b"")
    (target / "empty").rmdir()
    with open(os.fsencode(target) + b"/\xff", "wb"):
        pass
    with pytest.raises(VerificationFailed) as caught:
        verify(catalog, str(target))
    sentence = str(caught.value)
    assert sentence.startswith(f"{target} differs from acme/vision/mnist:v0: different a.txt; ")
    for problem in (
        "different d/b.bin", "different d/link", "missing empty", "missing nothing", "different run.sh",
        "unexpected stranger", "unexpected \udcff",
    ):  # fmt: skip
        assert problem in sentence
    assert caught.value.exit_code == 7


def test_verify_without_a_directory(catalog, target):
    with pytest.raises(VerificationFailed, match="it does not exist; download the version first"):
        verify(catalog, str(target))
    assert not target.exists()
    target.write_bytes(b"")
    with pytest.raises(VerificationFailed, match="it is no directory"):
        verify(catalog, str(target))


def test_verify_goes_on_after_what_it_cannot_read(tmp_path, repository, catalog, target):
    download(repository, catalog, str(target))
    (target / "a.txt").chmod(0)
    (target / "nothing").unlink()
    for parent in [tmp_path, *tmp_path.parents[:3]]:
        parent.chmod(parent.stat().st_mode | 0o055)
    with (
        as_nobody(),
        pytest.raises(VerificationFailed, match=r"unreadable a.txt \(Permission denied\); missing nothing"),
    ):
        verify(catalog, str(target))


# -- warm


def lose_store(repository):
    """The store is gone, as on a train."""
    path = repository.settings.data_dir / "store"
    path.rename(path.with_name("moved"))


def test_a_warm_version_needs_no_store(tmp_path, repository, catalog, target, log):
    repository.cache.clean()
    with closing(repository.catalog(log(tmp_path / "src").version)) as again:
        warm(repository, again)
        lose_store(repository)
        download(repository, again, str(target))
    assert tree_of(target) == CONTENT


def test_part_of_a_version_is_warmed(tmp_path, repository, log, target):
    half = os.urandom(40 << 20)
    content = {"x/large": half, "y/large": half[::-1]}
    with closing(repository.catalog(log(make_tree(tmp_path / "big", content)).version)) as catalog:
        assert warm(repository, catalog, pattern="x/*") == 1
        with pytest.raises(NotFound, match=r"no file of acme/vision/mnist:v0 matches 'z\*'"):
            warm(repository, catalog, pattern="z*")
        lose_store(repository)
        download(repository, catalog, str(target), prefix="x/")
        with pytest.raises((ObjectNotFound, ArtfsError)):
            download(repository, catalog, str(target), prefix="y/")
    found = tree_of(target)
    assert found.pop("x/large") == half
    assert found in ({}, {"y": None})


def test_a_version_that_the_cache_cannot_hold_is_not_called_warm(tmp_path, repository, catalog):
    with (
        open_repository(tmp_path / "home", cache_limit="1000") as small,
        pytest.raises(DiskFull, match="limit of 1000 bytes"),
    ):
        warm(small, catalog)
    assert "home/cache" in str(repository.settings.cache_dir)
