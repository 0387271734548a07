"""The Python API beside boto3, from one S3 server on loopback: `python bench/sdk.py`.

``log_artifact`` and ``download`` of 10,000 files of 100 KB and of one of 1 GiB, digests included, with the store on the
server and in a local directory; boto3's upload_file and download_file on 8 threads do the same to the server. Then
100,000 references with ``checksum=False``, and the memory for 1,000,000 entries. Needs the packages of the extra
`bench` and about 8 GB of disk; the order of the contenders changes from round to round.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import Results, drop_caches, make_files, make_large, timed
from servers.seaweed import SeaweedServer, seaweed_server

THREADS = 8

# In a process of its own, which has nothing in memory: as a user's program begins.
LOG = """
import artfs, json, sys, time
began = time.perf_counter()
artifact = artfs.Artifact(sys.argv[2], "dataset")
artifact.add_dir(sys.argv[1])
artfs.log_artifact(artifact)
print(json.dumps(time.perf_counter() - began))
"""
DOWNLOAD = """
import artfs, json, sys, time
began = time.perf_counter()
artfs.Api().artifact(sys.argv[2]).download(sys.argv[1])
print(json.dumps(time.perf_counter() - began))
"""
REFERENCES = """
import artfs, json, resource, sys, time
count = int(sys.argv[1])
artifact = artfs.Artifact("references", "dataset")
began = time.perf_counter()
for index in range(count):
    uri = f"s3://bucket/prefix/{index // 1000:04}/{index:07}.jpg"
    artifact.add_reference(uri, name=f"{index // 1000:04}/{index:07}.jpg", checksum=False)
added = time.perf_counter() - began
artfs.log_artifact(artifact)
assert sum(1 for _ in artifact.manifest.entries.values()) == count
artifact.new_draft()
print(json.dumps([added, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


class Artfs:
    """The contender, with its store on the server or in a directory."""

    def __init__(self, name: str, scratch: Path, server: SeaweedServer | None) -> None:
        self.name = name
        self.home = scratch / name.replace(" ", "-")
        self.environment = os.environ | {"ARTFS_HOME": str(self.home), "ARTFS_ENTITY": "bench"}
        if server is not None:
            self.environment |= server.environment() | {"ARTFS_STORE_URL": f"s3://{server.make_bucket()}/store"}
        self.run("import artfs; artfs.init().finish(); print('null')")  # makes the registry

    def run(self, program: str, *arguments: object) -> object:
        command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
        done = subprocess.run(command, env=self.environment, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout)

    def upload(self, source: Path, name: str) -> float:
        return float(str(self.run(LOG, source, name)))

    def download(self, target: Path, name: str) -> float:
        shutil.rmtree(self.home / "cache", ignore_errors=True)
        return float(str(self.run(DOWNLOAD, target, name)))


class Boto3:
    """upload_file and download_file on 8 threads, one object a file, at their own defaults."""

    name = "boto3"

    def __init__(self, server: SeaweedServer) -> None:
        self.client = server.client()
        self.bucket = server.make_bucket()

    def each(self, work, names: list[str]) -> float:
        with ThreadPoolExecutor(THREADS) as pool:
            return timed(lambda: list(pool.map(work, names)))

    def upload(self, source: Path, name: str) -> float:
        names = [str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()]
        return self.each(lambda path: self.client.upload_file(str(source / path), self.bucket, f"{name}/{path}"), names)

    def download(self, target: Path, name: str) -> float:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{name}/")
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]

        def fetch(key: str) -> None:
            path = target / key.removeprefix(f"{name}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            self.client.download_file(self.bucket, key, str(path))

        return self.each(fetch, keys)


def settle() -> None:
    """Let writes reach the disk, and reads come from it, where that is permitted."""
    if os.geteuid() == 0:
        drop_caches()
    else:
        os.sync()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=100_000, help="bytes of a small file")
    parser.add_argument("--large", type=int, default=1 << 30, help="bytes of the large file")
    parser.add_argument("--references", type=int, default=100_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    results = Results("The Python API: log_artifact and download (MB/s)")
    with tempfile.TemporaryDirectory(prefix="artfs-bench-") as directory:
        scratch = Path(directory)
        with seaweed_server(scratch / "server") as server:
            contenders = [
                Artfs("artfs", scratch, server),
                Boto3(server),
                Artfs("artfs local store", scratch, None),
            ]
            for turn in range(options.rounds):
                order = contenders[turn % 3 :] + contenders[: turn % 3]
                measure(results, order, scratch, options, turn)
        local = contenders[-1]
        assert isinstance(local, Artfs)
        added, _ = local.run(REFERENCES, options.references)
        results.add(f"add {options.references:,} references", "seconds", added)
        _, memory = local.run(REFERENCES, options.entries)
        results.add(f"{options.entries:,} entries: add, log, list, new_draft", "MB resident at most", memory)
    content = f"{options.files:,} files of {options.size:,} bytes and one of {options.large / 1e6:,.0f} MB."
    how = "artfs: in a fresh process, digests and checks included, the cache emptied before a download."
    notes = [f"{content} {how} boto3: {THREADS} threads."]
    print(results.markdown(notes)) if options.no_save else results.save("sdk", notes)


def measure(
    results: Results, order: list[Artfs | Boto3], scratch: Path, options: argparse.Namespace, turn: int
) -> None:
    sources = {"small files": scratch / "small", "large file": scratch / "large"}
    for path in sources.values():
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    # New content in every round: what is known is not stored again.
    make_files(sources["small files"], options.files, options.size, seed=10 * turn + 1)
    make_large(sources["large file"] / "large.bin", options.large, seed=10 * turn + 2)
    for what, source in sources.items():
        size = options.files * options.size if what == "small files" else options.large
        name = f"{source.name}-{turn}"
        for contender in order:
            settle()
            results.add(f"{what}, up", contender.name, size / 1e6 / contender.upload(source, name))
        for contender in order:
            target = scratch / "out"
            settle()
            results.add(f"{what}, down", contender.name, size / 1e6 / contender.download(target, name))
            check(source, target)
            shutil.rmtree(target)


def check(source: Path, target: Path) -> None:
    """Whether everything arrived: by number and size, artfs has compared the content itself."""
    listings = [
        sorted((str(path.relative_to(top)), path.stat().st_size) for path in top.rglob("*") if path.is_file())
        for top in (source, target)
    ]
    assert listings[0] == listings[1], "what was downloaded is not what was uploaded"


if __name__ == "__main__":
    main()
