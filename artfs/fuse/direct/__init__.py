"""The direct engine: read-only mounts served by several processes that speak the kernel's protocol on /dev/fuse.

``protocol`` has the layouts, ``dispatch`` makes a reply of a request, ``worker`` is one serving process, ``session``
mounts, ``supervisor`` starts the workers and replaces those that die, ``board`` is the memory that they all share.
"""
