"""Named points at which a test can end the process, so that every order of a crash can be tried.

``ARTFS_FAULT=name`` in the environment kills the process with SIGKILL when it comes to that point, ``name:3`` when it
comes there for the third time. Without it a point costs a function call.
"""

from __future__ import annotations

import itertools
import os
import signal

_name, _, _count = os.environ.get("ARTFS_FAULT", "").partition(":")
_visits = itertools.count(1)


def fault_point(name: str) -> None:
    """Die here, if the environment says so."""
    if name == _name and next(_visits) == int(_count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
