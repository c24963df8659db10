"""Plays the cases: what their steps do, one method a kind of step (tests/daemon/protocol/README.md)."""

import hashlib
import itertools
import json
import time
from typing import Any, cast

from mqtt_fixtures import request_fault
from mqtt_packets import Message
from paho.mqtt.client import topic_matches_sub
from protocol_cases import Case, Frames, difference, fill
from protocol_world import BASE, StubSide, World, is_told
from stub_broker import Fault

from edgebit.daemon.contract.requests import OPS
from edgebit.mqtt_client.answers import Assembler

_numbers = itertools.count(1)


class Player:
    """One case in one world."""

    def __init__(self, world: World, case: Case) -> None:
        self._world = world
        self._case = case
        number = next(_numbers)
        self._principals = {"me": f"me{number}", "other": f"other{number}"}
        self._before: dict[str, int] = {}
        self._streams: dict[str, Frames] = {}  # by topic
        self._heard: set[tuple[str, bytes]] = set()

    def play(self) -> None:
        """Raises AssertionError where the device does something else, or says more."""
        self._world.begin()
        if any("counted" in step for step in self._case.steps):
            self._before = self._world.counters()
        for number, given in enumerate((*self._case.steps, {"nothing": True})):
            step = fill(given, self._names(str(given.get("as", "$me"))))
            kind = next(iter(step))
            try:
                getattr(self, f"_{kind}")(**{("topic_" if key == "topic" else key): step[key] for key in step})
            except AssertionError as error:
                raise AssertionError(f"{self._case.id}, step {number + 1}, {given}: {error}") from error

    def _names(self, principal: str) -> dict[str, str]:
        who = fill(principal, self._principals)
        return {
            **self._principals,
            "base": BASE,
            "in": f"{BASE}/in/{who}",
            "out": f"{BASE}/out/{who}",
            "long_text": "a" * 2000,
            "others_out": f"{BASE}/out/{self._principals['other']}",
        }

    # What the caller does

    def _send(self, send: str, **given: Any) -> None:
        who = fill(given.pop("as", "$me"), self._principals)
        topic = given.pop("topic_", f"{BASE}/in/{who}/{send}")
        payload, properties = self._request(send, given)
        message = Message(
            topic=topic,
            payload=payload,
            qos=given.pop("qos", 1),
            retain=given.pop("retain", False),
            properties=properties,
        )
        for _ in range(given.pop("times", 1)):
            self._world.send(message)
        assert not given, given

    def _request(self, op: str, given: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """Payload and properties; `reply` and `ttl_s` stand where the version of MQTT has them."""
        properties = given.pop("properties", {})
        assert self._world.mqtt5 or not properties, "MQTT 3.1.1 has no properties"
        if "correlation" in properties:
            properties["correlation"] = properties["correlation"].encode()
        if "user" in properties:
            properties["user"] = [tuple(pair) for pair in properties["user"]]
        fields = given.pop("payload", None)
        reply, ttl_s = given.pop("reply", None), given.pop("ttl_s", None)
        if self._world.mqtt5:
            properties |= {} if reply is None else {"response_topic": reply}
            properties |= {} if ttl_s is None else {"expiry_s": ttl_s}
        elif reply is not None or ttl_s is not None:
            fields = dict(fields or {})
            fields |= {} if reply is None else {"reply_to": reply}
            fields |= {} if ttl_s is None else {"ttl_ms": int(1000 * ttl_s)}
        if fields is None:
            return bytes.fromhex(given.pop("hex")) if "hex" in given else given.pop("text", "").encode(), properties
        given.pop("text", None)
        if op in OPS:
            fault = request_fault(op, fields)
            assert (fault is not None) == given.pop("invalid", False), f"its schema says: {fault}"
        return json.dumps(fields).encode(), properties

    def _caller(self, caller: str) -> None:
        """Away: hears nothing of what comes until it is back."""
        if caller == "back":
            self._world.wait_idle()
            self._world.pending.clear()

    def _wait_s(self, wait_s: float) -> None:
        time.sleep(wait_s)

    # What the caller hears

    def _take(self, topic: str) -> Message:
        message = self._world.take(lambda message: topic_matches_sub(topic, message.topic))
        self._heard.add((message.topic, message.payload))
        return message

    def _expect(self, expect: str, **wanted: Any) -> None:
        if is_told(expect):  # a state comes again and again
            self._world.take(
                lambda message: (
                    message.topic == expect and difference(json.loads(message.payload), wanted["json"]) is None
                )
            )
            return
        message = self._take(expect)
        assert not message.retain or "/out/" not in message.topic, "an answer is never retained"
        if "text" in wanted:
            assert message.payload.decode() == wanted["text"], message.payload.decode()
        if "json" in wanted or "error" in wanted or "lacks" in wanted:
            body = json.loads(message.payload)
            pattern = dict(wanted.get("json", {}))
            if "error" in wanted:
                status, code = wanted["error"]
                pattern |= {
                    "t": "error",
                    "done": True,
                    "error": {"status": status, "code": code, **pattern.get("error", {})},
                }
            self._same(body, pattern)
            assert not set(wanted.get("lacks", ())) & set(body), f"{wanted['lacks']} in {body}"
        self._properties(message, wanted.get("properties"))

    def _stream(self, stream: str, **wanted: Any) -> None:
        if wanted.pop("reads_on", False):  # what comes before was looked at
            self._read_on(stream, wanted)
            return
        frames, heard = self._streams.setdefault(stream, Frames()), []
        last: Message | None = None
        while not frames.whole:
            message = self._take(stream)
            heard.append(json.loads(message.payload))
            frames.push(heard[-1])
            last = message if heard[-1].get("done") else last
        assert last is not None
        ordered = [frames.by_seq[seq] for seq in range(len(frames.by_seq))]
        text, end = frames.text, ordered[-1]
        if "text_sha256" in end:
            assert hashlib.sha256(text.encode()).hexdigest() == end["text_sha256"], "the hash is another"
            assert end.get("text", text) == text, "the text is not what its frames said"
        assembler = Assembler()
        for frame in reversed(heard) if wanted.get("reversed") else heard:
            assembler.push(frame)
        assert assembler.complete and not assembler.lost, "our own client misses something"
        assert assembler.text in (text, ""), "our own client reads it otherwise"
        facts = {"text": text, "frames": len(ordered), "first": ordered[0], "last": end}
        self._same(facts, {name: wanted[name] for name in facts if name in wanted})
        assert not set(wanted.get("lacks", ())) & set(end), f"{wanted['lacks']} in {end}"
        self._properties(last, wanted.get("properties"))

    def _read_on(self, topic: str, wanted: dict[str, Any]) -> None:
        frame: dict[str, Any] = {}
        while not frame.get("done"):
            frame = json.loads(self._take(topic).payload)
        self._same({"last": frame}, wanted)

    def _text_stream(self, text_stream: str, **wanted: Any) -> None:
        pieces = [self._take(text_stream).payload.decode()]  # never half a character
        while pieces[-1]:
            pieces.append(self._take(text_stream).payload.decode())
        self._same({"text": "".join(pieces), "pieces": len(pieces) - 1}, wanted | {})

    def _nothing(self, nothing: bool) -> None:
        self._world.wait_idle()
        for message in list(self._world.pending):
            if message.topic in self._streams:  # QoS 1 may bring a frame twice, after the last one too
                self._streams[message.topic].push(json.loads(message.payload))
                self._world.pending.remove(message)
            elif self._case.ends_device and (message.topic, message.payload) in self._heard:
                self._world.pending.remove(message)  # a device that has died may not know that it was heard
        heard = [(message.topic, message.payload[:200]) for message in self._world.pending]
        assert not heard, f"nobody asked for {heard}"

    def _copies(self, copies: Any, topic_: str) -> None:
        self._nothing(True)
        self._same(self._streams[topic_].copies, copies)

    def _counted(self, counted: dict[str, int]) -> None:
        now = self._world.counters()
        self._same({name: now.get(name, 0) - self._before.get(name, 0) for name in counted}, counted)

    def _properties(self, message: Message, wanted: dict[str, Any] | None) -> None:
        if wanted is None or not self._world.mqtt5:
            return
        given = dict(message.properties)
        given["user"] = dict(given.get("user", []))
        if "correlation" in given:
            given["correlation"] = given["correlation"].decode()
        self._same(given, wanted)

    def _same(self, given: Any, wanted: Any) -> None:
        found = difference(given, wanted)
        assert found is None, f"{found} in {given}"

    # What breaks

    def _fault(self, fault: str, topic_: str, **given: Any) -> None:
        given.pop("as", None)
        self._stub.broker.faults.append(Fault(cast(Any, fault), topic_, **given))

    def _broker(self, broker: str) -> None:
        stub = self._stub.broker
        {"cut": stub.cut, "down": stub.go_down, "up": stub.come_up, "forget": stub.forget}[broker]()

    def _device(self, device: str) -> None:
        process = self._world.device
        if device == "start":
            process.restart()
        elif device == "kill":
            process.kill()
        else:
            assert process.stop() == 0

    @property
    def _stub(self) -> StubSide:
        assert isinstance(self._world.side, StubSide), "only the tests' own broker breaks at will"
        return self._world.side
