"""Garbage collection with a real registry: what is needed stays, what is not goes, whatever happens in between."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from datetime import timedelta

import pytest
from homes import give_registry
from sqlalchemy import text
from store_clock import soon

from artfs.errors import Conflict, PacksCondemned, StoreUnavailable
from artfs.names import CollectionName
from artfs.registry import CollectionKind, Content, Registry
from artfs.store import Uploader, collect, gc, read_records, record_key, write_record

DAY = 86400.0
MNIST = CollectionName("acme", "vision", "mnist")


def sha(data) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.fixture
def registry(tmp_path):
    give_registry(tmp_path / "registry.db")
    opened = Registry.open(f"sqlite:///{tmp_path}/registry.db")
    yield opened
    opened.close()


@pytest.fixture
def log(registry, local_store):
    return Log(registry, local_store)


class Log:
    """Versions with one small pack each, logged as artfs does it, step by step."""

    def __init__(self, registry, store):
        self.registry = registry
        self.store = store

    def begin(self):
        return self.registry.begin(MNIST, "dataset", origin="log")

    def upload(self, version_id, data: bytes):
        with Uploader(self.store, self.registry, version_id) as uploader:
            place = uploader.add(sha(data), data)
            uploader.finish()
        return place

    def commit(self, version_id, *places, mark=None, **kwargs):
        key = f"catalogs/{uuid.uuid4().hex}.zst"
        self.store.put(key, b"catalog", deadline=soon())
        mark = mark or uuid.uuid4().hex
        content = Content(mark, mark, 1, 10, key, "ab" * 32, 4096, [place.pack for place in places], 10)
        committed = self.registry.commit(version_id, content, **kwargs)
        write_record(self.store, committed.version, deadline=soon())
        return committed.version

    def version(self, data: bytes, **kwargs):
        version_id = self.begin()
        place = self.upload(version_id, data)
        return self.commit(version_id, place, **kwargs), place


def keys(store, prefix):
    return {found.key for found in store.list(prefix)}


def later(registry, seconds):
    """Let that time pass in the registry."""
    with registry.database.write() as connection:
        for table, column in (
            ("pack", "condemned_at"), ("pack", "registered_at"), ("version", "renewed_at"), ("version", "created_at"),
            ("discarded_catalog", "discarded_at"),
        ):  # fmt: skip
            connection.execute(text(f"UPDATE {table} SET {column} = {column} - {seconds}"))


def age(store, key, seconds):
    """Make a file of a directory store that much older."""
    path = store.url.removeprefix("file://") + "/" + key
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_what_versions_need_stays(registry, local_store, log):
    version, place = log.version(b"data")
    later(registry, 10 * DAY)
    age(local_store, place.pack, 10 * DAY)
    age(local_store, version.catalog_key, 10 * DAY)
    report = collect(registry, local_store, DAY)
    assert (report.condemned_packs, report.deleted_packs, report.deleted_orphans, report.deleted_catalogs) == (0,) * 4
    assert keys(local_store, "packs") == {place.pack}
    assert keys(local_store, "catalogs") == {version.catalog_key}


def test_a_deleted_version_goes_in_two_steps(registry, local_store, log):
    # SEMANTICS: Packs are deleted in two steps: condemned, then deleted after the grace period.
    kept, kept_place = log.version(b"kept")
    gone, gone_place = log.version(b"gone")
    registry.delete_version(gone.id, delete_aliases=True)

    first = collect(registry, local_store, DAY)
    assert (first.condemned_packs, first.deleted_packs, first.deleted_catalogs) == (1, 0, 0)
    assert gone_place.pack in keys(local_store, "packs"), "readers that have it open may finish"
    assert collect(registry, local_store, DAY).deleted_packs == 0

    later(registry, DAY + 1)
    second = collect(registry, local_store, DAY)
    assert (second.condemned_packs, second.deleted_packs, second.deleted_catalogs) == (0, 1, 1)
    assert second.deleted_bytes == 4
    assert keys(local_store, "packs") == {kept_place.pack}
    assert keys(local_store, "catalogs") == {kept.catalog_key}
    assert registry.pack_checksums([gone_place.pack]) == {}


def test_versions_past_their_time_to_live_are_deleted(registry, local_store, log):
    # SEMANTICS: `artfs gc` deletes versions past their time to live, and then what nothing refers to.
    version, _ = log.version(b"short-lived", ttl=3600)
    assert collect(registry, local_store, DAY).expired_versions == ()
    later(registry, 2 * DAY)
    report = collect(registry, local_store, DAY)
    assert report.expired_versions == (str(version.name),)
    assert report.condemned_packs == 1


def test_a_rehearsal_changes_nothing(registry, local_store, log):
    log.version(b"short-lived", ttl=3600)
    gone, _ = log.version(b"gone")
    registry.delete_version(gone.id, delete_aliases=True)
    local_store.put("packs/aa/orphan", b"orphan", deadline=soon())
    age(local_store, "packs/aa/orphan", 3 * DAY)
    collect(registry, local_store, 100 * DAY)
    later(registry, 2 * DAY)
    before = keys(local_store, "")
    rehearsed = collect(registry, local_store, DAY, dry_run=True)
    assert keys(local_store, "") == before
    assert rehearsed.deleted_packs == rehearsed.deleted_orphans == rehearsed.deleted_catalogs == 1
    assert len(rehearsed.expired_versions) == 1
    performed = collect(registry, local_store, DAY)
    assert performed.expired_versions == rehearsed.expired_versions
    assert performed.deleted_packs == rehearsed.deleted_packs
    assert performed.deleted_bytes == rehearsed.deleted_bytes


@pytest.mark.parametrize("grace", [0.0, DAY])
def test_collecting_while_something_is_written(registry, local_store, log, grace):
    # SEMANTICS: What a running `log`, a draft, a writable mount or another version needs is never condemned,
    """Between any two steps of a log that shares content with a version that is being deleted."""
    old, old_place = log.version(b"old")
    version_id = log.begin()
    collect(registry, local_store, grace)
    place = log.upload(version_id, b"new")
    collect(registry, local_store, grace)
    shared = registry.claim_extents(version_id, [sha(b"old")])[sha(b"old")]
    assert shared.pack == old_place.pack
    registry.delete_version(old.id, delete_aliases=True)
    collect(registry, local_store, grace)
    collect(registry, local_store, grace)
    version = log.commit(version_id, place, shared)
    collect(registry, local_store, grace)
    assert keys(local_store, "packs") == {place.pack, old_place.pack}
    assert version.catalog_key in keys(local_store, "catalogs")


def test_collecting_from_within_an_upload(registry, local_store):
    """After every pack is stored and before it is registered, and after that, with no grace at all."""

    class Collecting:
        def register_pack(self, *args):
            collect(registry, local_store, 0)
            registry.register_pack(*args)
            collect(registry, local_store, 0)

    log = Log(registry, local_store)
    version_id = log.begin()
    with Uploader(local_store, Collecting(), version_id) as uploader:
        places = [uploader.add(bytes([i]) * 32, bytes([i]) * (33 << 20)) for i in range(3)]
        uploader.finish()
    log.commit(version_id, *places)
    collect(registry, local_store, 0)
    assert keys(local_store, "packs") == {place.pack for place in places}


def test_content_that_was_condemned_is_stored_again(registry, local_store, log):
    old, old_place = log.version(b"content")
    registry.delete_version(old.id, delete_aliases=True)
    collect(registry, local_store, DAY)
    version_id = log.begin()
    assert registry.claim_extents(version_id, [sha(b"content")]) == {}
    place = log.upload(version_id, b"content")
    later(registry, DAY + 1)
    registry.renew(version_id)
    collect(registry, local_store, DAY)
    assert old_place.pack not in keys(local_store, "packs")
    log.commit(version_id, place)
    assert keys(local_store, "packs") == {place.pack}


def test_a_commit_that_relies_on_condemned_packs_is_refused(registry, local_store, log):
    old, old_place = log.version(b"content")
    registry.delete_version(old.id, delete_aliases=True)
    version_id = log.begin()
    collect(registry, local_store, DAY)
    with pytest.raises(PacksCondemned):
        log.commit(version_id, old_place)


def test_a_log_that_died_is_given_up_after_the_grace_period(registry, local_store, log):
    version_id = log.begin()
    place = log.upload(version_id, b"never committed")
    assert collect(registry, local_store, DAY).condemned_packs == 0
    later(registry, DAY + 1)
    assert collect(registry, local_store, DAY).condemned_packs == 1
    later(registry, DAY + 1)
    assert collect(registry, local_store, DAY).deleted_packs == 1
    assert place.pack not in keys(local_store, "packs")


class _DiesIn:
    """A part that dies in one operation, before or after it is done."""

    def __init__(self, part, operation, *, done):
        self._part = part
        self._operation = operation
        self._done = done
        self.deaths = 0

    def __getattr__(self, name):
        found = getattr(self._part, name)
        if name != self._operation:
            return found

        def die(*args, **kwargs):
            self.deaths += 1
            if self._done:
                found(*args, **kwargs)
            raise StoreUnavailable(store="x", why="died")

        return die


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize(
    ("part", "operation"),
    [("registry", "delete_expired"), ("registry", "condemn_packs"), ("store", "delete"), ("registry", "forget_packs"),
     ("registry", "forget_catalogs"), ("store", "sweep")],
)  # fmt: skip
def test_a_run_that_dies_is_finished_by_the_next(registry, local_store, log, part, operation, done):
    kept, kept_place = log.version(b"kept")
    gone, _ = log.version(b"gone")
    log.version(b"short-lived", ttl=3600)
    registry.delete_version(gone.id, delete_aliases=True)
    local_store.put("packs/aa/orphan", b"orphan", deadline=soon())
    age(local_store, "packs/aa/orphan", 10 * DAY)
    parts = {"registry": registry, "store": local_store}
    dies = _DiesIn(parts[part], operation, done=done)
    for _ in range(3):
        with contextlib.suppress(StoreUnavailable):  # the first run has nothing to forget
            collect(**(parts | {part: dies}), grace=DAY)
        later(registry, 2 * DAY)
    assert dies.deaths > 0
    for _ in range(2):
        collect(registry, local_store, DAY)
        later(registry, 2 * DAY)
    collect(registry, local_store, DAY)
    assert keys(local_store, "packs") == {kept_place.pack}
    assert keys(local_store, "catalogs") == {kept.catalog_key}
    assert keys(local_store, "versions") == {record_key(kept)}
    assert registry.deletable_packs(0) == registry.deletable_catalogs(0) == ()


def test_orphans_go_when_they_are_old(registry, local_store, log):
    _, place = log.version(b"known")
    for prefix in "packs/aa", "catalogs":
        local_store.put(f"{prefix}/old", b"12345", deadline=soon())
        age(local_store, f"{prefix}/old", DAY + 60)
        local_store.put(f"{prefix}/young", b"12345", deadline=soon())
        age(local_store, f"{prefix}/young", DAY - 60)
    report = collect(registry, local_store, DAY)
    assert (report.deleted_orphans, report.deleted_bytes) == (2, 10)
    assert keys(local_store, "packs") == {place.pack, "packs/aa/young"}
    assert collect(registry, local_store, 0).deleted_orphans == 2


def test_an_orphan_may_be_on_its_way_whatever_the_grace(registry, local_store):
    local_store.put("packs/aa/young", b"x", deadline=soon())
    age(local_store, "packs/aa/young", gc.ORPHAN_AGE - 60)
    assert collect(registry, local_store, 0).deleted_orphans == 0


def test_orphans_in_a_bucket_are_told_by_the_buckets_clock(registry, s3_store, monkeypatch):
    version, place = Log(registry, s3_store).version(b"known")
    s3_store.put("packs/aa/orphan", b"x", deadline=soon())
    assert collect(registry, s3_store, DAY).deleted_orphans == 0
    told = gc._store_time(s3_store)
    monkeypatch.setattr(gc, "_store_time", lambda store: told + timedelta(days=2))
    assert collect(registry, s3_store, DAY).deleted_orphans == 1
    assert keys(s3_store, "packs") == {place.pack}
    assert keys(s3_store, "catalogs") == {version.catalog_key}


def test_remains_of_puts_that_died_are_swept(registry, local_store, tmp_path):
    local_store.put("k", b"x", deadline=soon())
    left = tmp_path / "store" / ".incoming" / "left"
    left.write_bytes(b"x")
    collect(registry, local_store, DAY)
    assert left.exists()
    os.utime(left, (0, 0))
    collect(registry, local_store, DAY)
    assert not left.exists()


def test_records_follow_the_registry(registry, local_store, log):
    version, _ = log.version(b"data")
    shelf = CollectionName("acme", "shelf", "best")
    registry.link(version.id, shelf, ["prod"])
    local_store.delete([record_key(version)], deadline=soon())
    assert collect(registry, local_store, DAY).written_records == 2
    link = registry.resolve(shelf.at("prod"))
    assert keys(local_store, "versions") == {record_key(version), record_key(link)}

    registry.add_aliases(version.id, ["best"])
    collect(registry, local_store, DAY)
    sequence, portfolio = read_records(local_store)
    assert set(sequence.aliases) == {"latest", "best"}
    assert (portfolio.kind, portfolio.id, portfolio.name) == (CollectionKind.PORTFOLIO, version.id, link.name)

    registry.unlink(version.id, shelf)
    report = collect(registry, local_store, DAY)
    assert report.deleted_records == 1
    registry.delete_version(version.id, delete_aliases=True)
    assert collect(registry, local_store, DAY).deleted_records == 1
    assert keys(local_store, "versions") == set()


def test_a_version_without_a_record_does_not_stop_the_collection(registry, local_store, log, monkeypatch, caplog):
    for data in (b"a", b"b"):
        log.version(data)
    local_store.delete(keys(local_store, "versions"), deadline=soon())

    def write(store, version, **keywords):
        if version.index == 0:
            raise UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")
        write_record(store, version, **keywords)

    monkeypatch.setattr(gc, "write_record", write)
    collect(registry, local_store, DAY)
    assert [record.name.alias for record in read_records(local_store)] == ["v1"]
    assert "acme/vision/mnist:v0 has no record in the store" in caplog.text


def test_a_registry_that_lost_versions_deletes_nothing(registry, local_store, log, tmp_path):
    _, place = log.version(b"data")
    age(local_store, place.pack, 10 * DAY)
    older = Registry.open(f"sqlite:///{tmp_path}/backup.db")
    try:
        with pytest.raises(Conflict, match="rebuild"):
            collect(older, local_store, DAY)
    finally:
        older.close()
    assert keys(local_store, "packs") == {place.pack}
