"""One version's whole tree in one SQLite file: build, read, diff; import and export W&B's v1 manifest."""

from artfs.catalog.build import CatalogBuilder, Summary
from artfs.catalog.diff import Change, Difference, diff
from artfs.catalog.entry import Entry, Extent, Kind, PackInfo, Reference, bounded_time
from artfs.catalog.read import Catalog, Node, Slice

__all__ = [
    "Catalog",
    "CatalogBuilder",
    "Change",
    "Difference",
    "Entry",
    "Extent",
    "Kind",
    "Node",
    "PackInfo",
    "Reference",
    "Slice",
    "Summary",
    "bounded_time",
    "diff",
]
