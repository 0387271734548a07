"""file:// references: this machine's files, when it allows them."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from artfs.catalog.entry import Entry, Reference
from artfs.errors import (
    InvalidReference,
    ReferenceChanged,
    ReferenceMissing,
    ReferenceUnsupported,
    SourceUnreadable,
)
from artfs.references import References


def md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


def recorded(entries: list[Entry]) -> dict[str, tuple[str, str, int | None]]:
    return {e.path: (e.reference.uri, e.reference.digest, e.reference.size) for e in entries if e.reference is not None}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "data"
    (top / "sub").mkdir(parents=True)
    (top / "a.txt").write_bytes(b"alpha")
    (top / "sub" / "b c%41.txt").write_bytes(b"beta")
    (top / "sub" / "empty").write_bytes(b"")
    (top / "link.txt").symlink_to("a.txt")
    (top / "linked").symlink_to("sub")
    return top


def test_a_directory_becomes_an_entry_for_each_file(references: References, tree: Path) -> None:
    uri = f"file://{tree}"
    assert recorded(list(references.expand(uri))) == {
        "a.txt": (f"{uri}/a.txt", md5(b"alpha"), 5),
        "link.txt": (f"{uri}/link.txt", md5(b"alpha"), 5),
        "sub/b c%41.txt": (f"{uri}/sub/b c%2541.txt", md5(b"beta"), 4),
        "sub/empty": (f"{uri}/sub/empty", md5(b""), 0),
    }, "links to files are followed, links to directories are not"
    assert set(recorded(list(references.expand(uri + "/", "under")))) == {
        "under/a.txt", "under/link.txt", "under/sub/b c%41.txt", "under/sub/empty",
    }  # fmt: skip


def test_every_entry_reads_back(references: References, tree: Path, soon: float) -> None:
    for entry in references.expand(f"file://{tree}"):
        reference = entry.reference
        assert reference is not None
        settled = references.settle(reference, scope="v", deadline=soon)
        content = references.read(settled, 0, settled.size or 0, deadline=soon)
        assert md5(content) == reference.digest


def test_a_file(references: References, tree: Path) -> None:
    uri = f"file://{tree}/a.txt"
    assert recorded(list(references.expand(uri))) == {"a.txt": (uri, md5(b"alpha"), 5)}
    assert recorded(list(references.expand(uri, "x/y"))) == {"x/y": (uri, md5(b"alpha"), 5)}
    quoted = f"file://localhost{tree}/sub/b%20c%2541.txt"
    assert recorded(list(references.expand(quoted, "q"))) == {"q": (quoted, md5(b"beta"), 4)}


def test_without_checksum_the_digest_is_that_of_the_uri(references: References, tree: Path, soon: float) -> None:
    uri = f"file://{tree}"
    entries = list(references.expand(uri, checksum=False))
    assert len(entries) == 4
    (first,) = (e.reference for e in entries if e.path == "a.txt")
    assert first == Reference(f"{uri}/a.txt", md5(f"{uri}/a.txt".encode()), 5)
    # W&B can never read these; here the first state is pinned.
    settled = references.settle(first, scope="v", deadline=soon)
    assert references.read(settled, 1, 3, deadline=soon) == b"lp"
    (tree / "a.txt").write_bytes(b"ALPHA")
    os.utime(tree / "a.txt", (5, 5))
    with pytest.raises(ReferenceChanged):
        references.read(settled, 1, 3, deadline=soon)


def test_without_checksum_a_directory_may_become_a_link_to_where_it_went(
    references: References, tree: Path, soon: float
) -> None:
    (entry,) = references.expand(f"file://{tree}/sub/b%20c%2541.txt", checksum=False)
    assert entry.reference is not None
    (tree / "sub").rename(tree / "moved")
    (tree / "sub").symlink_to("moved")
    settled = references.settle(entry.reference, scope="v", deadline=soon)
    assert references.read(settled, 0, 4, deadline=soon) == b"beta"


def test_too_many_objects(references: References, tree: Path) -> None:
    assert len(list(references.expand(f"file://{tree}", max_objects=4))) == 4
    with pytest.raises(ValueError, match="Exceeded 3 objects tracked, pass max_objects to add_reference"):
        list(references.expand(f"file://{tree}", max_objects=3))


def test_changed_content_is_refused_even_under_the_old_times(
    new_references: Callable[..., References], tree: Path, soon: float
) -> None:
    path = tree / "a.txt"
    (entry,) = new_references().expand(f"file://{path}")
    assert entry.reference is not None
    assert new_references().read(entry.reference, 0, 5, deadline=soon) == b"alpha"
    times = path.stat().st_mtime_ns
    path.write_bytes(b"ALPHA")
    os.utime(path, ns=(times, times))
    with pytest.raises(ReferenceChanged, match=f"expected MD5 {md5(b'alpha')}, found MD5".replace("+", r"\+")):
        new_references().read(entry.reference, 0, 5, deadline=soon)
    path.write_bytes(b"alpha again")
    with pytest.raises(ReferenceChanged, match="expected 5 bytes, found 11 bytes"):
        new_references().read(entry.reference, 0, 5, deadline=soon)
    path.write_bytes(b"alpha")
    assert new_references().read(entry.reference, 0, 5, deadline=soon) == b"alpha"
    path.unlink()
    with pytest.raises(ReferenceMissing, match="No such file"):
        new_references().read(entry.reference, 0, 5, deadline=soon)


def test_reading_must_be_allowed(new_references: Callable[..., References], tree: Path, soon: float) -> None:
    closed = new_references(allow_file=False)
    (entry,) = closed.expand(f"file://{tree}/a.txt")
    assert entry.reference is not None
    with pytest.raises(ReferenceUnsupported, match="file_references = true"):
        closed.read(entry.reference, 0, 5, deadline=soon)
    with pytest.raises(ReferenceUnsupported):
        closed.settle(Reference("file:///etc/passwd", "x", None), scope="v", deadline=soon)


def test_what_is_no_regular_file(references: References, tmp_path: Path, soon: float) -> None:
    fifo = tmp_path / "odd" / "fifo"
    fifo.parent.mkdir()
    os.mkfifo(fifo)
    with pytest.raises(SourceUnreadable, match="regular file"):
        list(references.expand(f"file://{fifo}"))
    with pytest.raises(SourceUnreadable, match="regular file"):
        list(references.expand(f"file://{fifo.parent}"))
    with pytest.raises(ReferenceChanged, match="regular file"):
        references.read(Reference(f"file://{fifo}", md5(b"x"), 1), 0, 1, deadline=soon)
    fifo.unlink()
    (fifo.parent / "dangling").symlink_to("nowhere")
    with pytest.raises(SourceUnreadable, match="No such file"):
        list(references.expand(f"file://{fifo.parent}"))


@pytest.mark.parametrize(
    "uri", ["file://host/x", "file:relative", "file://x", "file:///nul%00", "file:///no/such/file"]
)
def test_uris_that_name_no_file_here(references: References, uri: str) -> None:
    with pytest.raises(InvalidReference):
        list(references.expand(uri))


def test_names_that_no_catalog_can_hold(references: References, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "line\nbreak").write_bytes(b"")
    with pytest.raises(ValueError, match="control characters"):
        list(references.expand(f"file://{tmp_path}/odd"))


def test_the_deadline_of_one_reader_does_not_end_the_check(
    references: References, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from artfs.errors import DeadlineExceeded
    from artfs.references import file as module

    go = threading.Event()
    hash_now = module._md5
    # The only stand-in: no real disk is slow on demand.
    monkeypatch.setattr(module, "_md5", lambda fd: go.wait(20) and hash_now(fd))
    (tmp_path / "big").write_bytes(b"big")
    reference = Reference(f"file://{tmp_path}/big", md5(b"big"), 3)
    with pytest.raises(DeadlineExceeded, match="checking"):
        references.read(reference, 0, 3, deadline=time.monotonic() + 0.05)
    go.set()
    assert references.read(reference, 0, 3, deadline=time.monotonic() + 20) == b"big"
