import pytest
from shelf import MNIST, content, extent_of
from sqlalchemy import Engine, event, text

from artfs.errors import PacksCondemned, VersionNotFound
from artfs.names import CollectionName
from artfs.registry import INHERIT

DAY = 86400.0


def sha(number: int) -> bytes:
    return extent_of(number).sha256


def test_stored_extents_are_found_and_pinned(registry, shelf):
    _, key = shelf.log_pack("a", 1, 2)
    other = shelf.begin()
    claimed = registry.claim_extents(other, [sha(1), sha(2), sha(2), sha(3)])
    assert claimed == {sha(1): extent_of(1, key), sha(2): extent_of(2, key)}
    registry.delete_version(registry.resolve(MNIST.at("v0")).id, delete_aliases=True)
    assert registry.condemn_packs(DAY) == ()
    registry.abandon(other)
    assert registry.condemn_packs(DAY) == (key,)


def test_registering_a_pack_twice_changes_nothing(registry, shelf):
    version_id = shelf.begin()
    for checksums in (b"first", b"second"):
        registry.register_pack(version_id, "packs/x", 10, checksums, [extent_of(1, "packs/x")])
    assert registry.pack_checksums(["packs/x", "packs/y"])["packs/x"].checksums == b"first"
    assert registry.known_packs(["packs/x", "packs/y"]) == {"packs/x"}


def test_an_extent_keeps_its_older_place(registry, shelf):
    version_id = shelf.begin()
    first = shelf.pack(version_id, 1)
    shelf.pack(version_id, 1, 2, 2)
    assert registry.claim_extents(version_id, [sha(1)])[sha(1)].pack == first


def test_ten_thousand_extents_take_few_statements(registry, shelf):
    version_id = shelf.begin()
    numbers = range(10_000)
    statements = []

    def count(_connection, _cursor, statement, *_):
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        shelf.pack(version_id, *numbers)
        assert len(registry.claim_extents(version_id, [sha(number) for number in numbers])) == 10_000
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert 0 < len(statements) < 150


def test_packs_live_as_long_as_any_version_that_holds_them(registry, shelf):
    first, key = shelf.log_pack("a", 1)
    second = shelf.log("b", packs=[key], name=CollectionName("acme", "other", "c")).version
    registry.delete_version(first.version.id, delete_aliases=True)
    assert registry.condemn_packs(0) == registry.condemnable_packs(0) == ()
    registry.delete_version(second.id, delete_aliases=True)
    assert registry.condemnable_packs(0) == (key,)
    assert registry.condemn_packs(0) == (key,)
    assert registry.condemn_packs(0) == registry.condemnable_packs(0) == ()


def test_packs_that_a_commit_left_out_are_let_go(registry, shelf):
    version_id = shelf.begin()
    used, unused = shelf.pack(version_id, 1), shelf.pack(version_id, 2)
    registry.commit(version_id, content("a", [used]))
    assert registry.condemn_packs(DAY) == (unused,)


def test_a_base_is_pinned_while_something_is_written_on_it(registry, shelf):
    base, key = shelf.log_pack("a", 1)
    mount = shelf.begin(base=base.version.id, origin="mount")
    registry.delete_version(base.version.id, delete_aliases=True)
    assert registry.condemn_packs(0) == ()
    assert registry.save_draft(mount, content("b", [key])).is_draft
    assert registry.condemn_packs(0) == ()
    with pytest.raises(VersionNotFound, match="deleted"):
        shelf.begin(base=base.version.id)


def test_condemned_packs_are_not_found_and_not_committed(registry, shelf):
    first, key = shelf.log_pack("a", 1)
    registry.delete_version(first.version.id, delete_aliases=True)
    registry.condemn_packs(0)
    other = shelf.begin()
    assert registry.claim_extents(other, [sha(1)]) == {}
    with pytest.raises(PacksCondemned, match="1 pack"):
        registry.commit(other, content("a", [key]))
    with pytest.raises(PacksCondemned):
        registry.save_draft(other, content("a", [key]))
    with pytest.raises(PacksCondemned):
        registry.register_pack(other, key, 10, b"", [])
    again = shelf.pack(other, 1)
    assert registry.claim_extents(other, [sha(1)])[sha(1)].pack == again
    assert registry.commit(other, content("a", [again])).version.index == 1


def test_packs_are_deleted_a_grace_period_after_they_were_condemned(registry, shelf):
    first, key = shelf.log_pack("a", 1)
    _, living = shelf.log_pack("b", 2)
    registry.delete_version(first.version.id)
    registry.condemn_packs(0)
    assert registry.deletable_packs(DAY) == ()
    assert registry.deletable_packs(0) == (key,)
    registry.forget_packs([key, living])
    assert registry.deletable_packs(0) == ()
    assert registry.known_packs([key, living]) == {living}
    with registry.database.read() as db:
        assert db.execute(text("SELECT count(*) FROM extent")).scalar() == 1


def test_only_what_nobody_renews_is_abandoned(registry, shelf):
    log, sdk = shelf.begin(origin="log"), shelf.begin(origin="sdk")
    mount, draft = shelf.begin(origin="mount"), shelf.begin(origin="sdk")
    keys = {origin: shelf.pack(version_id, n) for n, (origin, version_id) in enumerate(
        {"log": log, "sdk": sdk, "mount": mount, "draft": draft}.items())}  # fmt: skip
    registry.save_draft(draft, content("d", [keys["draft"]]))
    assert registry.condemn_packs(DAY) == ()
    registry.renew(log)
    dead = tuple(sorted([keys["log"], keys["sdk"]]))
    assert registry.condemnable_packs(0) == dead
    assert registry.condemn_packs(0) == dead
    for version_id in (log, sdk):
        with pytest.raises(VersionNotFound, match="abandoned"):
            registry.renew(version_id)
    registry.renew(mount)
    assert [row.id for row in registry.drafts()] == [draft]


def test_catalogs_are_deleted_a_grace_period_after_they_were_discarded(registry, shelf):
    deleted = shelf.log("a").version
    living = shelf.log("b").version
    abandoned = registry.save_draft(shelf.begin(), content("c"))
    equal = content("b")
    registry.commit(shelf.begin(), equal)
    keys = [deleted.catalog_key, abandoned.catalog_key, equal.catalog_key, living.catalog_key]
    assert registry.known_catalogs([*keys, "catalogs/unknown"]) == set(keys)
    registry.abandon(abandoned.id)
    registry.delete_version(deleted.id)
    assert registry.deletable_catalogs(DAY) == ()
    assert set(registry.deletable_catalogs(0)) == set(keys[:3])
    registry.forget_catalogs(keys[:3])
    assert registry.deletable_catalogs(0) == ()
    assert registry.known_catalogs(keys) == {living.catalog_key}


def test_a_draft_that_became_a_version_keeps_its_catalog(registry, shelf):
    made = content("a")
    draft = registry.save_draft(shelf.begin(), made)
    registry.commit(draft.id, made)
    assert registry.deletable_catalogs(0) == ()


def age(registry, version_id, seconds):
    with registry.database.write() as db:
        query = text("UPDATE version SET created_at = created_at - :s WHERE id = :id")
        db.execute(query, {"s": seconds, "id": version_id})


def test_time_to_live_is_the_versions_or_the_collections(registry, shelf):
    own = shelf.log("own", ttl=60).version
    never = shelf.log("never", ttl=None).version
    inherits = shelf.log("inherits").version
    assert (own.ttl_seconds, own.ttl_inherited) == (60, False)
    assert (never.ttl_seconds, never.ttl_inherited) == (None, False)
    assert (inherits.ttl_seconds, inherits.ttl_inherited) == (None, True)
    registry.update_collection(MNIST, description="numbers", ttl_seconds=100)
    assert registry.get(inherits.id).ttl_seconds == 100
    assert registry.get(never.id).ttl_seconds is None
    for version in (own, never, inherits):
        age(registry, version.id, 80)
    assert [row.id for row in registry.expired_versions()] == [own.id]
    assert registry.update_version(own.id, ttl=INHERIT).ttl_seconds == 100
    assert registry.expired_versions() == ()
    age(registry, own.id, 80)
    assert [row.id for row in registry.delete_expired()] == [own.id]
    assert {row.id for row in registry.versions(MNIST)} == {never.id, inherits.id}


def test_what_is_linked_to_a_registry_does_not_expire(registry, shelf):
    version = shelf.log("a", ttl=10).version
    age(registry, version.id, 20)
    assert len(registry.expired_versions()) == 1
    registry.link(version.id, CollectionName("acme", "elsewhere", "shown"))
    assert len(registry.expired_versions()) == 1
    registry.link(version.id, CollectionName("acme", "wandb-registry-model", "shown"))
    assert registry.delete_expired() == ()
