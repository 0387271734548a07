"""Programs that people run on datasets, over files made for them."""

from __future__ import annotations

import multiprocessing
import random
import subprocess
from pathlib import Path

from harness import read_whole

_ROWS, _COLUMNS = 400_000, 40
_TENSORS = 40
_DIRECTORIES = 20
"""Of 100 files each: what tar and the loader read of the small files."""


def make(root: Path) -> None:
    """A Parquet file of 40 columns and a safetensors file of 40 tensors, 128 and 320 MB."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save_file

    root.mkdir()
    chance = np.random.default_rng(5)
    columns = {f"c{index:02}": chance.random(_ROWS) for index in range(_COLUMNS)}
    pq.write_table(pa.table(columns), root / "table.parquet", row_group_size=50_000, compression="none")
    save_file({f"layer{i:02}": chance.random((1000, 1000)) for i in range(_TENSORS)}, root / "model.safetensors")


def tar(root: Path) -> None:
    """Pack 2,000 small files, in the order in which they lie."""
    command = ["sh", "-c", f"tar cf - $(ls | head -{_DIRECTORIES}) | cat > /dev/null"]  # GNU tar skips /dev/null's work
    subprocess.run(command, cwd=root, check=True)


def loader(root: Path) -> None:
    """An epoch of a training job: 2,000 files in shuffled batches of 32, by four forked workers."""
    names = [f"{index // 100:04}/{index:06}.bin" for index in range(100 * _DIRECTORIES)]
    random.Random(6).shuffle(names)
    batches = [[root / name for name in names[start : start + 32]] for start in range(0, len(names), 32)]
    with multiprocessing.get_context("fork").Pool(4) as pool:
        for _ in pool.imap(_batch, batches):
            pass


def _batch(paths: list[Path]) -> int:
    return sum(map(read_whole, paths))


def parquet(root: Path) -> None:
    """Three columns of forty."""
    import pyarrow.parquet as pq

    table = pq.read_table(root / "table.parquet", columns=["c03", "c17", "c31"], memory_map=False)
    assert table.num_rows == _ROWS


def safetensors(root: Path) -> None:
    """Ten tensors of forty, by mmap."""
    from safetensors import safe_open

    with safe_open(root / "model.safetensors", framework="np") as file:
        for index in range(0, _TENSORS, 4):
            file.get_tensor(f"layer{index:02}").sum()


PROGRAMS = (
    ("tar", "small", tar),
    ("loader of 4 processes", "small", loader),
    ("Parquet, 3 columns of 40", "real", parquet),
    ("safetensors, 10 tensors of 40", "real", safetensors),
)
