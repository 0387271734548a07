"""Profiles: what a run has read is what the next mount fetches first."""

import os
import random
import shutil
from contextlib import closing

import pytest
from homes import make_tree, open_repository, soon, wait_until

from artfs.catalog.layout import BLOCK
from artfs.names import CollectionName
from artfs.versions.log import log_path
from artfs.versions.profile import Recorder, Replay
from artfs.vfs import ProfiledTree, has_profile

COLLECTION = CollectionName("acme", "vision", "mnist")


@pytest.fixture
def home(tmp_path):
    """A version with a large file, a small one, and a reference to a file."""
    content = {"large": random.Random(3).randbytes(30 * BLOCK), "small": b"s" * 1000}
    make_tree(tmp_path / "src", content)
    with open_repository(tmp_path / "home") as repository:
        log_path(repository, tmp_path / "src", COLLECTION, "dataset")
    return tmp_path / "home"


def open_tree(home, *, record, first=True):
    repository = open_repository(home)
    version = repository.resolve(COLLECTION.at("latest")).version
    return ProfiledTree(version, repository.catalog(version), repository, record=record, first=first)


def empty_cache(home):
    shutil.rmtree(home / "cache" / "parts")


def fetched(tree):
    """Bytes that have arrived, once nothing is on its way."""
    cache = tree.statistics()["cache"]
    return -1 if cache["flights"] else cache["bytes_fetched"]


def test_what_was_read_is_fetched_before_anything_is_read(home):
    with closing(open_tree(home, record=True)) as tree:
        large, small = (tree.lookup(1, name, None).inode for name in ("large", "small"))
        for offset in (25 * BLOCK, 3 * BLOCK, 25 * BLOCK + 100, 12 * BLOCK - 10):
            tree.read(large, offset, 20, soon())
        tree.read(small, 0, 1000, soon())
        assert tree.statistics()["profile"] == {"blocks": 5}
    empty_cache(home)
    with closing(open_tree(home, record=False)) as tree:
        assert has_profile(tree._repository, tree.version)
        wait_until(lambda: fetched(tree) == 4 * BLOCK + 1000, "the five blocks are there")
        for inode, offset, size in ((large, 25 * BLOCK, 20), (large, 12 * BLOCK - 10, 20), (small, 0, 1000)):
            tree.read(inode, offset, size, soon())
        assert tree.statistics()["cache"]["reads_fetched"] == 0


def test_processes_of_one_mount_record_together_and_a_new_recording_begins_anew(home):
    with closing(open_tree(home, record=True)) as first, closing(open_tree(home, record=True, first=False)) as second:
        large = first.lookup(1, "large", None).inode
        first.read(large, 0, 1, soon())
        second.read(large, 20 * BLOCK, 1, soon())
    empty_cache(home)
    with closing(open_tree(home, record=True)) as tree:  # fetches what the last one recorded, and records nothing
        wait_until(lambda: fetched(tree) == 2 * BLOCK, "both blocks are there")
    empty_cache(home)
    with closing(open_tree(home, record=False)) as tree:
        assert tree._replay._runs == []


def test_a_reference_is_recorded_and_fetched(tmp_path):
    import artfs

    (tmp_path / "far").write_bytes(os.urandom(20 * BLOCK))
    home = tmp_path / "home"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ARTFS_HOME": home, "ARTFS_ENTITY": "acme", "ARTFS_PROJECT": "vision"}.items():
            patch.setenv(name, str(value))
        artifact = artfs.Artifact("mnist", "dataset")
        artifact.add_reference((tmp_path / "far").as_uri())
        artfs.log_artifact(artifact)
    with closing(open_tree(home, record=True)) as tree:
        tree.read(tree.lookup(1, "far", None).inode, 15 * BLOCK, 10, soon())
    empty_cache(home)
    with closing(open_tree(home, record=False)) as tree:
        wait_until(lambda: fetched(tree) == BLOCK, "the block is there")


def test_a_profile_that_makes_no_sense_is_passed_over(home, caplog):
    with open_repository(home) as repository:
        version = repository.resolve(COLLECTION.at("latest")).version
        path = repository.settings.cache_dir / "profiles" / version.catalog_sha256
        path.parent.mkdir()
        path.write_bytes(os.urandom(16 * 500 + 7) + bytes([1, 0, 0, 0, 200, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]))
        with closing(repository.catalog(version)) as catalog:
            replay = Replay(path, repository.reader(catalog))
            replay._work()
        assert "Traceback" not in caplog.text


def test_without_a_place_for_it_there_is_a_sentence(home, tmp_path):
    from artfs.errors import LocalIOError

    (tmp_path / "file").touch()
    with pytest.raises(LocalIOError, match="file"):
        Recorder(tmp_path / "file" / "profile", anew=True)
