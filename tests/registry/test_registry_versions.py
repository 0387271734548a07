import pytest
from shelf import MNIST, content
from sqlalchemy import text

from artfs.errors import (
    AliasesExist,
    BaseOutdated,
    InvalidMetadata,
    InvalidName,
    InvalidText,
    KindMismatch,
    NotCommitted,
    PacksCondemned,
    RegistryFull,
    TypeMismatch,
    VersionInUse,
    VersionNotFound,
)
from artfs.names import CollectionName
from artfs.registry import INHERIT, CollectionKind, Registry, State, VersionRecord

BEST = CollectionName("acme", "vision", "best-models")


@pytest.mark.parametrize("text", ["\udcff", "a\0b"])
def test_a_description_that_is_no_text_is_refused(registry, shelf, text):
    version = shelf.log().version
    with pytest.raises(InvalidText, match="invalid description"):
        registry.update_version(version.id, description=text)
    with pytest.raises(InvalidText, match="invalid description"):
        registry.update_collection(MNIST, description=text, ttl_seconds=None)
    with pytest.raises(InvalidText, match="invalid description"):
        shelf.log("b", description=text)
    assert registry.resolve(MNIST.at("latest")).description is None


@pytest.mark.parametrize("number", [1, 1 << 31, 1 << 63, 10**100])
def test_a_number_that_was_never_given_does_not_exist(registry, shelf, number):
    shelf.log()
    with pytest.raises(VersionNotFound, match=f"mnist:v{number} does not exist"):
        registry.resolve(MNIST.at(f"v{number}"))


def test_a_commit_makes_the_version_visible_at_once(registry, shelf):
    # SEMANTICS: A version becomes visible in one step, with its number, its aliases and `latest`;
    version_id = shelf.begin()
    with pytest.raises(VersionNotFound):
        registry.resolve(MNIST.at("latest"))
    assert registry.collections("acme", "vision") == ()
    done = registry.commit(
        version_id, content(), aliases=["best"], description="d", metadata={"n": {"x": [1]}}, tags=["two words", "a"]
    )
    assert done.created
    seen = registry.resolve(MNIST.at("best"))
    assert seen == done.version == registry.get(version_id)
    assert (seen.id, seen.state, seen.index, seen.type) == (version_id, State.COMMITTED, 0, "dataset")
    assert str(seen.name) == str(seen.source_name) == "acme/vision/mnist:v0"
    assert not seen.is_link
    assert seen.aliases == ("best", "latest")
    assert seen.tags == ("a", "two words")
    assert (seen.description, seen.metadata) == ("d", {"n": {"x": [1]}})
    assert (seen.digest, seen.file_count, seen.size, seen.stored_bytes) == ("digest-a", 3, 300, 100)
    assert [row.name for row in registry.collections("acme", "vision")] == [MNIST]


def test_numbers_count_up_and_latest_follows(registry, shelf):
    for number, mark in enumerate("abc"):
        assert shelf.log(mark).version.index == number
    assert registry.aliases(MNIST) == {"latest": 2}
    assert [row.index for row in registry.versions(MNIST)] == [2, 1, 0]
    assert registry.resolve(MNIST.at("v1")).aliases == ()


def test_numbers_and_membership_ids_are_never_given_again(registry, shelf):
    # SEMANTICS: Version numbers are never used again, not even after a version was deleted.
    shelf.log("a")
    last = shelf.log("b").version
    registry.delete_version(last.id, delete_aliases=True)
    after = shelf.log("b").version
    assert after.index == 2
    assert after.membership_id > last.membership_id


def test_known_content_moves_the_aliases_and_makes_no_version(registry, shelf):
    # SEMANTICS: `latest` is the version that was committed last, or equalled last.
    first = shelf.log("a").version
    shelf.log("b")
    pending = shelf.begin()
    done = registry.commit(pending, content("a"), aliases=["best"], description="not taken")
    assert not done.created
    assert done.version.id == first.id
    assert done.version.description is None
    assert registry.aliases(MNIST) == {"best": 0, "latest": 0}
    with pytest.raises(VersionNotFound):
        registry.get(pending)
    assert shelf.log("c").version.index == 2


def test_either_digest_makes_content_new(registry, shelf):
    registry.commit(shelf.begin(), content("a", tree="1"))
    assert registry.commit(shelf.begin(), content("a", tree="2")).version.index == 1
    assert not registry.commit(shelf.begin(), content("a", tree="1")).created


def test_deleted_and_pending_content_is_not_known(registry, shelf):
    first = shelf.log("a").version
    registry.delete_version(first.id, delete_aliases=True)
    registry.save_draft(shelf.begin(), content("a"))
    done = shelf.log("a")
    assert done.created
    assert done.version.index == 1


def test_known_content_is_looked_up_per_collection(registry, shelf):
    other = CollectionName("acme", "vision", "other")
    version = shelf.log("a").version
    assert shelf.log("a", other).created
    made = content("a")
    assert registry.find_content(MNIST, made.digest, made.tree_digest).id == version.id
    assert registry.find_content(MNIST, made.digest, "other") is None


def test_a_commit_that_went_through_can_be_repeated(registry, shelf):
    version_id, made = shelf.begin(), content()
    first = registry.commit(version_id, made)
    assert registry.commit(version_id, made) == first
    assert registry.aliases(MNIST) == {"latest": 0}


def test_a_failed_commit_leaves_everything_as_it_was(registry, shelf):
    shelf.log("a")
    version_id = shelf.begin()
    with pytest.raises(InvalidName):
        registry.commit(version_id, content("b"), aliases=["v3"])
    with pytest.raises(PacksCondemned):
        registry.commit(version_id, content("b", ["packs/none"]))
    with pytest.raises(InvalidMetadata):
        registry.commit(version_id, content("b"), metadata={"x": float("nan")})
    assert registry.get(version_id).state is State.PENDING
    assert registry.aliases(MNIST) == {"latest": 0}
    assert registry.commit(version_id, content("b")).version.index == 1


def test_require_latest_refuses_an_outdated_base(registry, shelf):
    first = registry.commit(shelf.begin(), content("a"), require_latest=True).version
    mine, theirs = shelf.begin(base=first.id), shelf.begin(base=first.id)
    registry.commit(theirs, content("b"), require_latest=True)
    with pytest.raises(BaseOutdated, match="v1"):
        registry.commit(mine, content("c"), require_latest=True)
    assert registry.commit(mine, content("c")).version.base_id == first.id


def test_a_collection_holds_one_type(registry, shelf):
    shelf.log("a")
    with pytest.raises(TypeMismatch, match="'dataset'"):
        shelf.begin(type="model")


def test_a_collection_that_never_held_anything_takes_another_type(registry, shelf):
    failed = shelf.begin(type="modle")
    with pytest.raises(TypeMismatch):
        shelf.begin(type="model")
    registry.abandon(failed)
    assert shelf.log(begin={"type": "model"}).version.type == "model"


def test_membership_ids_end_at_24_bits(registry, shelf):
    shelf.log("a")
    with registry.database.write() as db:
        if registry.database.is_sqlite:
            db.execute(text("UPDATE sqlite_sequence SET seq = 16777215 WHERE name = 'membership'"))
        else:
            db.execute(text("SELECT setval(pg_get_serial_sequence('membership', 'id'), 16777215)"))
    with pytest.raises(RegistryFull):
        shelf.log("b")
    with pytest.raises(VersionNotFound):
        registry.resolve(MNIST.at("v1"))


# -- drafts


def test_a_draft_has_a_name_of_its_own_until_it_is_committed(registry, shelf):
    version_id = shelf.begin(origin="mount")
    assert registry.drafts() == ()
    draft = registry.save_draft(version_id, content("a"), description="kept", metadata={"k": 1})
    assert str(draft.name) == f"acme/vision/mnist:draft-{version_id[:8]}"
    assert draft.is_draft
    assert registry.resolve(draft.name) == draft
    assert registry.drafts() == registry.drafts(MNIST) == (draft,)
    done = registry.commit(version_id, content("a"), aliases=["best"])
    assert str(done.version.name) == "acme/vision/mnist:v0"
    assert (done.version.description, done.version.metadata) == ("kept", {"k": 1})
    assert registry.drafts() == ()
    with pytest.raises(VersionNotFound):
        registry.resolve(draft.name)


def test_a_draft_takes_the_place_of_the_one_it_was_made_on(registry, shelf):
    base = shelf.log("a").version
    first = registry.save_draft(shelf.begin(base=base.id), content("b"))
    second = registry.save_draft(shelf.begin(base=first.id), content("c"), replaces=first.id)
    assert registry.drafts() == (second,)
    assert second.base_id == base.id


def test_a_draft_that_was_committed_meanwhile_stays(registry, shelf):
    first = registry.save_draft(shelf.begin(), content("b"))
    second = shelf.begin(base=first.id)
    registry.commit(first.id, content("b"))
    registry.save_draft(second, content("c"), replaces=first.id)
    assert registry.resolve(MNIST.at("v0")).id == first.id


def test_abandoning(registry, shelf):
    draft = registry.save_draft(shelf.begin(), content())
    registry.abandon(draft.id)
    registry.abandon(draft.id)
    assert registry.drafts() == ()
    with pytest.raises(VersionInUse):
        registry.abandon(shelf.log().version.id)


def test_an_abandoned_version_can_be_neither_renewed_nor_committed(registry, shelf):
    version_id = shelf.begin()
    registry.renew(version_id)
    registry.abandon(version_id)
    with pytest.raises(VersionNotFound, match="abandoned"):
        registry.renew(version_id)
    with pytest.raises(VersionNotFound, match="abandoned"):
        registry.commit(version_id, content())
    with pytest.raises(VersionNotFound, match="abandoned"):
        registry.claim_extents(version_id, [])


# -- aliases and tags


def test_an_alias_names_one_version_at_a_time(registry, shelf):
    first, second = shelf.log("a").version, shelf.log("b").version
    registry.add_aliases(first.id, ["best", "prod"])
    assert registry.add_aliases(second.id, ["best"]).aliases == ("best", "latest")
    assert registry.get(first.id).aliases == ("prod",)
    assert registry.remove_aliases(second.id, ["best", "prod"]).aliases == ("latest",)
    assert registry.aliases(MNIST) == {"latest": 1, "prod": 0}
    assert registry.set_aliases(first.id, ["x"]).aliases == ("x",)
    assert registry.set_aliases(second.id, []).aliases == ()


@pytest.mark.parametrize("bad", ["v0", "v12", "a/b", "a:b", "", "draft-1"])
def test_reserved_aliases_are_refused(registry, shelf, bad):
    version = shelf.log().version
    for change in (registry.add_aliases, registry.set_aliases):
        with pytest.raises(InvalidName):
            change(version.id, [bad])
    assert registry.aliases(MNIST) == {"latest": 0}


def test_drafts_carry_no_aliases(registry, shelf):
    draft = registry.save_draft(shelf.begin(), content())
    with pytest.raises(NotCommitted):
        registry.add_aliases(draft.id, ["best"])
    with pytest.raises(NotCommitted):
        registry.link(draft.id, BEST)


def test_tags_and_descriptions_change(registry, shelf):
    version = shelf.log(tags=["old"]).version
    assert registry.change_tags(version.id, ["new", "new", "other"], ["old"]).tags == ("new", "other")
    changed = registry.update_version(version.id, description="text", metadata={"a": None})
    assert (changed.description, changed.metadata) == ("text", {"a": None})
    assert registry.update_version(version.id).description == "text"
    assert registry.update_version(version.id, description=None).description is None
    assert registry.get(version.id).updated_at >= version.updated_at


# -- deleting


def test_deleting_needs_consent_while_there_are_aliases(registry, shelf):
    version = shelf.log("a").version
    with pytest.raises(AliasesExist, match="mnist:latest"):
        registry.delete_version(version.id)
    deleted = registry.delete_version(version.id, delete_aliases=True)
    assert deleted.state is State.DELETED
    assert str(deleted.source_name) == "acme/vision/mnist:v0"
    assert registry.get(version.id) == deleted
    assert registry.memberships(MNIST) == ()
    with pytest.raises(VersionNotFound, match="deleted"):
        registry.resolve(MNIST.at("v0"))
    with pytest.raises(VersionNotFound, match="deleted"):
        registry.delete_version(version.id, delete_aliases=True)


def test_latest_passes_to_the_newest_that_is_left(registry, shelf):
    # SEMANTICS: Deleting it gives `latest` to the highest number left.
    versions = [shelf.log(mark).version for mark in "abc"]
    registry.delete_version(versions[1].id)
    registry.delete_version(versions[2].id, delete_aliases=True)
    assert registry.aliases(MNIST) == {"latest": 0}


def test_deleting_takes_the_links_along(registry, shelf):
    first, second = shelf.log("a").version, shelf.log("b").version
    registry.link(second.id, BEST)
    registry.link(first.id, BEST, ["prod"])
    with pytest.raises(AliasesExist, match="best-models:prod"):
        registry.delete_version(first.id)
    registry.delete_version(first.id, delete_aliases=True)
    assert registry.aliases(BEST) == {"latest": 0}
    assert [row.version_id for row in registry.memberships(BEST)] == [second.id]


def test_drafts_are_discarded_not_deleted(registry, shelf):
    with pytest.raises(VersionInUse):
        registry.delete_version(registry.save_draft(shelf.begin(), content()).id)


# -- portfolios


def test_a_portfolio_counts_for_itself(registry, shelf):
    shelf.log("a")
    second = shelf.log("b", aliases=["best"]).version
    linked = registry.link(second.id, BEST, ["prod"])
    assert str(linked.name) == "acme/vision/best-models:v0"
    assert str(linked.source_name) == "acme/vision/mnist:v1"
    assert linked.is_link
    assert linked.collection_kind is CollectionKind.PORTFOLIO
    assert linked.aliases == ("latest", "prod")
    assert registry.resolve(BEST.at("prod")) == linked
    assert registry.get(second.id).aliases == ("best", "latest")
    assert registry.links(second.id) == (linked,)
    assert linked.membership_id != second.membership_id
    assert registry.add_aliases(second.id, ["there"], BEST).aliases == ("latest", "prod", "there")
    assert "there" not in registry.aliases(MNIST)


def test_linking_again_moves_aliases_only(registry, shelf):
    first, second = shelf.log("a").version, shelf.log("b").version
    registry.link(first.id, BEST)
    registry.link(second.id, BEST)
    again = registry.link(first.id, BEST, ["prod"])
    assert again.index == 0
    assert registry.aliases(BEST) == {"latest": 0, "prod": 0}


def test_unlinking(registry, shelf):
    first, second = shelf.log("a").version, shelf.log("b").version
    registry.link(first.id, BEST)
    registry.link(second.id, BEST)
    registry.unlink(second.id, BEST)
    assert registry.aliases(BEST) == {"latest": 0}
    assert registry.link(second.id, BEST).index == 2
    with pytest.raises(VersionNotFound):
        registry.unlink(second.id, MNIST)
    with pytest.raises(VersionNotFound):
        registry.unlink(second.id, CollectionName("acme", "vision", "best-modles"))
    assert registry.get(second.id).state is State.COMMITTED


def test_portfolios_and_sequences_do_not_mix(registry, shelf):
    version = shelf.log("a").version
    other = CollectionName("acme", "vision", "other")
    shelf.log("a", other)
    with pytest.raises(KindMismatch):
        registry.link(version.id, other)
    registry.link(version.id, BEST)
    with pytest.raises(KindMismatch):
        shelf.begin(BEST)
    model = shelf.log("a", CollectionName("acme", "vision", "net"), begin={"type": "model"}).version
    with pytest.raises(TypeMismatch):
        registry.link(model.id, BEST)


# -- rebuilding


def test_importing_records_rebuilds_a_registry(registry, shelf, tmp_path):
    one = shelf.pack(None, 1)
    shelf.log("a")
    version = shelf.log(
        "b", packs=[one], aliases=["best"], metadata={"k": 1}, tags=["t"], ttl=60, description="d"
    ).version
    link = registry.link(version.id, BEST)
    records = [
        VersionRecord(
            version.id, version.name, CollectionKind.SEQUENCE, version.type, version.aliases, version.created_at,
            content("b", [one]), "d", {"k": 1}, ("t",), 60,
        ),
        VersionRecord(link.id, link.name, CollectionKind.PORTFOLIO, link.type, link.aliases, link.created_at),
        VersionRecord(
            "0" * 32, MNIST.at("v0"), CollectionKind.SEQUENCE, "dataset", ("latest",), version.created_at,
            content("a"), ttl=INHERIT,
        ),
    ]  # fmt: skip
    rebuilt = Registry.open(f"sqlite:///{tmp_path}/rebuilt.db")
    with pytest.raises(PacksCondemned):
        rebuilt.import_version(records[0])
    rebuilt.register_pack(None, one, 10, b"checksum", [])
    for record in [*records, *records]:
        rebuilt.import_version(record)
    found = rebuilt.resolve(MNIST.at("best"))
    assert (found.id, found.index, found.created_at) == (version.id, 1, version.created_at)
    assert (found.description, found.metadata, found.tags, found.ttl_seconds) == ("d", {"k": 1}, ("t",), 60)
    assert rebuilt.aliases(MNIST) == {"best": 1, "latest": 1}
    assert rebuilt.resolve(BEST.at("latest")).id == version.id
    assert rebuilt.commit(rebuilt.begin(MNIST, "dataset", origin="log"), content("c")).version.index == 2
    rebuilt.close()
