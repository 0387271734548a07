"""Several processes on one cache directory: together, killed, and forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from file_source import eventually, soon

from artfs.catalog.layout import BLOCK
from artfs.errors import DeadlineExceeded

# Since Python 3.12 os.fork warns when there are threads; what these tests show is that here it is safe.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

READER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from file_source import FileSource, soon
from artfs.cache import Cache
cache = Cache(Path(sys.argv[2]), limit=1 << 30, free=0)
source = FileSource(Path(sys.argv[3]))
print("ready", flush=True)
sys.stdin.readline()
order = range(-(-source.size // (1 << 20)))
for block in (reversed(order) if sys.argv[4] == "backwards" else order):
    start = block << 20
    length = min(1 << 20, source.size - start)
    window = (block // 4 * 4, block // 4 * 4 + 4)
    assert cache.read(source, start, length, soon(), window=window) == source.content(start, length)
print("done", cache.statistics().bytes_fetched, flush=True)
cache.close()
"""


@pytest.fixture
def start_reader(directory):
    processes: list[subprocess.Popen] = []

    def start(source, order: str = "forwards") -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", READER, str(Path(__file__).parent), str(directory), str(source.path), order],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def go(process: subprocess.Popen) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def test_processes_that_read_cold_at_once_fetch_each_block_once(start_reader, make_source):
    # SEMANTICS: A block is fetched once, whoever asks first.
    source = make_source(20 << 20)
    readers = [start_reader(source, order) for order in ("forwards", "backwards", "forwards")]
    for reader in readers:
        go(reader)
    fetched = 0
    for reader in readers:
        said, _ = reader.communicate(timeout=60)
        assert said.startswith("done"), said
        fetched += int(said.split()[1])
    assert source.blocks_requested() == list(range(20))
    assert fetched == source.size


def test_a_reader_waits_for_the_block_that_another_process_fetches(start_reader, cache, source):
    source.close_gate()
    reader = start_reader(source)
    go(reader)
    eventually(lambda: len(source.requests()) == 1)
    data: list[bytes] = []
    waiting = threading.Thread(target=lambda: data.append(cache.read(source, 0, 100, soon())))
    waiting.start()
    eventually(lambda: cache.statistics().flights == 1)
    source.open_gate()
    waiting.join(20)
    assert data == [source.content(0, 100)]
    assert reader.communicate(timeout=20)[0].startswith("done")
    assert cache.statistics().requests == 0


def test_a_stalled_process_costs_others_no_more_than_their_deadline(start_reader, cache, source):
    source.close_gate()
    reader = start_reader(source)
    go(reader)
    eventually(lambda: len(source.requests()) == 1)
    os.kill(reader.pid, signal.SIGSTOP)
    with pytest.raises(DeadlineExceeded):
        cache.read(source, 0, 100, soon(0.3))
    os.kill(reader.pid, signal.SIGCONT)
    source.open_gate()
    assert cache.read(source, 0, 100, soon()) == source.content(0, 100)


def test_after_kill_9_in_a_fetch_another_process_reads_on(start_reader, cache, source):
    cache.read(source, source.size - 1, 1, soon())
    source.close_gate()
    reader = start_reader(source)
    go(reader)
    eventually(lambda: len(source.requests()) == 2)
    data: list[bytes] = []
    waiting = threading.Thread(target=lambda: data.append(cache.read(source, 0, source.size, soon())))
    waiting.start()
    eventually(lambda: cache.statistics().flights == 3)
    os.kill(reader.pid, signal.SIGKILL)
    reader.wait()
    source.open_gate()
    waiting.join(20)
    assert data == [source.content()]


def in_child(action) -> None:
    """Run ``action`` in a forked child and fail if it fails there."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(30)
            action()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_forked_child_reads_with_descriptors_of_its_own(cache, source, directory):
    cache.read(source, 0, 10, soon())

    def child() -> None:
        links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        assert not [link for link in links if link.startswith(str(directory))]
        assert cache.statistics().open_parts == 0
        assert cache.read(source, 0, source.size, soon()) == source.content()
        assert bytes(cache.try_read(source, 0, 10)) == source.content(0, 10)

    in_child(child)
    assert cache.read(source, 0, source.size, soon()) == source.content()
    assert source.blocks_requested() == [0, 1, 2, 3]


def test_a_fork_in_the_middle_of_a_fetch(cache, source):
    cache.read(source, source.size - 1, 1, soon())
    source.close_gate()
    data: list[bytes] = []
    reading = threading.Thread(target=lambda: data.append(cache.read(source, 0, 100, soon())))
    reading.start()
    assert source.stalled.acquire(timeout=20)

    def child() -> None:
        # The parent is fetching block 0 and keeps its lock; the child waits for it, as any process would.
        assert cache.read(source, source.size - 1, 1, soon()) == source.content()[-1:]
        source.open_gate()
        assert cache.read(source, 0, 100, soon()) == source.content(0, 100)
        assert cache.statistics().requests == 0

    in_child(child)
    reading.join(20)
    assert data == [source.content(0, 100)]
    assert source.blocks_requested() == [0, 3]


def test_processes_make_a_catalog_once(cache, tmp_path):
    made = tmp_path / "made"

    def load(path: Path) -> None:
        fd = os.open(made, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, b"x")
        os.close(fd)
        path.write_bytes(bytes(BLOCK))

    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.alarm(30)
                assert cache.catalog("a" * 64, load).stat().st_size == BLOCK
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    assert made.read_bytes() == b"x"
