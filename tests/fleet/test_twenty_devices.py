"""Twenty devices of this machine, each a daemon of its own with the real engine, in roll-outs over one real broker."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mqtt_fixtures import IMPORTED

from edgebit.bundle.archive import open_bundle
from edgebit.deploy.device import Device
from edgebit.errors import DeployError
from edgebit.mqtt_client.broker_url import parse_broker_url
from edgebit.mqtt_client.client import DeviceClient
from edgebit.transport import open_transport

pytestmark = pytest.mark.slow
COUNT = 20


def edgebit(*args, code=0):
    """A command, as a user calls it; gives what it printed."""
    environment = {**os.environ, **IMPORTED, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    argv = [sys.executable, "-m", "edgebit", *map(str, args)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def bundles(native, reference_checkpoint, tmp_path):
    """Two bundles of one model, packed in two ways."""
    made = []
    for layout in ("t2", "t1"):
        made.append(tmp_path / f"{layout}.bundle")
        model = reference_checkpoint("bitnet-packed")
        edgebit("build", model, "--target", "host", "--layout", layout, "--out", made[-1])
    return made


@pytest.fixture
def fleet(broker, tmp_path, monkeypatch):
    """Writes the inventory; `more` is what it says of single devices. Its daemons are stopped afterwards."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "journal"))
    urls = [f"local:{tmp_path / 'devices' / f'd{number:02}'}" for number in range(COUNT)]

    def write(more=None):
        lines = [f'[defaults]\nmqtt = "{broker.url}"\n[groups.even]']
        for number, url in enumerate(urls):
            name = f"d{number:02}"
            groups = '["even"]' if number % 2 == 0 else "[]"
            lines.append(f'[devices.{name}]\nurl = "{url}"\ngroups = {groups}\n{(more or {}).get(name, "")}')
        (tmp_path / "fleet.toml").write_text("\n".join(lines))
        return tmp_path / "fleet.toml"

    yield write

    def remove(url):
        with open_transport(url) as transport:
            try:
                Device.installed(transport).uninstall(keep_config=False)
            except DeployError:
                return  # nothing was installed

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(remove, urls))


def answering(broker):
    """The bundle with which each device gives tokens, and then answers a ping: while it loads one, it names none."""
    found = {}
    with DeviceClient(parse_broker_url(broker.url)) as client:
        for number in range(COUNT):
            name = f"d{number:02}"
            fields = {"prompt": "Hello", "options": {"num_predict": 2, "temperature": 0}}
            assert client.ask(name, "generate", fields, timeout_s=20)["t"] == "done"
            found[name] = client.ask(name, "ping", {}, timeout_s=20)["bundle"]
    return found


def test_two_of_twenty_fail(bundles, broker, fleet):
    """The roll-out stops at the limit; failed devices answer with the bundle before, the report says who is where, and
    the same command, once the two are mended, goes on to the end."""
    old, new = (open_bundle(path).id for path in bundles)
    names = [f"d{number:02}" for number in range(COUNT)]
    going = ("--canary", 1, "--batch", "25%", "--parallel", 3, "--max-failures", 1, "--timeout", 30, "--json")

    first = json.loads(edgebit("deploy", bundles[0], "--inventory", fleet(), "--group", "all", *going))

    assert first["ok"] and {device["result"] for device in first["devices"]} == {"updated"}
    assert answering(broker) == dict.fromkeys(names, old)

    # One cannot reach its broker with its new settings, the engine of another does not start with them.
    broken = {"d03": 'mqtt = "mqtt://127.0.0.1:1"', "d08": 'settings.engine.isa = "none-such"'}
    inventory = fleet(broken)
    second = json.loads(edgebit("deploy", bundles[1], "--inventory", inventory, "--group", "all", *going, code=8))

    assert not second["ok"] and second["stopped"] == "2 devices failed, and --max-failures is 1"
    assert [(wave["name"], len(wave["devices"])) for wave in second["waves"]] == [
        ("canary", 1), ("1 of 4", 5), ("2 of 4", 5), ("3 of 4", 5), ("4 of 4", 4)
    ]  # fmt: skip
    reports = {device["name"]: device for device in second["devices"]}
    assert {name for name in names if reports[name]["result"] == "failed"} == {"d03", "d08"}
    assert "cannot reach the broker mqtt://127.0.0.1:1" in reports["d03"]["why"]
    assert "ISA level 'none-such' is not known" in reports["d08"]["why"]
    assert reports["d03"]["runs"] == reports["d08"]["runs"] == old
    untried = [name for name in names if reports[name]["result"] == "untried"]
    assert set(names[11:]) <= set(untried) <= set(names[9:]), "the third wave and later ones are never begun"
    updated = [name for name in names if reports[name]["result"] == "updated"]
    assert sorted([*untried, *updated, "d03", "d08"]) == names
    after = answering(broker)
    assert after == {name: new if name in updated else old for name in names}

    # --force, for the second one blamed the bundle: it is refused there from then on.
    third = json.loads(edgebit("deploy", bundles[1], "--inventory", fleet(), "--group", "all", *going, "--force"))

    assert third["ok"]
    ended = {device["name"]: device["at"] for device in third["devices"]}
    assert all(ended[name] == reports[name]["at"] for name in updated), "what was done is not done again"
    assert answering(broker) == dict.fromkeys(names, new)

    told = json.loads(edgebit("fleet", "status", "--inventory", inventory, "--group", "even", "--json"))
    assert [(device["name"], device["bundle"], device["up"]) for device in told] == [
        (name, new, True) for name in names[::2]
    ]
