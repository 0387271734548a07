"""Prefetching where no mount is: what through one happens, the tests of the command line show."""

import os

import pytest

from artfs import prefetch


def test_ordinary_files_are_left_to_the_kernel(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 10_000)
    os.mkfifo(tmp_path / "fifo")
    assert prefetch([tmp_path / "file", str(tmp_path), tmp_path / "fifo", os.devnull]) == 0
    with pytest.raises(FileNotFoundError):
        prefetch([tmp_path / "absent"])
