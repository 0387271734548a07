"""Objects in and out, on a directory and on a real S3 server."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
import threading
import time

import pytest
from store_clock import soon

from artfs.errors import (
    AccessDenied,
    BucketNotFound,
    ConfigurationError,
    Damaged,
    ObjectExists,
    ObjectNotFound,
    StoreUnavailable,
)
from artfs.store import open_store


def test_an_object_comes_back_whole(store):
    store.put("packs/ab/one", [b"abc", bytearray(b"def"), memoryview(b"ghi")], deadline=soon())
    assert store.get("packs/ab/one", deadline=soon()) == b"abcdefghi"


def test_many_buffers_make_one_object(store):
    buffers = [bytes([i % 251]) * 4096 for i in range(3000)]
    store.put("k", buffers, deadline=soon())
    assert store.get("k", deadline=soon()) == b"".join(buffers)


def test_a_range_is_exact(store):
    store.put("k", bytes(range(200)), deadline=soon())
    assert bytes(store.get_range("k", 10, 20, deadline=soon())) == bytes(range(10, 20))
    assert bytes(store.get_range("k", 0, 200, deadline=soon())) == bytes(range(200))
    assert bytes(store.get_range("k", 7, 7, deadline=soon())) == b""


@pytest.mark.parametrize("end", [201, 300])
def test_a_range_beyond_the_end_is_damage(store, end):
    store.put("k", bytes(200), deadline=soon())
    with pytest.raises(Damaged, match=r"ends at byte 200, before byte"):
        store.get_range("k", 100, end, deadline=soon())


def test_a_range_that_begins_beyond_the_end_is_damage(store):
    store.put("k", bytes(200), deadline=soon())
    with pytest.raises(Damaged):
        store.get_range("k", 400, 500, deadline=soon())


def test_putting_again_replaces(store):
    store.put("k", b"old", deadline=soon())
    store.put("k", b"newer", deadline=soon())
    assert store.get("k", deadline=soon()) == b"newer"


def test_putting_only_what_is_new(store):
    store.put("k", b"first", deadline=soon(), overwrite=False)
    with pytest.raises(ObjectExists):
        store.put("k", b"second", deadline=soon(), overwrite=False)
    assert store.get("k", deadline=soon()) == b"first"


def test_what_is_missing_is_said_to_be_missing(store):
    assert store.head("packs/no", deadline=soon()) is None
    with pytest.raises(ObjectNotFound, match="packs/no"):
        store.get("packs/no", deadline=soon())
    with pytest.raises(ObjectNotFound, match="packs/no"):
        store.get_range("packs/no", 0, 1, deadline=soon())


def test_head_tells_the_size(store):
    store.put("k", [b"12", b"345"], deadline=soon())
    assert store.head("k", deadline=soon()) == 5


def test_deleting_is_repeatable(store):
    for key in ("a/1", "a/2", "b/3"):
        store.put(key, b"x", deadline=soon())
    store.delete(["a/1", "a/never", "b/3"], deadline=soon())
    store.delete(["a/1", "a/never", "b/3"], deadline=soon())
    assert [found.key for found in store.list("")] == ["a/2"]


def test_listing_names_everything_under_a_directory_and_nothing_else(store):
    before = time.time()
    wanted = {f"packs/{i % 7}/{i}" for i in range(60)}
    for key in (*wanted, "packs2/x", "catalogs/y"):
        store.put(key, key.encode(), deadline=soon())
    found = list(store.list("packs"))
    assert {item.key for item in found} == wanted
    assert len(found) == len(wanted)
    for item in found:
        assert item.size == len(item.key)
        assert abs(item.modified.timestamp() - before) < 60
    assert list(store.list("nothing")) == []


@pytest.mark.parametrize("name", ["a b", "été", "100%25", "x+y=z&q", "..a", "~"])
def test_keys_are_kept_as_they_are(store, name):
    store.put(f"versions/{name}/v1.json", b"x", deadline=soon())
    assert [item.key for item in store.list("versions")] == [f"versions/{name}/v1.json"]
    assert store.get(f"versions/{name}/v1.json", deadline=soon()) == b"x"


@pytest.mark.parametrize("key", ["../out", "a/../../out", "/etc/passwd", "a//b", "", "a/./b", "a\0b"])
def test_a_key_cannot_leave_the_store(store, key):
    with pytest.raises(Damaged):
        store.put(key, b"x", deadline=soon())
    with pytest.raises(Damaged):
        store.get(key, deadline=soon())


def test_a_missing_bucket_is_told_from_a_missing_object(s3_environment, tmp_path):
    for url in ("s3://test-nobucket-here/prefix", (tmp_path / "nowhere").as_uri()):
        store = open_store(url, endpoint=None, request_timeout=5)
        for operation in (
            lambda: store.get("k", deadline=soon()),  # noqa: B023  called at once
            lambda: store.get_range("k", 0, 1, deadline=soon()),  # noqa: B023
            lambda: store.put("k", b"", deadline=soon()),  # noqa: B023
            lambda: list(store.list("packs")),  # noqa: B023
        ):
            with pytest.raises(BucketNotFound):
                operation()
    store = open_store("s3://test-nobucket-here", endpoint=None, request_timeout=5)
    with pytest.raises(BucketNotFound):
        store.head("k", deadline=soon())
    with pytest.raises(BucketNotFound):
        store.delete(["k"], deadline=soon())


@pytest.mark.parametrize(
    ("variable", "value"), [("AWS_SECRET_ACCESS_KEY", "wrong-secret"), ("AWS_ACCESS_KEY_ID", "unknown-key")]
)
def test_wrong_credentials_are_denied_at_once(s3_environment, monkeypatch, variable, value):
    bucket = s3_environment.make_bucket()
    monkeypatch.setenv(variable, value)
    store = open_store(f"s3://{bucket}", endpoint=None, request_timeout=5)
    for operation in (
        lambda: store.get("k", deadline=soon()),
        lambda: store.head("k", deadline=soon()),
        lambda: store.put("k", b"x", deadline=soon()),
        lambda: list(store.list("packs")),
        lambda: store.delete(["k"], deadline=soon()),
    ):
        with pytest.raises(AccessDenied) as caught:
            operation()
        assert "wrong-secret" not in str(caught.value)
    assert store.statistics().retries == 0


def test_credentials_that_may_not_write_are_denied(s3_environment, monkeypatch):
    bucket = s3_environment.make_bucket()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "artfs-reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "artfs-reader-secret")
    store = open_store(f"s3://{bucket}", endpoint=None, request_timeout=5)
    assert list(store.list("packs")) == []
    with pytest.raises(AccessDenied):
        store.put("k", b"x", deadline=soon())


def test_no_credentials_at_all(s3_environment, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = open_store("s3://whatever", endpoint=s3_environment.endpoint_url, request_timeout=5)
    with pytest.raises(AccessDenied, match="no AWS credentials"):
        store.get("k", deadline=soon())


def test_credentials_that_cannot_be_renewed_are_denied_with_the_reason(s3_environment, monkeypatch, tmp_path):
    config = tmp_path / "aws"
    config.write_text("[default]\ncredential_process = /bin/false\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    store = open_store("s3://whatever", endpoint=s3_environment.endpoint_url, request_timeout=5)
    with pytest.raises(AccessDenied, match="custom-process"):
        store.get("k", deadline=soon())


def test_a_profile_gives_credentials_and_endpoint(s3_environment, monkeypatch, tmp_path):
    config = tmp_path / "aws"
    config.write_text(
        f"[profile team]\naws_access_key_id={s3_environment.access_key}\n"
        f"aws_secret_access_key={s3_environment.secret_key}\nregion=eu-west-1\nservices=here\n"
        f"[services here]\ns3 =\n  endpoint_url = {s3_environment.endpoint_url}\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "team")
    store = open_store(f"s3://{s3_environment.make_bucket()}", endpoint=None, request_timeout=5)
    store.put("k", b"x", deadline=soon())
    assert store.get("k", deadline=soon()) == b"x"


def test_the_endpoint_for_s3_goes_before_the_general_one(s3_environment, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_environment.endpoint_url)
    store = open_store(f"s3://{s3_environment.make_bucket()}", endpoint=None, request_timeout=5)
    store.put("k", b"x", deadline=soon())


def test_an_unknown_profile_is_a_matter_of_configuration(s3_environment, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigurationError, match="nobody"):
        open_store("s3://bucket", endpoint=None, request_timeout=5).get("k", deadline=soon())


@pytest.mark.parametrize(
    "url",
    ["s3://key:secret@bucket/x", "s3://bucket/x?token=secret", "ftp://host/secret", "/plain/path",
     "file://elsewhere/secret", "file:relative", "s3://"],
)  # fmt: skip
def test_urls_that_name_no_store_are_refused(url):
    with pytest.raises(ConfigurationError) as caught:
        open_store(url, endpoint=None, request_timeout=5)
    if "@" in url or "?" in url:
        assert "secret" not in str(caught.value)


def test_opening_talks_to_nobody(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    open_store("s3://bucket/prefix", endpoint="http://127.0.0.1:1", request_timeout=5)
    open_store((tmp_path / "nowhere").as_uri(), endpoint=None, request_timeout=5)
    assert not (tmp_path / "nowhere").exists()


def test_a_refused_connection_is_unavailable_and_no_hang(s3_environment):
    store = open_store("s3://bucket", endpoint="http://127.0.0.1:1", request_timeout=5)
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"(?i)connection refused"):
        store.get("k", deadline=begun + 1)
    assert time.monotonic() - begun < 2
    assert store.statistics().retries > 0


def test_statistics_count(store):
    store.put("k", b"12345", deadline=soon())
    store.get_range("k", 1, 3, deadline=soon())
    with pytest.raises(ObjectNotFound):
        store.get("no", deadline=soon())
    found = store.statistics()
    assert (found.bytes_out, found.bytes_in, found.failures, found.retries) == (5, 2, 1, 0)
    assert found.requests == 3


def test_a_directory_store_is_private(local_store, tmp_path):
    previous = os.umask(0)
    try:
        local_store.put("packs/ab/k", b"x", deadline=soon())
    finally:
        os.umask(previous)
    root = tmp_path / "store"
    for path in (root, *root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_directory_store_that_is_not_there_is_not_made_by_a_put(tmp_path):
    store = open_store((tmp_path / "unmounted").as_uri(), endpoint=None, request_timeout=5)
    with pytest.raises(BucketNotFound):
        store.put("k", b"x", deadline=soon())
    assert not (tmp_path / "unmounted").exists()


def test_a_name_in_a_file_url_may_be_quoted(tmp_path):
    (tmp_path / "a b%").mkdir()
    store = open_store((tmp_path / "a b%").as_uri(), endpoint=None, request_timeout=5)
    store.put("k", b"x", deadline=soon())
    assert (tmp_path / "a b%" / "k").read_bytes() == b"x"


def test_a_put_that_dies_leaves_nothing_to_be_seen(local_store, tmp_path):
    with pytest.raises(TypeError):
        local_store.put("k", [b"x" * 100, "no buffer"], deadline=soon())
    incoming = tmp_path / "store" / ".incoming"
    incoming.mkdir(exist_ok=True)
    (incoming / "left-by-a-crash").write_bytes(b"x")
    assert list(local_store.list("")) == []
    assert local_store.sweep(3600) == 0
    assert local_store.sweep(-1) == 1
    assert list(incoming.iterdir()) == []


def test_a_full_disk_is_said_to_be_full(tmp_path):
    """On a file system of 1 MiB, in a mount namespace of its own."""
    script = f"""
import subprocess, time
from artfs.errors import DiskFull
from artfs.store import open_store
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", {str(tmp_path)!r}], check=True)
store = open_store("file://{tmp_path}", endpoint=None, request_timeout=5)
store.put("small", b"x", deadline=time.monotonic() + 5)
try:
    store.put("packs/large", bytes(2 << 20), deadline=time.monotonic() + 5)
except DiskFull as error:
    print("full:", error)
print([item.key for item in store.list("")])
store.put("small2", b"x" * 500000, deadline=time.monotonic() + 5)
print("room again")
"""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are not allowed here")
    done = subprocess.run(["unshare", "-rm", sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("full: no space left in the object store file://")
    assert "['small']\nroom again" in done.stdout


def test_a_directory_one_may_not_write_is_denied(local_store, tmp_path):
    (tmp_path / "store").chmod(0o555)
    told = []

    def put():
        ctypes.CDLL(None).setfsuid(65534)  # of this thread only: root may write everywhere
        try:
            local_store.put("k", b"x", deadline=soon())
        except AccessDenied as error:
            told.append(str(error))

    thread = threading.Thread(target=put)
    thread.start()
    thread.join()
    assert len(told) == 1
    assert "store is denied: Permission denied" in told[0]


def stream(store):
    return b"".join(map(bytes, store.stream("k", 0, 1, memoryview(bytearray(8)), deadline=soon())))


@pytest.mark.parametrize("read", [lambda store: store.get("k", deadline=soon()), stream])
def test_a_forked_child_may_use_a_directory_and_is_refused_a_bucket(s3_store, local_store, read):
    local_store.put("k", b"x", deadline=soon())
    s3_store.put("k", b"x", deadline=soon())
    assert read(s3_store) == b"x"  # what it leaves for the next, the child must not take
    script_read, script_write = os.pipe()
    child = os.fork()
    if child == 0:
        told = b"?"
        try:
            told = read(local_store)
            read(s3_store)
        except Exception as error:  # noqa: BLE001  told to the parent
            told += str(error).encode()
        os.write(script_write, told)
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(script_read, 4096).decode()
    assert told.startswith("xs3://")
    assert "forked" in told
