"""Everything in a registry as a file system, by the ``Tree`` interface."""

import logging
import shutil
import time
from contextlib import contextmanager

import pytest
from homes import make_tree, open_repository, soon

from artfs.catalog import Kind
from artfs.errors import NotFound, RegistryUnavailable, VersionNotFound
from artfs.names import CollectionName
from artfs.versions.log import Labels, log_path
from artfs.vfs import Namespace, WouldBlock
from artfs.vfs.namespace import CATALOG_BITS, LIFETIME
from artfs.vfs.tree import YEAR

MNIST = CollectionName("acme", "vision", "mnist")
SIGNS = CollectionName("acme", "traffic", "signs")
WORDS = CollectionName("zeta", "text", "words")


def logger(directory, repository):
    def log_text(collection, text, *aliases):
        source = make_tree(directory / f"src-{text}", {"f": text.encode()})
        return log_path(repository, source, collection, "dataset", labels=Labels(aliases=aliases)).version

    return log_text


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Three collections of two entities."""
    directory = tmp_path_factory.mktemp("namespace")
    with open_repository(directory / "home") as repository:
        log = logger(directory, repository)
        log(MNIST, "one", "best")
        log(MNIST, "two")
        log(SIGNS, "signs")
        log(WORDS, "words")
    return directory / "home"


@pytest.fixture
def repository(tmp_path, template):
    shutil.copytree(template, tmp_path / "home")
    with open_repository(tmp_path / "home") as repository:
        yield repository


@pytest.fixture
def log(tmp_path, repository):
    return logger(tmp_path, repository)


@pytest.fixture
def namespace(tmp_path, repository):
    """Opens a namespace."""

    @contextmanager
    def open_namespace(*level):
        tree = Namespace(open_repository(tmp_path / "home"), level)
        try:
            yield tree
        finally:
            tree.close()

    return open_namespace


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """No answer of the registry serves twice, so that nothing has to be waited for."""
    monkeypatch.setattr("artfs.vfs.namespace._FRESH", 0.0)


def names(tree, inode=1):
    return [entry.name for entry in tree.list(inode, 0, soon())]


def look(tree, path, inode=1):
    """The attributes at a path, links not followed."""
    for name in path.split("/"):
        found = tree.lookup(inode, name, soon())
        assert found is not None, name
        inode = found.inode
    return found


def read(tree, path):
    """Follows links within a directory."""
    parts, inode = path.split("/"), 1
    while parts:
        found = tree.lookup(inode, parts[0], soon())
        assert found is not None, parts[0]
        if found.kind == Kind.SYMLINK:
            parts[0] = tree.readlink(found.inode, soon())
            continue
        del parts[0]
        inode = found.inode
    return bytes(tree.read(inode, 0, 1 << 20, soon()))


PROJECT = ["mnist", "mnist:best", "mnist:latest", "mnist:v0", "mnist:v1"]


def test_the_levels(namespace):
    with namespace() as tree:
        assert names(tree) == ["acme", "zeta"]
        assert names(tree, look(tree, "acme").inode) == ["traffic", "vision"]
        assert names(tree, look(tree, "acme/vision").inode) == PROJECT
        assert names(tree, look(tree, "acme/vision/mnist:v0").inode) == ["f"]
        assert read(tree, "acme/vision/mnist:v0/f") == b"one"
        assert read(tree, "acme/vision/mnist/f") == read(tree, "acme/vision/mnist:latest/f") == b"two"
        assert read(tree, "acme/vision/mnist:best/f") == b"one"
        assert read(tree, "zeta/text/words/f") == b"words"
    with namespace("acme") as tree:
        assert names(tree) == ["traffic", "vision"]
        assert read(tree, "vision/mnist/f") == b"two"
    with namespace("acme", "vision") as tree:
        assert names(tree) == PROJECT
        assert read(tree, "mnist/f") == b"two"


def test_a_level_that_does_not_exist(namespace):
    for level in (("acne",), ("acme", "visions")):
        with pytest.raises(VersionNotFound, match="did you mean"), namespace(*level):
            pass


def test_absent_names(namespace):
    with namespace() as tree:
        assert tree.lookup(1, "absent", soon()) is None
        project = look(tree, "acme/vision").inode
        assert tree.lookup(project, "mnist:v2", soon()) is None
        assert tree.absent_lifetime(1) == tree.absent_lifetime(project) == LIFETIME
        version = look(tree, "acme/vision/mnist:v0").inode
        assert tree.lookup(version, "absent", soon()) is None
        assert tree.absent_lifetime(version) == YEAR


def test_links_are_short_lived_and_lead_next_door(namespace):
    with namespace("acme", "vision") as tree:
        for name, target in (("mnist", "mnist:latest"), ("mnist:latest", "mnist:v1"), ("mnist:best", "mnist:v0")):
            found = look(tree, name)
            assert (found.kind, found.size, found.entry_lifetime) == (Kind.SYMLINK, len(target), LIFETIME)
            assert tree.readlink(found.inode, soon()) == target
            assert tree.attributes(found.inode, soon()) == found


def everything(tree, inode=1):
    for entry in tree.list(inode, 0, soon()):
        yield entry
        if entry.attributes.kind == Kind.DIRECTORY:
            yield from everything(tree, entry.attributes.inode)


def test_inodes_are_the_same_in_another_process(namespace):
    # SEMANTICS: Inode numbers are the same in every process and after every restart.
    with namespace() as one, namespace() as two:
        found = list(everything(one))
        assert found == list(everything(two))
        assert len({entry.attributes.inode for entry in found}) == len(found)
    with namespace() as tree:  # which has looked nothing up
        for entry in found:
            assert tree.attributes(entry.attributes.inode, soon()).kind == entry.attributes.kind
    for entry in reversed(found):
        with namespace() as tree:
            inode = entry.attributes.inode
            if entry.attributes.kind == Kind.SYMLINK:
                assert tree.readlink(inode, soon()).startswith("mnist:" if "mnist" in entry.name else "")
            elif entry.attributes.kind == Kind.FILE:
                assert tree.read(inode, 0, 100, soon()) in {b"one", b"two", b"signs", b"words"}
            else:
                assert names(tree, inode)


@pytest.mark.parametrize("inode", [2, 1 << 36 | 999, 2 << 36 | 999, 3 << 36 | 5, 999 << CATALOG_BITS | 1, 5 << 36])
def test_inodes_that_nobody_has(namespace, inode):
    with namespace() as tree, pytest.raises(NotFound):
        tree.attributes(inode, soon())
    with namespace() as tree, pytest.raises(NotFound):
        list(tree.list(inode, 0, soon()))


def test_an_inode_outside_of_the_level_does_not_exist(namespace):
    with namespace() as tree:
        zeta = look(tree, "zeta").inode
    with namespace("acme") as tree, pytest.raises(NotFound):
        tree.attributes(zeta, soon())


def test_nothing_waits_without_a_deadline(namespace, monkeypatch):
    with namespace() as tree:
        version = look(tree, "acme/vision/mnist:v0").inode
        file = look(tree, "acme/vision/mnist:v0/f").inode
        link = look(tree, "acme/vision/mnist").inode
        reads = tree.statistics()["registry"]["reads"]
        # What a version holds is answered at once, and so is what does not change.
        assert tree.lookup(version, "f", None).inode == file
        assert [entry.name for entry in tree.list(version, 0, None)] == ["f"]
        assert tree.readlink(link, None) == "mnist:latest"
        assert tree.attributes(link, None).kind == tree.attributes(link, None).kind == Kind.SYMLINK
        assert tree.attributes(version, None).inode == version
        for call in (
            lambda: tree.lookup(1, "acme", None),
            lambda: list(tree.list(1, 0, None)),
            lambda: tree.attributes(1, None),
            lambda: tree.xattrs(file, None),
        ):
            with pytest.raises(WouldBlock):
                call()
        assert tree.statistics()["registry"]["reads"] == reads
    monkeypatch.setattr("artfs.vfs.namespace._FRESH", 60.0)
    with namespace() as tree:
        for call in (
            lambda: tree.lookup(version, "f", None),
            lambda: tree.read(file, 0, 5, None),
            lambda: tree.readlink(link, None),
            lambda: list(tree.list(version, 0, None)),
            lambda: tree.attributes(file, None),
        ):
            with pytest.raises(WouldBlock):
                call()
        assert tree.lookup(1, "acme", None).kind == Kind.DIRECTORY  # the root was listed when it was mounted


def test_attributes_of_a_version_open_no_catalog(namespace):
    with namespace() as tree:
        for entry in tree.list(look(tree, "acme/vision").inode, 0, soon()):
            tree.attributes(entry.attributes.inode, soon())
        assert tree.statistics()["versions"] == []
        assert tree.capacity().files == 0
        read(tree, "acme/vision/mnist:v0/f")
        assert [each["version"] for each in tree.statistics()["versions"]] == ["acme/vision/mnist:v0"]
        assert tree.capacity().files == 1


def test_what_is_logged_meanwhile_appears(namespace, log):
    with namespace() as tree:
        project = look(tree, "acme/vision").inode
        before = tree.attributes(project, soon()).mtime_ns
        kept = look(tree, "acme/vision/mnist:v0")
        log(MNIST, "three")
        log(CollectionName("acme", "new", "thing"), "thing")
        assert names(tree, look(tree, "acme").inode) == ["traffic", "vision", "new"]
        assert read(tree, "acme/new/thing/f") == b"thing"
        assert "mnist:v2" in names(tree, project)
        assert read(tree, "acme/vision/mnist/f") == b"three"
        assert look(tree, "acme/vision/mnist:v0") == kept
        assert tree.attributes(project, soon()).mtime_ns > before


def test_a_moved_alias_is_a_new_inode(namespace, repository):
    # SEMANTICS: A moved alias is a new link with a new inode;
    with namespace("acme", "vision") as tree:
        old = look(tree, "mnist:best")
        repository.registry.add_aliases(repository.registry.resolve(MNIST.at("v1")).id, ["best"])
        new = look(tree, "mnist:best")
        assert new.inode != old.inode
        assert tree.readlink(new.inode, soon()) == "mnist:v1"
        assert tree.readlink(old.inode, soon()) == "mnist:v0"  # a program that holds it sees what it opened


def test_a_deleted_version_disappears_and_its_readers_go_on(namespace, repository):
    with namespace("acme", "vision") as tree:
        file = look(tree, "mnist:v0/f").inode
        root = look(tree, "mnist:v0").inode
        repository.registry.delete_version(repository.registry.resolve(MNIST.at("v0")).id, delete_aliases=True)
        assert names(tree) == ["mnist", "mnist:latest", "mnist:v1"]
        assert tree.lookup(1, "mnist:v0", soon()) is None
        assert tree.read(file, 0, 5, soon()) == b"one"
    with namespace("acme", "vision") as tree, pytest.raises(NotFound):
        tree.lookup(root, "f", soon())


def test_readers_of_a_deleted_version_go_on_when_many_others_were_looked_at(namespace, repository, monkeypatch):
    monkeypatch.setattr("artfs.vfs.namespace._OPEN_VERSIONS", 1)
    with namespace() as tree:
        file = look(tree, "acme/vision/mnist:v0/f").inode
        repository.registry.delete_version(repository.registry.resolve(MNIST.at("v0")).id, delete_aliases=True)
        assert read(tree, "acme/traffic/signs:v0/f") == b"signs"
        assert tree.read(file, 0, 5, soon()) == b"one"


def test_a_version_deleted_after_it_was_listed(namespace, repository):
    with namespace("acme", "vision") as tree:
        root = look(tree, "mnist:v0").inode
        repository.registry.delete_version(repository.registry.resolve(MNIST.at("v0")).id, delete_aliases=True)
        with pytest.raises(NotFound):
            tree.lookup(root, "f", soon())


def test_listings_go_on_after_any_entry_also_when_things_come_and_go(namespace, repository, log):
    with namespace("acme", "vision") as tree:
        whole = list(tree.list(1, 0, soon()))
        for position, entry in enumerate(whole):
            assert list(tree.list(1, entry.cookie, soon())) == whole[position + 1 :]
        first = whole[:3]
        log(CollectionName("acme", "vision", "aaa"), "aaa")
        repository.registry.delete_version(repository.registry.resolve(MNIST.at("v0")).id, delete_aliases=True)
        rest = [entry.name for entry in tree.list(1, first[-1].cookie, soon())]
        assert [entry.name for entry in first] == ["mnist", "mnist:best", "mnist:latest"]
        assert rest == ["mnist:v1", "aaa", "aaa:latest", "aaa:v0"]  # neither missed nor twice
        again = list(tree.list(1, 0, soon()))
        assert [entry.name for entry in again] == ["mnist", "mnist:latest", *rest]


def test_without_the_registry_it_shows_what_there_was(namespace, repository, tmp_path, caplog):
    # SEMANTICS: While the registry is out of reach, listings show what they last showed,
    path = tmp_path / "home" / "registry.db"
    repository.close()
    with namespace() as tree:
        assert names(tree, look(tree, "acme").inode) == ["traffic", "vision"]
        text = read(tree, "acme/vision/mnist/f")
        known = look(tree, "acme/vision").inode
        unknown = look(tree, "zeta").inode
        tree._repository.registry.close()
        path.rename(tmp_path / "kept")
        path.write_bytes(b"not a database" * 1000)
        with caplog.at_level(logging.WARNING):
            assert names(tree) == ["acme", "zeta"]
            assert names(tree, known) == PROJECT
            assert read(tree, "acme/vision/mnist/f") == text
            with pytest.raises(RegistryUnavailable):
                names(tree, unknown)  # never asked for while it could be
            assert names(tree, known) == PROJECT
        assert caplog.text.count("acme/vision is shown as it was") == 1
        path.unlink()
        (tmp_path / "kept").rename(path)
        tree._repository.registry.close()
        assert names(tree, unknown) == ["text"]


def test_a_portfolio_shows_the_versions_linked_to_it(namespace, repository):
    version = repository.registry.resolve(MNIST.at("v0"))
    portfolio = CollectionName("acme", "published", "digits")
    repository.registry.link(version.id, portfolio, ["production"])
    with namespace("acme") as tree:
        assert names(tree, look(tree, "published").inode) == [
            "digits",
            "digits:latest",
            "digits:production",
            "digits:v0",
        ]
        assert read(tree, "published/digits:production/f") == b"one"
        assert look(tree, "published/digits:v0").inode != look(tree, "vision/mnist:v0").inode
        file = look(tree, "published/digits:v0/f").inode
        assert tree.xattrs(file, soon())["user.artfs.version"] == b"acme/published/digits:v0"


def test_an_alias_too_long_for_a_file_name_is_left_out(namespace, log):
    # SEMANTICS: An alias too long to follow `collection:` in one file name of 255 bytes is not shown.
    log(CollectionName("acme", "vision", "c" * 120), "long", "日" * 50)
    with namespace("acme", "vision") as tree:
        assert set(names(tree)) - set(PROJECT) == {"c" * 120, f"{'c' * 120}:latest", f"{'c' * 120}:v0"}


def test_only_so_many_versions_stay_open(namespace, monkeypatch):
    monkeypatch.setattr("artfs.vfs.namespace._OPEN_VERSIONS", 2)
    with namespace() as tree:
        for _ in range(2):
            for path, text in (
                ("acme/vision/mnist:v0", b"one"),
                ("acme/vision/mnist:v1", b"two"),
                ("zeta/text/words", b"words"),
            ):
                assert read(tree, f"{path}/f") == text
        assert len(tree.statistics()["versions"]) <= 2


def test_answers_serve_for_a_moment(namespace, monkeypatch):
    monkeypatch.setattr("artfs.vfs.namespace._FRESH", 60.0)
    with namespace() as tree:
        names(tree)
        reads = tree.statistics()["registry"]["reads"]
        for _ in range(10):
            assert tree.lookup(1, "acme", None) is not None
        assert tree.statistics()["registry"]["reads"] == reads


def test_directories_bear_the_time_of_the_last_change(namespace, log):
    with namespace() as tree:
        began = time.time_ns()
        log(SIGNS, "more")
        found = look(tree, "acme/traffic").mtime_ns
        assert abs(found - began) < 60e9
        assert look(tree, "acme/traffic/signs:v1").mtime_ns >= look(tree, "acme/traffic/signs:v0").mtime_ns
        assert tree.attributes(look(tree, "acme/traffic").inode, soon()).mtime_ns == found
        assert tree.attributes(1, soon()).mtime_ns > 0
