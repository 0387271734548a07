"""What may stay in memory."""

from __future__ import annotations

import pytest

from artfs.cache import memory
from artfs.cache.memory import Memory, available


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Sets what the kernel says, here and now."""
    for name in ("_MEMINFO", "_CGROUP", "_CGROUPS"):
        monkeypatch.setattr(memory, name, tmp_path / name)
    (tmp_path / "_CGROUPS" / "job").mkdir(parents=True)

    def say(free_kib=None, limit=None):
        if free_kib is not None:
            (tmp_path / "_MEMINFO").write_text(f"MemTotal: 9 kB\nMemAvailable:   {free_kib} kB\n")
        (tmp_path / "_CGROUP").write_text("4:memory:/x\n0::/job\n")
        if limit is not None:
            (tmp_path / "_CGROUPS" / "job" / "memory.max").write_text(f"{limit}\n")

    return say


def test_the_real_machine_has_memory():
    assert available() > 1 << 20


def test_the_least_limit_counts(machine):
    assert available() == 0  # nobody says anything
    machine(free_kib=1000)
    assert available() == 1000 << 10
    machine(limit="max")
    assert available() == 1000 << 10
    machine(limit=5000)
    assert available() == 5000


def test_half_of_it_is_counted_on_and_looked_at_now_and_then(machine, monkeypatch):
    machine(free_kib=1000)
    room = Memory()
    assert room.holds(500 << 10)
    assert not room.holds((500 << 10) + 1)
    machine(free_kib=10)
    assert room.holds(500 << 10)
    monkeypatch.setattr(memory, "_LOOK", -1.0)
    assert not room.holds(500 << 10)
