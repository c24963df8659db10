"""The C checks at each ISA level: every micro-kernel equals the scalar one, the engine's parts do what they say."""

from collections.abc import Callable
from typing import NoReturn

import pytest

from edgebit.probe_runs import LEVELS
from edgebit.targets import host_target
from tests.kernels.conftest import CheckBuild

AARCH64_LEVELS = [("scalar", "max"), ("neon", "cortex-a53"), ("dotprod", "cortex-a76"), ("i8mm", "max")]


@pytest.mark.parametrize("isa", LEVELS[host_target().arch])
def test_host_micro_kernels_equal_the_scalar_ones(
    isa: str, isa_levels: list[str], skip: Callable[[str], NoReturn], check_build: Callable[[str], CheckBuild]
):
    """At each ISA level of the library, all rows of ukernels.inc that it may use; one that the CPU lacks is counted."""
    if isa not in isa_levels:
        skip(f"this CPU has no {isa}: nothing here is tested at that level")

    assert f"equal the scalar ones ({isa})" in check_build("host").run("checks/check_ukernels", isa=isa)


def test_engine_parts_hold_on_this_machine(check_build: Callable[[str], CheckBuild]):
    """Float operations against libm and their golden bits, hostile numbers, thread pool, sampler, host table."""
    assert "all checks hold" in check_build("host").run("checks/check_engine")


@pytest.mark.slow
def test_checks_hold_under_address_and_undefined_behaviour_sanitizers(check_build: Callable[[str], CheckBuild]):
    """No access outside of a buffer, no undefined conversion, shift or overflow."""
    build = check_build("sanitized")

    assert "equal the scalar ones" in build.run("checks/check_ukernels")
    assert "all checks hold" in build.run("checks/check_engine")


@pytest.mark.slow
def test_the_thread_pool_has_no_race(check_build: Callable[[str], CheckBuild]):
    """ThreadSanitizer over thousands of jobs on one to five threads."""
    assert "all checks hold" in check_build("threads").run("checks/check_engine")


@pytest.mark.slow
@pytest.mark.parametrize(("isa", "cpu"), AARCH64_LEVELS)
def test_aarch64_micro_kernels_equal_the_scalar_ones(isa: str, cpu: str, check_build: Callable[[str], CheckBuild]):
    """The NEON, dotprod and i8mm rows, on an emulated core that they are for."""
    found = check_build("aarch64").run("checks/check_ukernels", isa=isa, cpu=cpu)

    assert f"equal the scalar ones ({isa})" in found


@pytest.mark.slow
def test_engine_parts_hold_on_aarch64(check_build: Callable[[str], CheckBuild]):
    """The same golden bits as on this machine."""
    assert "all checks hold" in check_build("aarch64").run("checks/check_engine", cpu="cortex-a53")


@pytest.mark.slow
def test_a_core_without_dotprod_refuses_it(check_build: Callable[[str], CheckBuild]):
    """EDGEBIT_ISA is a mask and never a wish."""
    build = check_build("aarch64")

    assert build.run("edgebit-run", "--isa", cpu="cortex-a53") == "neon (of: scalar neon dotprod i8mm)\n"
    with pytest.raises(AssertionError, match="dotprod was asked for, and this CPU does not have it"):
        build.run("edgebit-run", "--isa", isa="dotprod", cpu="cortex-a53")
