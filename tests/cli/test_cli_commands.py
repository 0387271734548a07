"""Every command once, as a user calls it."""

import importlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile

import click
import pytest
from homes import Link, as_nobody, make_tree, tree_of, wait_until
from program import PYTHON, Program

from artfs.cli import COMMANDS

NAME = "vision/mnist"


def commands():
    for name in COMMANDS:
        command = importlib.import_module(f"artfs.cli.{name}").command
        yield name, command
        if isinstance(command, click.Group):
            for below, inner in command.commands.items():
                yield f"{name} {below}", inner


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_help_has_an_example(name, command):
    context = click.Context(command, info_name=f"artfs {name}", max_content_width=110)
    text = command.get_help(context)
    if not isinstance(command, click.Group):
        assert re.search(rf"Examples?:\n\s+artfs {name}", text), text


def test_the_overview(program):
    text = program.out("--help")
    for name, summary in COMMANDS.items():
        assert re.search(rf"^\s+{name}\s+{re.escape(summary[:30])}", text, re.MULTILINE)
    assert "Exit codes: 0 success" in text
    assert program.out("--version", process=True).startswith("artfs, version 0.")
    assert not program.home.exists()


def test_each_command_as_a_process(program, tmp_path):
    source = make_tree(tmp_path / "src", {"a": b"1", "d/b": b"22"})
    for arguments, shown in (
        (["init"], "registry: "),
        (["log", source, NAME, "-t", "dataset"], "acme/vision/mnist:v0\n"),
        (["ls", NAME], "acme/vision/mnist:v0  "),
        (["info", NAME], "name "),
        (["cat", NAME, "a"], "1"),
        (["diff", NAME, NAME], ""),
        (["download", NAME, tmp_path / "copy"], f"{tmp_path}/copy\n"),
        (["checkout", NAME, tmp_path / "copy"], f"{tmp_path}/copy\n"),
        (["verify", NAME, tmp_path / "copy"], f"{tmp_path}/copy holds acme/vision/mnist:v0\n"),
        (["alias", NAME, "best"], "best\nlatest\n"),
        (["tag", NAME, "red"], "red\n"),
        (["link", NAME, "published/digits"], "acme/published/digits:v0\n"),
        (["unlink", "published/digits"], ""),
        (["rm", NAME, "--delete-aliases"], "deleted acme/vision/mnist:v0\n"),
        (["gc", "--dry-run"], "expired versions: none\n"),
        (["cache", "info"], "directory "),
        (["cache", "clean"], "freed "),
    ):
        assert program.run(*arguments, process=True).stdout.startswith(shown)


def test_usage_errors(program):
    for arguments in (
        ["frobnicate"],
        ["log"],
        ["log", "."],
        ["cat", "x"],
        ["log", ".", "x", "-t", "t", "--ttl", "0"],
        ["diff", "x"],
        ["umount", "--wait", "-1", "x"],
    ):
        done = program.run(*arguments, code=2)
        assert "Usage: artfs" in done.stderr
    assert not program.home.exists()


def test_init_log_and_look(program, tmp_path):
    source = make_tree(tmp_path / "src", {"a": b"1", "d/b": b"22", "skip.tmp": b"x"})
    (tmp_path / "meta.json").write_text('{"from": "file"}')
    said = program.out("init", "--project", "vision", "--cache-limit", "1GiB", tmp_path / "my store")
    assert f"{tmp_path}/my%20store" in said
    assert (program.home / "config.toml").stat().st_mode & 0o777 == 0o600
    done = program.run(
        "log", source, "mnist", "-t", "dataset", "--metadata", f"@{tmp_path}/meta.json", "--exclude", "*.tmp"
    )
    assert done.stdout == "acme/vision/mnist:v0\n"
    assert done.stderr.startswith("2 files, 3 B, ")
    assert (tmp_path / "my store" / "packs").is_dir()
    again = program.json("log", source, "mnist", "-t", "dataset", "--exclude", "*.tmp", "-a", "best")
    assert (again["created"], again["name"], again["aliases"]) == (False, "acme/vision/mnist:v0", ["best", "latest"])
    assert again["stored_bytes"] == 0
    done = program.run("log", source, "mnist", "--exclude", "*.tmp")  # its type is known by now
    assert "same content: no new version" in done.stderr
    assert "had no effect" not in done.stderr
    late = ["--description", "d", "--tag", "t", "--ttl", "3", "--metadata", "{}"]
    for more in ([], ["--json"]):
        done = program.run("log", source, "mnist", "--exclude", "*.tmp", *late, *more)
        assert "--tag, --description, --metadata, --ttl had no effect: that version keeps its own" in done.stderr
    info = program.json("info", "mnist:best")
    assert (info["name"], info["metadata"], info["files"]) == ("acme/vision/mnist:v0", {"from": "file"}, 2)
    assert info["size"] == 3


def test_ls(sample):
    assert sample.out("ls") == "acme/"
    assert sample.out("ls", "acme/").split() == ["acme/published/", "acme/vision/"]
    assert sample.out("ls", "acme/vision/").split() == ["acme/vision/mnist", "dataset"]
    newest, oldest = sample.out("ls", NAME).splitlines()
    assert re.fullmatch(r"acme/vision/mnist:v1  [\d-]{10} [\d:]{8}  +256 files +12\.\d MiB  latest #checked", newest)
    assert oldest.endswith("best")
    listed = sample.out("ls", f"{NAME}:best").splitlines()
    assert any(re.fullmatch(r"-rwxr-xr-x +21 2017-07-14 .* script\.sh", line) for line in listed)
    assert any(line.endswith(" train/") for line in listed)
    assert sample.out("ls", f"{NAME}:best", "d").endswith("link -> ../a.txt")
    below = sample.json("ls", "-R", f"{NAME}:v1", "train")
    assert len(below) == 257
    assert {row["path"] for row in below} >= {"train/3", "train/3/0003.png"}


def test_json_of_everything_that_prints_data(sample):
    assert sample.json("ls") == [{"name": "acme/"}]
    for level in ("acme", "acme/vision"):
        assert sample.fails(3, "ls", level).endswith(f"`artfs ls {level}/` lists what it holds")
    assert [row["name"] for row in sample.json("ls", NAME)] == ["acme/vision/mnist:v1", "acme/vision/mnist:v0"]
    assert {"digest", "tree_digest", "aliases", "tags", "created"} <= set(sample.json("info", NAME))
    assert {row["path"]: row["change"] for row in sample.json("diff", f"{NAME}:v0", NAME)} == {
        "a.txt": "changed",
        "old": "removed",
    }
    assert sample.json("cache", "info")["limit"] == 50 << 30
    assert sample.json("gc", "--dry-run")


def test_info(sample):
    text = sample.out("info", NAME)
    for line in (r"name\s+acme/vision/mnist:v1", r"tags\s+checked", r"expires_after\s+30 days", r"state\s+COMMITTED"):
        assert re.search(f"^{line}$", text, re.MULTILINE), text
    assert re.search(r"source\s+acme/vision/mnist:v0", sample.out("info", "published/digits:production"))


def test_cat(sample):
    assert sample.out("cat", f"{NAME}:v0", "a.txt") == "hello from artfs"
    assert sample.run("cat", NAME, "big.bin", text=False).stdout == (sample.source / "big.bin").read_bytes()
    assert sample.out("cat", NAME, "d/link") == "hello again"
    for path in ("absent", "d/absent", "a.txt/b"):
        assert sample.fails(3, "cat", NAME, path) == f"{path!r} is not in acme/vision/mnist:v1"
    said = sample.fails(4, "cat", NAME, "train")
    assert said == "'train' is a directory; `artfs ls acme/vision/mnist:v1 train` lists it"


def test_cat_follows_links_as_a_mount_does(program, tmp_path):
    links = {"chain": Link("d/next"), "d/next": Link("../d/deep/../../a"), "up": Link("d/deep")}
    source = make_tree(tmp_path / "src", {"a": b"1", "d/deep/b": b"2"} | links)
    program.run("log", source, NAME, "-t", "dataset")
    assert program.out("cat", NAME, "chain") == "1"
    assert program.out("cat", NAME, "up/b") == "2"
    assert "'up' is a directory" in program.fails(4, "cat", NAME, "up")


def test_diff(sample):
    assert sample.out("diff", f"{NAME}:v0", NAME).splitlines() == ["M a.txt  12 B", "D old  14 B"]
    assert sample.out("diff", NAME, NAME) == ""


def test_download_verify_and_checkout(sample, tmp_path):
    assert sample.out("download", NAME, cwd=tmp_path) == "artifacts/mnist:v1"
    assert tree_of(tmp_path / "artifacts/mnist:v1") == tree_of(sample.source)
    done = sample.run("download", NAME, cwd=tmp_path)
    assert done.stderr == "0 files written, 257 already there\n"
    assert sample.out("verify", NAME, cwd=tmp_path) == "artifacts/mnist:v1 holds acme/vision/mnist:v1"
    target = tmp_path / "artifacts/mnist:v1"
    (target / "stranger").write_bytes(b"")
    (target / "a.txt").write_bytes(b"hello there\n")
    assert (
        sample.fails(7, "verify", NAME, target)
        == f"{target} differs from acme/vision/mnist:v1: different a.txt; unexpected stranger"
    )
    assert sample.out("checkout", NAME, target) == str(target)
    assert tree_of(target) == tree_of(sample.source)
    sample.run("download", NAME, tmp_path / "part", "--prefix", "train/3/")
    assert os.listdir(tmp_path / "part/train") == ["3"]


def test_labels(copy):
    assert copy.out("alias", NAME, "best", "stable").split() == ["best", "latest", "stable"]
    assert copy.out("alias", f"{NAME}:v0") == ""
    assert copy.out("alias", NAME, "-r", "stable").split() == ["best", "latest"]
    assert copy.out("tag", NAME, "reviewed", "-r", "checked") == "reviewed"
    assert copy.out("link", f"{NAME}:v1", "published/digits") == "acme/published/digits:v1"
    copy.run("unlink", "published/digits:v0")
    assert (
        copy.fails(3, "info", "published/digits:v0")
        == "acme/published/digits:v0 does not exist: it was deleted or unlinked"
    )
    assert copy.fails(5, "unlink", NAME).startswith("acme/vision/mnist:v1 is no link but the version itself")
    said = copy.fails(3, "alias", NAME, "new", "-r", "candidate")
    assert said == "acme/vision/mnist:v1 has no alias 'candidate'; it has best, latest"
    assert copy.fails(3, "tag", NAME, "-r", "red").endswith("has no tag 'red'; it has reviewed")
    assert copy.json("alias", NAME) == {"name": "acme/vision/mnist:v1", "aliases": ["best", "latest"]}
    assert copy.json("tag", NAME) == {"name": "acme/vision/mnist:v1", "tags": ["reviewed"]}


def test_of_several_names_one_that_fails_does_not_hold_up_the_others(copy):
    done = copy.run("rm", "vision/mnst", f"{NAME}:v1", f"{NAME}:v0", "--delete-aliases", "vision/mnist:v7", code=3)
    assert done.stdout.splitlines() == ["deleted acme/vision/mnist:v1", "deleted acme/vision/mnist:v0"]
    first, last = done.stderr.splitlines()
    assert first.startswith("artfs: acme/vision/mnst:latest does not exist")
    assert last.startswith("artfs: acme/vision/mnist:v7 does not exist")


def test_rm_and_gc(copy):
    assert "still has the aliases" in copy.fails(5, "rm", NAME)
    assert copy.out("rm", f"{NAME}:v1", "--delete-aliases") == "deleted acme/vision/mnist:v1"
    assert copy.json("info", NAME)["name"] == "acme/vision/mnist:v0"
    objects = {path for path in (copy.home / "store/packs").rglob("*") if path.is_file()}
    assert len(objects) == 2
    for grace in ("inf", "nan", "-1", "1e10", "1e300"):
        assert "Invalid value for --grace" in copy.run("gc", "--grace", grace, code=2).stderr
    for _ in range(2):  # condemned, then deleted
        copy.run("gc", "--grace", "0")
    assert len({path for path in objects if path.exists()}) == 1
    assert copy.out("cat", NAME, "a.txt") == "hello from artfs"


def test_cache(copy, tmp_path):
    assert "freed" in copy.out("cache", "clean")
    assert copy.json("cache", "info")["size"] == 0
    said = copy.out("cache", "warm", NAME, "--paths", "train/3/*")
    assert said == "36 files of acme/vision/mnist:v1 are in the cache"
    some = copy.json("cache", "info")["parts_size"]
    assert some > 0
    order = tmp_path / "order"
    order.write_bytes("big.bin\r\r\nGrüße 日本 🎈.txt\r\n\ntrain/3/0003.png\n".encode())
    copy.run("cache", "clean")
    said = copy.out("cache", "warm", NAME, "--order", order, "--paths", "*.bin")
    assert said == "1 file of acme/vision/mnist:v1 is in the cache"
    assert copy.json("cache", "info")["parts_size"] > 11 << 20
    order.write_text("ab\x1bsent\n")
    said = copy.fails(3, "cache", "warm", NAME, "--order", order)
    assert said == "'ab\\x1bsent' is not in acme/vision/mnist:v1"
    said = copy.fails(3, "cache", "warm", NAME, "--paths", "train/9*")
    assert said == "no file of acme/vision/mnist:v1 matches 'train/9*'"
    assert copy.run("cache", "warm", NAME, "--order", tmp_path / "no", code=2).returncode == 2
    assert copy.out("cache", "warm", NAME) == "acme/vision/mnist:v1 is in the cache"
    (copy.home / "store").rename(tmp_path / "moved")
    copy.run("download", NAME, tmp_path / "target")
    assert tree_of(tmp_path / "target") == tree_of(copy.source)
    shown = copy.out("cache", "info")
    assert re.search(r"^limit\s+50.0 GiB$", shown, re.MULTILINE)
    assert re.search(r"^disk_free_wanted\s+0 B$", shown, re.MULTILINE)
    assert shown.count(f"{copy.home}/cache") == 1


def test_doctor_changes_nothing(program):
    text = program.out("doctor", code=None)  # 1 where somebody's stale mount is about
    assert text.count("none yet") == 3
    assert not program.home.exists()


def test_doctor_finds_what_is_wrong(copy):
    (copy.home / "registry.db").write_bytes(b"garbage" * 1000)
    text = copy.out("doctor", code=1, process=True)
    assert re.search(r"^FAIL\s+registry\s.*out of reach: file is not a database", text, re.MULTILINE)


def test_doctor_finds_places_that_cannot_be_used():
    with tempfile.TemporaryDirectory() as shut:  # pytest's directories are closed to others as a whole
        os.chmod(shut, 0o555)
        program = Program(shut, ARTFS_CACHE_DIR="/etc/passwd/cache")
        with as_nobody():
            found = json.loads(program.out("doctor", "--json", code=1))
    found = {check["name"]: check["found"] for check in found if not check["ok"]}
    assert found["cache"] == "cannot use /etc/passwd/cache: /etc/passwd is no directory"
    assert found["registry"] == f"cannot use {shut}: no permission to write to {shut}"
    assert found["staging"] == f"cannot use {shut}/staging: no permission to write to {shut}"
    assert found["logs"] == f"cannot use {shut}/log: no permission to write to {shut}"


def test_doctor_finds_a_disk_too_full_for_a_cache(copy):
    tight = json.loads(copy.with_environment(ARTFS_CACHE_FREE="999T").out("doctor", "--json", code=1))
    (cache,) = (check for check in tight if check["name"] == "cache")
    assert not cache["ok"]
    assert "less than the 999.0 TiB of cache_free" in cache["found"]


def test_a_reader_that_goes_away(sample):
    command = f"{PYTHON} -m artfs.cli ls -R {NAME} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=sample.environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2


def test_an_output_that_is_full(sample):
    with open("/dev/full", "w") as full:
        process = sample.start("cat", NAME, "big.bin", stdout=full)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 9
    assert said == "artfs: standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("arguments", "streams", "code"),
    [
        (["ls", NAME], ">&{gone}", 141),
        (["cat", NAME, "a.txt"], ">&{gone}", 141),
        (["--help"], ">&{gone}", 141),
        (["nocmd"], "2>&{gone}", 2),
        (["info", "no/such"], "2>&{gone}", 3),
        (["ls", NAME], ">&-", 0),
        (["cat", NAME, "a.txt"], ">&-", 0),
        (["info", NAME], "2>&-", 0),
        (["info", "no/such"], "2>&-", 3),
        (["cache", "warm", NAME, "--order", "-"], "<&-", 0),
        (["ls", NAME], "<&- >&- 2>&-", 0),
    ],
)
def test_streams_that_are_closed_and_readers_that_are_gone(sample, arguments, streams, code):
    reader, gone = os.pipe()
    os.close(reader)
    command = f'exec "$@" {streams.format(gone=gone)}'
    whole = ["bash", "-c", command, "-", PYTHON, "-m", "artfs.cli", *arguments]
    done = subprocess.run(whole, env=sample.environment, capture_output=True, pass_fds=[gone], check=False)
    os.close(gone)
    assert done.returncode == code
    assert done.stderr == b""


def test_what_a_terminal_would_obey_is_escaped(program, tmp_path):
    source = make_tree(tmp_path / "src", {"a": b"1"})
    metadata = json.dumps({"k\x1b": "\x1b[2J\u3000", "l": ["\x07"]})
    program.run("log", source, NAME, "-t", "dataset", "--metadata", metadata, "--description", "two\nlines\x9b")
    said = program.out("info", NAME)
    assert "two\nlines\\x9b" in said
    assert "k\\x1b  \\x1b[2J\u3000" in said
    assert "\\x07" in said


def test_options_that_exclude_each_other(sample, tmp_path):
    for arguments, said in (
        (["lineage", NAME, "--json", "--dot"], "--json and --dot do not go together"),
        (["mount", "-w", "--adopt", NAME, tmp_path], "--adopt and --writable do not go together"),
    ):
        assert said in sample.run(*arguments, code=2).stderr


def test_a_path_is_written_as_in_other_commands(sample):
    assert sample.out("ls", NAME, "./train//3/") == sample.out("ls", NAME, "train/3")
    assert sample.out("ls", f"{NAME}:v1", ".") == sample.out("ls", f"{NAME}:v1")


def test_diff_with_a_directory_tells_of_verify(sample, tmp_path):
    assert f"`artfs verify {NAME} {tmp_path}` compares" in sample.fails(4, "diff", NAME, tmp_path)


def test_one_file_is_not_files(program, tmp_path):
    program.run("log", make_tree(tmp_path / "src", {"a": b"1"}), NAME, "-t", "dataset")
    assert " 1 file  " in program.out("ls", NAME)


def test_metadata_that_no_output_can_hold(program, tmp_path, monkeypatch):
    source = make_tree(tmp_path / "src", {"a": b"1"})
    program.run("log", source, NAME, "-t", "dataset")
    with sqlite3.connect(program.home / "registry.db") as database:
        database.execute("UPDATE version SET metadata=?", (r'{"a": "\ud800 \udcff"}',))
    database.close()
    assert program.run("info", NAME, process=True, text=False).stdout.splitlines()[-1] == rb"  a  \ud800 \udcff"
    assert program.json("info", NAME)["metadata"] == {"a": "\ud800 \udcff"}
    assert "written records: 1" in program.out("gc")


def test_a_working_directory_that_is_gone(sample, tmp_path):
    command = f"cd {tmp_path} && mkdir gone && cd gone && rmdir ../gone && {PYTHON} -m artfs.cli download {NAME}"
    environment = sample.environment | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (9, "artfs: the working directory: No such file or directory\n")


def test_an_interrupted_log_leaves_nothing_visible(program, tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    with (source / "large").open("wb") as file:
        file.truncate(3 << 30)
    process = program.start("log", source, NAME, "-t", "dataset")
    wait_until(lambda: has_open(process.pid, source / "large"), "the file is read")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "\nartfs: interrupted\n")
    assert "is empty" in program.fails(3, "info", NAME)
    assert not list((program.home / "cache").glob("publish-*"))


def has_open(pid, path):
    try:
        links = [os.path.join(f"/proc/{pid}/fd", name) for name in os.listdir(f"/proc/{pid}/fd")]
        return any(os.path.realpath(link) == str(path) for link in links)
    except OSError:
        return False


def test_verbose_tells_more(sample):
    done = sample.run("-v", "cache", "warm", NAME, process=True)
    assert done.stdout == "acme/vision/mnist:v1 is in the cache\n"
    assert "artfs: acme/vision/mnist:latest is acme/vision/mnist:v1\n" in done.stderr
    assert sample.run("cache", "warm", NAME, process=True).stderr == ""


def test_the_shell_completes_commands_and_options(sample):
    def completed(*words):
        asked = {"_ARTFS_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        artfs = shutil.which("artfs", path=sample.environment["PATH"])
        done = subprocess.run([artfs], env=sample.environment | asked, capture_output=True, text=True, check=True)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert completed("artfs", "un") == ["unlink"]
    assert completed("artfs", "log", "--sym") == ["--symlinks"]
    assert completed("artfs", "log", "--symlinks", "f") == ["follow"]
