"""The cores that a measured process is kept to."""

import os

import pytest

from edgebit.asked_process import cores as cores_module
from edgebit.asked_process.cores import cores_for, pinned


def test_faster_cores_come_first(tmp_path, monkeypatch):
    """By the scheduler's cpu_capacity; one that does not tell counts as slow."""
    cores = sorted(os.sched_getaffinity(0))
    (tmp_path / f"cpu{cores[-1]}").mkdir()
    (tmp_path / f"cpu{cores[-1]}" / "cpu_capacity").write_text("1024\n")
    monkeypatch.setattr(cores_module, "_SYSTEM", tmp_path)

    assert cores_for(1) == [cores[-1]]
    assert sorted(cores_for(10_000)) == cores


def test_pinning_ends_with_its_block():
    """Also after an error."""
    before = os.sched_getaffinity(0)
    with pytest.raises(ZeroDivisionError), pinned(cores_for(1)):
        assert os.sched_getaffinity(0) == set(cores_for(1))
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == before
