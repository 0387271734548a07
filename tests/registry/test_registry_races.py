"""Writers, deleters and garbage collection at once, in threads with a Registry each and in processes."""

import multiprocessing
import random
import threading
import time
from types import SimpleNamespace

import pytest
from shelf import MNIST, Shelf, content, extent_of
from sqlalchemy import text

from artfs.errors import PacksCondemned, VersionNotFound
from artfs.names import CollectionName
from artfs.registry import Registry, State

ROUNDS = 15


def write(url: str, seed: int, steps) -> int:
    """Log versions of few different extents, re-using what is stored, and delete all but the last."""
    registry = Registry.open(url)
    shelf, draw, refused = Shelf(registry), random.Random(seed), 0
    mine = CollectionName("acme", "vision", f"c{seed}")
    for round_ in range(ROUNDS):
        version_id = shelf.begin(mine)
        numbers = draw.sample(range(6), 2)
        known = registry.claim_extents(version_id, [extent_of(number).sha256 for number in numbers])
        packs = {extent.pack for extent in known.values()}
        await_steps(steps, draw.randrange(4))
        missing = [number for number in numbers if extent_of(number).sha256 not in known]
        if missing:
            packs.add(shelf.pack(version_id, *missing))
        await_steps(steps, draw.randrange(4))
        # What was claimed or registered for this version cannot have been taken.
        version = registry.commit(version_id, content(f"{seed}-{round_}", packs)).version
        assert registry.known_packs(packs) == packs
        if round_ == ROUNDS - 1:
            break
        registry.delete_version(version.id, delete_aliases=True)
        stranger = shelf.begin(mine)
        await_steps(steps, draw.randrange(4))
        try:  # without a claim: either it gets all of them or it is told
            registry.commit(stranger, content(f"stranger-{seed}-{round_}", packs))
        except PacksCondemned:
            registry.abandon(stranger)
            refused += 1
        else:
            assert registry.known_packs(packs) == packs
            assert packs.isdisjoint(registry.deletable_packs(0))
            registry.delete_version(stranger, delete_aliases=True)
    registry.close()
    return refused


def collect(url: str, stop, steps) -> int:
    """Garbage collection without a grace period: the worst case. Counts its steps for writers to wait on."""
    registry, forgotten = Registry.open(url), 0
    while not stop.is_set():
        registry.condemn_packs(3600)
        steps.value += 1
        keys = registry.deletable_packs(0)
        registry.forget_packs(keys)
        steps.value += 1
        forgotten += len(keys)
    registry.close()
    return forgotten


def await_steps(steps, count: int) -> None:
    """Let the collector get in between."""
    goal, deadline = steps.value + count, time.monotonic() + 30
    while steps.value < goal:
        assert time.monotonic() < deadline, "the collector gets no turn"
        time.sleep(0.001)


def check(registry: Registry) -> None:
    """Every version that is left has its packs, and none of them is condemned."""
    with registry.database.read() as db:
        query = """SELECT count(*) FROM version_pack JOIN pack ON pack.id = version_pack.pack_id
                   WHERE pack.condemned_at IS NOT NULL"""
        assert db.execute(text(query)).scalar() == 0
        query = "SELECT count(*) FROM version WHERE state = 'COMMITTED'"
        assert db.execute(text(query)).scalar() > 0


class Thread(threading.Thread):
    def __init__(self, target, *args):
        super().__init__(daemon=True)
        self.work, self.result, self.error = (target, args), None, None
        self.start()

    def run(self):
        try:
            self.result = self.work[0](*self.work[1])
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.error = error

    def finish(self):
        self.join(60)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


def test_collection_never_takes_what_a_commit_relies_on_in_threads(url, registry):
    stop, steps = threading.Event(), SimpleNamespace(value=0)
    collector = Thread(collect, url, stop, steps)
    writers = [Thread(write, url, seed, steps) for seed in range(2)]
    try:
        assert sum(writer.finish() for writer in writers) > 0
    finally:
        stop.set()
    assert collector.finish() > 0
    check(registry)


def test_collection_never_takes_what_a_commit_relies_on_in_processes(url, registry):
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(3) as pool:
        stop, steps = manager.Event(), manager.Value("i", 0)
        collector = pool.apply_async(collect, (url, stop, steps))
        writers = [pool.apply_async(write, (url, seed, steps)) for seed in range(2)]
        try:
            assert sum(writer.get(60) for writer in writers) > 0
        finally:
            stop.set()
        assert collector.get(60) > 0
    check(registry)


def test_a_claim_waits_for_a_condemnation_under_way_and_sees_it(url, registry, shelf):
    done, _ = shelf.log_pack("a", 1)
    registry.delete_version(done.version.id, delete_aliases=True)
    other = Registry.open(url)
    version_id = Shelf(other).begin()
    with registry.database.write() as db:
        claim = Thread(other.claim_extents, version_id, [extent_of(1).sha256])
        assert db.execute(text("UPDATE pack SET condemned_at = 0")).rowcount == 1
        claim.join(0.2)
        assert claim.is_alive()  # it may not look before this is over
    assert claim.finish() == {}
    other.close()


def log_many(url: str, seed: int) -> list[int]:
    registry = Registry.open(url)
    numbers = [Shelf(registry).log(f"{seed}-{i}", aliases=["best"]).version.index for i in range(20)]
    registry.close()
    return numbers


@pytest.mark.parametrize("how", ["threads", "processes"])
def test_concurrent_commits_get_numbers_of_their_own(url, registry, how):
    if how == "threads":
        results = [thread.finish() for thread in [Thread(log_many, url, seed) for seed in range(3)]]
    else:
        with multiprocessing.get_context("spawn").Pool(3) as pool:
            results = pool.starmap(log_many, [(url, seed) for seed in range(3)])
    assert sorted(number for numbers in results for number in numbers) == list(range(60))
    assert registry.aliases(MNIST) == {"best": 59, "latest": 59}


def test_equal_content_committed_at_once_makes_one_version(url, registry):
    start = threading.Barrier(4)

    def commit():
        version_id = Shelf(registry).begin()
        start.wait(10)
        return registry.commit(version_id, content("same"))

    done = [thread.finish() for thread in [Thread(commit) for _ in range(4)]]
    assert sorted(one.created for one in done) == [False, False, False, True]
    assert len({one.version.id for one in done}) == 1


def test_abandonment_and_commit_exclude_each_other(url, registry):
    collector = Registry.open(url)
    for round_ in range(10):
        version_id = Shelf(registry).begin()
        start = threading.Barrier(2)

        def commit(version_id=version_id, start=start, round_=round_):
            start.wait(10)
            return registry.commit(version_id, content(str(round_)))

        committer = Thread(commit)
        start.wait(10)
        collector.condemn_packs(0)
        try:
            assert committer.finish().version.state is State.COMMITTED
        except VersionNotFound:
            with pytest.raises(VersionNotFound):
                registry.get(version_id)
    collector.close()
