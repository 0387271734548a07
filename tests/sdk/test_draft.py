"""A draft against a dictionary: whatever order entries come in, and whatever is looked at between."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artfs.catalog import Kind
from artfs.errors import DiskFull, EntryNotFound, PathConflict
from artfs.sdk.draft import Draft, Row


class Model:
    """What a draft holds, in two collections."""

    def __init__(self):
        self.entries = {}
        self.directories = set()

    def add(self, path, digest, overwrite):
        below = [*self.entries, *self.directories]
        if path in self.directories or any(other.startswith(path + "/") for other in below):
            raise PathConflict(path=path, a="", b="")
        self._no_file_above(path)
        if self.entries.get(path, digest) != digest and not overwrite:
            raise PathConflict(path=path, a="", b="")
        self.entries[path] = digest

    def add_directory(self, path):
        if path in self.entries:
            raise PathConflict(path=path, a="", b="")
        self._no_file_above(path)
        self.directories.add(path)

    def remove(self, path):
        if self.entries.pop(path, None) is not None:
            return
        gone = {other for other in [*self.entries, *self.directories] if f"{other}/".startswith(path + "/")}
        if not gone:
            raise EntryNotFound(path)
        self.directories -= gone
        for other in gone:
            self.entries.pop(other, None)

    def _no_file_above(self, path):
        parts = path.split("/")
        if any("/".join(parts[:count]) in self.entries for count in range(1, len(parts))):
            raise PathConflict(path=path, a="", b="")


def outcome(call, *args):
    with contextlib.suppress(PathConflict, EntryNotFound):
        call(*args)
        return None
    return "refused"


PATHS = st.lists(st.sampled_from(["a", "b", "a-", "a0", "é"]), min_size=1, max_size=3).map("/".join)
STEPS = st.one_of(
    st.tuples(st.just("add"), PATHS, st.sampled_from("xy"), st.booleans()),
    st.tuples(st.just("add_directory"), PATHS),
    st.tuples(st.just("remove"), PATHS),
    st.tuples(st.just("look")),
)


@given(st.lists(STEPS, max_size=30), st.booleans())
def test_a_draft_holds_what_was_added(steps, in_order):
    draft, model = Draft("test"), Model()
    if in_order:
        steps = sorted(steps, key=lambda step: step[1:2])
    for name, *arguments in steps:
        if name == "look":
            assert draft.count() == len(model.entries)
            continue
        expected = outcome(getattr(model, name), *arguments)
        if name == "add":
            path, digest, overwrite = arguments
            row = Row(path, Kind.REFERENCE, digest=digest, ref=f"x://{digest}")
            assert outcome(lambda row=row, overwrite=overwrite: draft.add(row, overwrite=overwrite)) == expected
        elif name == "add_directory":
            assert outcome(draft.add_directory, arguments[0], 0o755, 0) == expected
        else:
            assert outcome(draft.remove, arguments[0]) == expected
    assert [(row.path, row.digest) for row in draft.rows()] == sorted(model.entries.items())


def test_a_draft_that_met_a_full_disk_is_never_taken_for_whole():
    draft = Draft("test")
    (pages,) = draft._connection.execute("PRAGMA page_count").fetchone()
    draft._connection.execute(f"PRAGMA max_page_count = {pages + 3}")
    for number in range(500):
        draft.add(Row(f"{number:04}", Kind.REFERENCE, digest="x", ref="x://" + "y" * 100))
    for look in (draft.count, draft.digest, lambda: list(draft.rows())):
        with pytest.raises(DiskFull, match="the artifact holds does not fit"):
            look()
    with pytest.raises(DiskFull):
        draft.remove("0000")
