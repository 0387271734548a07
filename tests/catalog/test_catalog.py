import hashlib
import io
import json
import os
import threading
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artfs.catalog import Catalog, CatalogBuilder, Entry, Extent, Kind, Reference
from artfs.catalog.manifest import read_manifest, write_manifest
from artfs.digests import md5_base64
from artfs.errors import (
    CorruptCatalog,
    InvalidInput,
    InvalidManifest,
    InvalidPath,
    LocalIOError,
    PathConflict,
    SchemaMismatch,
)

PACK = "packs/aa/one"


def md5(data):
    return md5_base64(hashlib.md5(data).digest())


def file(path, data=b"x", mode=0o644, mtime_ns=0):
    extents = (Extent(PACK, 0, len(data)),) if data else ()
    return Entry(path, Kind.FILE, mode, mtime_ns, len(data), md5(data), extents=extents)


def build(path, entries):
    with CatalogBuilder(path) as builder:
        for entry in entries:
            builder.add(entry)
        for key in builder.packs:
            builder.set_pack(key, 1000, bytes(8))
        summary = builder.finish()
    return Catalog(path, "test"), summary


def test_digests_are_wandbs(tmp_path):
    catalog, summary = build(tmp_path / "empty", [])
    assert summary.digest == catalog.digest == "64e7c61456b10382e2f3b571ac24b659"
    assert summary.file_count == 0
    entries = [file("A.txt", b"A"), file("a.txt", b"A"), file("b.txt", b"B"), file("sub/c.bin", b"\0\0\0")]
    assert build(tmp_path / "four", entries)[1].digest == "f3cdf2f2b713ceef15d927dcad91e331"


@pytest.mark.parametrize("lengths", [(), (5,), (5, 6)])
def test_a_reference_to_a_stored_file_has_its_extents(tmp_path, lengths):
    extents = tuple(Extent(f"packs/aa/{length}", length, length) for length in lengths)
    reference = Reference("wandb-artifact://id/x", md5(b"x"), sum(lengths))
    stored = Entry("r", Kind.REFERENCE, 0o755, 7, sum(lengths), md5(b"x"), extents=extents, reference=reference)
    remote = Entry("s", Kind.REFERENCE, reference=Reference("s3://b/k", "etag", 3))
    catalog, summary = build(tmp_path / "c", [stored, remote])
    assert list(catalog.entries()) == [stored, remote]
    assert (summary.size, summary.packs) == (sum(lengths) + 3, tuple(extent.pack for extent in extents))
    assert [catalog.resolve(path).remote for path in ("r", "s")] == [False, True]
    plain = attrs.evolve(stored, digest="", size=0, extents=(), path="r")
    assert build(tmp_path / "plain", [plain, remote])[1].tree_digest == summary.tree_digest


def test_tree_digest_covers_what_wandbs_does_not(tmp_path):
    plain = [file("a")]
    variants = [
        plain,
        [file("a", mode=0o755)],
        [*plain, Entry("d", Kind.DIRECTORY)],
        [*plain, Entry("l", Kind.SYMLINK, target="a")],
    ]
    summaries = [build(tmp_path / str(index), entries)[1] for index, entries in enumerate(variants)]
    assert len({summary.digest for summary in summaries}) == 1
    assert len({summary.tree_digest for summary in summaries}) == len(variants)
    touched = build(tmp_path / "touched", [file("a", mtime_ns=5)])[1]
    assert touched.tree_digest == summaries[0].tree_digest
    text = f"f\0a\0{md5(b'x')}\n".encode()
    assert summaries[0].tree_digest == hashlib.sha256(text).hexdigest()


def test_lookups_and_listings(tmp_path):
    entries = [file("a-b"), Entry("a", Kind.DIRECTORY, 0o700, 42), file("a/b"), file("a/c/d"), file("a0")]
    entries.sort(key=lambda entry: entry.path + ("/" if entry.kind is Kind.DIRECTORY else ""))
    catalog, _ = build(tmp_path / "c", entries)
    assert [node.name for node in catalog.children(1)] == ["a", "a-b", "a0"]
    directory = catalog.resolve("a")
    assert directory.mode == 0o700
    assert directory.mtime_ns == 42
    assert catalog.lookup(directory.inode, "b").size == 1
    assert catalog.lookup(directory.inode, "nothing") is None
    assert catalog.lookup(1, "") is None
    assert catalog.resolve("a/c/d").kind == Kind.FILE
    assert catalog.resolve("a/b/x") is None
    assert catalog.resolve("").inode == 1
    assert catalog.path_of(catalog.resolve("a/c/d").inode) == "a/c/d"
    assert [entry.path for entry in catalog.entries("a")] == ["a/b", "a/c", "a/c/d"]
    assert [entry.path for entry in catalog.leaves()] == ["a-b", "a/b", "a/c/d", "a0"]


def test_listing_goes_on_after_any_entry(tmp_path):
    names = sorted(f"f{i:04}" for i in range(500))
    catalog, _ = build(tmp_path / "c", [file(name) for name in names])
    for start in (0, 1, 127, 128, 129, 498, 499):
        after = catalog.lookup(1, names[start]).inode
        assert [node.name for node in catalog.children(1, after)] == names[start + 1 :]


@pytest.mark.parametrize(
    ("first", "second"),
    [("x", "x/y"), ("d/x", "d/x/y/z")],
)
def test_a_file_is_no_directory(tmp_path, first, second):
    entries = [file(first), file(first + "-between"), file(second)]
    with pytest.raises(PathConflict, match=repr(first)):
        build(tmp_path / "c", entries)
    assert not (tmp_path / "c").exists()


def test_same_path_twice(tmp_path):
    with pytest.raises(PathConflict):
        build(tmp_path / "c", [file("a"), file("a")])


def test_out_of_order(tmp_path):
    with pytest.raises(InvalidInput, match="out of order"):
        build(tmp_path / "c", [file("b"), file("a")])


def test_extents_of_a_large_file(tmp_path):
    data = b"0123456789" * 10
    extents = tuple(Extent(f"packs/{i}", i, 10) for i in range(10))
    entry = Entry("big", Kind.FILE, size=100, digest=md5(data), extents=extents)
    catalog, _ = build(tmp_path / "c", [entry])
    node = catalog.resolve("big")
    assert [tuple(s[:1]) for s in catalog.slices(node, 0, 100)] == [(start,) for start in range(0, 100, 10)]
    assert [s.start for s in catalog.slices(node, 25, 41)] == [20, 30, 40]
    assert [s.start for s in catalog.slices(node, 30, 40)] == [30]
    assert catalog.pack(catalog.slices(node, 30, 40)[0].pack).key == "packs/3"
    assert list(catalog.entries()) == [entry]


def test_what_is_wrong_with_the_file_is_said(tmp_path):
    path = tmp_path / "c"
    build(path, [file(f"{i:05}") for i in range(2000)])[0].close()
    whole = path.read_bytes()
    with pytest.raises(LocalIOError):
        Catalog(tmp_path / "absent", "n")
    for damaged in (b"", b"x" * 5000, whole[: len(whole) // 2], whole[:100]):
        path.write_bytes(damaged)
        with pytest.raises(CorruptCatalog):
            Catalog(path, "n")
    path.write_bytes(whole[:60] + (99).to_bytes(4, "big") + whole[64:])
    with pytest.raises(SchemaMismatch, match="upgrade"):
        Catalog(path, "n")


def test_many_threads_read_one_catalog(tmp_path):
    catalog, _ = build(tmp_path / "c", [file(f"{i:05}") for i in range(1000)])
    found = []

    def walk():
        found.append(sum(catalog.lookup(1, node.name).inode == node.inode for node in catalog.children(1)))

    threads = [threading.Thread(target=walk) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1000] * 8
    assert catalog.statistics().connections <= 9
    before = len(os.listdir("/proc/self/fd"))
    catalog.close()
    assert len(os.listdir("/proc/self/fd")) < before


# -- any tree -------------------------------------------------------------------------------------------------

part = st.text(st.sampled_from("ab-./0é"), min_size=1, max_size=3).filter(lambda s: "/" not in s and s.strip("."))
paths = st.lists(part, min_size=1, max_size=4).map("/".join)


@st.composite
def trees(draw):
    entries = {}
    for path in draw(st.lists(paths, max_size=25, unique=True)):
        parents = ["/".join(path.split("/")[:n]) for n in range(1, path.count("/") + 1)]
        if any(parent in entries for parent in parents) or any(other.startswith(path + "/") for other in entries):
            continue
        mode, mtime = draw(st.sampled_from([0o644, 0o755, 0o400])), draw(st.integers(0, 2**62))
        data = draw(st.binary(max_size=4))
        entries[path] = draw(
            st.sampled_from(
                [
                    file(path, data, mode, mtime),
                    Entry(path, Kind.DIRECTORY, mode, mtime),
                    Entry(path, Kind.SYMLINK, mode, mtime, size=1, target="t"),
                    Entry(path, Kind.REFERENCE, mode, mtime, reference=Reference("s3://b/k", "etag", None, {"e": "1"})),
                    Entry(path, Kind.REFERENCE, mode, mtime, reference=Reference("http://h/k", "d", 7)),
                ]
            )
        )
    return [entries[path] for path in sorted(entries)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
@given(trees())
def test_what_goes_in_comes_out(tmp_path, tree):
    path = tmp_path / "c"
    path.unlink(missing_ok=True)
    catalog, summary = build(path, tree)
    assert list(catalog.leaves()) == tree
    assert summary.file_count == sum(entry.kind in {Kind.FILE, Kind.REFERENCE} for entry in tree)
    for entry in tree:
        node = catalog.resolve(entry.path)
        assert catalog.path_of(node.inode) == entry.path
        assert catalog.lookup(node.parent, node.name) == node == catalog.node(node.inode)
    seen = {node.inode for parent in catalog.entries() if parent.kind is Kind.DIRECTORY
            for node in catalog.children(catalog.resolve(parent.path).inode)}  # fmt: skip
    seen |= {node.inode for node in catalog.children(1)}
    assert seen == {catalog.resolve(entry.path).inode for entry in catalog.entries()}
    catalog.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(trees())
def test_manifest_round_trip(tmp_path, tree):
    for name in ("c", "d"):
        (tmp_path / name).unlink(missing_ok=True)
    catalog, summary = build(tmp_path / "c", tree)
    text = io.StringIO()
    write_manifest(catalog, text)
    manifest = json.loads(text.getvalue())
    assert manifest["version"] == 1
    stored = {entry.path: entry for entry in catalog.leaves()}
    assert set(manifest["contents"]) == {p for p, e in stored.items() if e.kind in {Kind.FILE, Kind.REFERENCE}}
    entries = list(read_manifest(io.BytesIO(text.getvalue().encode()), lambda p, d, s: stored[p].extents))
    again, summary_again = build(tmp_path / "d", entries)
    assert summary_again.digest == summary.digest
    for entry in entries:
        assert entry == attrs.evolve(stored[entry.path], mode=0o644, mtime_ns=0)
    catalog.close()
    again.close()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", InvalidManifest),
        ("[]", InvalidManifest),
        ('{"contents": {}}', InvalidManifest),
        ('{"version": 2, "contents": {}}', InvalidManifest),
        ('{"version": 1, "contents": {"a": {"size": 3}}}', InvalidManifest),
        ('{"version": 1, "contents": {"a": {"digest": "zz"}}}', InvalidManifest),
        ('{"version": 1, "contents": {"a": 7}}', InvalidManifest),
        ('{"version": 1, "contents": {"a//b": {"digest": "1B2M2Y8AsgTpgAmY7PhCfg=="}}}', InvalidManifest),
        ('{"version": 1, "contents": {"../b": {"digest": "1B2M2Y8AsgTpgAmY7PhCfg=="}}}', InvalidPath),
        ('{"version": 1, "contents": {"/b": {"digest": "1B2M2Y8AsgTpgAmY7PhCfg=="}}}', InvalidPath),
    ],
)
def test_hostile_manifests(text, error):
    with pytest.raises(error):
        list(read_manifest(io.BytesIO(text.encode()), lambda *_: ()))


def test_manifest_of_the_real_client_is_understood():
    # As wandb-core 0.31.0 uploads it: sizes always present, 0 for a reference of unknown size, and local paths.
    text = json.dumps(
        {
            "version": 1,
            "storagePolicy": "wandb-storage-policy-v1",
            "storagePolicyConfig": {"storageLayout": "V2"},
            "contents": {
                "b.txt": {"digest": md5(b"B"), "birthArtifactID": "QXJ0", "size": 1, "skip_cache": False,
                          "local_path": "/home/x/staging/tmp1"},
                "a": {"digest": "s3://b/a", "ref": "s3://b/a", "size": 0, "extra": {"etag": '"1"', "n": 1.5}},
            },
        }
    )  # fmt: skip
    entries = list(read_manifest(io.BytesIO(text.encode()), lambda p, d, s: (Extent(PACK, 0, s),)))
    assert [entry.path for entry in entries] == ["a", "b.txt"]
    assert entries[0].reference == Reference("s3://b/a", "s3://b/a", None, {"etag": '"1"', "n": "1.5"})


def test_a_builder_that_is_left_leaves_nothing(tmp_path):
    path = Path(tmp_path / "c")
    with pytest.raises(RuntimeError), CatalogBuilder(path) as builder:  # noqa: PT012 - the block is the test
        builder.add(file("a"))
        raise RuntimeError
    assert not path.exists()


def test_the_vectors_of_the_documentation(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "FORMATS.md").read_text()
    trees = [
        [],
        [file("A.txt", b"A"), file("a.txt", b"A"), file("b.txt", b"B"), file("sub/c.bin", b"\0\0\0")],
        [
            file("A.txt", b"A"),
            Entry("empty", Kind.DIRECTORY),
            Entry("empty-not/link", Kind.SYMLINK, target="../A.txt"),
            Entry("ref", Kind.REFERENCE, reference=Reference("s3://b/k", "etag", 7)),
            file("run.sh", b"", 0o755),
        ],
    ]
    for index, tree in enumerate(trees):
        _, summary = build(tmp_path / str(index), tree)
        assert f"| `{summary.digest}` | `{summary.tree_digest}` |" in text
