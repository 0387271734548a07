"""The writable mount: a staging area over a base version, and the file system in it. Knows nothing of FUSE."""

from artfs.staging.area import Area, Facts, areas, create_area, holder
from artfs.staging.tree import StagingStatistics, StagingTree

__all__ = ["Area", "Facts", "StagingStatistics", "StagingTree", "areas", "create_area", "holder"]
