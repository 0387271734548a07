"""Pages of listings made ahead, in memory that processes share."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artfs.fuse.direct import ahead as module
from artfs.fuse.direct.ahead import LARGEST, Ahead, Page

PAGE = Page(b"entries" * 100, 5, 17)


@pytest.fixture
def ahead():
    return Ahead(2)


def kept(ahead, page, worker=0, inode=5, cookie=3, size=4096):
    ahead.claim(worker, inode, cookie, size)
    ahead.put(worker, page)


def test_what_one_keeps_another_finds(ahead):
    child = os.fork()
    if child == 0:
        kept(ahead, PAGE)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ahead.take(5, 3, 4096) == PAGE


@pytest.mark.parametrize("asked", [(6, 3, 4096), (5, 0, 4096), (5, 3, 8192)])
def test_only_who_asks_for_the_same_finds_it(ahead, asked):
    kept(ahead, PAGE)
    assert ahead.take(*asked) is None


def test_the_next_page_takes_the_place_of_the_last(ahead):
    kept(ahead, PAGE)
    kept(ahead, Page(b"x", 9, 0), cookie=17)
    assert ahead.take(5, 3, 4096) is None
    assert ahead.take(5, 17, 4096) == Page(b"x", 9, 0)


def test_a_page_that_was_not_made_is_not_waited_for(ahead):
    kept(ahead, None)
    assert ahead.take(5, 3, 4096) is None


def test_a_page_that_is_being_made_is_waited_for(ahead, monkeypatch):
    ahead.claim(1, 5, 3, 4096)
    monkeypatch.setattr(module.time, "sleep", lambda _: ahead.put(1, PAGE))
    assert ahead.take(5, 3, 4096) == PAGE


def test_a_page_whose_maker_died_is_given_up(ahead):
    ahead.claim(1, 5, 3, 4096)
    assert ahead.take(5, 3, 4096) is None


@given(content=st.binary(min_size=1, max_size=300), place=st.integers(0, 10**9), other=st.integers(1, 255))
def test_a_page_that_is_half_written_is_not_taken(content, place, other):
    ahead = Ahead(1)
    kept(ahead, Page(content, 5, 17))
    whole = 48 + len(content)
    ahead._memory[place % whole] ^= other
    found = ahead.take(5, 3, 4096)
    assert found is None


def test_the_largest_page_is_kept(ahead):
    page = Page(bytes(LARGEST), 0, 0)
    kept(ahead, page)
    assert ahead.take(5, 3, 4096) == page
