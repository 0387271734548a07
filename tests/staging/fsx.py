"""File system exerciser, after Apple's and NeXT's fsx: random operations on one file, held against a copy in memory.

    python tests/staging/fsx.py FILE [--operations N] [--seed N] [--size BYTES] [--paranoid]

Reads, writes, truncations in both directions, mapped reads and writes, fsync, close and reopen. ``--paranoid`` also
drops the page cache of the file at every reopen. Prints the last operations when the file differs, and exits with 1.
"""

from __future__ import annotations

import argparse
import collections
import mmap
import os
import random
import sys

OPERATIONS = (
    ("read", 20), ("write", 20), ("mapped read", 10), ("mapped write", 15), ("truncate", 8), ("append", 5),
    ("fsync", 1), ("reopen", 4), ("check size", 4),
)  # fmt: skip


class Difference(Exception):
    """The file is not what was written."""


class Exerciser:
    """One file and its shadow."""

    def __init__(self, path, seed, size, paranoid=False):
        self.path, self.limit, self.paranoid = path, size, paranoid
        self.random = random.Random(seed)
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self.shadow = bytearray(os.pread(self.descriptor, 1 << 30, 0))
        self.history = collections.deque(maxlen=20)
        self.kinds, weights = zip(*OPERATIONS, strict=True)
        self.weights = list(weights)

    def run(self, operations):
        """Raises ``Difference``."""
        for _ in range(operations):
            kind = self.random.choices(self.kinds, self.weights)[0]
            getattr(self, kind.replace(" ", "_"))()
        self.check(0, os.pread(self.descriptor, self.limit * 2, 0), len(self.shadow))
        os.close(self.descriptor)

    def span(self, most):
        """A random piece, often at a page's edge."""
        start = self.random.randrange(max(1, most))
        if self.random.random() < 0.3:
            start -= start % 4096
        longest = self.random.choice((16, 4096, 70_000))
        return start, min(most, start + 1 + self.random.randrange(longest))

    def note(self, *what):
        self.history.append(what)

    def check(self, start, found, length):
        expected = bytes(self.shadow[start : start + length])
        if bytes(found) != expected:
            where = next(
                (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), min(len(found), length)
            )
            raise Difference(
                f"at {start + where}: read {bytes(found[where : where + 8]).hex()} ({len(found)} bytes), "
                f"expected {expected[where : where + 8].hex()} ({len(expected)} bytes); {list(self.history)}"
            )

    def data(self, length):
        return self.random.randbytes(length)

    def read(self):
        start, stop = self.span(self.limit)
        self.note("read", start, stop)
        self.check(start, os.pread(self.descriptor, stop - start, start), stop - start)

    def write(self):
        start, stop = self.span(self.limit)
        self.note("write", start, stop)
        data = self.data(stop - start)
        if os.pwrite(self.descriptor, data, start) != len(data):
            raise Difference("short write")
        self.shadow.extend(bytes(max(0, start - len(self.shadow))))
        self.shadow[start:stop] = data

    def append(self):
        size = len(self.shadow)
        length = min(self.limit - size, self.random.randrange(5000))
        self.note("append", length)
        data = self.data(max(0, length))
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, data)
        os.close(descriptor)
        self.shadow += data

    def mapped_read(self):
        if self.shadow:
            start, stop = self.span(len(self.shadow))
            self.note("mapped read", start, stop)
            with mmap.mmap(self.descriptor, len(self.shadow), access=mmap.ACCESS_READ) as area:
                self.check(start, area[start:stop], stop - start)

    def mapped_write(self):
        if self.shadow:
            start, stop = self.span(len(self.shadow))
            self.note("mapped write", start, stop)
            data = self.data(stop - start)
            with mmap.mmap(self.descriptor, len(self.shadow)) as area:
                area[start:stop] = data
                if self.random.random() < 0.5:
                    area.flush()
            self.shadow[start:stop] = data

    def truncate(self):
        size = self.random.randrange(self.limit) if self.random.random() < 0.9 else 0
        self.note("truncate", size)
        os.ftruncate(self.descriptor, size)
        del self.shadow[size:]
        self.shadow.extend(bytes(size - len(self.shadow)))

    def fsync(self):
        self.note("fsync")
        os.fsync(self.descriptor)

    def reopen(self):
        self.note("reopen")
        if self.paranoid:
            os.fsync(self.descriptor)
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(self.descriptor)
        self.descriptor = os.open(self.path, os.O_RDWR)

    def check_size(self):
        self.note("check size")
        size = os.fstat(self.descriptor).st_size
        if size != len(self.shadow):
            raise Difference(f"size {size}, expected {len(self.shadow)}; {list(self.history)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--size", type=int, default=256 << 10)
    parser.add_argument("--paranoid", action="store_true")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    try:
        Exerciser(given.file, given.seed, given.size, given.paranoid).run(given.operations)
    except Difference as error:
        sys.exit(f"DIFFERENT: {error}")
    print(f"{given.operations} operations clean")


if __name__ == "__main__":
    main()
