"""The commands for a fleet, as a user types them."""

import json
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from signing_keys import make_key

from edgebit.cli import cli
from edgebit.errors import BuildError, ConfigError

FILES = ("model.ebm", "lib/libedgebit.so", "edgebitd.pyz")
FLEET = """
[defaults]
mqtt = "mqtt://127.0.0.1:1"
[groups.kitchen]
[devices.here]
url = "local:here"
groups = ["kitchen"]
labels = { board = "pc" }
[devices.nowhere]
url = "ssh://nobody@127.0.0.1:1"
"""


@pytest.fixture
def call(tmp_path, monkeypatch, write_bundle):
    """Calls `edgebit` in a folder with an inventory and a bundle that no device can run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "journal"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    (tmp_path / "fleet.toml").write_text(FLEET)
    write_bundle("odd", "m68k-linux-gnu", {name: name for name in FILES})
    return lambda *args: CliRunner().invoke(cli, [str(arg) for arg in args])


def test_devices_are_listed(call):
    """All of them, or those chosen; nothing is asked of them."""
    assert [line.split()[0] for line in call("fleet", "list").output.splitlines()] == ["device", "here", "nowhere"]
    told = json.loads(call("fleet", "list", "--label", "board=pc", "--json").output)
    assert [device["name"] for device in told] == ["here"]


def test_a_device_is_shown_with_what_it_inherits(call):
    """The defaults among it."""
    shown = call("fleet", "show", "here").output
    assert "mqtt://127.0.0.1:1" in shown and "board=pc" in shown


def test_the_status_says_who_is_out_of_reach(call):
    """Exit code 1, for not all are up; the reason stands below."""
    asked = call("fleet", "status", "--parallel", 2)

    assert asked.exit_code == 1
    rows = {line.split()[0]: line for line in asked.stdout.splitlines()}
    assert "none" in rows["here"] and "out of reach" in rows["nowhere"]
    statuses = json.loads(call("fleet", "status", "--json", "--group", "kitchen").stdout)
    assert statuses[0]["reachable"] and not statuses[0]["up"]


def test_signatures_are_wanted_of_every_device(call, write_bundle):
    """--trust holds for each, and the reason stands beside it."""
    write_bundle("unsigned", f"{os.uname().machine}-linux-gnu", {name: name for name in FILES})
    wanted = ("deploy", "unsigned.bundle", "--group", "kitchen", "--dry-run", "--trust", make_key(1).public)

    assert "is wanted, and this one is not signed" in " ".join(call(*wanted).output.split())
    assert "0.0 MB in 3 files" in call(*wanted[:-2]).output


def test_limits_hold_for_every_device(call, write_bundle):
    """What the health gate of one device asks, that of many asks of each."""
    write_bundle("fitting", f"{os.uname().machine}-linux-gnu", {name: name for name in FILES})
    limits = ("--timeout", 9, "--stay-up", 7, "--min-tok-s", 5, "--max-rss", 60)

    planned = json.loads(call("deploy", "fitting.bundle", "--device", "here", "--dry-run", "--json", *limits).stdout)

    (check,) = (step["line"] for step in planned["devices"][0]["steps"] if step["action"] == "check")
    assert check.endswith("at most 9 s; 7 s without a restart; 5 tok/s; at most 60 MiB")


def test_plans_are_shown_and_nothing_is_done(call, tmp_path, write_bundle):
    """For each device its wave, and what would be done or why it cannot; exit code 8 if one cannot, 0 if all can."""
    write_bundle("fitting", f"{os.uname().machine}-linux-gnu", {name: name for name in FILES})
    planned = call("deploy", "odd.bundle", "--group", "all", "--canary", 1, "--dry-run")

    assert planned.exit_code == 8, planned.output
    rows = {line.split()[0]: line for line in planned.output.splitlines()}
    assert "canary" in rows["here"] and "cannot: the bundle was built for m68k" in rows["here"]
    assert "0.0 MB to send in all; nothing was changed\n2 of 2 devices cannot take it\n" in planned.output
    as_json = call("deploy", "odd.bundle", "--group", "all", "--dry-run", "--json")
    assert as_json.exit_code == 8 and len(json.loads(as_json.stdout)["devices"]) == 2
    assert "1 of 2 devices" in call("deploy", "fitting.bundle", "--group", "all", "--dry-run").output
    fits = call("deploy", "fitting.bundle", "--group", "kitchen", "--dry-run")
    assert fits.exit_code == 0 and "cannot" not in fits.output
    assert not (tmp_path / "here").exists() and not (tmp_path / "journal").exists()


def test_a_roll_out_that_fails_says_so(call, tmp_path):
    """Line by line without a terminal; exit code 8; who was not tried is named."""
    ended = call("deploy", "odd.bundle", "--group", "all", "--parallel", 1)

    assert ended.exit_code == 8
    assert "here: failed: the bundle was built for m68k" in ended.output
    assert "not tried: nowhere" in ended.output
    told = json.loads(call("deploy", "odd.bundle", "--group", "all", "--json", "--parallel", 1).stdout)
    assert not told["ok"] and [device["result"] for device in told["devices"]] == ["failed", "untried"]


def test_a_roll_out_that_goes_on_says_how_far_it_came(call, tmp_path):
    """And asks again what was done, which is no longer so here."""
    call("deploy", "odd.bundle", "--group", "all", "--parallel", 1)
    (journal,) = tmp_path.glob("journal/edgebit/rollouts/*/*.json")
    content = json.loads(journal.read_text())
    content["devices"]["here"]["report"] |= {"result": "updated", "why": ""}
    journal.write_text(json.dumps(content))

    ended = call("deploy", "odd.bundle", "--group", "all", "--parallel", 1)

    assert ended.exit_code == 8
    assert ": 1 of 2 is done\n" in ended.output
    assert "here: failed: it was done before, and asked again: there is no edgebit" in ended.output
    assert "answers on 0 of 2 devices" in ended.output and "here: failed; nothing runs there" in ended.output


def test_a_device_out_of_reach_is_tried_again(call):
    """As often as --retries says."""
    ended = call("deploy", "odd.bundle", "--device", "nowhere", "--retries", 0, "--json")

    assert ended.exit_code == 8
    (device,) = json.loads(ended.stdout)["devices"]
    assert (device["result"], device["tries"]) == ("unreachable", 1)


@pytest.mark.parametrize(
    ("args", "promised"),
    [
        ((), "name one device with --to URL"),
        (("--to", "local:x", "--group", "all"), "name one device with --to URL"),
        (("--to", "local:x", "--canary", "1"), "leave out what is about many"),
        (("--group", "all", "--mqtt", "mqtt://x"), "stands in it"),
        (("--group", "all", "--root", "x"), "stands in it"),
    ],
)
def test_options_that_do_not_go_together(call, args, promised):
    """Usage, exit code 2."""
    refused = call("deploy", "odd.bundle", *args)

    assert refused.exit_code == 2
    assert promised in " ".join(refused.output.split())


def test_a_label_without_a_value_is_refused(call):
    """With an example."""
    refused = call("fleet", "list", "--label", "pc")
    assert isinstance(refused.exception, ConfigError) and "KEY=VALUE" in str(refused.exception)


def test_names_are_completed(call, monkeypatch):
    """Groups and devices of the inventory."""
    monkeypatch.setenv("_EDGEBIT_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "edgebit deploy odd.bundle --group k")
    monkeypatch.setenv("COMP_CWORD", "4")
    completed = CliRunner().invoke(cli, [], prog_name="edgebit")
    assert "kitchen" in completed.output


def test_an_export_does_not_write_over_a_folder(call, tmp_path):
    """Unless --force says otherwise; an empty one may be there."""
    export = ("fleet", "export", "thin-edge", "odd.bundle", "--out", "out")
    (tmp_path / "out").mkdir()
    assert call(*export).exit_code == 0
    (tmp_path / "out" / "README.md").write_text("mine")

    refused = call(*export)

    assert isinstance(refused.exception, BuildError) and "there already and not empty" in str(refused.exception)
    assert (tmp_path / "out" / "README.md").read_text() == "mine"
    assert call(*export, "--force").exit_code == 0
    assert (tmp_path / "out" / "README.md").read_text() != "mine"
