from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_catalog import build, file

from artfs.catalog import Catalog, CatalogBuilder, Change, Entry, Kind, Reference, diff


def differences(tmp_path, old, new):
    for name in ("old", "new"):
        (tmp_path / name).unlink(missing_ok=True)
    a, _ = build(tmp_path / "old", old)
    b, _ = build(tmp_path / "new", new)
    try:
        return [(d.change, d.path, d.old_path, d.what) for d in diff(a, b)]
    finally:
        a.close()
        b.close()


def test_each_kind_of_change(tmp_path):
    old = [Entry("empty", Kind.DIRECTORY), file("gone", b"1"),
            file("kept", b"2"), file("mode", b"3"), file("moved", b"4"),
           file("new-content", b"5")]  # fmt: skip
    new = [file("added", b"6"), file("elsewhere/moved", b"4"), file("kept", b"2", mtime_ns=9),
           file("mode", b"3", 0o755), file("new-content", b"7")]  # fmt: skip
    assert differences(tmp_path, old, new) == [
        (Change.ADDED, "added", None, ""),
        (Change.RENAMED, "elsewhere/moved", "moved", ""),
        (Change.REMOVED, "empty", None, ""),
        (Change.REMOVED, "gone", None, ""),
        (Change.CHANGED, "mode", None, "mode"),
        (Change.CHANGED, "new-content", None, "content"),
    ]


def test_a_file_that_became_a_directory(tmp_path):
    found = differences(tmp_path, [file("a", b"1")], [file("a/b", b"2")])
    assert found == [(Change.REMOVED, "a", None, ""), (Change.ADDED, "a/b", None, "")]


def test_references_are_renamed_only_with_their_uri(tmp_path):
    """Servers give ETags by URL: any number of URLs may have one."""

    def reference(path, uri):
        return Entry(path, Kind.REFERENCE, reference=Reference(uri, "etag", 10))

    old = [reference("p", "http://h/a"), reference("q", "http://h/b"), reference("u", "http://h/c")]
    new = [reference("P", "http://h/b"), reference("Q", "http://h/a"), reference("R", "http://h/d")]
    assert differences(tmp_path, old, new) == [
        (Change.RENAMED, "P", "q", ""),
        (Change.RENAMED, "Q", "p", ""),
        (Change.ADDED, "R", None, ""),
        (Change.REMOVED, "u", None, ""),
    ]


def directory(path, mode=0o755):
    return Entry(path, Kind.DIRECTORY, mode)


def test_permissions_of_directories(tmp_path):
    old = [directory("both-empty"), directory("empty-no-more"), directory("full", 0o700), file("full/a", b"1"),
           directory("full/sub"), file("full/sub/b", b"2"), directory("gone"), file("gone/c", b"3")]  # fmt: skip
    new = [directory("both-empty", 0o500), directory("empty-no-more", 0o500), file("empty-no-more/d", b"4"),
           file("full.txt", b"5"), directory("full"), file("full/a", b"1"), directory("full/sub", 0o500),
           file("full/sub/b", b"2")]  # fmt: skip
    assert differences(tmp_path, old, new) == [
        (Change.CHANGED, "both-empty", None, "mode"),
        (Change.REMOVED, "empty-no-more", None, ""),
        (Change.ADDED, "empty-no-more/d", None, ""),
        (Change.CHANGED, "full", None, "mode"),
        (Change.ADDED, "full.txt", None, ""),
        (Change.CHANGED, "full/sub", None, "mode"),
        (Change.REMOVED, "gone/c", None, ""),
    ]


def test_the_root_is_a_dot(tmp_path):
    catalogs = []
    for mode in (0o755, 0o700):
        with CatalogBuilder(tmp_path / str(mode)) as builder:
            builder.set_root(mode, 0)
            builder.finish()
        catalogs.append(Catalog(tmp_path / str(mode), "test"))
    assert [(d.path, d.what) for d in diff(*catalogs)] == [(".", "mode")]
    for catalog in catalogs:
        catalog.close()


names = st.sampled_from(["a", "a-", "b", "c/d", "c/e", "f"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.dictionaries(names, st.binary(max_size=1)), st.dictionaries(names, st.binary(max_size=1)))
def test_differences_lead_from_old_to_new(tmp_path, old, new):
    found = differences(
        tmp_path, [file(p, old[p]) for p in sorted(old)], [file(p, new[p]) for p in sorted(new)]
    )  # fmt: skip
    tree = dict(old)
    for change, path, old_path, _ in found:
        if change is Change.REMOVED:
            del tree[path]
        elif change is Change.RENAMED:
            assert old[old_path] == new[path]
            del tree[old_path]
    for change, path, _, _ in found:
        if change is not Change.REMOVED:
            tree[path] = new[path]
    assert tree == new
    assert len({path for _, path, _, _ in found}) == len(found)
