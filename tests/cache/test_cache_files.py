"""Part files: what a boot, a crash, damage, a full disk and a read-only disk do to them."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from file_source import eventually, soon

from artfs.cache import table
from artfs.catalog.layout import BLOCK
from artfs.errors import StoreUnavailable

HEADER = 4096
BOOT_ID = slice(32, 48)


def part_file(directory: Path, source) -> Path:
    return directory / "parts" / source.name[:2] / source.name


@pytest.fixture
def filled(open_cache, source, directory) -> Path:
    """A part with every block, that no process has open."""
    cache = open_cache()
    cache.read(source, 0, source.size, soon())
    cache.close()
    source.log.unlink()
    return part_file(directory, source)


def edit(path: Path, where: slice, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(where.start)
        file.write(data)


def reboot(path: Path) -> None:
    """What a machine that was booted finds: a part trusted under another boot id."""
    edit(path, BOOT_ID, b"\x5a" * 16)


def test_nothing_is_readable_by_others(filled, directory):
    for path in (directory, directory / "parts", filled.parent, directory / "tmp"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(filled.stat().st_mode) == 0o600
    assert list((directory / "tmp").iterdir()) == []


def test_a_part_is_sparse_until_it_is_filled(cache, source, directory):
    cache.read(source, BLOCK, 1, soon())
    status = part_file(directory, source).stat()
    assert status.st_size == HEADER + source.size
    assert BLOCK <= status.st_blocks * 512 < 2 * BLOCK


def test_the_header_is_as_documented(filled, source):
    header = filled.read_bytes()[:HEADER]
    assert header[0:8] == b"ARTFSPRT"
    assert int.from_bytes(header[8:12], "little") == 1
    assert int.from_bytes(header[12:16], "little") == 4
    assert int.from_bytes(header[16:24], "little") == source.size
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    assert header[BOOT_ID].hex() == boot
    assert header[64:128] == bytes([2] * 4 + [0] * 60)
    for block in range(4):
        start = 128 + 8 * block
        assert int.from_bytes(header[start : start + 8], "little") == source.checksum(block)
    assert not any(header[128 + 32 :])


# -- after a boot -----------------------------------------------------------------------------------------------


def test_after_a_boot_whole_blocks_are_checked_and_kept(cache, source, filled):
    reboot(filled)
    assert cache.cached(source) == source.size
    assert filled.read_bytes()[64:68] == bytes([1] * 4)
    assert cache.try_read(source, 0, 10) is None
    assert cache.read(source, 0, BLOCK + 1, soon()) == source.content(0, BLOCK + 1)
    assert bytes(cache.try_read(source, 0, 10)) == source.content(0, 10)
    assert filled.read_bytes()[64:68] == bytes([2, 2, 1, 1])
    assert source.requests() == []


@pytest.mark.parametrize("checksums", [True, False], ids=["pack", "reference"])
@pytest.mark.parametrize("damage", [b"\0" * 4096, b"!"], ids=["zeros", "one byte"])
def test_after_a_boot_damaged_blocks_are_fetched_again(open_cache, make_source, directory, caplog, damage, checksums):
    # SEMANTICS: A cached block is checked once more on its first use after every boot;
    source = make_source(checksums=checksums)
    cache = open_cache()
    cache.read(source, 0, source.size, soon())
    cache.close()
    source.log.unlink()
    path = part_file(directory, source)
    reboot(path)
    edit(path, slice(HEADER + BLOCK + 100, None), damage)
    cache = open_cache()
    with caplog.at_level(logging.WARNING):
        assert cache.read(source, 0, source.size, soon()) == source.content()
        assert cache.read(source, 0, source.size, soon()) == source.content()
    assert source.blocks_requested() == [1]
    assert cache.statistics().damaged == 1
    assert len(caplog.records) == 1
    assert path.read_bytes()[HEADER:] == source.content()


def test_a_damaged_block_is_not_served_when_the_store_is_away(cache, source, filled):
    reboot(filled)
    edit(filled, slice(HEADER + 5, None), b"\0\0\0\0")
    source.error = StoreUnavailable(store="file", why="test")
    with pytest.raises(StoreUnavailable):
        cache.read(source, 0, 10, soon())
    assert cache.read(source, BLOCK, 10, soon()) == source.content(BLOCK, 10)


def test_threads_that_open_a_part_after_a_boot(open_cache, source, filled):
    reboot(filled)
    caches = [open_cache() for _ in range(4)]
    start = threading.Barrier(len(caches))

    def read(cache) -> bytes:
        start.wait()
        return cache.read(source, 0, source.size, soon())

    with ThreadPoolExecutor(len(caches)) as pool:
        assert set(pool.map(read, caches)) == {source.content()}
    assert source.requests() == []
    assert filled.read_bytes()[64:68] == bytes([2] * 4)


# -- damaged files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ruin",
    [
        lambda path, _: path.write_bytes(b""),
        lambda path, _: path.write_bytes(b"garbage"),
        lambda path, size: path.write_bytes(b"\xff" * (HEADER + size)),
        lambda path, size: path.write_bytes(b"\0" * (HEADER + size)),
        lambda path, size: os.truncate(path, HEADER + size - 1),
        lambda path, size: os.truncate(path, 100),
        lambda path, _: edit(path, slice(8, None), b"\2"),
        lambda path, _: edit(path, slice(16, None), b"\1"),
    ],
    ids=["empty", "garbage", "ones", "zeros", "a byte short", "no header", "other version", "other size"],
)
def test_a_file_that_is_no_part_is_made_anew(cache, source, filled, ruin):
    ruin(filled, source.size)
    assert cache.read(source, 5, 2 * BLOCK, soon()) == source.content(5, 2 * BLOCK)
    assert source.blocks_requested() == [0, 1, 2]
    assert filled.stat().st_size == HEADER + source.size


@pytest.mark.parametrize("length", [0, 100, HEADER + 50, HEADER + BLOCK + 50])
def test_a_part_truncated_while_it_is_open(cache, source, filled, length):
    last = source.size - 20
    cache.read(source, 0, source.size, soon())
    assert cache.try_read(source, last, 20) is not None
    os.truncate(filled, length)
    assert cache.try_read(source, last, 20) is None
    assert cache.read(source, last, 20, soon()) == source.content(last, 20)
    assert cache.read(source, 0, source.size, soon()) == source.content()


def test_a_part_unlinked_while_it_is_open(cache, source, filled):
    cache.read(source, 0, 10, soon())
    filled.unlink()
    # The reader keeps what it has open, also without the source,
    source.error = StoreUnavailable(store="file", why="test")
    assert cache.read(source, BLOCK, 10, soon()) == source.content(BLOCK, 10)
    # until the parts are looked after; then there is a new one.
    source.error = None
    cache._table.tend()
    assert cache.statistics().open_parts == 0
    assert cache.read(source, 2 * BLOCK, 10, soon()) == source.content(2 * BLOCK, 10)
    assert source.blocks_requested() == [2]
    assert filled.exists()


def test_a_fetch_does_not_go_into_an_unlinked_part(cache, source, directory):
    cache.read(source, 0, 10, soon())
    part_file(directory, source).unlink()
    cache.read(source, BLOCK, 10, soon())
    assert part_file(directory, source).read_bytes()[64:68] == bytes([0, 2, 0, 0])


# -- disks that do not cooperate --------------------------------------------------------------------------------


def test_a_full_disk_makes_room_by_eviction(open_cache, make_source, small_disk):
    cache = open_cache(small_disk(6 * BLOCK))
    for i in range(6):
        source = make_source(2 * BLOCK, f"{i:02x}")
        assert cache.read(source, 0, source.size, soon()) == source.content()
    assert cache.statistics().evicted_files > 0
    assert cache.statistics().uncached == 0


def test_a_disk_that_is_full_of_other_things(open_cache, source, small_disk, caplog):
    # SEMANTICS: A full cache disk never fails a read:
    disk = small_disk(4 * BLOCK)
    cache = open_cache(disk / "cache")
    assert cache.read(source, 0, 10, soon()) == source.content(0, 10)
    with (disk / "other").open("wb", buffering=0) as file:
        room = os.statvfs(disk).f_bavail
        assert sum(file.write(bytes(4096)) for _ in range(room)) == room * 4096
    for _ in range(3):
        # The block that is there may be evicted in vain.
        assert cache.read(source, BLOCK, 2 * BLOCK, soon(), window=(0, 4)) == source.content(BLOCK, 2 * BLOCK)
    assert cache.statistics().uncached > 0
    assert cache.statistics().flights == 0
    assert len([record for record in caplog.records if "cannot be used" in record.message]) == 1
    (disk / "other").unlink()

    def kept() -> bool:
        assert cache.read(source, 0, source.size, soon()) == source.content()
        return cache.present(source, 0, source.size)

    # The part that was evicted takes its room until the last thread that read or wrote it has let go of it.
    eventually(kept)


def test_a_read_only_disk_serves_what_it_has(open_cache, make_source, small_disk):
    disk = small_disk(16 * BLOCK)
    source, absent = make_source(), make_source(BLOCK, "absent")
    writer = open_cache(disk)
    writer.read(source, 0, 2 * BLOCK, soon())
    path = writer.catalog("0" * 64, lambda temporary: temporary.write_bytes(b"catalog"))
    writer.close()
    reboot(part_file(disk, source))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    cache = open_cache(disk)
    source.log.unlink()
    assert cache.read(source, 0, 2 * BLOCK, soon()) == source.content(0, 2 * BLOCK)
    assert source.requests() == []
    assert cache.read(source, 2 * BLOCK, 10, soon(), window=(0, 4)) == source.content(2 * BLOCK, 10)
    assert cache.read(absent, 0, 10, soon()) == absent.content(0, 10)
    assert cache.catalog("0" * 64, pytest.fail) == path
    cache.prefetch(source, 0, 4)
    assert cache.evict() == 0
    assert cache.clean() == 0
    cache.close()


def test_a_directory_that_cannot_be_made(open_cache, source, tmp_path):
    (tmp_path / "file").write_text("")
    cache = open_cache(tmp_path / "file" / "cache")
    assert cache.read(source, 10, 2 * BLOCK, soon()) == source.content(10, 2 * BLOCK)
    assert cache.try_read(source, 0, 10) is None
    assert cache.cached(source) == 0
    assert cache.info().size == 0


def test_a_disk_without_rwf_nowait(open_cache, source, small_disk):
    # tmpfs has refused it with EOPNOTSUPP up to Linux 6.18 at least.
    cache = open_cache(small_disk(16 * BLOCK))
    assert cache.read(source, 0, 100, soon()) == source.content(0, 100)
    quick = cache.try_read(source, 0, 100)
    assert quick is None or bytes(quick) == source.content(0, 100)
    assert cache.read(source, 0, 100, soon()) == source.content(0, 100)


# -- descriptors ------------------------------------------------------------------------------------------------


def descriptors(directory: Path) -> int:
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link).startswith(str(directory)) for link in links if os.path.islink(link))


def test_descriptors_are_bounded_and_given_back(open_cache, make_source, directory, monkeypatch):
    monkeypatch.setattr(table, "MOST_OPEN", 4)
    cache = open_cache()
    sources = [make_source(1000 + i, f"{i:02x}") for i in range(12)]
    for _ in range(3):
        for source in sources:
            assert cache.read(source, 0, 9000, soon()) == source.content()
            cache.evict()
    assert cache.statistics().open_parts == 4
    # A thread that has just fetched may hold one for a moment longer.
    assert 4 <= descriptors(directory) <= 6
    cache.close()
    assert descriptors(directory) == 0
