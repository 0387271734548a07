"""A read-only mount beside rclone's, from one S3 server on loopback: `python bench/mount.py`.

10,000 files of 100 KB and one of 1 GiB; cold (from the server), from the disk cache, from the page cache. Then
logging beside boto3, and a version of 1,000,000 entries. Needs root (to empty the page cache), the packages of the
extra `bench`, and about 8 GB of disk. The order of the contenders changes from round to round.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contenders import Artfs, OtherEngine, Rclone
from harness import (
    MIB,
    Results,
    anonymous_memory,
    drop_caches,
    make_files,
    make_large,
    read_files,
    read_into_memory,
    read_sequentially,
    timed,
)
from many import build_version
from servers.seaweed import SeaweedServer, seaweed_server


def upload_with_boto3(server: SeaweedServer, bucket: str, prefix: str, root: Path, names: list[str]) -> float:
    """boto3.upload_file on 8 threads; seconds."""
    client = server.client()
    with ThreadPoolExecutor(8) as pool:
        return timed(
            lambda: list(pool.map(lambda n: client.upload_file(str(root / n), bucket, f"{prefix}/{n}"), names))
        )


def main() -> None:
    """Run everything and write bench/results/mount.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=1024, help="MiB")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--other-engine", default="pyfuse3", help="engine to run beside the default one")
    parser.add_argument("--directory", help="where to put some 8 GB of files")
    options = parser.parse_args()
    results = Results("Read-only mount")
    with tempfile.TemporaryDirectory(prefix="artfs-bench-", dir=options.directory) as folder:
        scratch = Path(folder)
        with seaweed_server(scratch / "seaweed") as server:
            run(results, scratch, server, options)
    results.save("mount", ratios(results))


def run(results: Results, scratch: Path, server: SeaweedServer, options: argparse.Namespace) -> None:
    """Everything, against one server."""
    small, large = scratch / "small", scratch / "large"
    large.mkdir()
    names = make_files(small, options.files, options.size)
    make_large(large / "file.bin", options.large * MIB)
    artfs = Artfs(scratch, server)
    bucket = server.make_bucket()
    rclone = Rclone(scratch, server, bucket)
    other = OtherEngine(artfs, options.other_engine)
    print("logging", flush=True)
    log(results, artfs, server, small, names, large, options)
    upload_with_boto3(server, bucket, "small", small, names)
    upload_with_boto3(server, bucket, "large", large, ["file.bin"])
    for number in range(options.rounds):
        contenders = [artfs, rclone, other] if number % 2 == 0 else [other, rclone, artfs]
        print(f"round {number + 1} of {options.rounds}", flush=True)
        read_disk(results, small, names, large / "file.bin", options)
        for contender in contenders:
            read(results, contender, names, options, scratch / "seaweed")
    many(results, artfs, options.entries)


def log(
    results: Results, artfs: Artfs, server: SeaweedServer, small: Path, names: list[str], large: Path,
    options: argparse.Namespace,
) -> None:  # fmt: skip
    """``artfs log`` beside boto3; the first round is the version that is mounted, the others go to other stores."""
    for number in range(options.rounds):
        other = artfs if number == 0 else Artfs(scratch_of(artfs, number), server)
        bucket = server.make_bucket()
        for label, root, files in (("small", small, names), ("large", large, ["file.bin"])):
            megabytes = sum((root / name).stat().st_size for name in files) / 1e6
            began = time.perf_counter()
            other.run("log", root, label, "-t", "d")
            results.add("artfs", f"log {label}, MB/s", megabytes / (time.perf_counter() - began))
            seconds = upload_with_boto3(server, bucket, label, root, files)
            results.add("boto3, 8 threads", f"log {label}, MB/s", megabytes / seconds)


def scratch_of(artfs: Artfs, number: int) -> Path:
    """A place for another set-up."""
    place = artfs.home.parent / f"again-{number}"
    place.mkdir()
    return place


def read_disk(results: Results, small: Path, names: list[str], large: Path, options: argparse.Namespace) -> None:
    """The same files on the disk itself."""
    for threads in (1, 8):
        drop_caches()
        results.add("disk", f"disk, {threads} thr, files/s", options.files / read_files(small, names, threads))
        results.add("disk", f"page, {threads} thr, files/s", options.files / read_files(small, names, threads))
    drop_caches()
    results.add("disk", "sequential disk, MB/s", options.large * MIB / 1e6 / read_sequentially(large))
    results.add("disk", "sequential page, MB/s", options.large * MIB / 1e6 / read_sequentially(large))


def read(
    results: Results, contender: Artfs | Rclone, names: list[str], options: argparse.Namespace, server: Path
) -> None:
    """Cold (nothing is on this machine but in the memory of the server), from the disk cache, from the page cache."""
    contender.forget()
    drop_caches()
    read_into_memory(server)
    root = contender.mount("small")
    results.add(contender.name, "cold, 8 thr, files/s", options.files / read_files(root, names, 8))
    contender.unmount()
    for threads in (1, 8):
        root = contender.mount("small")
        drop_caches()
        results.add(contender.name, f"disk, {threads} thr, files/s", options.files / read_files(root, names, threads))
        results.add(contender.name, f"page, {threads} thr, files/s", options.files / read_files(root, names, threads))
        contender.unmount()
    megabytes = options.large * MIB / 1e6
    contender.forget()
    drop_caches()
    read_into_memory(server)
    root = contender.mount("large")
    results.add(contender.name, "sequential cold, MB/s", megabytes / read_sequentially(root / "file.bin"))
    contender.unmount()
    root = contender.mount("large")
    drop_caches()
    results.add(contender.name, "sequential disk, MB/s", megabytes / read_sequentially(root / "file.bin"))
    results.add(contender.name, "sequential page, MB/s", megabytes / read_sequentially(root / "file.bin"))
    contender.unmount()


def many(results: Results, artfs: Artfs, entries: int) -> None:
    """A version of very many entries."""
    build_version(artfs, "many", entries)
    began = time.perf_counter()
    root = artfs.mount("many")
    results.add("artfs", f"mount {entries:,} entries, s", time.perf_counter() - began)
    command = ["find", str(root), "-type", "f"]
    began = time.perf_counter()
    found = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.count(b"\n")
    results.add("artfs", f"find {entries:,} entries, s", time.perf_counter() - began)
    if found != entries:
        raise AssertionError(f"find saw {found} of {entries}")
    results.add("artfs", "daemon after it, anonymous MB", sum(map(anonymous_memory, artfs.pids())) / 1e6)
    artfs.unmount()


def ratios(results: Results) -> list[str]:
    """What the bars are about."""
    lines = []

    ours = [name for name in results.rounds if name.startswith("artfs")]

    def ratio(label: str, column: str, other: str) -> None:
        for name in ours:
            mine, theirs = results.median(name, column), results.median(other, column)
            if mine and theirs:
                lines.append(f"- {label}: {name} {mine / theirs:.2f} x {other}")

    ratio("cold small files", "cold, 8 thr, files/s", "rclone")
    ratio("cold sequential", "sequential cold, MB/s", "rclone")
    ratio("log of small files", "log small, MB/s", "boto3, 8 threads")
    ratio("log of one large file", "log large, MB/s", "boto3, 8 threads")
    for threads in (1, 8):
        for place in ("disk", "page"):
            column = f"{place}, {threads} thr, files/s"
            ratio(f"{place} cache, {threads} threads", column, "disk")
            ratio(f"{place} cache, {threads} threads", column, "rclone")
    ratio("sequential from the disk cache", "sequential disk, MB/s", "rclone")
    return lines


if __name__ == "__main__":
    main()
