"""edgebit doctor on a device that is a folder of this machine: with a daemon, without one, and without a broker."""

import json

import pytest
from click.testing import CliRunner

from edgebit.cli import cli
from edgebit.doctor import device
from edgebit.doctor.device import DAEMON_GROUP

pytestmark = pytest.mark.slow  # daemons start and stop


def doctor(url):
    """Exit code, and the findings about the daemon by name."""
    result = CliRunner().invoke(cli, ["doctor", url, "--json"], catch_exceptions=False)
    findings = json.loads(result.stdout)["findings"]
    return result.exit_code, {item["name"]: item for item in findings if item["group"] == DAEMON_GROUP}


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_device_through_its_life(native, make_bundle, local_device):
    """Nothing there; a daemon that answers; one that was stopped; one whose broker nobody serves."""
    assert doctor(local_device.url) == (0, {"installed": {
        "group": DAEMON_GROUP, "name": "installed", "state": "unknown", "detail": "no bundle is deployed",
        "mend": "edgebit deploy",
    }})  # fmt: skip
    assert not local_device.root.exists()

    local_device.deploy(make_bundle())
    before = files(local_device.root)
    code, found = doctor(local_device.url)
    assert code == 0
    assert {name: item["state"] for name, item in found.items() if item["state"] != "ok"} == {"starts at boot": "warn"}
    assert "answers" in found and "broker" in found
    assert files(local_device.root) == before

    local_device.installed().ask("stop")
    code, found = doctor(local_device.url)
    assert (code, found["running"]["state"], "answers" in found) == (1, "fail", False)

    settings = local_device.root / "edgebitd.toml"
    settings.write_text(settings.read_text().replace(local_device.broker, "mqtt://127.0.0.1:9"))
    code, found = doctor(local_device.url)
    assert (code, found["broker"]["state"]) == (1, "fail")
    assert "refused" in found["broker"]["detail"]


def test_a_daemon_that_is_silent_is_found(native, make_bundle, local_device, monkeypatch):
    """It runs, and answers nothing: the words of its own health check."""

    monkeypatch.setattr(device, "CHECK_TIMEOUT_S", 2.0)
    bundle = make_bundle()
    local_device.deploy(bundle)
    model = next(path for path in (local_device.root / "store").iterdir() if path.stat().st_size < 200)
    model.chmod(0o644)
    model.write_text(model.read_text().replace('"answers": "yes"', '"answers": "no" '))  # as long as before
    local_device.installed().ask("start", "--service", "supervisor")

    code, found = doctor(local_device.url)

    assert (code, found["answers"]["state"]) == (1, "fail")
    assert "did not answer a ping" in found["answers"]["detail"]
