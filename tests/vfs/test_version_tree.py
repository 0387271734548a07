"""One version as a file system, by the ``Tree`` interface."""

import base64
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from homes import OLD, Link, make_tree, open_repository, soon

from artfs.catalog import Entry, Kind, Reference
from artfs.errors import NotFound
from artfs.names import CollectionName
from artfs.versions.log import log_path
from artfs.versions.publication import Publication
from artfs.vfs import VersionTree, WouldBlock
from artfs.vfs.tree import YEAR, Attributes, DirectoryEntry

CONTENT = {
    "a.txt": b"first",
    "d/b.bin": bytes(range(256)) * 300,
    "d/link": Link("../a.txt"),
    "empty": None,
    "nothing": b"",
    "Grüße 日本 🎈.txt": b"x",
    "n" * 255: b"y",
} | {f"many/{i:03}": b"%d" % i for i in range(300)}
COLLECTION = CollectionName("acme", "vision", "mnist")


def test_an_entry_is_a_name_and_attributes():
    assert DirectoryEntry._fields == ("cookie", "name", *Attributes._fields)
    assert DirectoryEntry._field_defaults == Attributes._field_defaults


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("version-tree")
    with open_repository(path / "home") as repository:
        source = make_tree(path / "src", CONTENT)
        (source / "a.txt").chmod(0o640)
        log_path(repository, source, COLLECTION, "dataset")
    return path / "home"


def open_tree(home, name=None, **keywords):
    repository = open_repository(home)
    version = repository.resolve(name or COLLECTION.at("latest")).version
    catalog = repository.catalog(version)
    return VersionTree(version, catalog, repository.reader(catalog), repository=repository, **keywords)


@pytest.fixture
def tree(home):
    tree = open_tree(home)
    yield tree
    tree.close()


def walk(tree, inode=1):
    for entry in tree.list(inode, 0, None):
        yield entry
        if entry.attributes.kind == Kind.DIRECTORY:
            yield from walk(tree, entry.attributes.inode)


def find(tree, path, root=1):
    inode = root
    for name in path.split("/"):
        inode = tree.lookup(inode, name, None).inode
    return inode


def test_names_lead_to_attributes_without_waiting(tree):
    attributes = tree.lookup(1, "a.txt", None)
    assert (attributes.kind, attributes.mode, attributes.size, attributes.mtime_ns) == (Kind.FILE, 0o640, 5, OLD)
    assert attributes.entry_lifetime == attributes.lifetime == tree.absent_lifetime(1) == YEAR
    assert tree.attributes(attributes.inode, None) == attributes
    assert tree.lookup(find(tree, "d"), "b.bin", None).size == 76_800
    assert tree.lookup(1, "absent", None) is tree.lookup(1, "d/b.bin", None) is tree.lookup(1, "\udcff", None) is None
    assert tree.lookup(1, "n" * 255, None).size == 1
    link = find(tree, "d/link")
    assert tree.readlink(link, None) == "../a.txt"
    assert tree.attributes(link, None).size == len("../a.txt")
    for inode in (10_000, 0, -5):
        with pytest.raises(NotFound, match="inode"):
            tree.attributes(inode, None)


def test_a_listing_goes_on_after_any_entry(tree):
    for directory in (1, find(tree, "many"), find(tree, "empty")):
        whole = list(tree.list(directory, 0, None))
        assert [entry.name for entry in whole] == sorted(entry.name for entry in whole)
        for position, entry in enumerate(whole):
            assert list(tree.list(directory, entry.cookie, None)) == whole[position + 1 :]
            assert tree.lookup(directory, entry.name, None) == entry.attributes


def test_inodes_are_the_same_in_another_process(tree, home):
    other = open_tree(home)
    assert list(walk(tree)) == list(walk(other))
    inode = find(other, "d/b.bin")
    other.close()
    again = open_tree(home)  # which has looked nothing up
    assert again.read(inode, 0, 100, soon()) == CONTENT["d/b.bin"][:100]
    again.close()


def test_a_base_is_added_to_every_inode(home):
    base = 7 << 40
    plain, moved = open_tree(home), open_tree(home, base=base)
    assert [e.attributes.inode + base for e in walk(plain)] == [e.attributes.inode for e in walk(moved, base + 1)]
    inode = find(moved, "d/b.bin", base + 1)
    assert moved.attributes(inode, None).inode == inode
    assert moved.path_of(inode) == "acme/vision/mnist:v0/d/b.bin"
    assert moved.readlink(find(moved, "d/link", base + 1), None) == "../a.txt"
    plain.close()
    moved.close()


def test_reading_waits_for_nothing_without_a_deadline(home):
    with open_repository(home) as repository:
        repository.cache.clean()
    tree = open_tree(home)
    inode = find(tree, "d/b.bin")
    requests = tree.statistics()["store"]["requests"]
    with pytest.raises(WouldBlock):
        tree.read(inode, 0, 100, None)
    assert tree.statistics()["store"]["requests"] == requests
    assert tree.read(inode, 100, 1 << 30, soon()) == CONTENT["d/b.bin"][100:]
    assert bytes(tree.read(inode, 0, 100, None)) == CONTENT["d/b.bin"][:100]
    assert tree.read(inode, 1 << 40, 5, None) == b""
    assert tree.read(find(tree, "nothing"), 0, 5, None) == b""
    assert tree.statistics()["cache"]["hits"] > 0
    tree.close()


def test_a_tree_that_is_open_outlives_its_file_in_the_cache(home):
    tree = open_tree(home)
    with open_repository(home) as other:
        other.cache.clean()
    expected = sorted(CONTENT)
    listings = iter(tree.list(find(tree, "many"), 0, None))
    next(listings)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: [tree.path_of(e.attributes.inode) for e in walk(tree)], range(8)))
        data = list(pool.map(lambda _: tree.read(find(tree, "d/b.bin"), 0, 1 << 20, soon()), range(32)))
    assert all({path.partition(":v0/")[2] for path in paths} >= set(expected) for paths in found)
    assert set(map(bytes, data)) == {CONTENT["d/b.bin"]}
    assert len(list(listings)) == 299
    tree.close()


def test_xattrs_tell_version_digest_and_what_is_cached(tree):
    inode = find(tree, "d/b.bin")
    with pytest.raises(WouldBlock):
        tree.xattrs(inode, None)
    tree.read(inode, 0, 10, soon())
    found = tree.xattrs(inode, soon())
    assert found == {
        "user.artfs.version": b"acme/vision/mnist:v0",
        "user.artfs.digest": base64.b64encode(hashlib.md5(CONTENT["d/b.bin"]).digest()),
        "user.artfs.cached": b"76800",
    }
    assert tree.xattrs(1, soon())["user.artfs.digest"].decode() == tree.version.digest
    assert set(tree.xattrs(find(tree, "d/link"), soon())) == {"user.artfs.version"}


def test_capacity_is_that_of_the_version(tree):
    capacity = tree.capacity()
    files = [data for data in CONTENT.values() if type(data) is bytes]
    assert (capacity.size, capacity.files) == (sum(map(len, files)), len(files))
    assert (capacity.free, capacity.files_free) == (0, 0)


def test_the_statistics_are_json_ready(tree):
    tree.read(find(tree, "a.txt"), 0, 5, soon())
    text = json.loads(json.dumps(tree.statistics()))
    assert {"version", "nodes", "catalog", "content", "registry", "store", "cache"} <= set(text)


def test_many_lookups_keep_few_rows(tree, monkeypatch):
    monkeypatch.setattr("artfs.vfs.version._NODES", 50)
    for _ in range(2):
        for entry in tree.list(find(tree, "many"), 0, None):
            tree.attributes(entry.attributes.inode, None)
    assert tree.statistics()["nodes"] <= 50


def test_a_reference_whose_size_nobody_knows(tmp_path):
    (tmp_path / "there").write_bytes(b"somewhere else")
    uri = f"file://{tmp_path}/there"
    with (
        open_repository(tmp_path / "home") as repository,
        Publication(repository, COLLECTION, "dataset", origin="sdk") as publication,
    ):
        for name, size in (("known", 14), ("unknown", None)):
            publication.add(Entry(name, Kind.REFERENCE, reference=Reference(uri, uri, size, {})))
        publication.commit()
    tree = open_tree(tmp_path / "home")
    unknown = tree.lookup(1, "unknown", None)
    assert (unknown.kind, unknown.size, unknown.lifetime) == (Kind.FILE, 0, 0.0)
    assert tree.lookup(1, "known", None).size == 14
    with pytest.raises(WouldBlock):
        tree.attributes(unknown.inode, None)
    with pytest.raises(WouldBlock):
        tree.read(unknown.inode, 0, 5, None)
    asked = tree.attributes(unknown.inode, soon())
    assert (asked.size, asked.lifetime) == (14, YEAR)
    assert tree.attributes(unknown.inode, None) == asked
    assert bytes(tree.read(unknown.inode, 0, 100, soon())) == b"somewhere else"
    assert tree.xattrs(unknown.inode, soon())["user.artfs.ref"].decode() == uri
    assert tree.xattrs(unknown.inode, soon())["user.artfs.cached"] == b"14"
    tree.close()
