"""The roofline as a table: what bounds a step, and which layout that makes the faster one."""

import pytest

from edgebit.roofline import (
    ENGINE_SHARE,
    Machine,
    Part,
    Range,
    bandwidth,
    choose_layout,
    choose_layout_on,
    estimate,
    machine_of,
)
from edgebit.targets import find_target

GB = 1e9


def machine(read=None, core=None, cores=4, **weights_s):
    """Of exact figures: low and high are the same."""
    return Machine(
        cores=cores,
        read_bytes_s=None if read is None else Range(read * GB, read * GB),
        core_read_bytes_s=None if core is None else Range(core * GB, core * GB),
        weights_s={op: Range(rate * GB, rate * GB) for op, rate in weights_s.items()},
    )


@pytest.mark.parametrize(
    ("read", "core", "threads", "expected"),
    [
        (12, 5, 1, 5),
        (12, 5, 2, 10),
        (12, 5, 4, 12),
        (12, None, 1, 12),
        (None, 5, 1, 5),
        (None, 5, 2, None),
        (None, None, 4, None),
        (11, 15, 1, 15),  # one core alone may read more than four that get in each other's way
    ],
)
def test_bandwidth_grows_with_threads_up_to_the_machines_own(read, core, threads, expected):
    """One core's figure times the threads, and no more than all cores have together."""
    found = bandwidth(machine(read, core), threads)

    assert found == (None if expected is None else Range(expected * GB, expected * GB))


@pytest.mark.parametrize(
    ("n_bytes", "weights", "batch", "seconds", "bound"),
    [
        (10 * GB, 8 * GB, 1, 1.0, "memory"),  # 10 GB at 10 GB/s; 8 billion weights at 4 x 4 billion: 0.5 s
        (10 * GB, 32 * GB, 1, 2.0, "cycles"),
        (10 * GB, 8 * GB, 64, 0.5, "cycles"),  # a batch reads once and computes for each token
        (10 * GB, 0, 64, 1 / 64, "memory"),
    ],
)
def test_a_part_takes_as_long_as_the_slower_of_the_two(n_bytes, weights, batch, seconds, bound):
    """max(bytes / bandwidth, weights / (threads x rate))."""
    part = Part(name="a", n_bytes=int(n_bytes), weights=int(weights), op="gemv_t2")

    found = estimate(machine(10, gemv_t2=4), [part], 4, batch=batch)

    assert found.tokens_s == pytest.approx(Range(1 / seconds, 1 / seconds))
    assert (found.bounds, found.missing) == ({"a": bound}, ())


def test_parts_follow_one_another():
    """Times add up, and a part whose cycles are not known is taken as bound by memory, and named."""
    parts = [
        Part(name="a", n_bytes=int(10 * GB), weights=int(32 * GB), op="gemv_t2"),
        Part(name="b", n_bytes=int(5 * GB), weights=int(99 * GB), op="gemv_h4"),
        Part(name="c", n_bytes=int(5 * GB)),
    ]

    found = estimate(machine(10, gemv_t2=4), parts, 4)

    assert found.tokens_s == pytest.approx(Range(1 / 3, 1 / 3))
    assert found.missing == ("gemv_h4",)


def test_more_threads_than_cores_compute_no_more():
    """They share the cores."""
    part = Part(name="a", n_bytes=1, weights=int(16 * GB), op="gemv_t2")

    assert estimate(machine(10, gemv_t2=4), [part], 8).tokens_s == estimate(machine(10, gemv_t2=4), [part], 4).tokens_s


def test_a_range_goes_through():
    """The slow end is made of the low figures, the fast one of the high ones."""
    slow_or_fast = Machine(cores=1, read_bytes_s=Range(5 * GB, 10 * GB), weights_s={"gemv_t2": Range(2 * GB, 8 * GB)})
    part = Part(name="a", n_bytes=int(10 * GB), weights=int(8 * GB), op="gemv_t2")

    assert estimate(slow_or_fast, [part], 1).tokens_s == pytest.approx(Range(1 / 4, 1))


def test_nothing_is_estimated_without_a_bandwidth():
    """Not known is not known."""
    assert estimate(machine(None), [Part(name="a", n_bytes=1)], 1) is None


@pytest.mark.parametrize(
    ("read", "t2", "t1", "layout"),
    [
        (10, 100, 100, "t1"),  # bound by memory: fewer bytes are faster
        (100, 30, 20, "t2"),  # bound by cycles
        (10, 40, 40, "t2"),  # equal: the simpler one
        (10, 100, 40.1, "t2"),  # a hair is no difference
    ],
)
def test_the_faster_layout_is_chosen(read, t2, t1, layout):
    """Bandwidth against cycles."""
    choice = choose_layout_on({"board": machine(read, gemv_t2=t2 / 4, gemv_t1=t1 / 4)})

    assert choice.layout == layout
    assert "board" in choice.reason


def test_of_several_devices_the_least_greatest_loss_decides():
    """t1 wins a little on one and loses much on the other."""
    wins = machine(10, gemv_t2=100, gemv_t1=100)  # t1 is 1.2 times as fast
    loses = machine(100, gemv_t2=3, gemv_t1=1)  # t1 takes three times as long

    assert choose_layout_on({"a": wins}).layout == "t1"
    assert choose_layout_on({"a": wins, "b": loses}).layout == "t2"
    assert choose_layout_on({"a": wins, "c": machine(None)}).layout == "t1"


def test_threads_decide_too():
    """One thread computes less than the memory could give; four can use all of it."""
    one_or_four = machine(10, core=10, gemv_t2=20, gemv_t1=16)

    assert choose_layout_on({"board": one_or_four}, threads=1).layout == "t2"
    assert choose_layout_on({"board": one_or_four}, threads=4).layout == "t1"


@pytest.mark.parametrize("name", ["linux-x86_64", "linux-aarch64", "host"])
def test_a_target_without_figures_gets_t2_and_a_reason(name):
    """The layout that takes the fewest cycles."""
    choice = choose_layout(find_target(name))

    assert (choice.layout, choice.is_estimated) == ("t2", False)
    assert "not known" in choice.reason


@pytest.mark.parametrize("name", ["rpi", "rpi-zero2w", "rpi3", "rpi4", "rpi5"])
def test_raspberry_pis_get_the_dense_layout(name):
    """Their four cores unpack faster than their memory gives."""
    choice = choose_layout(find_target(name))

    assert choice.layout == "t1"
    assert "billion weights a second" in choice.reason


def test_the_low_end_is_the_engines_share(tmp_path):
    """Of bandwidth and of cycles."""
    path = tmp_path / "board.toml"
    path.write_text(
        'description = "x"\ntriple = "aarch64-linux-gnu"\ncores = 2\nclock_ghz = 2.0\nread_gb_s = [4, 5]\n'
        "[cycles_per_weight]\ngemv_t2 = 0.5\n"
    )
    found = machine_of(find_target(str(path)))

    assert found.read_bytes_s == pytest.approx((ENGINE_SHARE * 4e9, 5e9))
    assert found.weights_s["gemv_t2"] == pytest.approx((ENGINE_SHARE * 4e9, 4e9))


def test_the_reason_is_also_said_in_few_words():
    """Which the first line of a build has room for; a machine that loses by it is named too."""
    wins, loses = machine(10, gemv_t2=25, gemv_t1=25), machine(100, gemv_t2=8, gemv_t1=7.5)

    assert choose_layout(find_target("rpi")).summary == "the fastest on rpi-zero2w, rpi3, rpi4, rpi5"
    assert (
        choose_layout_on({"a": wins, "b": loses, "c": machine(None)}).summary
        == "the fastest on a, not the fastest on b (7% behind), not known for c"
    )
    assert choose_layout(find_target("host")).summary == (
        "bandwidth and cycles of host are not known, and t2 takes the fewest cycles"
    )
