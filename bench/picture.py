"""A picture of what was measured: one panel a measurement, a bar for each contender."""

from __future__ import annotations

from pathlib import Path

from harness import Results

PANELS = (
    "cold 8 thr, files/s", "disk 1 thr, files/s", "disk 8 thr, files/s", "disk 4 proc, files/s",
    "page 1 thr, files/s", "page 8 thr, files/s", "sequential cold, MB/s", "sequential disk, MB/s",
    "sequential page, MB/s", "random 64 KiB cold, reads/s", "random 64 KiB disk, reads/s", "tar, cold s",
    "loader of 4 processes, cold s", "Parquet, 3 columns of 40, cold s", "safetensors, 10 tensors of 40, cold s",
    "find of 100,000 entries, s",
)  # fmt: skip
OURS, OTHERS, DISK = "#1b6ca8", "#b8bdc4", "#3d4148"


def draw(results: Results, path: Path) -> None:
    """Write the picture; seconds are better where they are few, everything else where it is much."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = [panel for panel in PANELS if any(panel in row for row in results.rounds.values())]
    columns = 4
    figure, axes = plt.subplots(-(-len(panels) // columns), columns, figsize=(16, 3 * -(-len(panels) // columns)))
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, panel in zip(axes.flat, panels, strict=False):
        bars = [(row, value) for row in results.rounds if (value := results.median(row, panel)) is not None]
        names = [row for row, _ in bars]
        colours = [OURS if row.startswith("artfs") else DISK if row == "disk" else OTHERS for row in names]
        shown = axis.barh(names, [value for _, value in bars], color=colours)
        axis.bar_label(
            shown, fmt="{:,.0f}" if max(value for _, value in bars) >= 100 else "{:,.1f}", padding=3, fontsize=8
        )
        axis.invert_yaxis()
        axis.margins(x=0.2)
        axis.set_title(panel + (" (less is better)" if panel.endswith(" s") else ""), fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
        axis.xaxis.set_visible(False)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
