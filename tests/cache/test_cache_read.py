"""Reads through the cache: right bytes, few requests, no waiting for what nobody needs."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from file_source import eventually, soon
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artfs.catalog.layout import BLOCK
from artfs.errors import AccessDenied, CorruptPack, DeadlineExceeded, StoreUnavailable


def test_a_cold_read_fetches_its_block_and_a_warm_one_nothing(cache, source):
    assert cache.try_read(source, 10, 100) is None
    assert cache.read(source, 10, 100, soon()) == source.content(10, 100)
    assert source.requests() == [(0, BLOCK)]
    assert bytes(cache.try_read(source, 20, 1000)) == source.content(20, 1000)
    assert cache.read(source, BLOCK - 5, 5, soon()) == source.content(BLOCK - 5, 5)
    assert source.requests() == [(0, BLOCK)]


def test_the_edges_of_a_source(cache, source):
    size = source.size
    assert cache.read(source, 0, size, soon()) == source.content()
    assert cache.read(source, size - 3, 100, soon()) == source.content()[-3:]
    assert cache.read(source, size, 1, soon()) == b""
    assert cache.read(source, size + BLOCK, 1, soon()) == b""
    assert cache.read(source, 5, 0, soon()) == b""
    assert bytes(cache.try_read(source, size - 3, 3)) == source.content()[-3:]
    assert cache.try_read(source, size - 3, 100) is None
    assert bytes(cache.try_read(source, BLOCK - 7, BLOCK + 20)) == source.content(BLOCK - 7, BLOCK + 20)
    assert cache.try_read(source, 70 * BLOCK, 1) is None


def test_a_source_of_no_bytes(cache, make_source):
    empty = make_source(0, "empty")
    assert cache.read(empty, 0, 10, soon()) == b""
    assert cache.cached(empty) == 0
    assert empty.requests() == []


def test_a_full_pack(cache, make_source):
    # 64 blocks is the most a header describes; only the ends are fetched.
    source = make_source(20 << 20, "full")
    os.truncate(source.path, 64 * BLOCK)
    full = type(source)(source.path)
    assert cache.read(full, 64 * BLOCK - 10, 10, soon()) == bytes(10)
    assert cache.read(full, 0, 10, soon()) == full.content(0, 10)
    assert cache.cached(full) == 2 * BLOCK


def test_a_second_cache_on_the_directory_finds_everything(open_cache, source):
    open_cache().read(source, 0, source.size, soon())
    other = open_cache()
    requests = len(source.requests())
    assert other.cached(source) == source.size
    assert other.present(source, 0, source.size)
    assert other.read(source, 100, 2 * BLOCK, soon()) == source.content(100, 2 * BLOCK)
    assert len(source.requests()) == requests


def test_looking_at_a_source_creates_nothing(cache, source, directory):
    assert cache.cached(source) == 0
    assert not cache.present(source, 0, 1)
    assert not (directory / "parts").exists()


def test_cached_counts_bytes_and_present_looks_at_the_range(cache, source):
    cache.read(source, source.size - 1, 1, soon())
    assert cache.cached(source) == source.size % BLOCK
    cache.read(source, 0, 1, soon())
    assert cache.cached(source) == BLOCK + source.size % BLOCK
    assert cache.present(source, 5, BLOCK - 5)
    assert not cache.present(source, 5, BLOCK)


# -- windows, prefetch ------------------------------------------------------------------------------------------


def test_a_neighbourhood_comes_in_one_request(cache, make_source):
    source = make_source(20 << 20)
    cache.read(source, 2 * BLOCK + 5, 100, soon(), window=(0, 8))
    assert source.requests() == [(0, 8 * BLOCK)]
    eventually(lambda: cache.present(source, 0, 8 * BLOCK))  # the reader is not kept until all of it has come
    assert bytes(cache.try_read(source, 7 * BLOCK, BLOCK)) == source.content(7 * BLOCK, BLOCK)


def in_memory(part):
    """Which blocks of an open part are in the page cache whole."""
    return [
        block
        for block in range(part.blocks)
        if (data := _now(part, block)) is not None and len(data) == min(BLOCK, part.size - block * BLOCK)
    ]


def _now(part, block):
    try:
        return part.try_read(block * BLOCK, min(BLOCK, part.size - block * BLOCK))
    except BlockingIOError:
        return None


def test_reading_around_brings_whole_blocks_into_memory(cache, make_source):
    source = make_source(4 << 20)
    cache.read(source, 0, 4 << 20, soon())
    part = cache._table.get(source.name)
    os.fsync(part.fd)  # what is dirty does not leave memory
    os.posix_fadvise(part.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    if in_memory(part):
        pytest.skip("this file system keeps what it was told to let go of")
    assert cache.read(source, (2 << 20) + 5, 100, soon(), around=True) == source.content((2 << 20) + 5, 100)
    eventually(lambda: 2 in in_memory(part))  # and what the kernel reads ahead of its own accord


def test_a_wide_window_is_cut_and_its_rest_does_not_hold_up_the_reader(cache, make_source):
    source = make_source(20 << 20)
    assert cache.read(source, 3 * BLOCK, 100, soon(), window=(3, 20)) == source.content(3 * BLOCK, 100)
    eventually(lambda: cache.present(source, 3 * BLOCK, 17 * BLOCK))
    assert sorted(source.requests()) == [
        (3 * BLOCK, 8 * BLOCK),
        (8 * BLOCK, 16 * BLOCK),
        (16 * BLOCK, 20 * BLOCK),
    ]
    assert not cache.present(source, 0, 3 * BLOCK)


def test_a_window_leaves_out_what_is_there(cache, make_source):
    source = make_source(20 << 20)
    cache.read(source, BLOCK, 1, soon())
    cache.read(source, 0, 1, soon(), window=(0, 8))
    eventually(lambda: cache.present(source, 0, 8 * BLOCK))
    assert source.blocks_requested() == list(range(8))


def test_a_large_read_is_several_requests_of_8_mib(cache, make_source):
    source = make_source(20 << 20)
    assert cache.read(source, 0, source.size, soon()) == source.content()
    assert sorted(end - start for start, end in source.requests()) == [4 * BLOCK, 8 * BLOCK, 8 * BLOCK]


def test_prefetch_brings_blocks(cache, source):
    cache.prefetch(source, 1, 99)
    eventually(lambda: cache.present(source, BLOCK, source.size))
    assert not cache.present(source, 0, BLOCK)
    assert source.blocks_requested() == [1, 2, 3]


def test_a_reader_never_waits_behind_prefetches_and_these_are_dropped_when_many(cache, source, make_source):
    stalled = make_source(20 << 20, "stalled")
    stalled.close_gate()
    try:
        for _ in range(200):
            cache.prefetch(stalled, 0, 20)
        assert stalled.stalled.acquire(timeout=20)
        assert cache.statistics().prefetches_dropped > 0
        assert cache.read(source, 0, 100, soon(5), window=(0, 4)) == source.content(0, 100)
    finally:
        stalled.open_gate()


def test_what_is_asked_for_waits_its_turn_and_is_not_dropped(cache, make_source):
    source = make_source(17 << 20)
    others = [make_source(BLOCK, name=f"{number:06x}") for number in range(200)]
    source.close_gate()
    for _ in range(3):  # many small files that lie together ask for the same
        assert cache.request(source, 0, 1000)
    assert all(cache.request(other, 0, 1) for other in others)
    source.open_gate()
    eventually(lambda: all(each.blocks_requested() for each in others))
    eventually(lambda: cache.cached(source) == 17 << 20)
    assert source.blocks_requested() == list(range(17))
    assert cache.statistics().prefetches_dropped == 0


def test_readahead_does_not_wait_behind_what_was_asked_for(cache, make_source):
    stalled = [make_source(BLOCK, name=f"{number:06x}") for number in range(20)]
    for source in stalled:
        source.close_gate()
        cache.request(source, 0, 1)
    assert stalled[0].stalled.acquire(timeout=20)
    source = make_source()
    cache.prefetch(source, 0, 2)
    eventually(lambda: cache.present(source, 0, 2 * BLOCK))
    for source in stalled:
        source.open_gate()


def test_a_failing_prefetch_hurts_nobody(cache, source):
    source.error = StoreUnavailable(store="file", why="test")
    cache.prefetch(source, 0, 4)
    eventually(lambda: cache.statistics().prefetches_failed == 1)
    source.error = None
    assert cache.read(source, 0, 10, soon()) == source.content(0, 10)


def test_a_reader_that_joined_a_failing_prefetch_asks_for_itself(cache, source):
    source.close_gate()
    source.most = BLOCK
    cache.prefetch(source, 0, 3)
    assert source.stalled.acquire(timeout=20)
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(cache.read, source, 0, 10, soon())
        eventually(lambda: cache.statistics().reads == 1)
        source.open_gate()
        assert reader.result() == source.content(0, 10)


# -- wrong answers ----------------------------------------------------------------------------------------------


def test_damaged_bytes_are_asked_for_again(cache, source):
    source.bad = {1: 1}
    assert cache.read(source, 0, source.size, soon()) == source.content()
    assert cache.statistics().mismatches == 1


def test_a_damaged_pack_is_reported_and_never_served(cache, source):
    source.bad = {1: 1000}
    with pytest.raises(CorruptPack, match=r"packs/0a1b2c.*block 1"):
        cache.read(source, BLOCK, 10, soon())
    assert len(source.requests()) == 2
    assert not cache.present(source, BLOCK, 1)
    assert cache.try_read(source, BLOCK, 10) is None


def test_a_damaged_neighbour_costs_the_reader_nothing(cache, source):
    source.bad = {3: 1000}
    assert cache.read(source, BLOCK, 10, soon(), window=(0, 4)) == source.content(BLOCK, 10)
    assert not cache.present(source, 3 * BLOCK, 1)


def test_an_answer_that_is_short(cache, source):
    source.short = 1
    assert cache.read(source, 0, 100, soon()) == source.content(0, 100)
    source.short = 2
    with pytest.raises(CorruptPack, match="instead of"):
        cache.read(source, BLOCK, 100, soon())


def test_when_the_wide_request_fails_the_narrow_one_is_tried(cache, source):
    source.most = BLOCK
    assert cache.read(source, 0, 10, soon(), window=(0, 4)) == source.content(0, 10)


def test_a_failure_is_raised_and_the_next_read_tries_again(cache, source):
    source.error = AccessDenied(what="the bucket", why="test")
    with pytest.raises(AccessDenied):
        cache.read(source, 0, 10, soon())
    source.error = None
    assert cache.read(source, 0, 10, soon()) == source.content(0, 10)


def test_a_defect_of_a_source_reaches_the_reader(cache, source, caplog):
    source.error = ZeroDivisionError("test")
    with pytest.raises(RuntimeError) as caught:
        cache.read(source, 0, 10, soon())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "failed unexpectedly" in caplog.text


# -- threads and deadlines --------------------------------------------------------------------------------------


def test_threads_that_want_one_block_share_one_request(cache, source):
    source.close_gate()
    with ThreadPoolExecutor(16) as pool:
        readers = [pool.submit(cache.read, source, 10 * i, 100, soon()) for i in range(16)]
        eventually(lambda: cache.statistics().reads == 16)
        source.open_gate()
        for i, reader in enumerate(readers):
            assert reader.result() == source.content(10 * i, 100)
    assert source.requests() == [(0, BLOCK)]
    assert cache.statistics().flights == 0


@pytest.mark.parametrize("keeps_deadlines", [True, False])
def test_a_stalled_source_costs_no_more_than_the_deadline_and_a_later_reader_gets_its_bytes(
    cache, source, keeps_deadlines
):
    source.keeps_deadlines = keeps_deadlines
    source.close_gate()
    try:
        with ThreadPoolExecutor(4) as pool:
            began = time.monotonic()
            readers = [pool.submit(cache.read, source, 0, 100, began + 0.3) for _ in range(4)]
            for reader in readers:
                with pytest.raises(DeadlineExceeded):
                    reader.result(timeout=20)
            assert time.monotonic() - began < 5
            # The gate opens only for those who come after: their flight must be a new one.
            later = pool.submit(cache.read, source, 0, 100, soon())
            eventually(lambda: len(source.requests()) == 2)
            source.open_gate()
            assert later.result(timeout=20) == source.content(0, 100)
    finally:
        source.open_gate()


def test_the_deadline_of_one_reader_does_not_end_another(cache, source):
    source.close_gate()
    with ThreadPoolExecutor(2) as pool:
        hasty = pool.submit(cache.read, source, 0, 100, soon(0.3))
        assert source.stalled.acquire(timeout=20)
        patient = pool.submit(cache.read, source, 0, 100, soon())
        with pytest.raises(DeadlineExceeded):
            hasty.result(timeout=20)
        assert source.stalled.acquire(timeout=20)
        source.open_gate()
        assert patient.result(timeout=20) == source.content(0, 100)


def test_a_deadline_that_has_passed_still_serves_what_is_there(cache, source):
    cache.read(source, 0, 100, soon())
    assert cache.read(source, 0, 100, time.monotonic() - 1) == source.content(0, 100)
    with pytest.raises(DeadlineExceeded):
        cache.read(source, BLOCK, 100, time.monotonic() - 1)


def test_closing_does_not_wait_for_a_stalled_source(open_cache, source):
    cache = open_cache()
    source.close_gate()
    cache.prefetch(source, 0, 4)
    assert source.stalled.acquire(timeout=20)
    began = time.monotonic()
    cache.close()
    assert time.monotonic() - began < 5
    source.open_gate()
    eventually(lambda: not any(t.name.startswith("artfs-prefetch") for t in threading.enumerate()))


reads = st.tuples(st.sampled_from("ab"), st.integers(0, 5 * BLOCK), st.integers(0, 3 * BLOCK))
windows = st.one_of(st.none(), st.tuples(st.integers(0, 6), st.integers(0, 8)))
steps = st.one_of(
    st.tuples(st.just("read"), reads, windows),
    st.tuples(st.just("prefetch"), st.sampled_from("ab"), st.tuples(st.integers(0, 6), st.integers(0, 8))),
    st.sampled_from([("evict",), ("clean",), ("reopen",)]),
)


@pytest.mark.parametrize("limit", [1 << 30, 2 * BLOCK], ids=["roomy", "tight"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=st.lists(steps, max_size=12))
def test_any_read_in_any_state_gives_the_sources_bytes(open_cache, make_source, tmp_path_factory, limit, program):
    where = tmp_path_factory.mktemp("random")
    sources = {"a": make_source(4 * BLOCK + 77, "aaaa"), "b": make_source(BLOCK // 2, "bbbb", checksums=False)}
    cache = open_cache(where, limit=limit)
    try:
        for step in program:
            match step:
                case ("read", (which, offset, length), window):
                    source = sources[which]
                    expected = source.content()[offset : offset + length]
                    quick = cache.try_read(source, offset, length)
                    assert quick is None or bytes(quick) == expected
                    assert cache.read(source, offset, length, soon(), window=window) == expected
                case ("prefetch", which, (first, end)):
                    cache.prefetch(sources[which], first, end)
                case ("evict",):
                    cache.evict()
                case ("clean",):
                    cache.clean()
                case ("reopen",):
                    cache.close()
                    cache = open_cache(where, limit=limit)
    finally:
        cache.close()
