"""Requests to a device whose model is not there. All else that is asked and answered stands in protocol/cases."""

import json

IN, OUT = "edgebit/v1/pi/in/alice", "edgebit/v1/pi/out/alice"


def test_a_model_that_loads_slowly(broker, daemons, ears):
    """The device is online and says init; a question waits for the model."""
    daemons(broker.url, model="slow")
    ear = ears(broker.port, "edgebit/v1/pi/status", f"{OUT}/#")
    ear.until(lambda message: b'"init"' in message.payload)
    ear.say(f"{IN}/tokenize", "abc")
    assert json.loads(ear.until(lambda m: m.topic.startswith(OUT)).payload)["error"]["code"] == "not_ready"
    ear.say(f"{IN}/generate", "say 1")
    assert json.loads(ear.until(lambda m: m.topic.startswith(OUT)).payload)["text"] == "w0 "


def test_a_model_that_cannot_be_loaded(broker, daemons, ears):
    """The device stays online, says fault and why, and refuses."""
    daemon = daemons(broker.url, model="broken")
    ear = ears(broker.port, "edgebit/v1/pi/status", f"{OUT}/#")
    status = json.loads(ear.until(lambda message: b'"fault"' in message.payload).payload)
    assert "model.ebm is damaged" in status["last_error"]
    ear.say(f"{IN}/generate", "say 1")
    reply = json.loads(ear.until(lambda m: m.topic.startswith(OUT)).payload)
    assert (reply["error"]["code"], reply["error"]["retryable"]) == ("fault", False)
    assert daemon.stop() == 9
    log = daemon.log.read_text()
    assert "stopped" in log and "CRITICAL" not in log, "its threads were told to end"
