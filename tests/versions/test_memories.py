"""What is remembered between runs: hashes of source files, and what names led to."""

import logging
import os
import time
from types import SimpleNamespace

import attrs
import pytest
from homes import make_tree, open_repository

from artfs.errors import RegistryUnavailable, VersionNotFound
from artfs.names import CollectionName
from artfs.versions.hashes import Hashed, Hashes
from artfs.versions.log import log_path
from artfs.versions.remembered import RememberedNames
from artfs.versions.scan import identity_of, scan

HASHED = Hashed(b"m" * 16, (b"1" * 32, b"2" * 32))


@pytest.fixture
def file(tmp_path):
    (file,) = scan(make_tree(tmp_path / "src", {"f": b"content"}))
    return file


def settled(file):
    """As if it had been changed long ago."""
    device, inode, _ = file.identity
    return attrs.evolve(file, identity=(device, inode, file.mtime_ns))


def test_a_hash_is_remembered_across_processes(tmp_path, file):
    memory = Hashes(tmp_path / "hashes.db")
    memory.put(settled(file), HASHED)
    memory.close()
    again = Hashes(tmp_path / "hashes.db")
    assert again.get(settled(file)) == HASHED
    for change in ({"size": 8}, {"mtime_ns": 5}, {"identity": (1, 2, 3)}, {"source": "/other"}):
        assert again.get(attrs.evolve(settled(file), **change)) is None
    again.close()


def test_an_inode_number_of_64_bits_is_remembered(tmp_path, file):
    device, _, ctime = settled(file).identity
    memory = Hashes(tmp_path / "hashes.db")
    for inode in (2**64 - 1, 2**63, 2**63 - 1):
        status = SimpleNamespace(st_dev=device, st_ino=inode, st_ctime_ns=ctime)
        far = attrs.evolve(file, identity=identity_of(status))
        assert memory.get(far) is None
        memory.put(far, HASHED)
        memory.flush()
        assert memory.get(far) == HASHED
    memory.close()


def test_a_file_that_changed_a_moment_ago_is_not_remembered(tmp_path, file):
    # SEMANTICS: A file that changed less than a second before it was read is not remembered.
    memory = Hashes(tmp_path / "hashes.db")
    now = time.time_ns()
    memory.put(attrs.evolve(settled(file), mtime_ns=now), HASHED)
    memory.put(attrs.evolve(settled(file), identity=(*file.identity[:2], now)), HASHED)
    memory.flush()
    assert memory._database.execute("SELECT count(*) FROM file").fetchone() == (0,)
    memory.close()


def test_the_memory_is_for_its_owner_only(tmp_path):
    Hashes(tmp_path / "hashes.db").close()
    assert (tmp_path / "hashes.db").stat().st_mode & 0o777 == 0o600


def test_a_damaged_memory_is_passed_over_and_begun_anew(tmp_path, file, caplog):
    path = tmp_path / "hashes.db"
    path.write_bytes(b"garbage" * 1000)
    memory = Hashes(path)
    memory.put(settled(file), HASHED)
    assert memory.get(settled(file)) is None
    memory.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "every file is read again" in caplog.text
    again = Hashes(path)
    again.put(settled(file), HASHED)
    again.flush()
    assert again.get(settled(file)) == HASHED
    again.close()
    assert len(caplog.records) == 1


def test_a_memory_damaged_while_in_use_costs_nothing_but_time(tmp_path, log, remembered, repository, caplog):
    source = make_tree(tmp_path / "src", {f"{i}": b"%d" % i for i in range(50)})
    log(source)
    repository.hashes.close()
    with (repository.settings.cache_dir / "hashes.db").open("r+b") as database:
        database.seek(4096)
        database.write(os.urandom(8192))
    with open_repository(repository.settings.data_dir) as other:
        assert not log_path(other, source, CollectionName("acme", "vision", "mnist"), "dataset").created
    assert "every file is read again" in caplog.text


# -- names


def lose_registry(repository):
    """Put something else in the place of the database."""
    repository.close()
    path = repository.settings.data_dir / "registry.db"
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.rename(path.with_name("kept"))
    path.write_bytes(b"not a database" * 1000)


def test_a_name_is_resolved_without_the_registry(tmp_path, repository, collection, log, caplog):
    # SEMANTICS: A mount works offline if its name was resolved and its catalog fetched before;
    labels = {"metadata": {"k": {"deep": [1, None]}}, "tags": ("t",), "description": "d", "ttl": 86400}
    version = log(make_tree(tmp_path / "src", {"a": b"1"}), "best", labels=labels).version
    assert repository.resolve(collection.at("best")).age == 0
    lose_registry(repository)
    with open_repository(repository.settings.data_dir) as offline, caplog.at_level(logging.WARNING):
        found = offline.resolve(collection.at("best"))
        assert found.version == version
        assert 0 < found.age < 60
        assert "is what it was" in caplog.text
        with pytest.raises(RegistryUnavailable, match="not a database"):
            offline.resolve(collection.at("other"))


def test_answers_of_another_registry_do_not_count(tmp_path, repository, collection, log):
    log(make_tree(tmp_path / "src", {"a": b"1"}))
    repository.resolve(collection.at("latest"))
    url = "postgresql://nobody:secret@127.0.0.1:1/artfs"  # nobody listens there
    with (
        open_repository(repository.settings.data_dir, registry_url=url) as other,
        pytest.raises(RegistryUnavailable) as caught,
    ):
        other.resolve(collection.at("latest"))
    assert "secret" not in str(caught.value)
    assert b"secret" not in (repository.settings.cache_dir / "names.db").read_bytes()


def test_a_name_that_is_gone_is_not_answered_from_memory(tmp_path, repository, collection, log):
    version = log(make_tree(tmp_path / "src", {"a": b"1"})).version
    repository.resolve(collection.at("latest"))
    repository.registry.delete_version(version.id, delete_aliases=True)
    with pytest.raises(VersionNotFound, match="v0 does not exist: it was deleted"):
        repository.resolve(collection.at("v0"))


def test_a_damaged_memory_of_names_is_begun_anew(tmp_path, repository, collection, log, caplog):
    log(make_tree(tmp_path / "src", {"a": b"1"}))
    path = repository.settings.cache_dir / "names.db"
    path.write_bytes(b"garbage" * 1000)
    repository.resolve(collection.at("latest"))
    assert "cannot remember" in caplog.text
    repository.resolve(collection.at("latest"))
    lose_registry(repository)
    with open_repository(repository.settings.data_dir) as offline:
        assert offline.resolve(collection.at("latest")).age > 0


def test_an_answer_in_an_unknown_form_is_none(tmp_path, repository, collection, log, caplog):
    version = log(make_tree(tmp_path / "src", {"a": b"1"})).version
    names = RememberedNames(tmp_path / "names.db", "sqlite:///x")
    names.put(version.name, version)
    with names._open() as database:
        database.execute("""UPDATE name SET version = '{"id": 5}'""")
    assert names.get(version.name) is None
    assert "cannot look up" in caplog.text


def test_only_so_many_names_are_kept(tmp_path, repository, log, monkeypatch):
    monkeypatch.setattr("artfs.versions.remembered._LIMIT", 3)
    version = log(make_tree(tmp_path / "src", {"a": b"1"})).version
    names = RememberedNames(tmp_path / "names.db", "sqlite:///x")
    asked = [CollectionName("acme", "vision", f"c{i}").at("latest") for i in range(5)]
    for name in asked:
        names.put(name, version)
    assert [names.get(name) is not None for name in asked] == [False, False, True, True, True]
