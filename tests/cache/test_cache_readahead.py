"""The readahead policy."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from artfs.cache.readahead import BACK, FORWARD, LAST_WINDOW, Readahead

MIB = 1 << 20
GIB = 1 << 30

sizes = st.one_of(st.integers(0, 300 * MIB), st.integers(0, 4 * GIB))
read_lengths = st.one_of(st.sampled_from([4096, 128 << 10, MIB]), st.integers(0, 3 * MIB))


@given(sizes, st.lists(st.tuples(st.integers(0, 4 * GIB), read_lengths), max_size=40))
def test_advice_stays_in_the_file_holds_the_read_and_is_bounded(size, reads):
    policy = Readahead(size)
    for offset, length in reads:
        advice = policy.advise(offset, length)
        assert 0 <= advice.start <= advice.stop <= size
        assert 0 <= advice.ahead <= advice.ahead_stop <= size
        assert advice.start == min(offset, size)
        assert advice.stop >= min(offset + length, size)
        assert advice.stop - min(offset + length, size) <= LAST_WINDOW + LAST_WINDOW // 2 + BACK + FORWARD
        assert advice.ahead_stop - advice.ahead <= LAST_WINDOW


@given(st.integers(1, 2 * GIB), st.sampled_from([4096 * 5, 128 << 10, 256 << 10, MIB, 5 * MIB]), st.integers(0, 99))
def test_a_sequential_reader_finds_everything_asked_for_once(size, length, start_percent):
    policy = Readahead(size)
    offset = asked = size * start_percent // 100
    steps = 0
    while offset < size and steps < 2000:
        advice = policy.advise(offset, length)
        # What goes with the read: new only beyond what was asked for before.
        asked = max(asked, advice.stop)
        if advice.ahead_stop > advice.ahead:
            assert advice.ahead == asked
            asked = advice.ahead_stop
        offset += length
        steps += 1
        assert asked >= min(offset, size)


def test_the_window_doubles_up_to_64_mib():
    policy = Readahead(4 * GIB)
    step = 128 << 10
    first = policy.advise(0, step)
    assert (first.start, first.stop) == (0, MIB)
    windows = []
    for offset in range(step, GIB, step):
        advice = policy.advise(offset, step)
        if advice.ahead_stop > advice.ahead:
            windows.append((advice.ahead_stop - advice.ahead) // MIB)
    assert windows[:6] == [2, 4, 8, 16, 32, 64]
    assert set(windows[6:]) == {64}


def test_a_sequential_reader_of_large_reads_is_kept_ahead_of():
    policy = Readahead(4 * GIB)
    ahead = 0
    for offset in range(0, GIB, MIB):
        advice = policy.advise(offset, MIB)
        ahead = max(ahead, advice.stop, advice.ahead_stop)
        if offset >= 200 * MIB:
            assert ahead - (offset + MIB) >= LAST_WINDOW // 2 - MIB


def test_random_reads_ask_for_themselves():
    policy = Readahead(4 * GIB)
    for i in range(1, 50):
        offset = (i * 7919 * MIB) % (4 * GIB - MIB)
        assert policy.advise(offset, 4096) == (offset, offset + 4096, offset + 4096, offset + 4096)


def test_one_read_at_the_beginning_asks_for_the_first_window_only():
    for length in (1, 4096, MIB):
        advice = Readahead(GIB).advise(0, length)
        assert (advice.start, advice.stop, advice.ahead_stop) == (0, MIB, advice.ahead)


def test_a_far_seek_starts_anew():
    for seek in (300 * MIB, 3 * GIB):
        policy = Readahead(4 * GIB)
        for offset in range(0, 100 * MIB, MIB):
            policy.advise(offset, MIB)
        assert policy.advise(seek, 4096) == (seek, seek + 4096, seek + 4096, seek + 4096)
        assert policy.advise(seek + 4096, 4096).stop == seek + 4096 + MIB


@given(st.integers(0, 2**32))
def test_a_little_disorder_does_not_end_a_stream(seed):
    random = Random(seed)
    policy = Readahead(4 * GIB)
    step = 128 << 10
    offsets = list(range(0, 64 * MIB, step))
    # Neighbours within half a MiB change places, as the kernel's readahead makes them.
    for i in range(1, len(offsets) - 4, 4):
        group = offsets[i : i + 4]
        random.shuffle(group)
        offsets[i : i + 4] = group
    windows = []
    for offset in offsets:
        advice = policy.advise(offset, step)
        assert advice.stop > offset + step
        windows.append(advice.ahead_stop - advice.ahead)
    assert max(windows) == LAST_WINDOW


def test_hopping_forward_does_not_widen_the_window():
    policy = Readahead(4 * GIB)
    for offset in range(0, GIB, 10 * MIB):
        advice = policy.advise(offset, 4096)
        assert max(advice.stop, advice.ahead_stop) - offset <= 2 * MIB


def test_the_end_of_the_file():
    policy = Readahead(3 * MIB)
    assert policy.advise(0, 4096).stop == MIB
    assert policy.advise(MIB - 4096, 4096) == (MIB - 4096, MIB, MIB, 2 * MIB)
    assert policy.advise(3 * MIB - 10, 4096) == (3 * MIB - 10, 3 * MIB, 3 * MIB, 3 * MIB)
    assert policy.advise(3 * MIB, 4096).stop == 3 * MIB
    assert Readahead(0).advise(0, 4096) == (0, 0, 0, 0)
