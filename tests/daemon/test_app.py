"""What the daemon does when a part of it dies, and with a broker that speaks 3.1.1 only."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from mqtt_fixtures import IMPORTED, ROOT, TESTS

from edgebit.local_broker import local_broker
from edgebit.mqtt_client.answers import Exchange
from edgebit.mqtt_client.broker_url import parse_broker_url
from edgebit.mqtt_client.client import DeviceClient
from edgebit.mqtt_client.request import new_id

DYING = """
import sys, threading
sys.argv[1:], part = sys.argv[1:-1], sys.argv[-1]
sys.path.insert(0, {folder!r})
from pathlib import Path
from edgebit.daemon.app import Daemon
from edgebit.daemon.config.reader import read_config
from edgebit.daemon.connection.mqtt import Connection
from edgebit.daemon.home_assistant.wyoming import WyomingService
from edgebit.daemon.reports import Reports
from edgebit.daemon.serving.batch_loop import BatchLoop
from fake_daemon import FakeModel

announced, announce = threading.Event(), Reports.announce

def announce_and_tell(self, event):
    announce(self, event)
    announced.set()

def die(self):
    if part != "network":
        assert announced.wait(30)
    raise RuntimeError("a fault of ours")

Reports.announce = announce_and_tell
setattr({{"network": Connection, "worker": BatchLoop, "wyoming": WyomingService}}[part], "run", die)
sys.exit(Daemon(read_config(Path(sys.argv[1])), Path(sys.argv[2]), FakeModel).run())
"""


@pytest.mark.parametrize("part", ["network", "worker", "wyoming"])
def test_a_dead_thread_is_noticed(broker, tmp_path, ears, part):
    """The daemon ends with a fault, so that the service manager starts it anew; it does not stand there deaf."""
    config = tmp_path / "edgebitd.toml"
    config.write_text(f'[device]\nname = "pi"\n[mqtt]\nurl = "{broker.url}"\n[wyoming]\nlisten = "127.0.0.1:0"\n')
    script = DYING.format(folder=str(TESTS / "daemon"))
    argv = [sys.executable, "-c", script, str(config), str(tmp_path / "state"), part]
    environment = {**os.environ, **IMPORTED}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 9, done.stderr
    assert "a fault of ours" in done.stderr
    if part != "network":
        said = [ears(broker.port, f"edgebit/v1/pi/{kind}").next_json()["state"] for kind in ("status", "availability")]
        assert said == ["draining", "offline"]


def test_a_broker_that_speaks_3_1_1_only(daemons, monkeypatch):
    """amqtt misreads an MQTT 5 connection and says nothing; daemon and caller fall back by themselves."""
    monkeypatch.setattr(shutil, "which", lambda *arguments, **named: None)
    with local_broker() as broker:
        assert broker.program == "amqtt"
        daemon = daemons(broker.url)
        with DeviceClient(parse_broker_url(broker.url), principal="alice") as client:
            deadline = time.monotonic() + 30
            while not (found := client.devices(0.5)):
                assert time.monotonic() < deadline and daemon.process.poll() is None, daemon.log.read_text()
            assert found[0].availability == "online"
            exchange = Exchange(new_id())
            fields = {"prompt": "slow 10", "stream": True}
            pieces = list(client.stream("pi", "generate", fields, exchange, timeout_s=60))
            assert "".join(pieces) == exchange.text == exchange.reply["text"] and len(pieces) > 2
            assert client.ask("pi", "ping", {}, timeout_s=60)["op"] == "ping"
        assert daemon.stop() == 0


def test_check_config_and_usage(tmp_path):
    """The program's own refusals have exit codes of their own."""

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "edgebit.daemon", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
        )

    (tmp_path / "edgebitd.toml").write_text("[mqtt]\nport = 3\n")
    wrong = run("run", "--root", str(tmp_path), "--check-config")
    assert wrong.returncode == 13 and "unknown key 'port'" in wrong.stderr
    assert run("run", "--bundle", "x").returncode == 13
    (tmp_path / "right.toml").write_text('[device]\nname = "pi"\n')
    missing = run("run", "--bundle", str(tmp_path / "no.bundle"), "--config", str(tmp_path / "right.toml"))
    assert missing.returncode == 3 and "no.bundle: no such file" in missing.stderr
    assert run("run").returncode == 2 and run("dance").returncode == 2
    assert json.dumps(run("--version").stdout).startswith('"edgebitd ')
