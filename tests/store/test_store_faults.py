"""What the store does when the network or the server misbehaves, and that the proxy that plays this is honest."""

from __future__ import annotations

import math
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from store_clock import soon

from artfs.errors import Damaged, DeadlineExceeded, ObjectExists, StoreUnavailable
from artfs.store import claim_store, open_store

BODY = bytes(range(256)) * 2048
SLACK = 3.0
"""Seconds that a busy machine may add; who passes over a deadline tries again for ever."""


def get_range(store, start, end, deadline):
    return bytes(store.get_range("k", start, end, deadline=deadline))


def stream(store, start, end, deadline):
    room = memoryview(bytearray(100_000))
    return b"".join(bytes(piece) for piece in store.stream("k", start, end, room, deadline=deadline))


ranges = pytest.mark.parametrize("read", [get_range, stream])


def test_a_request_through_the_proxy_is_signed_for_its_host(flaky_store, s3_proxy):
    flaky_store.put("k", BODY, deadline=soon())
    assert bytes(flaky_store.get_range("k", 100, 300, deadline=soon())) == BODY[100:300]
    assert [(seen.method, seen.range) for seen in s3_proxy.requests] == [("PUT", None), ("GET", (100, 300))]
    assert s3_proxy.requests[0].path.endswith("/k")
    assert s3_proxy.body_bytes == 200


def test_boto3_through_the_proxy(s3_server, s3_proxy):
    bucket = s3_server.make_bucket()
    client = s3_server.client(s3_proxy.url)
    client.put_object(Bucket=bucket, Key="k", Body=BODY)
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == BODY
    assert client.head_object(Bucket=bucket, Key="k")["ContentLength"] == len(BODY)


@pytest.mark.parametrize(
    "kind", ["500", "503", "429", "refuse", "lose", "reset", "truncate", "short", "stall", "stall-body"]
)
@ranges
def test_one_failure_of_a_read_is_not_noticed(flaky_store, s3_proxy, kind, read):
    flaky_store.put("k", BODY, deadline=soon())
    s3_proxy.fail(kind, method="GET")
    assert read(flaky_store, 0, len(BODY), soon()) == BODY
    assert flaky_store.statistics().retries == 1
    assert [seen.fault for seen in s3_proxy.requests[1:]] == [kind, None]


@pytest.mark.parametrize("kind", ["500", "503", "429", "refuse", "reset", "truncate", "stall-body"])
def test_one_failure_of_a_whole_read_is_not_noticed(flaky_store, s3_proxy, kind):
    flaky_store.put("k", BODY, deadline=soon())
    s3_proxy.fail(kind, method="GET")
    assert flaky_store.get("k", deadline=soon()) == BODY


@pytest.mark.parametrize("kind", ["500", "503", "429", "refuse", "lose", "stall"])
def test_one_failure_of_a_put_is_not_noticed(flaky_store, s3_proxy, kind):
    s3_proxy.fail(kind, method="PUT")
    flaky_store.put("k", [b"one", b"two"], deadline=soon())
    s3_proxy.heal()
    assert flaky_store.get("k", deadline=soon()) == b"onetwo"


def test_a_listing_goes_on_where_it_broke(flaky_store, s3_proxy):
    keys = [f"packs/{i:04}" for i in range(1100)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: flaky_store.put(key, b"x", deadline=soon()), keys))
    s3_proxy.requests.clear()
    listing = flaky_store.list("packs")
    found = [next(listing).key]
    s3_proxy.fail("503")
    found += [item.key for item in listing]
    assert sorted(found) == keys
    assert [seen.fault for seen in s3_proxy.requests].count("503") == 1


@ranges
def test_an_object_that_stays_short_is_damage(flaky_store, s3_proxy, read):
    flaky_store.put("k", BODY, deadline=soon())
    s3_proxy.fail("short", math.inf, method="GET")
    with pytest.raises(Damaged):
        read(flaky_store, 0, len(BODY), soon())


OPERATIONS = {
    "get": lambda store, deadline: store.get("k", deadline=deadline),
    "get_range": lambda store, deadline: store.get_range("k", 0, 100, deadline=deadline),
    "stream": lambda store, deadline: stream(store, 0, len(BODY), deadline),
    "put": lambda store, deadline: store.put("k", BODY, deadline=deadline),
    "head": lambda store, deadline: store.head("k", deadline=deadline),
    "delete": lambda store, deadline: store.delete(["k"], deadline=deadline),
    "list": lambda store, deadline: list(store.list("packs")),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_stalls_holds_nobody_beyond_the_deadline(flaky_store, s3_proxy, operation):
    flaky_store.put("k", BODY, deadline=soon())
    s3_proxy.stall()
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        OPERATIONS[operation](flaky_store, begun + 1.2)
    assert time.monotonic() - begun < 1.2 + SLACK
    assert len(s3_proxy.requests) > 2, "a stalled request is given up after the request timeout and tried again"


def test_a_slow_upload_is_no_stall(s3_environment, s3_proxy):
    store = open_store(f"s3://{s3_environment.make_bucket()}", endpoint=s3_proxy.url, request_timeout=0.3)
    s3_proxy.fail("delay", method="PUT", seconds=1.0)
    store.put("k", bytes(1 << 20), deadline=soon())  # 1 MiB at 256 KiB/s is granted 4 s
    assert store.statistics().retries == 0


def test_a_failure_that_stays_is_reported_with_its_reason(flaky_store, s3_proxy):
    s3_proxy.fail("503", math.inf)
    with pytest.raises(StoreUnavailable, match="503 SlowDown") as caught:
        flaky_store.get("k", deadline=soon(1.5))
    assert "127.0.0.1" not in str(caught.value)
    assert flaky_store.statistics().failures == 1


def test_a_deadline_in_the_past_ends_at_once(flaky_store, s3_proxy):
    s3_proxy.stall()
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        flaky_store.get("k", deadline=begun - 1)
    assert time.monotonic() - begun < SLACK


def test_a_mark_whose_answer_was_lost_is_our_own(flaky_store, s3_proxy):
    s3_proxy.fail("lose", method="PUT")
    claim_store(flaky_store, "me", deadline=soon())
    claim_store(flaky_store, "me", deadline=soon())


def test_a_put_that_must_be_new_may_find_its_own_first_attempt(flaky_store, s3_proxy):
    s3_proxy.fail("lose", method="PUT")
    with pytest.raises(ObjectExists):
        flaky_store.put("k", b"x", deadline=soon(), overwrite=False)


@ranges
def test_corruption_is_passed_on_to_whoever_has_checksums(flaky_store, s3_proxy, read):
    flaky_store.put("k", BODY, deadline=soon())
    s3_proxy.fail("corrupt", method="GET")
    found = read(flaky_store, 0, len(BODY), soon())
    assert sum(a != b for a, b in zip(found, BODY, strict=True)) == 1


def test_many_threads_share_a_store(flaky_store, s3_proxy):
    flaky_store.put("k", BODY, deadline=soon())
    s3_proxy.fail("503", 5, method="GET")
    s3_proxy.fail("reset", 5, method="GET")

    def read(offset):
        return bytes(flaky_store.get_range("k", offset, offset + 1000, deadline=soon()))

    offsets = [start * 1000 + i for start in range(8) for i in range(50)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(read, offsets)) == [BODY[offset : offset + 1000] for offset in offsets]
    assert flaky_store.statistics().bytes_in == 8 * 50 * 1000


def test_the_proxy_counts_requests_at_once(s3_proxy):
    s3_proxy.stall()
    done = []

    def ask():
        try:
            urllib.request.urlopen(s3_proxy.url + "/none", timeout=20)
        except urllib.error.HTTPError as error:
            done.append(error.code)
            error.close()

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    s3_proxy.wait_for_requests(3)
    assert (s3_proxy.active, s3_proxy.most_active, done) == (3, 3, [])
    s3_proxy.resume()
    for thread in threads:
        thread.join()
    assert done == [403] * 3
