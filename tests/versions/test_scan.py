import os
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artfs.catalog import Catalog, CatalogBuilder, Entry, Kind
from artfs.digests import md5_base64
from artfs.errors import InvalidPath, InvalidPattern, SourceUnreadable
from artfs.versions.scan import Symlinks, scan


def paths(*args, **kwargs):
    return [(file.path, file.kind) for file in scan(*args, **kwargs)]


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_text(name)


def test_everything_in_the_order_of_a_catalog(tmp_path):
    make(tmp_path, "b", "a-b", "a/x", "a/y/z", "a0", "empty/", "empty-not/f")
    assert [path for path, _ in paths(tmp_path)] == [
        "a-b", "a", "a/x", "a/y", "a/y/z", "a0", "b", "empty", "empty-not", "empty-not/f",
    ]  # fmt: skip


def test_a_single_file(tmp_path):
    make(tmp_path, "model.bin")
    assert paths(tmp_path / "model.bin") == [("model.bin", Kind.FILE)]
    assert paths(tmp_path / "model.bin", prefix="m/weights") == [("m/weights", Kind.FILE)]


def test_a_prefix(tmp_path):
    make(tmp_path, "d/f")
    assert paths(tmp_path, prefix="p") == [("p/d", Kind.DIRECTORY), ("p/d/f", Kind.FILE)]


def test_ignore_file_and_exclude(tmp_path):
    make(tmp_path, "keep", "a.tmp", "d/b.tmp", "d/keep", "node_modules/x", "only/c.tmp", "!not")
    (tmp_path / ".artfsignore").write_text("*.tmp\n!d/b.tmp\n")
    found = paths(tmp_path, exclude=["node_modules/"])
    assert [path for path, _ in found] == [
        "!not", ".artfsignore", "d", "d/b.tmp", "d/keep", "keep", "only",
    ]  # fmt: skip
    assert ("only", Kind.DIRECTORY) in found


@pytest.mark.parametrize("pattern", ["!", "\\", "a/\\"])
def test_a_pattern_that_means_nothing_is_refused(tmp_path, pattern):
    make(tmp_path, "a")
    with pytest.raises(InvalidPattern, match=re.escape(repr(pattern))):
        paths(tmp_path, exclude=["*.tmp", pattern])
    (tmp_path / ".artfsignore").write_text(f"# what to leave out\n{pattern}\n")
    with pytest.raises(InvalidPattern, match=re.escape(repr(pattern))):
        paths(tmp_path)


def test_links_that_stay_inside_are_kept(tmp_path):
    # SEMANTICS: `artfs log` keeps relative symbolic links that stay inside the source and follows the others.
    make(tmp_path, "src/d/f", "outside/g")
    root = tmp_path / "src"
    os.symlink("d/f", root / "to-file")
    os.symlink("../to-file", root / "d" / "up")
    os.symlink("d", root / "to-dir")
    os.symlink("nothing", root / "dangling")
    os.symlink("../outside", root / "leaves")
    os.symlink(root / "d" / "f", root / "absolute")
    found = dict(paths(root))
    assert found["to-file"] == found["to-dir"] == found["d/up"] == found["dangling"] == Kind.SYMLINK
    assert found["absolute"] == Kind.FILE
    assert found["leaves"] == Kind.DIRECTORY
    assert found["leaves/g"] == Kind.FILE
    with pytest.raises(SourceUnreadable, match="leaves"):
        paths(root, symlinks=Symlinks.ERROR)
    with pytest.raises(SourceUnreadable, match="dangling: it is a symbolic link to nothing"):
        paths(root, symlinks=Symlinks.FOLLOW)
    os.unlink(root / "dangling")
    followed = dict(paths(root, symlinks=Symlinks.FOLLOW))
    assert followed["to-dir/f"] == followed["to-file"] == Kind.FILE


def test_a_dangling_link_out_of_the_source(tmp_path):
    os.symlink("/nowhere/at/all", tmp_path / "link")
    with pytest.raises(SourceUnreadable, match="link to nothing"):
        paths(tmp_path)


def test_a_loop_of_followed_links(tmp_path):
    make(tmp_path, "a/f")
    os.symlink(tmp_path / "a", tmp_path / "a" / "again")
    with pytest.raises(SourceUnreadable, match="holds it"):
        paths(tmp_path, symlinks=Symlinks.FOLLOW)


def test_what_cannot_be_stored(tmp_path):
    # SEMANTICS: Devices, FIFOs and sockets are refused: leave them out with `--exclude`.
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceUnreadable, match="neither a file nor a directory"):
        paths(tmp_path)
    assert paths(tmp_path, exclude=["pipe"]) == []
    with pytest.raises(SourceUnreadable, match="does not exist"):
        paths(tmp_path / "absent")


@pytest.mark.parametrize("name", [b"new\nline", b"\xff\xfe", b"esc\x1b"])
def test_names_that_no_version_can_hold(tmp_path, name):
    # SEMANTICS: Names that are not UTF-8, or hold control characters, are refused;
    open(os.path.join(os.fsencode(tmp_path), name), "w").close()
    with pytest.raises(InvalidPath):
        paths(tmp_path)


part = st.text(st.sampled_from("ab-.0é"), min_size=1, max_size=3).filter(lambda s: s.strip("."))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.sets(st.lists(part, min_size=1, max_size=3).map("/".join), max_size=12), st.data())
def test_any_tree_is_in_the_order_that_a_catalog_takes(tmp_path_factory, tree, data):
    root = tmp_path_factory.mktemp("tree")
    for path in tree:
        full = root / path
        try:
            full.parent.mkdir(parents=True, exist_ok=True)
            if data.draw(st.booleans()):
                full.mkdir(exist_ok=True)
            else:
                full.write_text("x")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
    expected = {str(path.relative_to(root)) for path in root.rglob("*")}
    with CatalogBuilder(root.with_suffix(".catalog")) as builder:
        for file in scan(root):
            digest = md5_base64(bytes(16)) if file.kind is Kind.FILE else ""
            builder.add(Entry(file.path, file.kind, digest=digest))
        builder.finish()
    catalog = Catalog(root.with_suffix(".catalog"), "test")
    assert {entry.path for entry in catalog.entries()} == expected
    catalog.close()
