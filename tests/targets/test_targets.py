"""Targets are read strictly, documented fully, and listed by their folder."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from edgebit import targets
from edgebit.cli import cli
from edgebit.cli.targets import command, complete_target
from edgebit.cross.native import plan
from edgebit.cross.toolchain import Toolchain
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


@pytest.fixture(autouse=True)
def no_own_targets(monkeypatch, tmp_path):
    """Whoever runs the tests may have targets of their own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("EDGEBIT_TARGETS", raising=False)


PROMISED = {"rpi", "rpi3", "rpi4", "rpi5", "rpi-zero2w", "android", "rk3588", "jetson-orin",
            "linux-aarch64", "linux-x86_64"}  # fmt: skip


def test_the_promised_targets_ship():
    """Each is found by its name, and lies where it says."""
    shipped = {target.name: target for target in list_targets()}

    assert shipped.keys() >= PROMISED
    assert all(find_target(name) == target for name, target in shipped.items())
    assert all(target.path == targets_dir().resolve() / f"{name}.toml" for name, target in shipped.items())


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
    """rpi is the Raspberry Pis of each kind; another target is itself."""
    assert [device.name for device in devices(find_target("rpi"))] == ["rpi-zero2w", "rpi3", "rpi4", "rpi5"]
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

    assert documented == {field.name for field in dataclasses.fields(Target)} - {"name", "path"}


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


def test_the_nearest_target_is_suggested():
    """And all are named."""
    with pytest.raises(TargetError, match=r"'rk3589': did you mean rk3588\? There are android, .*host\."):
        find_target("rk3589")


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


@pytest.mark.parametrize("arguments", [["list", "--json"], ["--json", "list"], ["list"]])
def test_list_is_what_the_command_alone_gives(arguments):
    """As it is with the images and the keys."""
    alone = [argument for argument in arguments if argument != "list"]

    assert CliRunner().invoke(command, arguments).output == CliRunner().invoke(command, alone).output


def test_show_gives_units():
    """People see what a figure is in."""
    output = CliRunner().invoke(command, ["show", "rpi"], catch_exceptions=False).output

    assert "512 MiB" in output
    assert "80 °C" in output


def test_show_gives_every_key():
    """Whatever a target's file may say has its line, known or not."""
    output = CliRunner().invoke(command, ["show", "android"], catch_exceptions=False).output

    shown = set(re.findall(r"^  (\w+) ", output, re.MULTILINE))
    others = {"name", "path", "description", "sources"}
    assert shown - {"file"} == {field.name for field in dataclasses.fields(Target)} - others
    assert re.search(r"api_level +24", output)


def test_show_gives_figures_with_their_sources():
    """What an estimate is made from, and where that is from."""
    output = CliRunner().invoke(command, ["show", "rpi5"], catch_exceptions=False).output

    assert re.search(r"read_gb_s +11\.4 to 14\.9 GB/s, all cores", output)
    assert re.search(r"load_w is from: .*top500-benchmark", output)


# ---- a user's own ----


def run(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, args, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def own_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "config" / "edgebit" / "targets"
    folder.mkdir(parents=True)
    return folder


def completed(text: str) -> list[str]:
    """What the Tab key offers after `edgebit build --target TEXT`."""
    return [item.value for item in complete_target(click.Context(cli), click.Option(["--target"]), text)]


@pytest.mark.parametrize("place", ["config folder", "EDGEBIT_TARGETS"])
def test_own_target_has_a_name(tmp_path, monkeypatch, place):
    """Listed with its file, shown, and completed by Tab."""
    folder = own_folder(tmp_path)
    if place == "EDGEBIT_TARGETS":
        other = tmp_path / "boards"
        other.mkdir()
        monkeypatch.setenv("EDGEBIT_TARGETS", f"{other}:{folder}")
        folder = other
    path = folder / "my-board.toml"
    path.write_text(BOARD)

    assert find_target("my-board").path == path
    assert json.loads(run("targets", "show", "my-board", "--json").output)["path"] == str(path)
    assert {entry["name"]: entry["path"] for entry in json.loads(run("targets", "--json").output)}["my-board"] == str(
        path
    )
    assert str(path) in run("targets", "show", "my-board").output
    assert completed("my") == ["my-board"]


def test_own_target_takes_no_name_that_is_taken(tmp_path):
    """Neither it nor the one that ships is used unseen: the name is refused with both files, and paths still work."""
    path = own_folder(tmp_path) / "rpi4.toml"
    path.write_text(BOARD)

    with pytest.raises(TargetError, match=r"more than one file: .*targets/rpi4.toml, .*config.*rpi4.toml. Rename"):
        find_target("rpi4")

    assert find_target(str(path)).description == "A board"
    result = run("targets")
    assert str(path) in result.stderr
    assert "rpi4" not in completed("rpi")


def test_broken_own_target_breaks_no_other(tmp_path):
    """The list is as long as it can be, and says what is left out and why."""
    (own_folder(tmp_path) / "wrong.toml").write_text(BOARD + 'nonsense = "1"\n')

    result = run("targets", "--json")

    assert {entry["name"] for entry in json.loads(result.stdout)} >= PROMISED
    assert "left out" in result.stderr
    assert "nonsense" in result.stderr
    assert "rpi5" in completed("rpi")
    with pytest.raises(TargetError, match="nonsense"):
        find_target("wrong")


def test_missing_folder_of_targets_is_said(monkeypatch, tmp_path):
    """A slip in EDGEBIT_TARGETS is an error, and the Tab key stays quiet."""
    monkeypatch.setenv("EDGEBIT_TARGETS", str(tmp_path / "nowhere"))

    with pytest.raises(TargetError, match=r"EDGEBIT_TARGETS names .*nowhere"):
        find_target("rpi")

    assert completed("") == ["host"]


def test_adding_a_target_touches_one_file(tmp_path, monkeypatch):
    """A TOML beside those that ship: listed, completed, planned for, its native build planned; nothing else."""
    folder = tmp_path / "targets"
    shutil.copytree(targets_dir(), folder)
    monkeypatch.setattr(targets, "targets_dir", lambda: folder)
    (folder / "new-board.toml").write_text(
        '# Source: its datasheet.\ndescription = "A new board"\ntriple = "aarch64-linux-musl"\ncpu = "cortex-a55"\n'
        'features = ["neon", "dotprod"]\ncores = 4\nmemory_mib = 4096\nread_gb_s = [4, 5]\n'
        '[sources]\nread_gb_s = "measured"\n'
    )

    assert "new-board" in {entry["name"] for entry in json.loads(run("targets", "--json").output)}
    assert completed("new") == ["new-board"]
    (planned,) = json.loads(run("plan", "2b4t", "--target", "new-board", "--json").output)["plans"]
    assert planned["fits"] is True
    board = find_target("new-board")
    toolchain = Toolchain(builder="system", name="gcc", compiler="gcc 12", variables={"EB_CC": "a-gcc"})
    commands = plan(board, toolchain, tmp_path / "build").commands
    assert any("-DEB_ARCH_NAME=aarch64" in command for command in commands)
