"""Which handles of a writable mount go past the page cache."""

import os

import pytest

from artfs.fuse import handles
from artfs.fuse.handles import Handles, inode_of, past_cache


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr(handles, "kernel_version", lambda: handles.LEAST_KERNEL)
    return Handles()


def test_only_what_is_only_written(made):
    handle = made.add(1 << 40, os.O_WRONLY | os.O_APPEND)
    assert past_cache(handle)
    assert inode_of(handle) == 1 << 40
    assert [past_cache(made.add(7, flags)) for flags in (os.O_RDONLY, os.O_RDWR | os.O_TRUNC)] == [False, False]


def test_not_while_somebody_else_goes_through_the_cache(made):
    first = made.add(7, os.O_RDONLY)
    second = made.add(7, os.O_RDWR)
    through = made.add(7, os.O_WRONLY)
    assert not past_cache(through)
    assert past_cache(made.add(8, os.O_WRONLY))
    for handle in (first, second):
        made.remove(handle)
    assert not past_cache(made.add(7, os.O_WRONLY))
    for _ in range(2):
        made.remove(through)
    assert past_cache(made.add(7, os.O_WRONLY))


def test_what_may_be_mapped_for_writing(made):
    first, second = (made.add(7, os.O_RDWR) for _ in range(2))
    made.add(8, os.O_RDONLY)
    made.add(9, os.O_WRONLY)
    assert [inode for inode in range(10) if made.may_be_mapped(inode)] == [7]
    assert inode_of(first) == 7
    for handle in (first, second):
        assert made.may_be_mapped(7)
        made.remove(handle)
    assert not made.may_be_mapped(7)


def test_not_on_an_older_kernel(monkeypatch):
    monkeypatch.setattr(handles, "kernel_version", lambda: (6, 1))
    assert not past_cache(Handles().add(7, os.O_WRONLY))
