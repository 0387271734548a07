"""Runs a workload on a staging area until it is done or killed, and says after every operation that it is done.

``python staging_child.py DIRECTORY SEED COUNT``: DIRECTORY holds a ``Stage`` that was made and closed.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
from pathlib import Path

BASE = {f"d{d}/f{f}": bytes([d * 10 + f]) * size for d in range(3) for f, size in enumerate((0, 100, 5000, 40_000))}


def workload(seed, count):
    """The same operations every time: (method of Stage, arguments)."""
    rng = random.Random(seed)
    names = [f"d{d}/{kind}{f}" for d in range(3) for kind in "fg" for f in range(4)]
    for index in range(count):
        a, b = rng.choice(names), rng.choice(names)
        data = bytes([1 + index % 255]) * rng.choice((1, 300, 10_000))
        offset = rng.choice((0, 50, 4096, 39_999))
        yield rng.choice(
            [
                ("create", a), ("put", a, data), ("write", a, offset, data), ("write", b, offset, data),
                ("truncate", a, offset), ("truncate", b, 0), ("rename", a, b), ("link", a, b), ("unlink", a),
                ("mkdir", f"d{rng.randrange(3)}/sub"), ("rename", "d0", "d3"), ("rename", "d3", "d0"),
                ("chmod", a, 0o600), ("utime", b, 1_000_000_000_000_000_000 + index), ("symlink", "x", a),
                ("sync",),
            ]
        )  # fmt: skip


def run(stage, operation):
    """One operation; what is refused is refused every time."""
    method, *arguments = operation
    with contextlib.suppress(OSError):
        (stage.tree.sync if method == "sync" else getattr(stage, method))(*arguments)


if __name__ == "__main__":
    from staging_base import Stage

    stage = Stage.resume(Path(sys.argv[1]))
    for operation in workload(int(sys.argv[2]), int(sys.argv[3])):
        run(stage, operation)
        os.write(1, b".")
    os._exit(0)  # as if killed: nothing is closed
