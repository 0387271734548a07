"""Records of versions, and whose store it is."""

from __future__ import annotations

import json
import logging

import attrs
import pytest
from homes import give_registry
from store_clock import soon

from artfs.errors import Damaged, ObjectNotFound, SchemaMismatch, StoreNotOurs
from artfs.names import CollectionName
from artfs.registry import INHERIT, CollectionKind, Content, Registry
from artfs.store import claim_store, open_store, read_record, read_records, record_key, store_owner, write_record

MNIST = CollectionName("acme", "my vision é", "mnist")


@pytest.fixture
def registry(tmp_path):
    give_registry(tmp_path / "registry.db")
    opened = Registry.open(f"sqlite:///{tmp_path}/registry.db")
    yield opened
    opened.close()


def content(mark):
    return Content(mark, mark, 3, 300, f"catalogs/{mark}", "ab" * 32, 4096, [], 100)


def commit(registry, mark, **kwargs):
    return registry.commit(registry.begin(MNIST, "dataset", origin="log"), content(mark), **kwargs).version


def test_a_record_says_what_the_registry_says(store, registry):
    version = commit(
        registry, "a", aliases=["best"], description="Ziffern", metadata={"n": [1, None, "é"]}, tags=["t"], ttl=3600
    )
    write_record(store, version, deadline=soon())
    (record,) = read_records(store)
    assert record == read_record(store, record_key(version), deadline=soon())
    assert (record.id, record.name, record.type) == (version.id, version.name, "dataset")
    assert record.kind is CollectionKind.SEQUENCE
    assert sorted(record.aliases) == ["best", "latest"]
    assert record.content == attrs.evolve(content("a"), packs=())
    assert (record.description, record.metadata, record.tags) == ("Ziffern", {"n": [1, None, "é"]}, ("t",))
    assert record.ttl == 3600
    assert record.created_at == version.created_at


def test_a_lone_surrogate_in_metadata_goes_there_and_back(local_store, registry):
    version = commit(registry, "a", metadata={"bad": "\udcff", "good": "é"})
    write_record(local_store, version, deadline=soon())
    assert b"\xc3\xa9" in bytes(local_store.get(record_key(version), deadline=soon()))
    assert next(read_records(local_store)).metadata == {"bad": "\udcff", "good": "é"}


@pytest.mark.parametrize("ttl", [INHERIT, None, 60])
def test_time_to_live_is_kept(local_store, registry, ttl):
    write_record(local_store, commit(registry, "a", ttl=ttl), deadline=soon())
    assert next(read_records(local_store)).ttl == ttl


def test_a_registry_is_rebuilt_from_records(local_store, registry, tmp_path):
    versions = [commit(registry, mark, aliases=[mark]) for mark in "abc"]
    shelf = CollectionName("acme", "all", "best")
    registry.link(versions[1].id, shelf, ["prod"])
    seen = [registry.resolve(MNIST.at(f"v{i}")) for i in range(3)]
    link = registry.resolve(shelf.at("prod"))
    for version in (link, *seen):
        write_record(local_store, version, deadline=soon())
    rebuilt = Registry.open(f"sqlite:///{tmp_path}/rebuilt.db")
    try:
        for record in read_records(local_store):
            rebuilt.import_version(record)
        for version in (*seen, link):
            found = rebuilt.resolve(version.name)
            assert (found.id, found.digest, found.catalog_key) == (version.id, version.digest, version.catalog_key)
            assert set(found.aliases) == set(version.aliases)
    finally:
        rebuilt.close()


def test_a_damaged_record_is_left_out_and_named(local_store, registry, caplog):
    version = commit(registry, "a")
    write_record(local_store, version, deadline=soon())
    for number, text in enumerate([b"{", b"[]", b'{"format": 2}', b'{"format": 1}', b"\xff"]):
        local_store.put(f"versions/e/p/c/v{number}.json", text, deadline=soon())
    with caplog.at_level(logging.WARNING):
        assert [record.id for record in read_records(local_store)] == [version.id]
    assert len(caplog.records) == 5
    with pytest.raises(Damaged, match="format 2"):
        read_record(local_store, "versions/e/p/c/v2.json", deadline=soon())


def test_a_store_is_claimed_once(store):
    with pytest.raises(ObjectNotFound):
        store_owner(store, deadline=soon())
    claim_store(store, "mine", deadline=soon())
    claim_store(store, "mine", deadline=soon())
    assert store_owner(store, deadline=soon()) == "mine"
    with pytest.raises(StoreNotOurs, match="mine"):
        claim_store(store, "other", deadline=soon())
    assert json.loads(store.get("artfs-store.json", deadline=soon())) == {"format": 1, "registry": "mine"}


def test_claiming_makes_the_directory(tmp_path):
    store = open_store((tmp_path / "a" / "b").as_uri(), endpoint=None, request_timeout=5)
    claim_store(store, "mine", deadline=soon())
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_mark_that_cannot_be_read_is_not_ours(local_store):
    local_store.put("artfs-store.json", b"?", deadline=soon())
    with pytest.raises(StoreNotOurs):
        claim_store(local_store, "mine", deadline=soon())


def test_a_mark_of_a_later_format(local_store):
    local_store.put("artfs-store.json", b'{"format": 2, "registry": "mine"}', deadline=soon())
    with pytest.raises(SchemaMismatch):
        claim_store(local_store, "mine", deadline=soon())
