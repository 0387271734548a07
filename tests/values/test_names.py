import pytest
from hypothesis import given
from hypothesis import strategies as st

from artfs import names
from artfs.errors import InvalidName, InvalidPath
from artfs.names import CollectionName, VersionName, check_path, parse_collection_name, parse_version_name


@pytest.mark.parametrize("name", ["a", "A.b-c_9", "x" * 128])
def test_artifact_names_that_wandb_accepts(name):
    assert names.check_artifact_name(name) == name


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a:b", "é", "a\n", ".", "..", "x" * 129])
def test_artifact_names_refused(name):
    with pytest.raises(InvalidName):
        names.check_artifact_name(name)


@pytest.mark.parametrize("kind", ["dataset", "my type", "job2"])
def test_types_accepted(kind):
    assert names.check_type(kind) == kind


@pytest.mark.parametrize("kind", ["", "job", "wandb-history", "a\nb", ".."])
def test_types_refused(kind):
    with pytest.raises(InvalidName):
        names.check_type(kind)


@pytest.mark.parametrize("alias", ["best", "v", "v1.0", "vv1", "v01", "a b", "é"])
def test_aliases_accepted(alias):
    assert names.check_alias(alias) == alias


@pytest.mark.parametrize("alias", ["", "a/b", "a:b", "v3", "draft-1", "a\n", ".", "..", "x" * 129, "v" + "1" * 5000])
def test_aliases_refused(alias):
    with pytest.raises(InvalidName):
        names.check_alias(alias)


@pytest.mark.parametrize("tag", ["a", "a b", "a-b_c", "é"])
def test_tags_accepted(tag):
    assert names.check_tag(tag) == tag


@pytest.mark.parametrize("tag", ["", "a.b", " a", "a ", "a\n"])
def test_tags_refused(tag):
    with pytest.raises(InvalidName):
        names.check_tag(tag)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mnist", "me/uncategorized/mnist:latest"),
        ("mnist:v3", "me/uncategorized/mnist:v3"),
        ("vision/mnist", "me/vision/mnist:latest"),
        ("acme/vision/mnist:best", "acme/vision/mnist:best"),
    ],
)
def test_version_names(text, expected):
    assert str(parse_version_name(text, entity="me")) == expected


@pytest.mark.parametrize("text", ["", "a/b/c/d", "mnist:", "mnist:a:b", "/mnist", "acme//mnist", "../x", "mnist:a/b"])
def test_version_names_refused(text):
    with pytest.raises(InvalidName):
        parse_version_name(text, entity="me")


def test_collection_name_takes_no_alias():
    assert parse_collection_name("p/c", entity="e") == CollectionName("e", "p", "c")
    with pytest.raises(InvalidName):
        parse_collection_name("p/c:v1", entity="e")


def test_version_number():
    assert names.version_number("v12") == 12
    assert [names.version_number(text) for text in ("v", "v01", "v1x", "latest", "v١")] == [None] * 5


@pytest.mark.parametrize(
    ("given_path", "normal"),
    [("a", "a"), ("a//b", "a/b"), ("./q", "q"), ("x/", "x"), ("a\\b", "a\\b"), ("é/日本", "é/日本"), ("...", "...")],
)
def test_paths_normalised_as_wandb_does(given_path, normal):
    assert check_path(given_path) == normal


@pytest.mark.parametrize(
    "path",
    ["", ".", "/", "/a", "..", "a/../b", "C:/x", "C:\\x", "a\nb", "a\0", "\udcff", "x" * 256, "é" * 128, "a/" * 2100],
)
def test_paths_refused(path):
    with pytest.raises(InvalidPath):
        check_path(path)


@given(st.text("ab_./- :\n\u00e9", max_size=12) | st.integers(250, 260).map(lambda length: "a" * length))
def test_a_path_is_refused_or_normal_however_plain_it_looks(path):
    parts = [part for part in path.split("/") if part not in {"", "."}]
    bad = path.startswith("/") or not parts or ".." in parts or "\n" in path or (path[1:3] == ":/" and path[0] in "ab")
    if bad or any(len(part.encode()) > 255 for part in parts):
        with pytest.raises(InvalidPath):
            check_path(path)
    else:
        assert check_path(path) == "/".join(parts)


@given(st.text(max_size=300))
def test_whatever_is_accepted_is_safe_to_create(path):
    try:
        normal = check_path(path)
    except InvalidPath:
        return
    parts = normal.split("/")
    assert all(0 < len(part.encode()) <= 255 and part not in {".", ".."} for part in parts)
    assert "\0" not in normal
    assert "\n" not in normal
    assert check_path(normal) == normal


@given(st.text(max_size=40))
def test_parsing_never_fails_otherwise(text):
    try:
        name = parse_version_name(text, entity="me")
    except InvalidName:
        return
    assert parse_version_name(str(name), entity="other") == name
    assert isinstance(name, VersionName)
