"""The writable mount from the command line: stage, look, unmount, commit, discard."""

import contextlib
import os
import pty
import random
import re
import sqlite3
import subprocess
import sys

import pytest
from homes import settings_of, tree_of, wait_until
from program import Program, daemons, end

from artfs.cli.mount import log_file


@pytest.fixture
def directory(tmp_path):
    """Something to mount on; nothing stays mounted."""
    path = tmp_path / "stage"
    path.mkdir()
    yield path
    end(path)


def edit(directory):
    (directory / "a.txt").write_bytes(b"edited\n")
    (directory / "new").mkdir()
    (directory / "new" / "file").write_bytes(b"fresh\n")
    (directory / "nothing").unlink()
    (directory / "train").rename(directory / "training")


def test_stage_look_unmount_and_commit(copy, directory, tmp_path):
    # SEMANTICS: Unmounting makes a draft of what was changed; a draft with no change is no draft, and it says so.
    assert copy.out("mount", "--writable", "vision/mnist", directory) == ""
    assert copy.out("status", directory) == ""
    edit(directory)
    expected = tree_of(directory)
    assert "M a.txt" in copy.out("status", directory)
    changes = {change["path"]: change["change"] for change in copy.json("diff", directory)}
    assert changes["new/file"] == "added"
    assert changes["nothing"] == "removed"
    assert changes["training/0/0000.png"] == "renamed"
    assert copy.json("info", directory)["staging_area"]
    (area,) = copy.json("drafts")["areas"]
    assert area["process"] in set(daemons(directory))
    done = copy.run("umount", directory)
    name = done.stdout.strip()
    assert name.startswith("acme/vision/mnist:draft-")
    assert "1 added, 251 changed, 1 removed" in done.stderr
    assert copy.json("drafts")["areas"] == []
    with copy.mounted(name, tmp_path / "look") as mount:
        assert tree_of(mount.path) == expected
    assert copy.out("commit", name, "-a", "edited") == "acme/vision/mnist:v2"
    assert copy.json("drafts")["drafts"] == []
    assert copy.fails(3, "commit", name)
    with copy.mounted("vision/mnist:edited", tmp_path / "again") as mount:
        assert tree_of(mount.path) == expected


def test_nothing_changed(copy, directory):
    copy.run("mount", "--writable", "vision/mnist", directory)
    (directory / "x").write_bytes(b"x")
    (directory / "x").unlink()
    done = copy.run("umount", directory)
    assert done.stdout == ""
    assert "nothing was changed" in done.stderr
    assert copy.json("drafts") == {"drafts": [], "areas": []}


def test_changed_permissions_alone_are_shown_and_committed(copy, directory, tmp_path):
    copy.run("mount", "--writable", "vision/mnist", directory)
    for path, mode in {"a.txt": 0o600, "train": 0o700, ".": 0o711}.items():
        (directory / path).chmod(mode)
    assert [line.split()[:2] for line in copy.out("status", directory).splitlines()] == [
        ["M", "."], ["M", "a.txt"], ["M", "train"],
    ]  # fmt: skip
    done = copy.run("umount", directory)
    assert "3 changed" in done.stderr
    assert copy.out("commit", done.stdout.strip()) == "acme/vision/mnist:v2"
    with copy.mounted("vision/mnist", tmp_path / "look") as mount:
        found = [os.stat(mount.path / path).st_mode & 0o777 for path in ("a.txt", "train", ".")]
    assert found == [0o600, 0o700, 0o711]


@pytest.mark.parametrize("command", [["umount"], ["fusermount3", "-u"]])
def test_other_ways_to_unmount_do_the_same_in_the_background(copy, directory, command):
    copy.run("mount", "--writable", "vision/mnist", directory)
    edit(directory)
    subprocess.run([*command, directory], check=True)
    wait_until(lambda: not list(daemons(directory)), "the daemon has published the draft", 60)
    (draft,) = copy.json("drafts")["drafts"]
    log = log_file(settings_of(copy.home), str(directory)).read_text()
    assert f"{draft['name']}: 1 added, 251 changed, 1 removed" in log
    copy.run("discard", draft["name"])
    assert copy.json("drafts") == {"drafts": [], "areas": []}


def test_a_directory_above_a_writable_mount_is_renamed(copy, tmp_path):
    (tmp_path / "above").mkdir()
    (tmp_path / "above" / "mnt").mkdir()
    copy.run("mount", "--writable", "vision/mnist", tmp_path / "above" / "mnt")
    try:
        (tmp_path / "above").rename(tmp_path / "renamed")
        place = tmp_path / "renamed" / "mnt"
        (place / "new").write_bytes(b"new")
        assert copy.out("status", place).startswith("A new")
        assert copy.json("info", place)["pid"]
        other = Program(tmp_path / "other")
        assert other.fails(3, "status", place).startswith(f"{place} is served by another user's artfs")
        assert ":draft-" in copy.out("umount", place)
    finally:
        for place in (tmp_path / "above" / "mnt", tmp_path / "renamed" / "mnt"):
            end(place)


def test_commit_at_unmount_and_a_new_collection(program, directory, tmp_path):
    assert "--type" in program.fails(4, "mount", "--writable", "vision/fresh", directory)
    program.run("mount", "--writable", "--type", "model", "--commit", "-a", "first", "vision/fresh", directory)
    (directory / "weights").write_bytes(b"w" * 100_000)
    assert program.out("umount", directory) == "acme/vision/fresh:v0"
    assert program.out("cat", "vision/fresh:first", "weights") == "w" * 100_000


def test_the_store_out_of_reach_at_unmount(copy, directory):
    # SEMANTICS: Nothing a program wrote is lost when the daemon, the machine or the network dies:
    copy.run("mount", "--writable", "vision/mnist", directory)
    edit(directory)
    store = copy.home / "store"
    store.rename(copy.home / "away")
    said = copy.run("umount", directory, code=6).stderr
    assert "what was written is kept" in said
    (area,) = copy.json("drafts")["areas"]
    assert area["process"] is None
    (copy.home / "away").rename(store)
    assert copy.out("commit", area["area"]) == "acme/vision/mnist:v2"
    assert copy.json("drafts") == {"drafts": [], "areas": []}
    assert copy.out("cat", "vision/mnist", "new/file") == "fresh"


def test_a_killed_daemon_leaves_an_area_that_can_be_committed(copy, directory):
    copy.run("mount", "--writable", "vision/mnist", directory)
    edit(directory)
    for process in daemons(directory):
        subprocess.run(["kill", "-9", str(process)], check=True)
    copy.run("umount", directory, code=1)
    (area,) = copy.json("drafts")["areas"]
    assert area["process"] is None
    assert copy.out("commit", area["area"]) == "acme/vision/mnist:v2"
    assert copy.out("cat", "vision/mnist", "new/file") == "fresh"


def test_unmounting_shows_how_far_it_is_on_a_terminal(copy, directory):
    # SEMANTICS: `artfs umount` waits, showing files and bytes as they are published, and prints the draft's name.
    copy.run("mount", "--writable", "vision/mnist", directory)
    for number in range(16):
        (directory / f"large{number}").write_bytes(random.Random(number).randbytes(8 << 20))
    ours, terminal = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        unmounting = copy.start("umount", directory, stderr=terminal)
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while more := screen.read(4096):
                shown += more
    name, _ = unmounting.communicate()
    assert name.startswith("acme/vision/mnist:draft-")
    assert re.search(rb"published \d+ files, [\d.]+ MiB, [\d.]+ MiB/s", shown), shown
    assert b"16 added, 0 changed, 0 removed; 128.0 MiB stored" in shown


def test_references_move_and_go_and_stay_references(copy, directory, tmp_path):
    # SEMANTICS: and references whose bytes were not changed
    remote = tmp_path / "remote"
    remote.mkdir()
    for name in ("kept", "moved", "gone", "edited"):
        (remote / name).write_text(f"bytes of {name}\n")
    log = f"""
import artfs
with artfs.init(project="vision") as run:
    artifact = artfs.Artifact("refs", "dataset")
    artifact.add_reference({remote.as_uri()!r})
    run.log_artifact(artifact)
"""
    subprocess.run([sys.executable, "-c", log], env=copy.environment, check=True, capture_output=True)
    copy.run("mount", "--writable", "vision/refs", directory)
    (directory / "moved").rename(directory / "elsewhere")
    (directory / "gone").unlink()
    with (directory / "edited").open("a") as file:
        file.write("and more\n")
    copy.run("commit", copy.out("umount", directory))
    changes = {
        change["path"]: (change["change"], change["old_path"])
        for change in copy.json("diff", "vision/refs:v0", "vision/refs")
    }
    assert changes == {
        "edited": ("changed", None),
        "elsewhere": ("renamed", "moved"),
        "gone": ("removed", None),
    }
    listed = {entry["path"]: entry["kind"] for entry in copy.json("ls", "-R", "vision/refs:latest")}
    assert listed == {"edited": "file", "elsewhere": "reference", "kept": "reference"}
    assert copy.out("cat", "vision/refs", "edited") == "bytes of edited\nand more"
    assert copy.out("cat", "vision/refs", "elsewhere") == "bytes of moved"


def test_who_commits_a_draft_second_is_told_of_the_overlap(copy, directory):
    # SEMANTICS: Of two people who stage from one base both get a version; the second is told
    names = []
    for word in ("first", "second"):
        copy.run("mount", "--writable", "vision/mnist:v1", directory)
        (directory / "a.txt").write_text(word)
        (directory / word).write_text(word)
        names.append(copy.out("umount", directory))
    assert copy.run("commit", names[0]).stderr == ""
    copy.fails(5, "commit", "--require-latest", names[1])
    assert [draft["name"] for draft in copy.json("drafts")["drafts"]] == [names[1]]
    done = copy.run("commit", names[1])
    assert done.stderr == "the base is no longer the latest, acme/vision/mnist:v2 is; changed in both: a.txt\n"
    assert done.stdout == "acme/vision/mnist:v3\n"


def test_what_a_writable_mount_told_is_not_told_of_a_later_read_only_one(copy, directory):
    copy.run("mount", "--writable", "vision/mnist", directory)
    (directory / "a.txt").write_text("draft")
    subprocess.run(["umount", directory], check=True)
    wait_until(lambda: not list(daemons(directory)), "the daemon has published the draft", 60)
    copy.run("mount", "vision/mnist", directory)
    copy.fails(3, "status", directory)
    done = copy.run("umount", directory)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_registry_out_of_reach_at_unmount(copy, directory):
    copy.run("mount", "--writable", "vision/mnist", directory)
    edit(directory)
    with contextlib.closing(sqlite3.connect(copy.home / "registry.db", isolation_level=None)) as registry:
        registry.execute("PRAGMA legacy_alter_table=ON")
        registry.execute("ALTER TABLE version RENAME TO away")
        said = copy.run("umount", directory, code=6)
        shown = copy.run("drafts", code=6)
        registry.execute("ALTER TABLE away RENAME TO version")
    assert "what was written is kept" in said.stderr
    (area,) = copy.json("drafts")["areas"]
    assert area["area"] in said.stderr
    assert area["area"] in shown.stdout  # also while nobody knows of any draft
    assert copy.out("commit", area["area"]) == "acme/vision/mnist:v2"
    assert copy.out("cat", "vision/mnist", "new/file") == "fresh"


def test_bad_input(copy, directory, tmp_path):
    refused = copy.fails(8, "mount", "--writable", "-o", "engine=direct", "vision/mnist", directory)
    assert "engine=direct serves read-only mounts only" in refused
    assert not os.path.ismount(directory)
    # SEMANTICS: an unknown base (3), a name that breaks the rules (4), a draft that is mounted writable already (5),
    # a new collection without `--type` (4), committing or discarding what is no draft (3)
    assert copy.fails(3, "mount", "--writable", "vision/mnist:absent", directory)
    assert copy.fails(4, "mount", "--writable", "vision/mn ist", directory)
    assert copy.fails(3, "commit", "vision/mnist:v0")
    assert copy.fails(3, "discard", "vision/mnist:v0")
    assert copy.fails(3, "status", tmp_path)
    assert copy.run("mount", "--writable", "acme/", directory, code=2)
    assert copy.run("mount", "--commit", "vision/mnist", directory, code=2)
    copy.run("mount", "--writable", "vision/mnist", directory)
    (directory / "more").write_bytes(b"more")
    draft = copy.out("umount", directory)
    copy.run("mount", "--writable", draft, directory)
    other = tmp_path / "other"
    other.mkdir()
    assert "mounted writable" in copy.fails(5, "mount", "--writable", draft, other)
    copy.run("umount", directory)
