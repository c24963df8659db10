"""The commands as a user types them, on a device that is a folder of this machine."""

import io
import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from edgebit.bundle.manifest import bundle_id
from edgebit.cli import logs
from edgebit.cli.deploy import Reporter
from edgebit.deploy.plan import Step


def edgebit(*args, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "edgebit", *args], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_life_of_a_device(make_bundle, local_device):
    """Deploy, look, read the log, stop, and take all of it away, with the exit codes that scripts rely on."""
    bundle, url = make_bundle(), local_device.url
    to = ["deploy", str(bundle.path), "--to", url, "--mqtt", local_device.broker, "--device-name", "test"]

    plan = edgebit(*to, "--dry-run").stdout
    assert "would send model.ebm" in plan and "nothing was changed" in plan
    assert not local_device.root.exists()
    assert "there is no edgebit on" in edgebit("status", url, code=8).stderr

    file = str(bundle.path)
    assert f"{file} on the device is no folder" in edgebit("deploy", file, "--to", f"local:{file}", code=8).stderr

    said = edgebit(*to).stdout
    assert "3 golden probes equal bit for bit on scalar" in said
    assert f"Bundle {bundle_id(bundle.manifest_bytes)} answers" in said
    assert f'edgebit ask --broker {local_device.broker} --device test "' in said
    assert json.loads(edgebit(*to, "--json").stdout)["sent_bytes"] == 0

    shown = edgebit("status", url).stdout
    assert f"* a  {bundle.id}  one" in shown
    assert "takes: unsigned bundles, until the first signed one" in shown
    assert "acts yes" in edgebit("logs", url).stdout
    assert edgebit("logs", url, "-n", "0").stdout == ""
    again = json.loads(edgebit("restart", url, "--json").stdout)
    assert (again["id"], again["device"]) == (bundle.id, "test")
    readings = json.loads(edgebit("sensors", url, "--json").stdout)
    assert readings["mem_total"]["value"] > 0 and readings["mem_total"]["source"] == "/proc/meminfo MemTotal"
    assert "MemTotal" in edgebit("sensors", url).stdout
    assert "Nothing was refused" in edgebit("logs", url, "--security").stdout
    refused = {"time": "2026-01-01T00:00:00Z", "code": "rate_limit", "principal": "p-1\x1b", "op": "chat"}
    (local_device.root / "state").mkdir(exist_ok=True)
    log = local_device.root / "state" / "security.log"
    log.write_text(json.dumps(refused) + "\n" + json.dumps({**refused, "repeated": 4}) + "\n{cut")
    said = edgebit("logs", url, "--security", "-n", "1").stdout
    assert said.startswith("2026-01-01T00:00:00Z code=rate_limit principal=p-1\\x1b op=chat repeated=4\n\n5 ")
    assert "by code: rate_limit 5" in said and "by principal: p-1\\x1b 5" in said
    assert json.loads(edgebit("logs", url, "--security", "--json").stdout)["summary"]["refused"] == 5
    edgebit("logs", url, "--security", "-f", code=2)
    assert "no bundle before" in edgebit("rollback", url, code=8).stderr

    for name in ("journal", "journal.part", "daemon.lock", "security.log.3", "name.key", "local.key", "home_assistant"):
        (local_device.root / "state" / name).touch()
    local_device.installed().ask("stop")
    assert "not running" in edgebit("status", url, code=1).stdout

    assert "needs a terminal, or --yes" in edgebit("uninstall", url, code=2).stderr
    assert local_device.root.exists(), "without an answer to the question nothing is removed"
    assert "nothing is left" in edgebit("uninstall", url, "--yes").stdout
    assert not os.path.lexists(local_device.root)
    assert "nothing to remove" in edgebit("uninstall", url, "--yes").stdout


def test_followed_log_ends_with_its_reader(monkeypatch):
    """`edgebit logs -f | head` does not wait for the next line."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr("sys.stdout", output)
        logs._wait(0.01)
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            logs._wait(5)


def test_lines_are_whole_where_no_terminal_is():
    """A plan in a file or pipe is not broken at 80 columns."""
    output, line = io.StringIO(), "word " * 40 + "end"
    with Reporter(Console(file=output, highlight=False, width=80)) as reporter:
        reporter.step(Step("start", line))
        reporter.remark(line)

    assert output.getvalue().splitlines() == [line, f"Note: {line}"]
