"""Threads by default: the big cores of a big.LITTLE chip, all cores of any other."""

import os

from edgebit.runtime.cores import default_threads


def test_little_cores_are_left_out(tmp_path, monkeypatch):
    """An RK3588's four A76 (1024) count, its four A55 (530) do not."""
    for core in range(8):
        folder = tmp_path / f"cpu{core}"
        folder.mkdir()
        (folder / "cpu_capacity").write_text("530\n" if core < 4 else "1024\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert default_threads(tmp_path) == 4


def test_without_figures_every_allowed_core_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 3})
    assert default_threads(tmp_path) == 2
