"""Which kernel this is."""

from __future__ import annotations

import os
import re


def kernel_version() -> tuple[int, int]:
    """Its version and patch level, (0, 0) if its name does not tell."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
