"""Golden probes of models of any size, through a program that says what it was given."""

import dataclasses

import pytest

from edgebit import probe_runs
from edgebit.probe_runs import check_model_probes
from edgebit.targets import find_target, host_target


@pytest.fixture
def runner(tmp_path):
    """Stands for edgebit-run: prints the name of the model and the ISA level it was asked for."""
    program = tmp_path / "edgebit-run"
    program.write_text('#!/bin/sh\necho "$(basename "$1") ${EDGEBIT_ISA:-best}"\n')
    program.chmod(0o755)
    return program


def test_a_small_model_runs_its_own_probes(runner, tmp_path):
    checks = check_model_probes(runner, tmp_path / "small.ebm", 1000, host_target())
    assert [check.detail for check in checks] == ["small.ebm best", "small.ebm scalar"]


def test_a_large_model_is_stood_in_for_at_the_slow_levels(native, runner, tmp_path):
    """Its own probes run at this machine's best level, the shipped model's at each."""
    checks = check_model_probes(runner, tmp_path / "large.ebm", probe_runs.EMULATED_MODEL_MAX + 1, host_target())
    assert [check.detail for check in checks] == ["demo.ebm best", "demo.ebm scalar", "large.ebm best"]
    assert "shipped model" in checks[0].name


def test_a_large_model_for_another_architecture_says_where_its_probes_run(native, runner, tmp_path):
    """What did not run is said, never counted as passed."""
    other = "linux-aarch64" if host_target().arch != "aarch64" else "linux-x86_64"
    target = dataclasses.replace(find_target(other), emulate_cpus=())
    checks = check_model_probes(runner, tmp_path / "large.ebm", probe_runs.EMULATED_MODEL_MAX + 1, target)
    assert checks[-1].status == "not run"
    assert "the device runs them" in checks[-1].detail
