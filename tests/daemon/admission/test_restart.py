"""What a daemon that was killed does with the jobs it had taken on, on a real broker."""

import json

import pytest
from mqtt_fixtures import wait_ready

IN, OUT = "edgebit/v1/pi/in/alice", "edgebit/v1/pi/out/alice"
both = pytest.mark.parametrize("mqtt5", [True, False], ids=["5", "3.1.1"])


def section(mqtt5):
    return {"mqtt": "" if mqtt5 else 'protocol = "3.1.1"', "toml": "[engine]\nsequences = 1"}


@both
def test_jobs_of_before_a_crash(ready, broker, ears, mqtt5):
    """The running job and the waiting one are run anew, and those that are done are answered the same again."""
    daemon = ready(**section(mqtt5))
    ear = ears(broker.port, f"{OUT}/#", mqtt5=mqtt5)
    ear.say(f"{IN}/generate", {"id": "done", "prompt": "say 3"})
    done = ear.next()
    for name, prompt in (("running", "slow 20"), ("waiting", "say 2")):
        ear.say(f"{IN}/generate", {"id": name, "prompt": prompt, "ack": True})
        assert (frame := ear.next_json())["t"] == "ack", f"{frame} before it is on the disk"
    daemon.kill()
    daemon.restart()
    answers = [ear.next_json() for _ in range(2)]
    assert [answer["id"] for answer in answers] == ["running", "waiting"]
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [20, 2]
    ear.say(f"{IN}/generate", {"id": "done", "prompt": "say 3"})
    assert ear.next().payload == done.payload
    ear.say(f"{IN}/generate", {"id": "done", "prompt": "say 4"})
    assert ear.next_json()["error"]["code"] == "id_in_use"
    assert ear.silent()


@both
def test_a_stream_that_had_begun_is_interrupted(ready, broker, ears, mqtt5):
    daemon = ready(**section(mqtt5))
    ear = ears(broker.port, f"{OUT}/#", mqtt5=mqtt5)
    ear.say(f"{IN}/generate", {"id": "s", "prompt": "slow 1000", "stream": True, "max_tokens": 1000})
    frames = [ear.next_json(), ear.next_json()]
    daemon.kill()
    daemon.restart()
    last = ear.until(lambda message: json.loads(message.payload).get("done"))
    error = json.loads(last.payload)
    assert (error["error"]["code"], error["error"]["retryable"]) == ("interrupted", True)
    assert error["seq"] > frames[-1]["seq"]
    wait_ready(broker.port, ears)
    ear.say(f"{IN}/generate", {"id": "s", "prompt": "slow 1000", "stream": True, "max_tokens": 1000})
    assert ear.next_json()["seq"] == 0, "who tries again is served"
    daemon.kill()  # rather than let it finish that
