"""Identity, limits, filter and logs of a whole daemon, over a real mosquitto."""

import json
import signal

import pytest
from mqtt_fixtures import wait_ready
from signing_keys import make_key

from edgebit.daemon.install import health
from edgebit.errors import DeviceError, NoAnswerError
from edgebit.mqtt_client.answers import Exchange
from edgebit.mqtt_client.broker_url import parse_broker_url
from edgebit.mqtt_client.client import DeviceClient

IN, OUT = "edgebit/v1/pi/in", "edgebit/v1/pi/out"
JOURNAL = "journal"  # must know what is asked, to be able to answer after a power cut
both = pytest.mark.parametrize("version", ["5", "3.1.1"])


def ask(ear, principal: str, job_id: str, prompt: str, **fields) -> dict:
    """The last frame of the answer."""
    ear.say(f"{IN}/{principal}/generate", {"id": job_id, "prompt": prompt, **fields})
    return ear.frames()[-1]


def written(daemon) -> dict[str, str]:
    """All that a daemon has written but its journal, by file."""
    files = [path for path in (daemon.folder / "state").rglob("*") if path.is_file() and JOURNAL not in path.parts[-2:]]
    files = [path for path in files if not path.name.startswith(JOURNAL)]
    return {path.name: path.read_text(errors="replace") for path in [daemon.log, *files]}


def test_nothing_but_the_journal_knows_who_asked_what(ready, broker, ears, tmp_path):
    """No name, no prompt, no answer: not in the log at its most talkative, nor in any file of the state folder."""
    (tmp_path / "rules").write_text("word prompt forbidden\nword answer w7\n")
    limits = "[rate_limits]\nrequests = 6\n[limits]\nmax_prompt_tokens = 40\n"
    daemon = ready(mqtt='auth = "topic"', toml=f'[content_filter]\nrules = "{tmp_path}/rules"\n{limits}')
    name = "quetzalcoatl"
    ear = ears(broker.port, f"{OUT}/{name}/#", mqtt5=True)
    assert ask(ear, name, "1", "say 3 xylophone")["text"] == "w0 w1 w2 "
    assert ask(ear, name, "2", "say 3 xylophone", stream=True)["text"] == "w0 w1 w2 "
    assert ask(ear, name, "3", "xylophone forbidden")["error"]["code"] == "content_filtered"
    cut = ask(ear, name, "4", "say 12 xylophone", stream=True)["error"]
    assert (cut["status"], cut["type"]) == (451, "RESPONSE_FILTERED")
    assert ask(ear, name, "5", "fail xylophone")["error"]["code"] == "engine"
    assert ask(ear, name, "6", "say 1 xylophone " + "y" * 40)["error"]["code"] == "prompt_too_long"
    assert ask(ear, name, "7", "xylophone \x07")["error"]["code"] == "control_character"
    assert ask(ear, name, "8", "say 1 xylophone", priority="quetzal")["error"]["code"] == "bad_field"
    ear.say(
        f"{IN}/{name}/batch", {"id": "b", "items": [{"prompt": "say 1 xylophone"}, {"prompt": "xylophone forbidden"}]}
    )
    assert len([ear.frames() for _ in range(3)]) == 3
    assert ask(ear, name, "9", "say 1 xylophone")["text"] == "w0 "
    late = ask(ear, name, "10", "say 1 xylophone")["error"]
    assert (late["code"], late["type"]) == ("rate_limit", "RATE_LIMIT_EXCEEDED") and late["retry_after_ms"] > 0
    ear.say(f"{IN}/{name}/xylophone", "xylophone")
    assert ear.next_json()["error"]["code"] == "unknown_op"
    metrics = ears(broker.port, "edgebit/v1/pi/metrics")
    totals = json.loads(metrics.until(lambda message: b'"p-' in message.payload).payload)["principals"]
    assert [account["requests"] > 3 for account in totals.values()] == [True]
    assert daemon.stop() == 0
    for file, text in written(daemon).items():
        for secret in (name, "xylophone", "forbidden", "w0 w1", "w6 "):
            assert secret not in text, file
    security = written(daemon)["security.log"]
    for code in ("content_filtered", "response_filtered", "rate_limit", "control_character", "unknown_op"):
        assert f'"code":"{code}"' in security, code
    assert next(iter(totals)) in security and next(iter(totals)) in daemon.log.read_text()


def test_prompts_are_logged_where_the_owner_says_so(ready, broker, ears):
    """And `info` says so to everybody; the name stays hashed."""
    daemon = ready(mqtt='auth = "topic"', toml="[privacy]\nlog_prompts = true\n")
    ear = ears(broker.port, f"{OUT}/quetzal/#")
    assert ask(ear, "quetzal", "1", "say 2\nlines")["text"] == "w0 w1 "
    info = ears(broker.port, "edgebit/v1/pi/info").next_json()
    assert info["logs_prompts"] is True and info["auth"] == "topic"
    daemon.stop()
    log = daemon.log.read_text()
    assert r"asks ['say 2\nlines']" in log and "is answered: 'w0 w1 '" in log
    assert "quetzal" not in log


def client(broker, version: str, **named) -> DeviceClient:
    return DeviceClient(parse_broker_url(broker.url), principal="alice", protocol=version, **named)


@both
def test_signed_requests(ready, broker, ears, tmp_path, version):
    """One who has the key is answered; nobody else is, and no copy of what was signed starts anything."""
    key = make_key(3)
    (tmp_path / "principals.toml").write_text(f'[alice]\nkey = "{key.public}"\n')
    daemon = ready(
        mqtt=f'auth = "signed"\nprotocol = "{version}"', toml=f'[identity]\nprincipals = "{tmp_path}/principals.toml"\n'
    )
    spy = ears(broker.port, f"{IN}/+/generate")
    with client(broker, version, sign=key.private.sign) as alice:
        exchange = Exchange("j1")
        fields = {"prompt": "say 2", "stream": True}
        assert "".join(alice.stream("pi", "generate", fields, exchange, timeout_s=60)) == "w0 w1 "
        with pytest.raises(DeviceError, match="unknown_job"):
            alice.ask("pi", "get", {}, timeout_s=60)
    copied = spy.next().payload
    for signer in (None, make_key(4).private.sign):
        with client(broker, version, sign=signer) as stranger, pytest.raises(DeviceError, match="401"):
            stranger.ask("pi", "generate", {"prompt": "say 1"}, timeout_s=60)
    eve = ears(broker.port, f"{OUT}/+/#", mqtt5=version == "5")
    eve.say(f"{IN}/alice/generate", copied)
    assert eve.next_json()["text"] == "w0 w1 ", "it is answered as before, from what is kept"
    eve.say(f"{IN}/alice/cancel", copied)
    assert eve.next_json()["error"]["code"] == "bad_signature"
    eve.say(f"{IN}/bob/generate", copied)
    assert eve.next_json()["error"]["code"] == "unknown_key"
    eve.say(f"{IN}/alice/generate", copied.replace(b'"j1"', b'"j2"'))
    assert eve.next_json()["error"]["code"] == "bad_signature"
    daemon.stop()
    for path in (daemon.folder / "state").glob(f"{JOURNAL}*"):
        path.unlink()
    daemon.restart()
    wait_ready(broker.port, ears)
    eve.say(f"{IN}/alice/generate", copied)
    assert eve.next_json()["error"]["code"] == "stale_challenge", (
        "a restart forgets the journal only with its challenge"
    )


def test_the_health_check_signs_for_itself(ready, broker, tmp_path, monkeypatch):
    """With the device's own key, which no caller has; without it, nobody is answered."""
    monkeypatch.setattr(health, "PROMPT", "say 4")
    (tmp_path / "principals.toml").touch()
    daemon = ready(mqtt='auth = "signed"', toml=f'[identity]\nprincipals = "{tmp_path}/principals.toml"\n')
    found = health.check_health(daemon.folder, None, 15, alive=lambda: daemon.process.poll() is None)
    assert found["device"] == "pi"
    (daemon.folder / "state" / "local.key").write_bytes(bytes(32))
    with pytest.raises(NoAnswerError, match="not that principal's"):
        health.check_health(daemon.folder, None, 15, alive=lambda: True)


def test_rules_and_keys_change_while_it_runs(ready, broker, ears, tmp_path):
    """SIGHUP, or a second of patience; a broken file is an alert, and what was read before stays."""
    rules = tmp_path / "rules"
    rules.write_text("word prompt one\n")
    daemon = ready(toml=f'[content_filter]\nrules = "{rules}"\n')
    info, events = ears(broker.port, "edgebit/v1/pi/info"), ears(broker.port, "edgebit/v1/pi/event")
    ear = ears(broker.port, f"{OUT}/alice/#")

    def rewrite(text: str) -> None:
        rules.write_text(text)
        daemon.process.send_signal(signal.SIGHUP)

    assert info.next_json()["content_filter"]["rules_prompt"] == 1
    rewrite("word prompt one\nword prompt two\n")
    info.until(lambda message: json.loads(message.payload)["content_filter"]["rules_prompt"] == 2)
    assert ask(ear, "alice", "1", "say 1 two")["error"]["code"] == "content_filtered"
    rewrite("nonsense\n")
    told = json.loads(events.until(lambda message: b'"alert"' in message.payload).payload)
    assert (told["name"], told["severity"]) == ("content_filter", "warning") and "line 1" in told["message"]
    assert ask(ear, "alice", "2", "say 1 two")["error"]["code"] == "content_filtered"
    rewrite("")
    events.until(lambda message: b'"alert_cleared"' in message.payload)
    assert ask(ear, "alice", "3", "say 1 two")["text"] == "w0 "
