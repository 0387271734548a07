"""Eviction: limits are met, what is used stays, readers do not notice."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from file_source import eventually, soon

from artfs.cache.eviction import Eviction
from artfs.cache.locks import locked
from artfs.cache.statistics import Counters
from artfs.catalog.layout import BLOCK
from artfs.errors import DeadlineExceeded, InvalidInput, StoreUnavailable


def age(directory, source, seconds: float) -> None:
    """Make a part look unused for so long."""
    then = time.time() - seconds
    os.utime(directory / "parts" / source.name[:2] / source.name, (then, then))


@pytest.fixture
def sources(make_source):
    return [make_source(2 * BLOCK, f"{i:02x}") for i in range(4)]


def test_the_limit_is_kept(open_cache, sources):
    cache = open_cache(limit=5 * BLOCK)
    for source in sources:
        cache.read(source, 0, source.size, soon())
    eventually(lambda: cache.info().size <= 5 * BLOCK)
    assert cache.info().parts == 2


def test_who_is_turned_away_has_the_holder_look_again(tmp_path):
    looks = []

    def tend():  # the first thing that the holder does
        looks.append(threading.current_thread())
        if len(looks) == 1:
            thread = threading.Thread(target=turned_away)
            thread.start()
            thread.join(20)

    def turned_away():
        assert eviction.evict() == 0
        assert len(looks) == 1, "the holder still holds the lock"

    eviction = Eviction(tmp_path, limit=BLOCK, free=0, tend=tend, counters=Counters())
    assert eviction.evict() == 0
    assert looks == [threading.current_thread()] * 2


def test_the_least_recently_used_part_goes_first(open_cache, sources, directory):
    # SEMANTICS: Eviction removes whole parts, least recently used first,
    filler = open_cache()
    for source in sources:
        filler.read(source, 0, source.size, soon())
    filler.close()
    for source, seconds in zip(sources, (1000, 4000, 3000, 2000), strict=True):
        age(directory, source, seconds)
    cache = open_cache(limit=5 * BLOCK)
    assert cache.evict() >= 4 * BLOCK
    assert [cache.cached(source) > 0 for source in sources] == [True, False, False, True]
    assert cache.evict() == 0


def test_a_part_that_is_read_counts_as_used(open_cache, sources, directory):
    cache = open_cache(limit=7 * BLOCK)
    first, second, third, _ = sources
    for source in (first, second, third):
        cache.read(source, 0, source.size, soon())
    for source, seconds in zip((first, second, third), (3000, 2000, 1000), strict=True):
        age(directory, source, seconds)
    cache._table.tend()  # forgets that they were used to be written
    for source, seconds in zip((first, second, third), (3000, 2000, 1000), strict=True):
        age(directory, source, seconds)
    assert cache.try_read(first, 0, 10) is not None
    cache.read(sources[3], 0, 2 * BLOCK, soon())
    eventually(lambda: cache.cached(second) == 0)
    assert cache.cached(first) > 0
    assert cache.statistics().evicted_files == 1


def test_modification_times_are_renewed_at_most_once_a_minute(cache, source, directory):
    cache.read(source, 0, 10, soon())
    path = directory / "parts" / source.name[:2] / source.name
    for seconds, renewed in ((30, False), (90, True)):
        age(directory, source, seconds)
        before = path.stat().st_mtime
        cache.try_read(source, 0, 10)
        cache._table.tend()
        assert (path.stat().st_mtime > before) is renewed
        age(directory, source, 90)
        before = path.stat().st_mtime
        cache._table.tend()
        assert path.stat().st_mtime == before  # not used since


def test_room_is_left_on_the_disk(open_cache, sources):
    cache = open_cache()
    for source in sources:
        cache.read(source, 0, source.size, soon())
    free = cache.info().disk_free
    greedy = open_cache(free=free + 64 * BLOCK)
    # More than the cache can give: all of it goes, and that is the end of it.
    greedy.evict()
    assert greedy.info().parts == 0


def test_eviction_closes_what_this_process_had_open(cache, sources):
    for source in sources:
        cache.read(source, 0, 10, soon())
    assert cache.clean() >= 4 * BLOCK
    assert cache.statistics().open_parts == 0
    assert cache.info().parts == 0


def test_catalogs_go_after_parts(open_cache, source):
    filler = open_cache()
    path = filler.catalog("a" * 64, lambda temporary: temporary.write_bytes(bytes(BLOCK)))
    then = time.time() - 9000
    os.utime(path, (then, then))
    filler.read(source, 0, source.size, soon())
    cache = open_cache(limit=2 * BLOCK)
    cache.evict()
    assert cache.info().parts == 0
    assert path.exists()
    open_cache(limit=BLOCK // 2).evict()
    assert not path.exists()


def test_only_one_evicts_at_a_time(open_cache, source, directory):
    cache = open_cache(limit=0)
    with locked(directory / "evict.lock", 0, soon()) as held:
        assert held
        cache.read(source, 0, 10, soon())
        assert cache.evict() == 0
    assert cache.evict() > 0


def test_old_temporary_files_are_removed(cache, directory):
    (directory / "tmp").mkdir()
    old, new = directory / "tmp" / "old", directory / "tmp" / "new"
    for path in (old, new):
        path.write_bytes(b"x")
    then = time.time() - 2 * 86400
    os.utime(old, (then, then))
    cache.evict()
    assert not old.exists()
    assert new.exists()


def test_reading_while_everything_is_evicted(open_cache, sources):
    cache = open_cache()
    stop = threading.Event()

    def evict() -> None:
        while not stop.is_set():
            cache.clean()

    def read(seed: int) -> int:
        for step in range(60):
            source = sources[(seed + step) % len(sources)]
            offset = (seed * 7919 + step * 104729) % source.size
            length = min(300_000, source.size - offset)
            data = cache.try_read(source, offset, length) or cache.read(source, offset, length, soon(), window=(0, 2))
            assert bytes(data) == source.content(offset, length)
        return seed

    evictor = threading.Thread(target=evict)
    evictor.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(read, range(4))) == [0, 1, 2, 3]
    finally:
        stop.set()
        evictor.join()


# -- catalogs ---------------------------------------------------------------------------------------------------


def test_a_catalog_is_made_once(cache, directory):
    made = []

    def load(path) -> None:
        made.append(path)
        path.write_bytes(b"catalog")

    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: cache.catalog("b" * 64, load), range(8)))
    assert paths == {directory / "catalogs" / ("b" * 64)}
    assert len(made) == 1
    assert paths.pop().read_bytes() == b"catalog"
    assert list((directory / "tmp").iterdir()) == []
    assert cache.info().catalogs == 1


def test_a_catalog_that_fails_to_load_leaves_nothing(cache, directory):
    def load(path) -> None:
        path.write_bytes(b"half")
        raise StoreUnavailable(store="file", why="test")

    with pytest.raises(StoreUnavailable):
        cache.catalog("c" * 64, load)
    assert list((directory / "tmp").iterdir()) == []
    assert cache.catalog("c" * 64, lambda path: path.write_bytes(b"whole")).read_bytes() == b"whole"


def test_a_catalog_that_another_makes_is_waited_for_until_the_deadline(cache):
    loading, finish = threading.Event(), threading.Event()

    def load(path) -> None:
        loading.set()
        assert finish.wait(20)
        path.write_bytes(b"catalog")

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(cache.catalog, "d" * 64, load)
        assert loading.wait(20)
        with pytest.raises(DeadlineExceeded):
            cache.catalog("d" * 64, pytest.fail, deadline=soon(0.1))
        # Another catalog is not held up.
        assert cache.catalog("e" * 64, lambda path: path.write_bytes(b"e"), deadline=soon(5)).exists()
        finish.set()
        assert other.result() == cache.catalog("d" * 64, pytest.fail)


def test_a_catalog_on_a_full_disk_makes_room(open_cache, make_source, small_disk):
    disk = small_disk(6 * BLOCK)
    source = make_source(4 * BLOCK)
    filler = open_cache(disk)
    filler.read(source, 0, source.size, soon())
    filler.close()
    cache = open_cache(disk)
    path = cache.catalog("f" * 64, lambda temporary: temporary.write_bytes(bytes(3 * BLOCK)))
    assert path.stat().st_size == 3 * BLOCK
    assert cache.cached(source) == 0


@pytest.mark.parametrize("name", ["", "../" * 20 + "abcd", "A" * 64, "g" * 64])
def test_a_catalog_is_named_by_a_hash(cache, name):
    with pytest.raises(InvalidInput):
        cache.catalog(name, pytest.fail)
