import pytest
from shelf import MNIST

from artfs.errors import VersionNotFound
from artfs.names import CollectionName, parse_version_name


def resolve(registry, text):
    return registry.resolve(parse_version_name(text, entity="acme"))


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("acm/vision/mnist", "no entity 'acm'; did you mean acme?"),
        ("zzz/vision/mnist", "no entity 'zzz'; the registry has acme"),
        ("acme/visoin/mnist", "no project 'visoin'; did you mean vision?"),
        ("acme/xyz/mnist", "no project 'xyz'; acme has vision"),
        ("acme/vision/mnits", "no collection 'mnits'; did you mean mnist?"),
        ("acme/vision/q", "no collection 'q'; acme/vision has c0, c1, c2, c3, c4, ..."),
        ("acme/vision/mnist:bets", "no alias 'bets'; did you mean best?"),
        ("acme/vision/mnist:v9", "acme/vision/mnist has best, latest, v0"),
        ("acme/vision/mnist:draft-12345678", "no alias 'draft-12345678'"),
    ],
)
def test_names_that_lead_nowhere_come_with_a_hint(registry, shelf, wanted, told):
    shelf.log(aliases=["best"])
    for i in range(5):
        shelf.log(name=CollectionName("acme", "vision", f"c{i}"))
    with pytest.raises(VersionNotFound) as caught:
        resolve(registry, wanted)
    assert str(caught.value).startswith(wanted)
    assert told in str(caught.value)


def test_an_empty_registry_says_so(registry):
    with pytest.raises(VersionNotFound, match="the registry is empty"):
        resolve(registry, "mnist")
    assert registry.entities() == ()
    with pytest.raises(VersionNotFound):
        registry.projects("acme")


def test_levels_are_listed_by_name(registry, shelf):
    for name in ["b/y/Z", "b/y/a", "b/x/c", "a/z/c"]:
        shelf.log(name=CollectionName(*name.split("/")))
    shelf.begin(CollectionName("b", "y", "never-committed"))
    assert [row.name for row in registry.entities()] == ["a", "b"]
    assert [row.name for row in registry.projects("b")] == ["x", "y"]
    assert [row.name.collection for row in registry.collections("b", "y")] == ["Z", "a"]
    for level in (lambda: registry.projects("c"), lambda: registry.collections("b", "q")):
        with pytest.raises(VersionNotFound):
            level()


def test_memberships_list_a_collection(registry, shelf):
    first, second = shelf.log("a", aliases=["best"]).version, shelf.log("b").version
    rows = registry.memberships(MNIST)
    assert [(row.index, row.version_id, row.aliases) for row in rows] == [
        (0, first.id, ("best",)),
        (1, second.id, ("latest",)),
    ]
    assert [row.membership_id for row in rows] == [first.membership_id, second.membership_id]
    assert all(0 < row.membership_id < 2**24 for row in rows)


def test_whatever_a_listing_shows_moves_its_change_time(registry, shelf):
    portfolio = CollectionName("acme", "shown", "best")
    version = shelf.log("a").version
    second = shelf.log("b").version
    registry.link(version.id, portfolio)

    def moved(name, change):
        def times():
            project = next(row for row in registry.projects(name.entity) if row.name == name.project)
            return project.changed_at, registry.collection(name).changed_at

        before = times()
        # The clock of SQLite ticks in milliseconds: let it tick, so that a change can be told.
        while registry.now() <= max(before):
            pass
        change()
        return [new > old for new, old in zip(times(), before, strict=True)]

    for name, change in [
        (MNIST, lambda: shelf.log("c")),
        (MNIST, lambda: shelf.log("a")),
        (MNIST, lambda: registry.add_aliases(version.id, ["x"])),
        (MNIST, lambda: registry.remove_aliases(version.id, ["x"])),
        (MNIST, lambda: registry.set_aliases(version.id, ["y"])),
        (portfolio, lambda: registry.link(second.id, portfolio)),
        (portfolio, lambda: registry.unlink(second.id, portfolio)),
        (portfolio, lambda: registry.delete_version(version.id, delete_aliases=True)),
    ]:
        assert moved(name, change) == [True, True]
    assert moved(MNIST, lambda: registry.change_tags(second.id, ["t"])) == [False, False]
    assert moved(MNIST, shelf.begin) == [False, False]


def test_a_new_project_moves_its_entitys_change_time(registry, shelf):
    shelf.log()
    (before,) = registry.entities()
    while registry.now() <= before.changed_at:
        pass
    shelf.log(name=CollectionName("acme", "other", "c"))
    (after,) = registry.entities()
    assert after.changed_at > before.changed_at
    assert after.id == before.id
