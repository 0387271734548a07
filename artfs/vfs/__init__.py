"""What a mount looks like, knowing nothing of FUSE."""

from artfs.vfs.namespace import Namespace
from artfs.vfs.pin import Pin
from artfs.vfs.profiled import ProfiledTree, has_profile
from artfs.vfs.tree import ROOT_INODE, Attributes, Capacity, DirectoryEntry, Tree, WouldBlock
from artfs.vfs.version import VersionTree

__all__ = [
    "ROOT_INODE",
    "Attributes",
    "Capacity",
    "DirectoryEntry",
    "Namespace",
    "Pin",
    "ProfiledTree",
    "Tree",
    "VersionTree",
    "WouldBlock",
    "has_profile",
]
