"""Mounting with the real program, reading with the tools that everybody has."""

import contextlib
import errno
import hashlib
import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from homes import OLD, make_tree, settings_of, tree_of, wait_until
from program import PYTHON, Program, daemons, end

from artfs import prefetch
from artfs.catalog import Entry, Kind
from artfs.catalog.layout import BLOCK
from artfs.cli.mount import log_file
from artfs.digests import md5_base64
from artfs.fuse.mountpoint import mounted_on
from artfs.names import CollectionName
from artfs.versions.publication import Publication
from artfs.versions.repository import Repository

NAME = "vision/mnist"


def tool(*command, **keywords):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, **keywords).stdout


@pytest.fixture(scope="module", params=["direct", "pyfuse3"])
def mnist(sample, tmp_path_factory, request):
    """v1 of the sample, mounted by each engine for all tests that only read."""
    place = tmp_path_factory.mktemp("mounted") / "mnist"
    with sample.mounted("-o", f"engine={request.param}", NAME, place) as mount:
        assert mount.statistics()["engine"] == request.param
        yield mount.path


# -- tools


def test_ls_and_find_show_what_the_source_has(sample, mnist):
    assert tool("ls", "-lR", "--time-style=full-iso", mnist).count("\n") > 260
    facts = ["-printf", "%P %y %m %s %l %T@\n"]  # of directories the size is the file system's own affair
    for kind in (["-not", "-type", "d"], ["-type", "d", "-printf", ""]):
        found = tool("find", mnist, *kind, *facts).splitlines()
        expected = tool("find", sample.source, *kind, *facts).splitlines()
        strip = (lambda line: line.split()[0]) if "d" in kind and "-not" not in kind else str
        assert sorted(map(strip, found)) == sorted(map(strip, expected))


@pytest.mark.parametrize(
    "copy",
    [
        lambda source, target: tool("cp", "-a", f"{source}/.", target),
        lambda source, target: tool("rsync", "-a", f"{source}/", target),
        lambda source, target: tool("sh", "-c", f"tar -C {source} -cf - . | tar -C {target} -xf -"),
    ],
    ids=["cp", "rsync", "tar"],
)
def test_copies_are_the_source(sample, mnist, tmp_path, copy):
    target = tmp_path / "target"
    target.mkdir()
    copy(mnist, target)
    assert tree_of(target) == tree_of(sample.source)
    assert (target / "script.sh").stat().st_mode & 0o777 == 0o755
    assert (target / "train").stat().st_mtime_ns // 10**9 == OLD // 10**9


def test_sums_grep_and_programs(sample, mnist):
    sums = tool("sh", "-c", "find . -type f -print0 | xargs -0 sha256sum", cwd=sample.source)
    tool("sha256sum", "--quiet", "-c", cwd=mnist, input=sums)
    assert tool("grep", "-rl", "hello", ".", cwd=mnist).split() == ["./a.txt", "./script.sh"]
    assert tool(mnist / "script.sh") == "hello\n"
    assert tool("diff", "-r", "--no-dereference", mnist, sample.source) == ""


def test_reads_of_every_kind(sample, mnist):
    data = (sample.source / "big.bin").read_bytes()
    with open(mnist / "big.bin", "rb", buffering=0) as file:
        for offset, size in [(0, 10), (BLOCK - 1, 2), (5 * BLOCK, 3 * BLOCK), (len(data) - 3, 10), (1 << 40, 5)]:
            assert os.pread(file.fileno(), size, offset) == data[offset : offset + size]
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            assert view[:] == data
        near, far = os.pipe()
        assert os.sendfile(far, file.fileno(), 7 * BLOCK, 1000) == 1000
        assert os.read(near, 2000) == data[7 * BLOCK : 7 * BLOCK + 1000]
        os.close(near)
        os.close(far)
    direct = os.open(mnist / "big.bin", os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, BLOCK) as buffer:
        assert os.preadv(direct, [buffer], BLOCK) == BLOCK
        assert buffer[:] == data[BLOCK : 2 * BLOCK]
    os.close(direct)


def test_attributes(sample, mnist):
    digest = sample.json("info", NAME)["digest"]
    assert os.getxattr(mnist, "user.artfs.digest").decode() == digest
    assert os.getxattr(mnist / "a.txt", "user.artfs.version") == b"acme/vision/mnist:v1"
    assert len(os.getxattr(mnist / "a.txt", "user.artfs.digest")) == 24
    (mnist / "big.bin").read_bytes()
    assert int(os.getxattr(mnist / "big.bin", "user.artfs.cached")) == 11 << 20
    answer = os.statvfs(mnist)
    assert answer.f_bfree == 0
    assert answer.f_files == 256
    assert 12 << 20 < answer.f_blocks * answer.f_frsize < 14 << 20


def test_nothing_can_be_written(mnist):
    # SEMANTICS: EROFS, from the kernel (`ro`)
    for attempt in (
        (mnist / "new").touch,
        (mnist / "new").mkdir,
        lambda: (mnist / "new").symlink_to("a.txt"),
        lambda: (mnist / "new").hardlink_to(mnist / "a.txt"),
        lambda: os.mkfifo(mnist / "new"),
        lambda: os.open(mnist, os.O_TMPFILE | os.O_RDWR),
        lambda: (mnist / "a.txt").write_bytes(b"x"),
        lambda: os.open(mnist / "a.txt", os.O_RDWR),
        lambda: os.open(mnist / "a.txt", os.O_RDONLY | os.O_TRUNC),
        lambda: os.truncate(mnist / "a.txt", 0),
        (mnist / "a.txt").unlink,
        (mnist / "empty").rmdir,
        lambda: (mnist / "train").rename(mnist / "test"),
        lambda: (mnist / "a.txt").chmod(0o777),
        lambda: os.chown(mnist / "a.txt", 0, 0),
        lambda: os.utime(mnist / "a.txt"),
        lambda: os.setxattr(mnist / "a.txt", "user.x", b"1"),
        lambda: os.removexattr(mnist / "a.txt", "user.artfs.digest"),
    ):
        with pytest.raises(OSError, match="Read-only file system") as caught:
            attempt()
        assert caught.value.errno == errno.EROFS


def test_info_about_a_mount(sample, mnist):
    facts = sample.json("info", mnist)
    assert (facts["mountpoint"], facts["source"], facts["stale"]) == (str(mnist), NAME, False)
    assert facts["statistics"]["version"] == "acme/vision/mnist:v1"
    with open(facts["log"]) as log:  # at night somebody asks which version an alias was when this was mounted
        assert "acme/vision/mnist:latest is acme/vision/mnist:v1" in log.read()
    assert "statistics:" in sample.out("info", mnist)
    assert re.search(r"^\w+ +mounts", sample.out("doctor", code=None), re.MULTILINE)


# -- sizes


def test_a_directory_of_100_000_entries(program, tmp_path):
    names = [f"{number:06}.txt" for number in range(100_000)]
    digest = md5_base64(hashlib.md5(b"").digest())
    with (
        Repository(settings_of(program.home)) as repository,
        Publication(repository, CollectionName("acme", "vision", "mnist"), "dataset", origin="log") as publication,
    ):
        for name in names:
            publication.add(Entry(name, Kind.FILE, digest=digest))
        publication.commit()
    with program.mounted(NAME, tmp_path / "mnt") as mount:
        assert sorted(os.listdir(mount.path)) == names
        assert tool("sh", "-c", f"find {mount.path} -type f -size 0 | wc -l").strip() == "100000"
        assert (mount.path / names[-1]).read_bytes() == b""


def check_sparse(program, tmp_path, size, marks):
    """A sparse file of ``size`` bytes, logged, mounted, and read where it is not zero."""
    source = tmp_path / "src"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        for mark in marks:
            file.seek(mark)
            file.write(b"at %d" % mark)
        file.truncate(size)
    done = program.run("log", source, NAME, "-t", "dataset")
    assert done.stdout == "acme/vision/mnist:v0\n"
    with program.mounted(NAME, tmp_path / "mnt") as mount, open(mount.path / "sparse", "rb", buffering=0) as file:
        assert os.fstat(file.fileno()).st_size == size
        for mark in marks:
            text = b"at %d" % mark
            assert os.pread(file.fileno(), len(text) + 8, mark - 8) == bytes(8) + text
        assert os.pread(file.fileno(), 100, size - 10) == bytes(10)
        assert os.pread(file.fileno(), 100, size) == b""


def test_a_large_sparse_file(program, tmp_path):
    check_sparse(program, tmp_path, 300_000_000, [100, (64 << 20) - 3, 4 * (64 << 20) + 5])


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_file_of_10_gb(program, tmp_path):
    check_sparse(program, tmp_path, 10_000_000_000, [100, (1 << 32) - 3, 9_999_999_000])


# -- the namespace


def test_everything(sample, tmp_path):
    with sample.mounted(tmp_path / "all") as mount:
        assert os.listdir(mount.path) == ["acme"]
        assert sorted(os.listdir(mount.path / "acme")) == ["published", "vision"]
        assert sorted(os.listdir(mount.path / "acme/vision")) == [
            "mnist", "mnist:best", "mnist:latest", "mnist:v0", "mnist:v1",
        ]  # fmt: skip
        assert (mount.path / "acme/vision/mnist/a.txt").read_text() == "hello again\n"
        assert (mount.path / "acme/vision/mnist:best/a.txt").read_text() == "hello from artfs\n"
        assert os.readlink(mount.path / "acme/vision/mnist:best") == "mnist:v0"
        assert (mount.path / "acme/published/digits:production/a.txt").read_text() == "hello from artfs\n"
        assert tool("sh", "-c", f"find -L {mount.path} -name a.txt | wc -l").strip() == "9"
        assert not (mount.path / "acme/vision/mnist:v7").exists()


def test_an_entity_and_a_project_follow_what_is_logged(copy, tmp_path):
    # SEMANTICS: What is logged, aliased or deleted meanwhile shows within 10 seconds.
    with (
        copy.mounted("acme/", tmp_path / "entity") as entity,
        copy.mounted("acme/vision/", tmp_path / "project") as project,
    ):
        assert (entity.path / "vision/mnist/a.txt").read_text() == "hello again\n"
        before = os.lstat(project.path / "mnist:best").st_ino
        assert not (project.path / "mnist:v2").exists()
        source = make_tree(tmp_path / "more", {"a.txt": b"third\n"})
        copy.run("log", source, NAME, "-t", "dataset", "-a", "best")
        for root in (entity.path / "vision", project.path):
            wait_until(lambda root=root: (root / "mnist:v2").exists(), "the version appears")
            wait_until(lambda root=root: (root / "mnist:best/a.txt").read_text() == "third\n", "the alias moves")
        assert os.lstat(project.path / "mnist:best").st_ino != before
        assert (project.path / "mnist:v0/a.txt").read_text() == "hello from artfs\n"


def test_a_version_is_pinned_when_it_is_mounted(copy, tmp_path):
    # SEMANTICS: What is mounted is pinned; what a name leads to is looked up once, when it is mounted.
    with copy.mounted(NAME, tmp_path / "mnt") as mount:
        source = make_tree(tmp_path / "more", {"a.txt": b"third\n"})
        copy.run("log", source, NAME, "-t", "dataset")
        assert (mount.path / "a.txt").read_text() == "hello again\n"


# -- the cache


@pytest.fixture
def on_s3(tmp_path, s3_server, s3_proxy):
    """A home whose store is in a bucket, reached through the proxy, with 9 MiB in 300 files and 5 MiB in one."""
    program = Program(tmp_path / "home", **s3_server.environment(s3_proxy.url), ARTFS_READ_DEADLINE="5")
    program.source = make_tree(
        tmp_path / "src",
        {f"d/{i:03}": os.urandom(30_000) for i in range(300)} | {"large": os.urandom(5 * BLOCK)},
    )
    program.run("init", f"s3://{s3_server.make_bucket()}/artifacts", "--endpoint", s3_proxy.url)
    program.run("log", program.source, NAME, "-t", "dataset")
    return program


def packs_asked(proxy):
    return [
        (request.path, block)
        for request in proxy.requests
        if request.method == "GET" and "/packs/" in request.path
        for block in range(request.range[0] // BLOCK, -(-request.range[1] // BLOCK))
    ]


def test_a_warm_mount_makes_no_request_and_works_offline(on_s3, s3_proxy, tmp_path):
    # SEMANTICS: A warm mount makes no network call:
    on_s3.run("cache", "warm", NAME)
    with on_s3.mounted(NAME, tmp_path / "mnt") as mount:
        s3_proxy.requests.clear()
        assert tree_of(mount.path) == tree_of(on_s3.source)
        assert s3_proxy.requests == []
        s3_proxy._server.shutdown()
        s3_proxy._server.server_close()  # nobody listens any more
        subprocess.run(["sh", "-c", "echo 2 > /proc/sys/vm/drop_caches"], check=False)
        assert tree_of(mount.path) == tree_of(on_s3.source)
    with on_s3.mounted(NAME, tmp_path / "again") as mount:  # mounted offline
        assert tree_of(mount.path) == tree_of(on_s3.source)


def test_what_was_prefetched_is_read_without_a_request(on_s3, s3_proxy, tmp_path):
    # SEMANTICS: Asking for `user.artfs.prefetch` of a file has it fetched in the background.
    on_s3.run("cache", "clean")
    with on_s3.mounted(NAME, tmp_path / "mnt") as mount:
        assert prefetch(mount.path / name for name in ("large", "d/007")) == 2
        wait_until(lambda: os.getxattr(mount.path / "large", "user.artfs.cached") == b"%d" % (5 * BLOCK), "it is there")
        wait_until(lambda: os.getxattr(mount.path / "d/007", "user.artfs.cached") != b"0", "it is there")
        s3_proxy.requests.clear()
        for name in ("large", "d/007"):
            assert (mount.path / name).read_bytes() == (on_s3.source / name).read_bytes()
        assert s3_proxy.requests == []


def test_what_a_profiled_run_read_is_fetched_by_the_next_mount(on_s3, s3_proxy, tmp_path):
    # SEMANTICS: `artfs mount --profile` records which blocks are read; every later mount of the version fetches those
    def read(path):
        with (path / "large").open("rb", buffering=0) as file:
            file.seek(3 * BLOCK)
            return file.read(10)

    on_s3.run("cache", "clean")
    with on_s3.mounted("--profile", NAME, tmp_path / "mnt") as mount:
        expected = read(mount.path)
        assert "profile" in mount.statistics()
    shutil.rmtree(on_s3.home / "cache" / "parts")
    s3_proxy.requests.clear()
    with on_s3.mounted(NAME, tmp_path / "mnt") as mount:
        mount.log.wait_for("of the profile|in the profile")
        wait_until(lambda: os.getxattr(mount.path / "large", "user.artfs.cached") != b"0", "its block is there")
        asked = packs_asked(s3_proxy)
        assert 1 <= len(asked) < 5
        assert read(mount.path) == expected
        assert packs_asked(s3_proxy) == asked
    message = on_s3.run("mount", "--profile", "vision/", tmp_path / "mnt", code=2).stderr
    assert "--profile goes with the name of one version" in message
    assert on_s3.run("mount", "--profile", "--writable", NAME, tmp_path / "mnt", code=2).returncode == 2


def test_a_warm_mount_without_store_and_registry(copy, tmp_path):
    copy.run("cache", "warm", NAME)
    copy.run("info", NAME)
    (copy.home / "store").rename(tmp_path / "moved")
    for name in ("registry.db", "registry.db-wal", "registry.db-shm"):
        (copy.home / name).unlink(missing_ok=True)
    (copy.home / "registry.db").write_bytes(b"not a database" * 1000)
    with copy.mounted(NAME, tmp_path / "mnt", expect=[("is what it was .* s ago", 1)]) as mount:
        assert tree_of(mount.path) == tree_of(copy.source)
    assert "the registry is out of reach" in copy.run("info", NAME).stdout


def test_two_mounts_and_a_download_share_the_cache(on_s3, s3_proxy, tmp_path):
    # SEMANTICS: All mounts, commands and Python programs of a user share one cache directory.
    on_s3.run("cache", "clean")
    s3_proxy.requests.clear()
    with on_s3.mounted(NAME, tmp_path / "one") as one, on_s3.mounted(f"{NAME}:v0", tmp_path / "two") as two:
        download = on_s3.start("download", NAME, tmp_path / "target")
        readers = [subprocess.Popen(["cp", "-a", f"{m.path}/.", tmp_path / f"copy-{m.path.name}"]) for m in (one, two)]
        assert [reader.wait(60) for reader in readers] == [0, 0]
        _, said = download.communicate(timeout=60)
        assert download.returncode == 0, said
        asked = packs_asked(s3_proxy)
        assert len(asked) == len(set(asked)) == -(-(300 * 30_000 + 5 * BLOCK) // BLOCK)
        assert sum(1 for request in s3_proxy.requests if "/catalogs/" in request.path) == 1
    for copied in ("target", "copy-one", "copy-two"):
        assert tree_of(tmp_path / copied) == tree_of(on_s3.source)


def test_a_store_that_stops_answering_fails_reads_and_comes_back(on_s3, s3_proxy, tmp_path):
    on_s3.run("cache", "clean")
    with on_s3.mounted("-o", "wait=2", NAME, tmp_path / "mnt", expect=[("failed: ", None)]) as mount:
        s3_proxy.stall()
        began = time.monotonic()
        with pytest.raises(OSError, match="Input/output error"):
            (mount.path / "large").read_bytes()
        assert time.monotonic() - began < 30
        s3_proxy.resume()
        assert (mount.path / "large").read_bytes() == (on_s3.source / "large").read_bytes()
        assert mount.log.count("^.* ERROR .*large|^.* ERROR .*failed") >= 1


@pytest.mark.parametrize(("engine", "ending"), [("direct", signal.SIGTERM), ("pyfuse3", signal.SIGINT)])
def test_unmounting_while_the_network_hangs(on_s3, s3_proxy, tmp_path, engine, ending):
    on_s3.run("cache", "clean")
    with on_s3.mounted(
        "-o", f"engine={engine}", NAME, tmp_path / "mnt", expect=[("failed: |left alone|: detached", None)]
    ) as mount:
        s3_proxy.stall()
        s3_proxy.requests.clear()
        reader = subprocess.Popen(["cat", mount.path / "large"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            s3_proxy.wait_for_requests(1)
            os.kill(on_s3.json("info", mount.path)["pid"], ending)
            wait_until(lambda: not list(daemons(mount.path)), "the daemon ends", 20)
            assert reader.wait(20) != 0
        finally:
            reader.kill()
            reader.wait()
            s3_proxy.resume()


def test_damage_in_the_cache_is_mended_while_mounted(copy, tmp_path):
    copy.run("cache", "warm", NAME)
    parts = [path for path in (copy.home / "cache/parts").rglob("*") if path.is_file()]
    with max(parts, key=lambda part: part.stat().st_size).open("r+b") as file:
        file.seek(32)  # another boot: nothing is trusted
        boot = file.read(1)
        file.seek(32)
        file.write(bytes([boot[0] ^ 1]))
        file.seek(4096 + 100_000)
        file.write(b"damage")
    with copy.mounted(NAME, tmp_path / "mnt", expect=[("is damaged; it is fetched again", 1)]) as mount:
        assert tree_of(mount.path) == tree_of(copy.source)


def test_damage_in_the_store_is_an_error_and_one_line(copy, tmp_path):
    # SEMANTICS: a fault is an error, not a guess.
    copy.run("cache", "clean")
    data = (copy.source / "big.bin").read_bytes()
    for pack in (copy.home / "store/packs").rglob("*"):
        if pack.is_file() and (at := pack.read_bytes().find(data[:100])) >= 0:
            with pack.open("r+b") as file:
                file.seek(at + 3 * BLOCK)
                file.write(b"damage")
    expect = [
        ("read of inode .* failed: pack .* is damaged in the store", 1),
    ]
    with copy.mounted(NAME, tmp_path / "mnt", expect=expect) as mount:
        with (
            pytest.raises(OSError, match="Input/output error"),
            open(mount.path / "big.bin", "rb", buffering=0) as file,
        ):
            os.pread(file.fileno(), 100, 3 * BLOCK)
        assert (mount.path / "a.txt").read_text() == "hello again\n"
        with open(mount.path / "big.bin", "rb", buffering=0) as file:
            assert os.pread(file.fileno(), 100, 10 * BLOCK) == data[10 * BLOCK : 10 * BLOCK + 100]


# -- mount points


def test_mount_points_that_cannot_be_used(sample, mnist, tmp_path):
    full = make_tree(tmp_path / "full", {"f": b"1"})
    for directory, why in (
        (mnist, f"{NAME} (fuse.artfs) is already mounted there"),
        (full, "it is not empty; mount on an empty directory, so that nothing is hidden"),
        (full / "f", "it is not a directory"),
        (tmp_path / "absent", f"it does not exist; create it with: mkdir -p {tmp_path}/absent"),
    ):
        assert sample.fails(8, "mount", NAME, directory) == f"cannot mount on {directory}: {why}"
    assert os.listdir(full) == ["f"]
    assert sample.fails(8, "umount", full) == f"cannot unmount {full}: nothing is mounted there"


def test_a_busy_mount_stays(sample, tmp_path):
    with sample.mounted(NAME, tmp_path / "mnt") as mount:
        with open(mount.path / "a.txt") as file:
            said = sample.fails(8, "umount", mount.path)
            assert f"in use by {os.readlink('/proc/self/exe').rpartition('/')[2][:6]}" in said or "in use by" in said
            assert "artfs umount --lazy" in said
            assert file.read() == "hello again\n"
        sample.run("umount", mount.path)


def test_a_killed_daemon_is_explained_and_cleared(copy, tmp_path):
    place = tmp_path / "mnt"
    try:
        with contextlib.suppress(AssertionError), copy.mounted(NAME, place):
            # First the one that would replace the others.
            os.kill(copy.json("info", place)["pid"], signal.SIGKILL)
            for pid in daemons(place):
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not list(daemons(place)), "it is dead")
            with pytest.raises(OSError, match="Transport endpoint is not connected"):
                os.listdir(place)
            assert f"clear it with: artfs umount {place}" in copy.fails(8, "mount", NAME, place)
            assert copy.json("info", place)["stale"]
            assert "the process is gone" in copy.out("doctor", code=1, process=True)
            copy.run("umount", place)
            assert os.listdir(place) == []
    finally:
        end(place)


def test_mounting_from_where_nothing_is_open(sample, tmp_path):
    place = tmp_path / "mnt"
    place.mkdir()
    command = 'exec "$0" -m artfs.cli "$@" <&- >&- 2>&-'
    try:
        for arguments in (["mount", NAME, place], ["umount", place]):
            subprocess.run(["sh", "-c", command, PYTHON, *arguments], env=sample.environment, check=True)
            assert bool(mounted_on(str(place))) == (arguments[0] == "mount")
    finally:
        end(place)
    assert "ERROR" not in log_file(settings_of(sample.home), str(place)).read_text()


def test_a_failure_to_mount_is_reported_in_the_foreground(copy, tmp_path):
    (tmp_path / "mnt").mkdir()
    copy.run("cache", "clean")
    for catalog in (copy.home / "store/catalogs").iterdir():
        os.truncate(catalog, 100)
    assert "is damaged" in copy.fails(7, "mount", NAME, tmp_path / "mnt")
    assert copy.fails(3, "mount", "vision/mnst", tmp_path / "mnt").endswith("did you mean mnist?")
    assert copy.fails(3, "mount", "acne/", tmp_path / "mnt").endswith("did you mean acme?")
    assert "unknown mount option 'fast'" in copy.fails(4, "mount", "-o", "fast", NAME, tmp_path / "mnt")
    assert "rw" in copy.fails(4, "mount", "-o", "rw", NAME, tmp_path / "mnt")
    assert copy.fails(4, "mount", "a/b/c/", tmp_path / "mnt").startswith("invalid level")
    assert not list(daemons(tmp_path / "mnt"))


@pytest.mark.skipif(os.geteuid() != 0, reason="making a mount namespace takes root")
def test_no_fuse_device(sample, tmp_path):
    (tmp_path / "mnt").mkdir()
    # The namespace is a copy: without the mounts of tests that run meanwhile, of which one may be dead on purpose.
    script = 'umount -a -i -l -t fuse.artfs; mount -t tmpfs none /dev && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", shutil.which("artfs", path=sample.environment["PATH"])]
    done = subprocess.run(
        [*command, "mount", NAME, tmp_path / "mnt"], env=sample.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 8
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"artfs: cannot mount on {tmp_path}/mnt: there is no /dev/fuse; load the fuse module")
    done = subprocess.run(
        [*command, "doctor", "--json"], env=sample.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert [check["name"] for check in json.loads(done.stdout) if not check["ok"]] == ["/dev/fuse"]


def test_in_the_foreground(sample, tmp_path):
    # SEMANTICS: SIGTERM, SIGINT, SIGHUP unmount.
    place = tmp_path / "mnt"
    place.mkdir()
    process = sample.start("mount", "-f", NAME, place)
    try:
        wait_until((place / "a.txt").exists, "it is mounted")
        assert hashlib.md5((place / "a.txt").read_bytes()).hexdigest() == hashlib.md5(b"hello again\n").hexdigest()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "WARNING" not in said
        assert "ERROR" not in said
        assert os.listdir(place) == []
    finally:
        process.kill()
        process.wait()
        end(place)


def test_the_device_in_the_mount_table(sample, tmp_path):
    for options, source in (("noexec", NAME), ("noexec,fsname=digits", "digits")):
        with sample.mounted("-o", options, NAME, tmp_path / "mnt") as mount:
            assert mounted_on(str(mount.path)).source == source


def test_the_helper_of_mount(sample, tmp_path):
    place = tmp_path / "mnt"
    place.mkdir()
    helper = shutil.which("mount.artfs", path=sample.environment["PATH"])
    try:
        subprocess.run([helper, NAME, place, "-o", f"rw,home={sample.home}"], env=sample.environment, check=True)
        assert (place / "a.txt").read_text() == "hello again\n"
        sample.run("umount", place)
    finally:
        end(place)


FSTAB = """
trap 'umount -l "$1/one" "$1/all" 2>/dev/null || true' EXIT
mount -t tmpfs none "$1/over"
mkdir "$1/over/upper" "$1/over/work"
mount -t overlay none -o "lowerdir=$2,upperdir=$1/over/upper,workdir=$1/over/work" "$2"
ln -s "$3" /sbin/mount.artfs
mount -t artfs acme/vision/mnist:best "$1/one" -o "home=$4"
cat "$1/one/a.txt"
echo "acme/vision/ $1/all artfs _netdev,nofail,home=$4 0 0" > "$1/fstab"
mount -a -T "$1/fstab"
cat "$1/all/mnist/a.txt"
grep -c fuse.artfs /proc/self/mounts
umount "$1/one" "$1/all"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="making a mount namespace takes root")
def test_mount_8_and_fstab_find_the_helper(sample, tmp_path):
    for name in ("over", "one", "all"):
        (tmp_path / name).mkdir()
    helper = shutil.which("mount.artfs", path=sample.environment["PATH"])
    # /sbin gets the helper in a namespace of its own, without the mounts of tests that run meanwhile.
    script = "umount -a -i -l -t fuse.artfs || true" + FSTAB
    arguments = [tmp_path, os.path.realpath("/sbin"), helper, sample.home]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-e", "-c", script, "sh", *arguments],
        env=sample.environment, capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["hello from artfs", "hello again", "2"]
    wait_until(lambda: not list(processes_about(tmp_path)), "the daemons end")


def processes_about(directory):
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as command:
            if os.fsencode(directory) in command.read() and int(process) != os.getpid():
                yield int(process)
