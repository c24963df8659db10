"""What helps somebody who does not know the commands: an example in each, and the nearest name for a slip."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from edgebit.cli import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]


def paths(group: click.Group, *above: str) -> Iterator[tuple[str, ...]]:
    """Every command and subcommand, as it is called."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*above, name)
        if isinstance(command, click.Group):
            yield from paths(command, *above, name)


@pytest.mark.parametrize("path", list(paths(cli)), ids=" ".join)
def test_every_help_has_an_example(path):
    """A line that can be copied, beside the usage."""
    shown = CliRunner().invoke(cli, [*path, "--help"]).output

    lines = [line.strip() for line in shown.splitlines() if not line.startswith("Usage:")]
    assert any(line.startswith(f"edgebit {' '.join(path)}") for line in lines), shown


@pytest.mark.parametrize("path", [path for path in paths(cli) if (path[0],) != path], ids=" ".join)
def test_no_subcommand_is_described_in_half_a_sentence(path):
    """In its group's help: click cuts what is longer than a line."""
    shown = CliRunner().invoke(cli, [*path[:-1], "--help"]).output

    described = next(line for line in shown.splitlines() if line.startswith(f"  {path[-1]} "))
    assert not described.endswith("..."), described


@pytest.mark.parametrize(
    ("command", "arguments", "begun", "offered"),
    [
        ("convert", ["--template"], "ch", ["file", "chatml"]),
        ("build", ["--template"], "./x", ["file"]),
        ("plan", [], "1b", ["file", "1bitllm-3b"]),
        ("eval", ["choices", "--metric"], "acc,acc_b", ["acc,acc_bytes"]),
    ],
)
def test_names_are_completed(command, arguments, begun, offered):
    """And files, where one may stand there as well."""
    found = ShellComplete(cli, {}, "edgebit", "_EDGEBIT_COMPLETE").get_completions([command, *arguments], begun)

    assert [item.type if item.type == "file" else item.value for item in found] == offered


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(["stattus"], "status"), (["depoly", "x.bundle"], "deploy")],
)
def test_the_nearest_command_is_suggested(arguments, meant):
    result = CliRunner().invoke(cli, arguments)

    assert result.exit_code == 2
    assert f"Did you mean '{meant}'?" in result.output


def test_what_is_near_no_command_is_only_refused():
    result = CliRunner().invoke(cli, ["xyzzy"])

    assert result.exit_code == 2
    assert "No such command 'xyzzy'" in result.output and "mean" not in result.output


def test_the_readme_names_every_command():
    """In its table."""
    table = (ROOT / "README.md").read_text().partition("## Commands")[2].partition("## Models")[0]

    assert [name for name in COMMANDS if f"`{name}`" not in table and f"edgebit {name}" not in table] == []
