"""The process that has a staging area is killed at every point that matters, and at points that nobody chose."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import staging_child
from staging_base import Stage

from artfs.staging import holder

COUNT = 300


def child(directory, seed, fault=""):
    return subprocess.Popen(
        [sys.executable, str(Path(staging_child.__file__)), str(directory), str(seed), str(COUNT)],
        stdout=subprocess.PIPE,
        env=os.environ | {"ARTFS_FAULT": fault},
    )


def replayed(directory, seed, count):
    """What is there after ``count`` operations that nobody interrupted."""
    directory.mkdir()
    stage = Stage(directory, staging_child.BASE)
    for _, operation in zip(range(count), staging_child.workload(seed, COUNT), strict=False):
        staging_child.run(stage, operation)
    snapshot = stage.snapshot()
    stage.close()
    return snapshot


def check(memory_path, seed, acknowledged):
    """Everything acknowledged is there; the operation under way happened or did not, its bytes perhaps in part."""
    stage = Stage.resume(memory_path / "staged")
    found = stage.snapshot()
    operation = list(staging_child.workload(seed, COUNT))[min(acknowledged, COUNT - 1)]
    before = replayed(memory_path / "before", seed, acknowledged)
    after = replayed(memory_path / "after", seed, acknowledged + 1)
    # Files that the interrupted operation writes to, under all their names, are between before and after.
    between = {path for path in before | after if before.get(path) != after.get(path)}
    for path in between if operation[0] in {"write", "put"} else ():
        assert path in found or path not in before
        if path in found and found[path][0] == "file":
            check_bytes(found[path][-1], before.get(path, ("", b""))[-1], after.get(path, ("", b""))[-1])
        for tree in (found, before, after):
            tree.pop(path, None)
    assert not differing(found, before) or not differing(found, after), (operation, differing(found, before))
    list(stage.tree.changes())
    rows = {row[0] for row in stage.tree._database.all("SELECT inode FROM inode WHERE shown IS NOT NULL")}
    assert set(stage.tree._files.inodes()) == rows
    stage.put("d1/usable", b"yes")
    stage.close()


def differing(a, b):
    """Short: pytest's own account of two large dicts takes minutes."""
    return [(path, str(a.get(path))[:80], str(b.get(path))[:80]) for path in a | b if a.get(path) != b.get(path)]


def check_bytes(found, before, after):
    """Every byte is the old one or the new one."""
    assert len(before) <= len(found) <= len(after) or len(after) <= len(found) <= len(before)
    for index, byte in enumerate(found):
        assert byte in {*before[index : index + 1], *after[index : index + 1], 0}


@pytest.mark.parametrize(
    "fault",
    [
        "commit:1", "commit:9", "commit:40", "committed:3", "committed:41", "written:1", "written:4",
        "copying-up:1", "copying-up:5", "truncating:1", "truncated:1", "sync:1", "sync:4",
    ],
)  # fmt: skip
def test_killed_at_a_named_point(memory_path, fault):
    seed = 2  # one of those that come to every point
    (memory_path / "staged").mkdir()
    Stage(memory_path / "staged", staging_child.BASE).close()
    process = child(memory_path / "staged", seed, fault)
    acknowledged = len(process.communicate()[0])
    assert process.returncode == -signal.SIGKILL, "the workload never came to the point"
    check(memory_path, seed, acknowledged)


@pytest.mark.parametrize("after", [0, 7, 60, 140])
def test_killed_anywhere(memory_path, after):
    (memory_path / "staged").mkdir()
    Stage(memory_path / "staged", staging_child.BASE).close()
    process = child(memory_path / "staged", after)
    acknowledged = 0
    while acknowledged < after:
        acknowledged += len(process.stdout.read1(after - acknowledged))
    process.kill()
    acknowledged += len(process.communicate()[0])
    check(memory_path, after, acknowledged)


def test_an_area_is_free_when_its_process_is_gone(memory_path):
    (memory_path / "staged").mkdir()
    stage = Stage(memory_path / "staged", staging_child.BASE)
    stage.close()
    process = child(memory_path / "staged", 1)
    process.stdout.read1(1)
    process.kill()
    process.communicate()
    assert holder(stage.area_path) is None


def test_a_local_file_that_a_power_cut_took_leaves_the_base_to_be_seen(memory_path):
    """The row is there and the file never reached the disk, or without its size: nothing of it had been synced."""
    stage = Stage(memory_path, {"f": b"0123456789", "g": b"abcdef"})
    stage.write("f", 0, b"x")
    stage.write("g", 0, b"y")
    f, g = stage.file("f"), stage.file("g")
    stage.close()
    database = sqlite3.connect(stage.area_path / "staging.db")
    database.execute("UPDATE meta SET value=0 WHERE key='clean'")
    database.execute("DELETE FROM range")
    database.commit()
    database.close()
    (stage.area_path / "data" / f"{f:x}").unlink()
    os.truncate(stage.area_path / "data" / f"{g:x}", 0)
    stage.open()
    assert stage.read("f") == b"0123456789"
    assert stage.read("g") == b"abcdef"
    stage.close()
