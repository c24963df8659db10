"""Targets are read strictly, documented fully, and listed by their folder."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgebit.cli.targets import command
from edgebit.errors import TargetError
from edgebit.resources import targets_dir
from edgebit.targets import CyclesPerWeight, Target, devices, find_target, list_targets, read_target

INVALID = Path(__file__).parent / "invalid"
BOARD = 'description = "A board"\ntriple = "aarch64-linux-gnu"\n'


@pytest.mark.parametrize("path", sorted(INVALID.glob("*.toml")), ids=lambda path: path.stem)
def test_invalid_target_is_refused(path):
    """The first line of each broken file says the words its refusal must hold."""
    promised = path.read_text().splitlines()[0].removeprefix("# ")

    with pytest.raises(TargetError) as refused:
        read_target(path)

    assert promised in str(refused.value)
    assert path.name in str(refused.value)


def test_the_promised_targets_ship():
    """Issue 2 names these three; each is found by its name."""
    shipped = {target.name for target in list_targets()}

    assert {"rpi", "linux-aarch64", "linux-x86_64"} <= shipped
    assert all(find_target(name).name == name for name in shipped)


@pytest.mark.parametrize("path", sorted(targets_dir().glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_target_names_its_sources(path):
    """A figure without a source is a rumour."""
    assert path.read_text().startswith("# Source")


@pytest.mark.parametrize("target", list_targets(), ids=lambda target: target.name)
def test_figures_for_estimates_have_their_sources(target):
    """`edgebit plan` can say where each of them comes from."""
    figures = ("clock_ghz", "read_gb_s", "read_core_gb_s", "idle_w", "load_w")
    given = {figure for figure in figures if getattr(target, figure) is not None}
    if target.cycles_per_weight != CyclesPerWeight():
        given.add("cycles_per_weight")

    assert given <= dict(target.sources).keys()


def test_a_target_stands_for_devices_that_ship():
    """rpi is the Raspberry Pis that have figures; another target is itself."""
    assert [device.name for device in devices(find_target("rpi"))] == ["rpi3", "rpi4", "rpi5"]
    assert devices(find_target("rpi5")) == [find_target("rpi5")]


def test_big_cores_get_the_threads(tmp_path):
    """Of a big.LITTLE chip, as `default_threads` has it on the device."""
    path = tmp_path / "rock5.toml"
    path.write_text(BOARD + "cores = 8\nbig_cores = 4\nclock_ghz = 2.3\n[cycles_per_weight]\ngemv_t2 = 0.08\n")

    target = find_target(str(path))

    assert (target.worker_cores, target.cycles_per_weight.gemv_t2, target.cycles_per_weight.gemv_t1) == (4, 0.08, None)
    assert find_target("rpi5").worker_cores == 4


def test_every_key_is_documented():
    """The table in targets/README.md and the dataclass have the same keys."""
    documented = set(re.findall(r"^\| `(\w+)` \|", (targets_dir() / "README.md").read_text(), re.MULTILINE))

    assert documented == {field.name for field in dataclasses.fields(Target)} - {"name"}


def test_own_target_is_read_from_its_path(tmp_path):
    """A user's board is a TOML file anywhere; its name is the file's."""
    path = tmp_path / "my-board.toml"
    path.write_text(BOARD + 'features = ["neon", "dotprod"]\nthrottle_c = 85\n')

    target = find_target(str(path))

    assert (target.name, target.arch, target.features, target.throttle_c) == (
        "my-board", "aarch64", ("neon", "dotprod"), 85,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["nope", "../targets/nope", "no/such.toml", "RPI", "", "README"])
def test_unknown_target_is_refused(name):
    """A name that is none says so, whatever it looks like."""
    with pytest.raises(TargetError, match=r"no target|no such file"):
        find_target(name)


def test_file_may_not_be_called_host(tmp_path):
    """host is this machine and nothing else."""
    path = tmp_path / "host.toml"
    path.write_text(BOARD)

    with pytest.raises(TargetError, match="host"):
        read_target(path)


def test_host_is_this_machine():
    """The host target needs no file and its library is the installed one."""
    host = find_target("host")

    assert host.is_host
    assert not find_target("rpi").is_host


def test_list_and_show_as_json():
    """Scripts get the same content as people."""
    listed = json.loads(CliRunner().invoke(command, ["--json"], catch_exceptions=False).output)
    shown = json.loads(CliRunner().invoke(command, ["show", "rpi", "--json"], catch_exceptions=False).output)

    assert shown in listed
    assert shown["triple"] == "aarch64-linux-gnu"


def test_show_gives_units():
    """People see what a figure is in."""
    output = CliRunner().invoke(command, ["show", "rpi"], catch_exceptions=False).output

    assert "512 MiB" in output
    assert "80 °C" in output


def test_show_gives_figures_with_their_sources():
    """What an estimate is made from, and where that is from."""
    output = CliRunner().invoke(command, ["show", "rpi5"], catch_exceptions=False).output

    assert re.search(r"read_gb_s +11\.4 to 14\.9 GB/s, all cores", output)
    assert re.search(r"load_w is from: .*top500-benchmark", output)
