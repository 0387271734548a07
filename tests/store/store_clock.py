"""Deadlines for tests."""

import time


def soon(seconds: float = 20.0) -> float:
    """A deadline that is met unless something hangs."""
    return time.monotonic() + seconds
