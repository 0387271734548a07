"""A writable mount beside the disk, rclone's and JuiceFS's: `python bench/staging.py`.

Writing 1 GiB in 1 MiB requests; creating 10,000 files of 4 KB; unmounting after changing 100 of 10,000 files. Needs
root, the packages of the extra `bench`, and about 6 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from contenders import WritableArtfs, WritableJuiceFS, WritableRclone
from harness import MIB, Results, make_files
from servers.seaweed import seaweed_server


def write_large(path: Path, size: int) -> float:
    """Write in 1 MiB requests and close; MB/s. What a file system does after close is its own affair."""
    block = os.urandom(MIB)
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(size // MIB):
            file.write(block)
    return size / 1e6 / (time.perf_counter() - began)


def create_small(root: Path, count: int) -> float:
    """Create files of 4 KB; files/s."""
    data = os.urandom(4096)
    for index in range(0, count, 100):
        (root / f"{index // 100:04}").mkdir()
    began = time.perf_counter()
    for index in range(count):
        descriptor = os.open(root / f"{index // 100:04}" / f"{index:06}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(descriptor, data)
        os.close(descriptor)
    return count / (time.perf_counter() - began)


def main() -> None:
    """Run everything and write bench/results/staging.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=1024, help="MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", help="where to put some 6 GB of files")
    options = parser.parse_args()
    results = Results("Writable mount")
    with tempfile.TemporaryDirectory(prefix="artfs-bench-", dir=options.directory) as folder:
        scratch = Path(folder)
        with seaweed_server(scratch / "seaweed") as server:
            artfs = WritableArtfs(scratch, server)
            contenders = [artfs, WritableRclone(scratch, server, server.make_bucket())]
            if Path(sys.executable).with_name("juicefs").exists():
                contenders.append(WritableJuiceFS(scratch, server, server.make_bucket()))
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}", flush=True)
                on_disk(results, scratch / f"disk{number}", options)
                for contender in contenders if number % 2 == 0 else contenders[::-1]:
                    write(results, contender, f"round{number}", options)
                    if contender is artfs:
                        artfs.run("umount", artfs.mountpoint)
                    else:
                        contender.unmount()
                change_some(results, artfs, scratch / f"base{number}", number)
    results.save("staging", ratios(results))


def on_disk(results: Results, root: Path, options: argparse.Namespace) -> None:
    """The disk itself."""
    os.sync()  # what the last one left in memory is no burden of the next
    root.mkdir()
    results.add("disk", "write 1 GiB, MB/s", write_large(root / "large", options.large * MIB))
    results.add("disk", "create 4 KB, files/s", create_small(root, options.files))


def write(
    results: Results,
    contender: WritableArtfs | WritableRclone | WritableJuiceFS,
    name: str,
    options: argparse.Namespace,
) -> None:
    """The same through a mount."""
    os.sync()
    root = contender.mount_writable(name)
    results.add(contender.name, "write 1 GiB, MB/s", write_large(root / "large", options.large * MIB))
    results.add(contender.name, "create 4 KB, files/s", create_small(root, options.files))


def change_some(results: Results, artfs: WritableArtfs, source: Path, number: int) -> None:
    """Change 100 of 10,000 files; how long unmounting takes, and how much is uploaded for it."""
    names = make_files(source, 10_000, 4096, seed=number)
    artfs.run("log", source, f"changed{number}", "-t", "dataset")
    root = artfs.mount_writable(f"changed{number}")
    changed = 0
    for name in names[::100]:
        data = os.urandom(8192)
        (root / name).write_bytes(data)
        changed += len(data)
    before = artfs.drafts()
    began = time.perf_counter()
    artfs.run("umount", artfs.mountpoint)
    results.add("artfs", "unmount after 100 changes, s", time.perf_counter() - began)
    (draft,) = artfs.drafts() - before
    stored = json.loads(artfs.run("info", "--json", draft))["stored"]
    print(f"  changed {changed} bytes, stored {stored}")


def ratios(results: Results) -> list[str]:
    """What the bars are about."""
    lines = []
    for column in ("write 1 GiB, MB/s", "create 4 KB, files/s"):
        for other in ("disk", "rclone", "juicefs"):
            ours, theirs = results.median("artfs", column), results.median(other, column)
            if ours and theirs:
                lines.append(f"- {column.split(',')[0]}: {ours / theirs:.2f} x {other}")
    return lines


if __name__ == "__main__":
    main()
