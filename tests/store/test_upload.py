"""Uploading extents in packs."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from homes import give_registry
from store_clock import soon

from artfs.catalog.layout import PACK_DATA
from artfs.errors import DeadlineExceeded, RegistryUnavailable, StoreUnavailable, VersionNotFound
from artfs.names import CollectionName
from artfs.registry import Registry
from artfs.store import Uploader, open_store, read_index

MIB = 1 << 20
SPARE = 1 << 16


@pytest.fixture
def registry(tmp_path):
    give_registry(tmp_path / "registry.db")
    opened = Registry.open(f"sqlite:///{tmp_path}/registry.db")
    yield opened
    opened.close()


@pytest.fixture
def version(registry):
    return registry.begin(CollectionName("e", "p", "c"), "dataset", origin="log")


def sha(data) -> bytes:
    return hashlib.sha256(data).digest()


def noise(seed: int, size: int) -> bytes:
    return (seed.to_bytes(4, "big") * (size // 4 + 1))[:size]


def add_for_ever(uploader):
    for i in itertools.count():
        uploader.add(i.to_bytes(32, "big"), noise(i, 33 * MIB))


def read(store, extent) -> bytes:
    return bytes(store.get_range(extent.pack, extent.offset, extent.offset + extent.length, deadline=soon()))


def test_what_was_added_can_be_read_where_it_was_said_to_be(store, registry, version):
    contents = [noise(i, 1000 + i) for i in range(300)]
    with Uploader(store, registry, version) as uploader:
        places = [uploader.add(sha(content), content) for content in contents]
        uploader.finish()
    assert [read(store, place) for place in places] == contents
    assert len({place.pack for place in places}) == 1


def test_an_extent_may_come_in_several_buffers_that_are_used_again(local_store, registry, version):
    buffer = bytearray(b"first")
    with Uploader(local_store, registry, version) as uploader:
        place = uploader.add(sha(b"firstsecond"), [memoryview(buffer), b"second"])
        buffer[:] = b"other"
        uploader.finish()
    assert read(local_store, place) == b"firstsecond"


def test_what_is_stored_is_registered_and_pinned_at_once(local_store, registry, version):
    contents = [noise(i, 30 * MIB) for i in range(3)]
    registered = threading.Event()
    with Uploader(local_store, registry, version, on_registered=lambda _: registered.set()) as uploader:
        places = [uploader.add(sha(content), content) for content in contents]
        assert registered.wait(20), "the first pack was full before the third extent came"
        known = registry.claim_extents(version, [sha(contents[0])])[sha(contents[0])]
        assert (known.pack, known.offset, known.length) == (places[0].pack, 0, 30 * MIB)
        assert registry.condemn_packs(3600) == ()
        uploader.finish()
    rows = registry.pack_checksums([place.pack for place in places])
    assert {row.key: row.size for row in rows.values()} == {places[0].pack: 60 * MIB, places[2].pack: 30 * MIB}
    assert read_index(local_store, places[2].pack, soon())[0].sha256 == sha(contents[2])


def test_large_extents_get_packs_of_their_own_and_small_ones_stay_together(local_store, registry, version):
    small = [noise(i, 1000) for i in range(4)]
    large = [noise(100 + i, PACK_DATA - 500 * i) for i in range(2)]
    with Uploader(local_store, registry, version, parallel=1) as uploader:
        order = [small[0], large[0], small[1], large[1], small[2], small[3]]
        places = {sha(content): uploader.add(sha(content), content) for content in order}
        uploader.finish()
    assert len({places[sha(content)].pack for content in small}) == 1
    assert len({place.pack for place in places.values()}) == 3
    assert all(read(local_store, places[sha(content)]) == content for content in order)


def test_an_extent_of_less_than_half_a_pack_begins_a_new_one(local_store, registry, version):
    contents = [noise(i, size) for i, size in enumerate([40 * MIB, 30 * MIB, 30 * MIB])]
    with Uploader(local_store, registry, version) as uploader:
        places = [uploader.add(sha(content), content) for content in contents]
        uploader.finish()
    assert places[0].pack != places[1].pack == places[2].pack


@pytest.mark.parametrize("size", [0, PACK_DATA + 1])
def test_an_extent_that_no_pack_can_hold_is_refused(local_store, registry, version, size):
    with Uploader(local_store, registry, version) as uploader, pytest.raises(ValueError, match="64 MiB"):
        uploader.add(b"x" * 32, bytes(size))


def test_nothing_added_stores_nothing(local_store, registry, version):
    with Uploader(local_store, registry, version) as uploader:
        uploader.finish()
    assert list(local_store.list("packs")) == []


def test_statistics_and_progress(local_store, registry, version):
    seen = []
    with Uploader(local_store, registry, version, on_progress=seen.append) as uploader:
        for i in range(3):
            uploader.add(sha(bytes([i])), noise(i, 40 * MIB))
        uploader.finish()
    stored = sum(item.size for item in local_store.list("packs"))
    found = uploader.statistics()
    assert (found.packs, found.data_bytes, found.stored_bytes) == (3, 120 * MIB, stored)
    assert uploader.stored_bytes == stored
    assert sorted(seen) == [40 * MIB] * 3


def test_adding_waits_while_too_much_is_under_way(flaky_store, s3_proxy, registry, version):
    s3_proxy.stall()
    added = []
    with Uploader(flaky_store, registry, version, parallel=2) as uploader:

        def add_all():
            for i in range(4):
                uploader.add(sha(bytes([i])), noise(i, 33 * MIB))
                added.append(i)
            uploader.finish()

        adder = threading.Thread(target=add_all)
        adder.start()
        s3_proxy.wait_for_requests(2)
        adder.join(0.5)
        assert len(added) == 3, "two being sent and an open one"
        assert s3_proxy.most_active == 2
        s3_proxy.resume()
        adder.join(60)
        assert not adder.is_alive()
    assert len(list(flaky_store.list("packs"))) == 4


def test_the_first_failure_ends_everything(flaky_store, s3_proxy, registry, version):
    s3_proxy.fail("503", math.inf)
    with Uploader(flaky_store, registry, version, parallel=1, pack_timeout=0.5) as uploader:
        with pytest.raises(StoreUnavailable, match="503"):
            add_for_ever(uploader)
        with pytest.raises(StoreUnavailable, match="503"):
            uploader.finish()
    s3_proxy.heal()
    assert list(flaky_store.list("packs")) == []


def test_a_failing_registry_ends_everything(local_store, version):
    class Broken:
        def register_pack(self, *args):
            raise RegistryUnavailable(registry="r", why="gone")

    with Uploader(local_store, Broken(), version) as uploader:
        uploader.add(sha(b"x"), b"x")
        with pytest.raises(RegistryUnavailable):
            uploader.finish()


def test_an_abandoned_version_ends_the_upload(local_store, registry, version):
    with Uploader(local_store, registry, version) as uploader:
        uploader.add(sha(b"x"), b"x")
        registry.abandon(version)
        with pytest.raises(VersionNotFound):
            uploader.finish()


def test_giving_up_stores_nothing_more_and_registers_nothing(flaky_store, s3_proxy, registry, version):
    s3_proxy.fail("delay", math.inf, method="PUT", seconds=0.7)
    uploader = Uploader(flaky_store, registry, version, parallel=1)
    for i in range(2):
        uploader.add(sha(bytes([i])), noise(i, 33 * MIB))
    s3_proxy.wait_for_requests(1)
    uploader.abort()
    assert len(list(flaky_store.list("packs"))) <= 1
    assert registry.claim_extents(version, [sha(bytes([i])) for i in range(2)]) == {}
    assert uploader.statistics().packs == 0
    with pytest.raises(ValueError, match="closed"):
        uploader.add(sha(b"x"), b"x")


def test_a_pack_that_took_too_long_is_not_registered(local_store, registry, version, monkeypatch):
    monkeypatch.setattr("artfs.store.upload.REGISTER_WITHIN", -1.0)
    with Uploader(local_store, registry, version) as uploader:
        uploader.add(sha(b"x"), b"x")
        with pytest.raises(DeadlineExceeded):
            uploader.finish()
    assert registry.claim_extents(version, [sha(b"x")]) == {}


def test_an_interrupt_ends_the_program_while_the_server_stalls(s3_server, s3_proxy, bucket, tmp_path):
    program = f"""
import hashlib
from artfs.store import Uploader, open_store
store = open_store("s3://{bucket}/interrupted", endpoint="{s3_proxy.url}", request_timeout=60)
with Uploader(store, None, None, parallel=2) as uploader:
    for i in range(9):
        uploader.add(bytes([i]) * 32, bytes(33 << 20))
"""
    s3_proxy.stall()
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=os.environ | s3_server.environment(), stderr=subprocess.PIPE, text=True
    )
    s3_proxy.wait_for_requests(2, 30)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - begun < 15
    assert told.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT


def test_memory_is_bounded(local_store, tmp_path):
    program = f"""
import hashlib, resource
from artfs.store import Uploader, open_store
class Registry:
    def register_pack(self, *args): pass
store = open_store("{local_store.url}", endpoint=None, request_timeout=5)
data = bytes(64 << 20)
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Uploader(store, Registry(), None, parallel=1) as uploader:
    for i in range(6):
        place = uploader.add(bytes([i]) * 32, data)
        store.delete([place.pack], deadline=1e9)
    uploader.finish()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) >> 10)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 * 64 + 40, "MiB: two packs and change"


def test_threads_end_with_the_uploader(local_store, registry, version):
    before = threading.active_count()
    with Uploader(local_store, registry, version) as uploader:
        for i in range(3):
            uploader.add(sha(bytes([i])), noise(i, 40 * MIB))
        uploader.finish()
    end = soon()
    while threading.active_count() > before:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_bucket_takes_a_full_pack(s3_server, s3_environment, bucket, registry, version):
    store = open_store(f"s3://{bucket}/full", endpoint=None, request_timeout=20)
    with Uploader(store, registry, version) as uploader:
        place = uploader.add(sha(b"x"), noise(7, PACK_DATA))
        uploader.finish()
    end = store.get_range(place.pack, PACK_DATA - SPARE, PACK_DATA, deadline=soon())
    assert bytes(end) == noise(7, PACK_DATA)[-SPARE:]
