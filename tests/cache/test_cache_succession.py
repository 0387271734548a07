"""The policy for small files that are read in the order in which they lie."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from artfs.cache.succession import MOST_AHEAD, PER_PACK, Succession, place


def follow(policy, places):
    """What was asked for at each read, which the reader tells of when it misses or when it is due."""
    fetched, asked = set(), []
    for at in places:
        wanted = policy.touch(at) if at not in fetched or at >= policy.due else range(0)
        fetched |= {at, *wanted}
        asked.append(list(wanted))
    return asked


def test_places_grow_in_the_order_of_the_catalog():
    assert [place(1, 0), place(1, (8 << 20) - 1), place(1, 8 << 20), place(2, 0)] == [8, 8, 9, 16]


def test_the_first_read_and_one_step_ask_for_nothing():
    assert follow(Succession(), [8]) == [[]]
    assert follow(Succession(), [8, 9]) == [[], []]


def test_the_window_doubles_up_to_64_mib_and_then_slides():
    asked = follow(Succession(), range(8, 30))
    assert asked[:5] == [[], [], [11, 12], [13, 14, 15], [*range(16, 21)]]
    ahead = {at for wanted in asked for at in wanted}
    assert ahead == set(range(11, 30 + MOST_AHEAD))
    assert sum(map(len, asked)) == len(ahead)  # nothing twice
    assert max(map(len, asked)) <= MOST_AHEAD


@given(st.integers(8, 10_000), st.integers(3, 100))
def test_a_reader_in_order_misses_three_times(start, count):
    policy, fetched, missed = Succession(), set(), 0
    for at in range(start, start + count):
        missed += at not in fetched
        wanted = policy.touch(at) if at not in fetched or at >= policy.due else ()
        fetched |= {at, *wanted}
    assert missed == 3


def test_a_pack_may_hold_less_than_its_most():
    short = [place(1, 0), place(1, 8 << 20), place(1, 16 << 20), place(2, 0), place(2, 8 << 20)]
    assert follow(Succession(), short)[-1]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_a_shuffled_reader_asks_for_next_to_nothing(seed):
    places = list(range(8, 8 + 1000))
    Random(seed).shuffle(places)
    assert sum(map(len, follow(Succession(), places))) <= 10


def test_it_stops_when_the_order_ends():
    policy = Succession()
    follow(policy, range(8, 40))
    assert policy.due < 1000
    assert list(policy.touch(900)) == []
    assert policy.due > 1000


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_readers_side_by_side_are_one_reader(seed):
    random = Random(seed)
    places = [at for at in range(8, 60) for _ in range(20)]
    for start in range(0, len(places) - 8, 8):  # eight threads are never in step
        group = places[start : start + 8]
        random.shuffle(group)
        places[start : start + 8] = group
    policy, fetched, missed = Succession(), set(), 0
    for at in places:
        missed += at not in fetched
        wanted = policy.touch(at) if at not in fetched or at >= policy.due else ()
        fetched |= {at, *wanted}
    assert missed <= 4


@given(st.lists(st.integers(PER_PACK, 300), max_size=60))
def test_what_is_asked_for_lies_ahead_and_is_bounded(places):
    policy = Succession()
    for at in places:
        wanted = policy.touch(at)
        assert all(at < ahead <= at + MOST_AHEAD for ahead in wanted)
