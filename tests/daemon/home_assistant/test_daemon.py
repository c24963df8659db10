"""The daemon itself at a broker with Home Assistant's topics, and with its Wyoming port open."""

import asyncio
import json

from mqtt_fixtures import free_port
from wyoming.asr import Transcript
from wyoming.client import AsyncTcpClient
from wyoming.handle import Handled, NotHandled
from wyoming.info import Describe, Info

TOPIC = "homeassistant/device/edgebit_pi/config"
ON = "[home_assistant]\nenabled = true\nbirth_delay_s = 0\n"


def test_home_assistant_over_a_broker(ready, broker, ears):
    """Announced, for an assistant as soon as the model is known; again after the birth; asked; and taken back."""
    daemon = ready(toml=f'{ON}[assistant]\ndevices = ["Lamps"]\n', report_s=300)
    ear = ears(broker.port, TOPIC)
    announced = ear.until(lambda message: b"/in/homeassistant/assist" in message.payload)
    parts = json.loads(announced.payload)["components"]
    assert "t_soc" in parts and "power" not in parts  # as tests/daemon/roots/pi4 has it

    ear.say("homeassistant/status", "online")
    again = ear.next(20)
    assert json.loads(again.payload)["components"].keys() == parts.keys()

    hearer = ears(broker.port, parts["answer"]["state_topic"])
    line = json.dumps("json " + json.dumps({"intent": "turn_on", "name": "lamp", "say": "lamp on."}))
    hearer.say(parts["ask"]["command_topic"], parts["ask"]["command_template"].replace("{{ value | tojson }}", line))
    answer = hearer.next_json()
    assert answer["text"] == "Lamps on."  # a name that the model has copied wrongly
    assert answer["call"] == {"intent": "turn_on", "name": "Lamps"}

    daemon.stop()
    daemon.config.write_text(daemon.config.read_text().replace("enabled = true", "enabled = false"))
    daemon.restart()
    while ear.next(20).payload != b"":  # it may have announced itself once more before it was stopped
        pass


def test_wyoming_through_the_daemon(broker, daemons, ears):
    """A call asked for and said, by the way of all requests; in its principal's name nobody asks over the broker."""
    port = free_port()
    daemon = daemons(broker.url, toml=f'[wyoming]\nlisten = "127.0.0.1:{port}"\ntimeout_s = 2\n')
    ear = ears(broker.port, "edgebit/v1/pi/status", "edgebit/v1/pi/metrics", "edgebit/v1/pi/out/#")
    ear.until(lambda message: json.loads(message.payload).get("state") == "ready")

    call = json.dumps({"intent": "hello", "say": "Hello."})

    async def converse():
        async with AsyncTcpClient("127.0.0.1", port, read_timeout=60) as client:
            said = []
            for event in (Describe(), Transcript(f"json {call}"), Transcript("fail"), Transcript("slow 1000")):
                await client.write_event(event.event())
                said.append(await client.read_event())
            return said

    info, answer, failed, late = asyncio.run(converse())
    assert Info.from_event(info).handle[0].models[0].name == "fake"
    assert Handled.from_event(answer).text == "Hello."
    assert NotHandled.from_event(failed).text == "the engine broke"
    assert "the deadline passed" in NotHandled.from_event(late).text

    ear.say("edgebit/v1/pi/in/wyoming/generate", "say 1", ResponseTopic="edgebit/v1/other/out/wyoming/x")

    def told(message):
        assert not message.topic.startswith("edgebit/v1/pi/out/"), message.payload
        counters = json.loads(message.payload).get("counters", {})
        return counters.get("reserved_principal") == 1 and counters.get("wyoming_questions") == 3

    ear.until(told)
    assert daemon.stop() == 0
