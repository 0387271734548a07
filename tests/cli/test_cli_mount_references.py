"""References through a mount: nobody is asked before something is read, and then for no more than that."""

import errno
import os
import subprocess

import pytest
from servers.reference_servers import running_origin

import artfs
from artfs.sdk import session

COUNT = 1_000
LARGE = 10 << 30
TAIL = 4096
READ_AHEAD = 16 << 20
"""Most bytes that reading a little may bring."""


@pytest.fixture
def origin():
    with running_origin() as server:
        yield server


@pytest.fixture
def log(program, monkeypatch):
    """Log an artifact into the program's home, and forget what was asked of the origin to do so."""
    for name in ("ARTFS_HOME", "ARTFS_ENTITY"):
        monkeypatch.setenv(name, program.environment[name])
    yield lambda artifact: artfs.log_artifact(artifact, aliases=["mounted"])
    artfs.finish()
    session.close()


def test_nobody_is_asked_before_something_is_read(program, origin, log, tmp_path):
    artifact = artfs.Artifact("refs", "dataset")
    for number in range(COUNT):
        uri = origin.content(f"/{number}", b"content of %d" % number, etag=f'"{number}"')
        artifact.add_reference(uri, name=f"known/{number % 10}/{number}")
    artifact.add_reference(origin.content("/unsized", b"of a size that nobody recorded"), "unsized/x", checksum=False)
    artifact.add_reference("foo://bar/baz", name="strange")
    log(artifact)
    assert len(origin.seen) == COUNT
    origin.seen.clear()

    expected = [("strange: reference foo://bar/baz cannot be read", 1), ("unsized/x: .* is pinned", 1)]
    with program.mounted("refs:mounted", tmp_path / "mnt", expect=expected) as mount:
        found = subprocess.run(
            ["find", "known", "-type", "f", "-printf", "%f %s\n"],
            cwd=mount.path, check=True, capture_output=True, text=True,
        ).stdout.splitlines()  # fmt: skip
        assert sorted(found) == sorted(f"{number} {len('content of ') + len(str(number))}" for number in range(COUNT))
        subprocess.run(["ls", "-lR", "known"], cwd=mount.path, check=True, stdout=subprocess.DEVNULL)
        assert os.listdir(mount.path / "unsized") == ["x"]
        assert origin.seen == []

        assert (mount.path / "known/7/7").read_bytes() == b"content of 7"
        assert {path for path, _ in origin.seen} == {"/7"}
        origin.seen.clear()
        assert (mount.path / "unsized/x").stat().st_size == 30
        assert {path for path, _ in origin.seen} == {"/unsized"}

        with pytest.raises(OSError, match="strange") as caught:
            (mount.path / "strange").read_bytes()
        assert caught.value.errno == errno.EIO
        assert (mount.path / "known/8/8").read_bytes() == b"content of 8"


def test_the_end_of_a_large_reference(program, origin, log, tmp_path):
    """The origin holds 10 GiB: each 8 bytes are their own offset. It answers ranges only."""
    sent = []

    def route(request):
        span = request.byte_range(LARGE)
        if span is None or span[1] - span[0] > READ_AHEAD:
            request.answer(500)
            return
        body = numbers(*span)
        sent.append(len(body))
        request.answer(206, body, etag='"large"', content_range=f"bytes {span[0]}-{span[1] - 1}/{LARGE}")

    artifact = artfs.Artifact("large", "dataset")
    artifact.add_reference(origin.serve("/large.bin", route))
    log(artifact)
    assert artifact.size == LARGE
    sent.clear()
    with program.mounted("large:mounted", tmp_path / "mnt") as mount, (mount.path / "large.bin").open("rb") as file:
        assert file.seek(-TAIL, os.SEEK_END) == LARGE - TAIL
        assert file.read() == numbers(LARGE - TAIL, LARGE)
        assert 0 < sum(sent) <= READ_AHEAD


def test_a_server_without_ranges_is_read_once(program, origin, log, tmp_path):
    body = numbers(0, 3 << 20)
    artifact = artfs.Artifact("whole", "dataset")
    artifact.add_reference(origin.content("/whole.bin", body, ranges=False, etag='"whole"'))
    log(artifact)
    with program.mounted("whole:mounted", tmp_path / "mnt") as mount, (mount.path / "whole.bin").open("rb") as file:
        file.seek(-TAIL, os.SEEK_END)
        assert file.read() == body[-TAIL:]
        asked = len(origin.seen)
        file.seek(0)
        assert file.read() == body
        assert len(origin.seen) == asked


def numbers(start, end):
    """Bytes ``start`` to ``end`` of a file in which each 8 bytes are their own offset."""
    first = start // 8
    whole = b"".join(n.to_bytes(8, "big") for n in range(first, -(-end // 8)))
    return whole[start - first * 8 : end - first * 8]
