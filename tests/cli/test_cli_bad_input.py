"""What bad input gets: one clear sentence on standard error, the documented exit code, and nothing lost."""

import contextlib
import json
import os
import re
import sqlite3
import subprocess

import pytest
from homes import Link, make_tree, tree_of, wait_until
from program import PYTHON, Program

from artfs.registry.schema import HEAD, REVISION_TABLE

NAME = "vision/mnist"


def is_whole(program, tmp_path):
    """Both versions of the sample are there, and every byte of them."""
    assert [row["name"] for row in program.json("ls", NAME)] == ["acme/vision/mnist:v1", "acme/vision/mnist:v0"]
    target = tmp_path / "is-whole"
    program.run("download", NAME, target)
    return tree_of(target) == tree_of(program.source)


# -- names


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("vision/mnst", "acme/vision/mnst:latest does not exist: no collection 'mnst'; did you mean mnist?"),
        ("vison/mnist", "acme/vison/mnist:latest does not exist: no project 'vison'; did you mean vision?"),
        ("acne/vision/mnist", "acne/vision/mnist:latest does not exist: no entity 'acne'; did you mean acme?"),
        ("vision/mnist:bst", "acme/vision/mnist:bst does not exist: no alias 'bst'; did you mean best?"),
        (
            "vision/mnist:v9",
            "acme/vision/mnist:v9 does not exist: no alias 'v9'; acme/vision/mnist has best, latest, v0, v1",
        ),
    ],
)
def test_unknown_names(sample, name, sentence):
    assert sample.fails(3, "info", name) == sentence


@pytest.mark.parametrize(
    "name", ["", "a/b/c/d", "vision/mni st", "vision/mnist:", "vision/mnist:a/b", "../mnist:v0", "a/./c"]
)
def test_invalid_names(sample, name):
    assert sample.fails(4, "cat", name, "x").startswith("invalid ")


BYTES = "\udcff"
"""How Python spells an argument that is not UTF-8."""


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls", f"{BYTES}/"],
        ["ls", f"acme/{BYTES}/"],
        ["ls", NAME, BYTES],
        ["cat", NAME, BYTES],
        ["diff", BYTES, NAME],
        ["tag", NAME, BYTES],
        ["alias", NAME, BYTES],
        ["log", ".", NAME, "--description", BYTES],
        ["commit", BYTES, "--description", BYTES],
    ],
)
def test_arguments_that_are_not_utf8(sample, arguments):
    assert sample.fails(4, *arguments).startswith("invalid ")


@pytest.mark.parametrize("command", [["info"], ["ls"], ["cat"], ["rm"]])
def test_a_version_number_beyond_all_databases(sample, command):
    arguments = [*command, f"{NAME}:v99999999999999999999", *(["a"] if command in (["cat"], ["ls"]) else [])]
    assert "v99999999999999999999 does not exist" in sample.fails(3, *arguments)


def test_refused_labels_and_metadata(copy, tmp_path):
    source = make_tree(tmp_path / "src", {"a": b"1"})
    latin = tmp_path / "latin"
    latin.write_bytes(b"\xff")
    for option, why in (
        (["-a", "v3"], "invalid alias 'v3': v<number> and draft-<id> name versions themselves"),
        (["--tag", "a/b"], "invalid tag 'a/b': use words"),
        (["--metadata", "{"], "invalid metadata: it is not JSON"),
        (["--metadata", "[1]"], "invalid metadata: it is JSON, but no object"),
        (["--metadata", "@/absent"], "invalid metadata: /absent: No such file or directory"),
        (["--metadata", "@"], "invalid metadata: no name of a file follows the @"),
        (["--metadata", f"@{latin}"], f"invalid metadata: {latin} is not UTF-8"),
    ):
        assert copy.fails(4, "log", source, NAME, "-t", "dataset", *option).startswith(why)
    assert copy.fails(4, "log", source, NAME, "-t", "model", process=True) == (
        "acme/vision/mnist already exists with type 'dataset'; cannot log a version of type 'model' to it"
    )
    assert copy.fails(4, "log", source, "vision/new") == (
        "the collection acme/vision/new does not exist yet; say what it holds with --type"
    )
    assert copy.fails(4, "log", source, "published/digits", "-t", "dataset").startswith(
        "acme/published/digits is a portfolio; link versions to it"
    )
    assert len(copy.json("ls", NAME)) == 2


# -- sources


def test_sources_that_cannot_be_logged(program, tmp_path):
    assert program.fails(4, "log", tmp_path / "absent", NAME, "-t", "t") == (
        f"cannot read {tmp_path}/absent: No such file or directory"
    )
    source = make_tree(tmp_path / "src", {"a": b"1", "out": Link("/nowhere/at/all")})
    assert program.fails(4, "log", source, NAME, "-t", "t") == (
        f"cannot read {source}/out: it is a symbolic link to nothing"
    )
    (source / "out").unlink()
    (source / ".artfsignore").write_bytes(b"\xff")
    assert program.fails(4, "log", source, NAME, "-t", "t") == f"cannot read {source}/.artfsignore: it is not UTF-8"
    (source / ".artfsignore").unlink()
    os.mkfifo(source / "pipe")
    assert "leave it out with --exclude" in program.fails(4, "log", source, NAME, "-t", "t")
    open(os.fsencode(source) + b"/\xff", "w").close()
    done = program.run("log", source, NAME, "-t", "t", "--exclude", "pipe", code=4)
    assert "inside an artifact: it is not UTF-8" in done.stderr
    assert "is empty" in program.fails(3, "info", NAME)
    os.remove(os.fsencode(source) + b"/\xff")
    assert program.fails(4, "log", source, NAME, "-t", "t", "--exclude", "!") == (
        "invalid pattern '!': it means nothing as a line of .gitignore"
    )
    assert program.out("log", source, NAME, "-t", "t", "--exclude", "pipe") == "acme/vision/mnist:v0"


def test_a_source_that_changes(program, tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    with (source / "large").open("wb") as file:
        file.truncate(1 << 30)
    process = program.start("log", source, NAME, "-t", "dataset")
    wait_until(lambda: is_open(process.pid, source / "large"), "it is read")
    with (source / "large").open("ab") as file:
        file.write(b"more")
    _, said = process.communicate(timeout=90)
    assert process.returncode == 5
    assert said.splitlines()[-1] == (
        f"artfs: {source}/large changed while it was being logged; log again when it is at rest"
    )
    assert "is empty" in program.fails(3, "info", NAME)


def is_open(pid, path):
    try:
        links = [os.path.join(f"/proc/{pid}/fd", name) for name in os.listdir(f"/proc/{pid}/fd")]
        return any(os.path.realpath(link) == str(path) for link in links)
    except OSError:
        return False


# -- disks


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs takes root")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(disk):
    with open(disk / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))


def test_a_full_disk_under_the_store(small_disk, tmp_path):
    program = Program(tmp_path / "home", ARTFS_STORE_URL=f"file://{small_disk}/store")
    first = make_tree(tmp_path / "src", {"a": os.urandom(1 << 20)})
    program.run("log", first, NAME, "-t", "dataset")
    (first / "b").write_bytes(os.urandom(40 << 20))
    assert program.fails(9, "log", first, NAME, "-t", "dataset").startswith("no space left in ")
    (first / "b").unlink()
    assert program.json("info", NAME)["name"] == "acme/vision/mnist:v0"
    assert program.run("cat", NAME, "a", text=False).stdout == (first / "a").read_bytes()
    again = program.run("log", first, NAME, "-t", "dataset")
    assert "same content" in again.stderr


def test_a_full_disk_under_everything(small_disk, tmp_path):
    program = Program(small_disk / "home")
    source = make_tree(tmp_path / "src", {"a": os.urandom(1 << 20)})
    program.run("log", source, NAME, "-t", "dataset")
    fill(small_disk)
    (source / "b").write_bytes(b"new")
    assert program.fails(9, "log", source, NAME, "-t", "dataset").startswith("no space left in ")
    (small_disk / "filler").unlink()
    assert program.json("info", NAME)["name"] == "acme/vision/mnist:v0"
    assert program.out("log", source, NAME, "-t", "dataset") == "acme/vision/mnist:v1"


def test_a_full_disk_under_the_cache(copy, small_disk, tmp_path):
    program = copy.with_environment(ARTFS_CACHE_DIR=str(small_disk / "cache"))
    program.source = copy.source
    program.run("ls", NAME, "train")  # its catalog is there before the disk is full
    fill(small_disk)
    expect = [("the cache cannot be used, bytes are served without it|cannot remember", None)]
    with program.mounted(NAME, tmp_path / "mnt", expect=expect) as mount:
        assert tree_of(mount.path) == tree_of(copy.source)
    done = program.run("cache", "warm", NAME, code=9)
    assert "no space left in " in done.stderr.splitlines()[-1]
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", target], check=True)
    try:
        assert copy.fails(9, "download", NAME, target).startswith(f"no space left in {target}/")
        assert not list(target.rglob(".artfs-*"))
    finally:
        subprocess.run(["umount", "-l", target], check=True)


def test_a_cache_that_cannot_be_used(copy, tmp_path):
    # SEMANTICS: Nor does a cache directory that cannot be written to;
    (tmp_path / "file").write_bytes(b"")
    program = copy.with_environment(ARTFS_CACHE_DIR=str(tmp_path / "file/cache"))
    done = program.run("cat", NAME, "a.txt", process=True)
    assert done.stdout == "hello again\n"
    assert "the catalog of acme/vision/mnist:v1 is not kept" in done.stderr
    for engine in ("direct", "pyfuse3"):
        expect = [("the cache|cannot (use|remember|look up)", None)]
        with program.mounted("-o", f"engine={engine}", NAME, tmp_path / "mnt", expect=expect) as mount:
            assert tree_of(mount.path) == tree_of(copy.source)
    done = program.run("download", NAME, tmp_path / "target", process=True)
    assert tree_of(tmp_path / "target") == tree_of(copy.source)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_cache_that_another_user_began(copy, tmp_path):
    for directory in (tmp_path / "cache/catalogs", tmp_path / "cache/parts"):
        directory.mkdir(mode=0o700, parents=True)
        os.chown(directory, 65534, 65534)
    # As any other user, who may not enter what is private.
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", PYTHON, "-m", "artfs.cli"]
    environment = copy.environment | {"ARTFS_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([*command, "cat", NAME, "a.txt"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "hello again\n"
    assert "the catalog of acme/vision/mnist:v1 is not kept" in done.stderr
    done = subprocess.run([*command, "doctor"], env=environment, capture_output=True, text=True, check=False)
    assert re.search(r"FAIL +cache +.*cache/\w+: it cannot be used by this user", done.stdout)
    assert done.returncode == 1


# -- stores


def test_wrong_credentials_and_missing_buckets(program, s3_server, tmp_path):
    bucket = s3_server.make_bucket()
    wrong = program.with_environment(**s3_server.environment(), ARTFS_READ_DEADLINE="10")
    wrong.environment["AWS_SECRET_ACCESS_KEY"] = "mistyped"
    said = wrong.fails(6, "init", f"s3://{bucket}/artifacts", "--endpoint", s3_server.endpoint_url)
    assert said.startswith(f"access to the object store s3://{bucket}/artifacts is denied: ")
    assert said.endswith("check the credentials")
    assert "mistyped" not in said
    right = program.with_environment(**s3_server.environment(), ARTFS_READ_DEADLINE="10")
    said = right.fails(6, "init", "s3://no-such-bucket/x", "--endpoint", s3_server.endpoint_url)
    assert said.startswith("the object store s3://no-such-bucket/x does not exist; create the bucket")
    assert not (program.home / "config.toml").exists()
    source = make_tree(tmp_path / "src", {"a": b"1"})
    there = {"ARTFS_STORE_URL": f"s3://{bucket}/artifacts", "ARTFS_STORE_ENDPOINT": s3_server.endpoint_url}
    said = wrong.with_environment(**there).fails(6, "log", source, NAME, "-t", "dataset")
    assert said.startswith(f"access to the object store s3://{bucket}/artifacts is denied: ")
    assert right.with_environment(**there).out("log", source, NAME, "-t", "dataset") == "acme/vision/mnist:v0"
    nobody = program.with_environment(**s3_server.environment("http://127.0.0.1:1"), ARTFS_READ_DEADLINE="1")
    said = nobody.fails(6, "init", f"s3://{bucket}/artifacts", "--endpoint", "http://127.0.0.1:1")
    assert f"s3://{bucket}/artifacts" in said


def test_a_store_of_somebody_else(copy, tmp_path):
    other = Program(tmp_path / "other")
    said = other.fails(10, "init", copy.home / "store")
    assert said.startswith(f"the store file://{copy.home}/store belongs to another registry")
    assert "use an empty prefix" in said
    assert is_whole(copy, tmp_path)


def test_a_store_that_is_gone(copy, tmp_path):
    copy.run("cache", "clean")
    (copy.home / "store").rename(tmp_path / "moved")
    assert "does not exist" in copy.fails(6, "cat", NAME, "a.txt")
    assert "does not exist" in copy.out("doctor", code=1)
    (tmp_path / "moved").rename(copy.home / "store")
    assert is_whole(copy, tmp_path)


@pytest.mark.parametrize("url", ["ftp://x/y", "s3://key:secret@bucket/x", "s3://", "s3:///x", "file:///", "file://x"])
def test_stores_that_are_none(program, url):
    said = program.fails(10, "init", url)
    assert said.startswith("configuration: ")
    assert "secret" not in said


# -- damage


def objects(program, kind):
    return [path for path in (program.home / "store" / kind).rglob("*") if path.is_file()]


def test_a_damaged_pack(copy):
    copy.run("cache", "clean")
    data = (copy.source / "big.bin").read_bytes()
    for pack in objects(copy, "packs"):
        if (at := pack.read_bytes().find(data[:100])) >= 0:
            with pack.open("r+b") as file:
                file.seek(at + 10)
                file.write(b"damage")
    done = copy.run("cat", NAME, "big.bin", code=7, text=False, process=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith("artfs: pack packs/")
    assert "is damaged in the store at bytes" in line
    assert done.stdout == b""
    assert copy.out("cat", NAME, "a.txt") == "hello again"  # in another pack


def test_a_damaged_catalog(copy, tmp_path):
    cached = list((copy.home / "cache/catalogs").iterdir())
    for catalog in cached:
        os.truncate(catalog, 5000)
    done = copy.run("cat", NAME, "a.txt", process=True)
    assert done.stdout == "hello again\n"
    assert re.search("the catalog acme/vision/mnist:v1 is damaged: .*; fetching it again", done.stderr)
    copy.run("cache", "clean")
    for catalog in objects(copy, "catalogs"):
        os.truncate(catalog, 50)
    assert "is damaged" in copy.fails(7, "cat", NAME, "a.txt")
    assert [row["name"] for row in copy.json("ls", NAME)] == ["acme/vision/mnist:v1", "acme/vision/mnist:v0"]


# -- registries and configuration


def revise(program, revision):
    database = sqlite3.connect(program.home / "registry.db")
    database.execute(f"UPDATE {REVISION_TABLE} SET version_num=?", (revision,))
    database.commit()
    database.close()


def test_a_registry_of_a_newer_artfs(copy, tmp_path):
    revise(copy, "9999")
    sentence = (
        f"the registry sqlite:///{copy.home}/registry.db has schema 9999, this artfs knows {HEAD}: use a newer artfs"
    )
    assert copy.fails(10, "info", NAME) == sentence
    (tmp_path / "mnt").mkdir()
    assert copy.fails(10, "mount", NAME, tmp_path / "mnt") == sentence
    assert copy.fails(10, "log", copy.source, NAME, "-t", "dataset") == sentence
    assert sentence.partition(": use")[0] in copy.out("doctor", code=1)
    revise(copy, HEAD)
    assert is_whole(copy, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "check"),
    [
        ("ARTFS_REGISTRY_URL", "sqlite://", "registry"),
        ("ARTFS_REGISTRY_URL", "postgresql://h:notaport/db", "registry"),
        ("ARTFS_ENTITY", "a/b", "configuration"),
        ("ARTFS_STORE_ENDPOINT", "nonsense", "configuration"),
    ],
)
def test_doctor_reports_the_settings_that_commands_refuse(program, key, value, check):
    wrong = program.with_environment(**{key: value})
    said = wrong.fails(10, "ls").removeprefix("configuration: ")
    report = {line["name"]: line for line in json.loads(wrong.out("doctor", "--json", code=1))}
    assert report[check]["ok"] is False
    assert said in report[check]["found"]


def test_an_endpoint_of_aws_that_is_no_url(program, s3_server):
    environment = s3_server.environment("nonsense")
    wrong = program.with_environment(**environment, ARTFS_STORE_URL="s3://bucket/x")
    assert "not the URL of a server" in wrong.out("doctor", code=1)


def test_a_registry_without_a_schema_gets_one(program, tmp_path):
    program.home.mkdir()
    sqlite3.connect(program.home / "registry.db").execute("VACUUM").connection.close()
    source = make_tree(tmp_path / "src", {"a": b"1"})
    assert program.out("log", source, NAME, "-t", "dataset") == "acme/vision/mnist:v0"


def test_a_registry_out_of_reach(copy, tmp_path):
    url = "postgresql://artfs:secret@127.0.0.1:1/artfs"
    elsewhere = copy.with_environment(ARTFS_REGISTRY_URL=url)
    done = elsewhere.run("info", NAME, code=6, process=True)
    assert done.stderr.startswith(
        "artfs: the registry postgresql+psycopg://artfs:***@127.0.0.1:1/artfs is out of reach: "
    )
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1
    (copy.home / "registry.db").rename(tmp_path / "kept")
    (copy.home / "registry.db").write_bytes(b"garbage" * 1000)
    said = copy.fails(6, "log", copy.source, NAME, "-t", "dataset")
    assert said.endswith("registry.db is out of reach: file is not a database")
    (tmp_path / "kept").rename(copy.home / "registry.db")
    assert is_whole(copy, tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("store_url = ", "is not TOML"),
        ('colour = "red"', "has 'colour', which artfs does not know"),
        ('cache_limit = "much"', "cache_limit in [^ ]*config.toml: 'much' is not a size such as 500M or 10GiB"),
        ('registry_url = "mysql://u:secret@h/d"', "SQLite or PostgreSQL"),
    ],
)
def test_a_configuration_that_cannot_be_used(program, text, why):
    program.home.mkdir()
    (program.home / "config.toml").write_text(text)
    said = program.fails(10, "ls")
    assert re.search(why, said)
    assert "secret" not in said


def test_a_configuration_that_is_not_there(program, tmp_path):
    absent = tmp_path / "no such.toml"
    said = program.fails(10, "--config", absent, "ls")
    assert said == f"configuration: {absent} does not exist; `artfs --config '{absent}' init` makes it"
    assert not program.home.exists()
    program.run("--config", absent, "init", "--project", "vision")
    assert program.out("--config", absent, "ls") == ""


def test_a_directory_that_is_no_mount(sample, tmp_path):
    (tmp_path / "two words").mkdir()
    (tmp_path / "mnst").mkdir()
    for name, code in (("two words", 4), ("mnst", 3)):
        said = sample.fails(code, "info", name, cwd=tmp_path)
        assert said.endswith(f"; and the directory {name} is no artfs mount")
    assert sample.fails(3, "info", tmp_path) == f"{tmp_path} is not an artfs mount"
