"""The Wyoming port: asked by the protocol's own package, and by those who mean it no good."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from wyoming.asr import Transcript
from wyoming.audio import AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.handle import Handled, NotHandled
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from edgebit.daemon.config.sections import WyomingConfig
from edgebit.daemon.contract.frames import Outgoing
from edgebit.daemon.home_assistant.wyoming import WyomingService
from edgebit.daemon.home_assistant.wyoming_events import DATA_MAX, LINE_MAX

WAIT_S = 60.0
MODEL = {"model": {"name": "bitnet-tiny", "family": "bitnet", "sha256": "ab" * 32}}


class Device:
    """Takes questions as the daemon does; answers at once with `answer`, or never where it is None."""

    def __init__(self):
        self.asked, self.cancelled = [], []
        self.answer = {"text": "Because."}
        self.changed = threading.Condition()

    def ask(self, principal, op, fields, hear):
        with self.changed:
            self.asked.append((principal, op, fields))
            self.changed.notify_all()
        if self.answer is not None:
            hear(Outgoing(topic="t", payload=json.dumps(self.answer).encode()))
        return f"job{len(self.asked)}"

    def cancel(self, principal, job_id):
        with self.changed:
            self.cancelled.append(job_id)
            self.changed.notify_all()

    def forget(self, principal, job_id):
        pass

    def wait(self, what):
        with self.changed:
            assert self.changed.wait_for(what, WAIT_S)


@pytest.fixture
def device():
    return Device()


@pytest.fixture
def serve(device):
    """Opens a port for `device`: serve(timeout_s=1) gives the service."""
    with ThreadPoolExecutor() as threads:
        services = []

        def start(event_s=WAIT_S, remembers=True, retry_s=60.0, **config):
            settings = WyomingConfig(**{"listen": "127.0.0.1:0", **config})
            service = WyomingService(
                settings, device, lambda: MODEL, device="pi", remembers=remembers, event_s=event_s, retry_s=retry_s
            )
            services.append((service, threads.submit(service.run)))
            return service

        yield start
        for service, running in services:
            service.close()
            running.result(WAIT_S)


def talk(service, *events, replies=None):
    """Send events over one connection, and give what comes back; as many as `replies`, or one for each."""

    async def converse():
        async with AsyncTcpClient("127.0.0.1", service.port, read_timeout=WAIT_S) as client:
            for event in events:
                await client.write_event(event.event())
            return [await client.read_event() for _ in range(len(events) if replies is None else replies)]

    return asyncio.run(converse())


def raw(service, sent):
    """Send bytes; gives what comes until the other side closes."""
    heard = b""
    with (
        socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as sock,
        contextlib.suppress(ConnectionError),  # what was not read makes the close an abrupt one
    ):
        sock.sendall(sent)
        while piece := sock.recv(65536):
            heard += piece
    return heard


def raw_line(service, sent):
    """Send bytes; gives the line that comes back, or nothing."""
    with (
        socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as sock,
        contextlib.suppress(ConnectionError),
    ):
        sock.sendall(sent)
        return sock.makefile("rb").readline()
    return b""


@contextlib.contextmanager
def open_question(service, device):
    """A connection with a question that the device is at, and does not answer."""
    device.answer = None
    with socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as sock:
        sock.sendall(b'{"type":"transcript","data":{"text":"hi"}}\n')
        device.wait(lambda: device.asked)
        yield sock


def test_info(serve):
    """What Home Assistant asks first: a handle program that is installed, with a model and its languages."""
    (event,) = talk(serve(languages=("en", "de")), Describe())
    info = Info.from_event(event)
    (program,) = info.handle
    assert program.installed and program.name == "edgebit pi" and not program.supports_handled_streaming
    (model,) = program.models
    assert model.installed and model.name == "bitnet-tiny" and model.languages == ["en", "de"]
    assert not (info.asr or info.tts or info.wake or info.intent or info.satellite)


def test_a_question(serve, device):
    """The transcript goes in as a chat with the settings of [wyoming], and the answer comes as Handled."""
    asked = Transcript("Why is the sky blue?", context={"conversation_id": "01J9Z"}, language="en")
    (event,) = talk(serve(max_tokens=32, timeout_s=20, system="Be brief."), asked)
    handled = Handled.from_event(event)
    assert Handled.is_type(event.type) and handled.text == "Because."
    assert handled.context == {"conversation_id": "01J9Z"}
    ((principal, op, fields),) = device.asked
    assert (principal, op) == ("wyoming", "chat")
    assert fields == {
        "messages": [{"role": "user", "content": "Why is the sky blue?"}],
        "system": "Be brief.",
        "max_tokens": 32,
        "ttl_ms": 20_000,
        "session": "01J9Z",
    }


def test_a_model_that_takes_no_system_message(serve, device, monkeypatch):
    """Has the system text before the sentence, and where there is none the sentence alone."""
    monkeypatch.setitem(MODEL, "model", {**MODEL["model"], "system_messages": False})
    talk(serve(system="Be brief."), Transcript("Why?"))
    talk(serve(system=""), Transcript("Why?"))
    contents = [fields["messages"][0]["content"] for _, _, fields in device.asked]
    assert contents == ["Be brief.\n\nWhy?", "Why?"]
    assert not any("system" in fields for _, _, fields in device.asked)


def test_a_device_without_memory(serve, device):
    """Where no conversations are kept, none is named: the device would refuse it, and the assistant fall silent."""
    talk(serve(remembers=False), Transcript("hi", context={"conversation_id": "01J9Z"}))
    ((_, _, fields),) = device.asked
    assert "session" not in fields


def test_a_conversation_of_any_name(serve, device):
    """An id that may not be one of ours still is the same session each time."""
    asked = Transcript("hi", context={"conversation_id": "living room/1"})
    talk(serve(), asked, asked)
    first, second = (fields["session"] for _, _, fields in device.asked)
    assert first == second and len(first) == 64


def test_a_refusal_is_not_handled(serve, device):
    """The reason is what is spoken."""
    device.answer = {"error": {"message": "8 jobs are waiting already", "code": "queue_full"}}
    (event,) = talk(serve(), Transcript("hi"))
    assert NotHandled.is_type(event.type) and NotHandled.from_event(event).text == "8 jobs are waiting already"
    (nothing,) = talk(serve(), Transcript("  "))
    assert NotHandled.is_type(nothing.type) and len(device.asked) == 1


def test_several_events_on_one_connection(serve):
    """A ping is answered; an event that is for another kind of service is passed over."""
    ping, info, said = talk(serve(), Ping(text="x"), AudioStop(), Describe(), Transcript("hi"), replies=3)
    assert Pong.from_event(ping).text == "x" and Info.is_type(info.type) and Handled.is_type(said.type)


def test_data_in_the_line(serve):
    """Older speakers put their data into the header."""
    heard = raw_line(serve(), b'{"type":"transcript","data":{"text":"hi"}}\n')
    assert json.loads(heard)["type"] == "handled"


def test_a_caller_that_leaves_ends_its_job(serve, device):
    """Nobody would hear the answer: the engine is for others then."""
    with open_question(serve(), device):
        pass
    device.wait(lambda: device.cancelled == ["job1"])


def test_no_answer_in_time(serve, device, monkeypatch):
    """The daemon says by itself that a deadline has passed; where even that does not come, this does."""
    monkeypatch.setattr("edgebit.daemon.home_assistant.wyoming.LATE_S", -0.9)
    device.answer = None
    (event,) = talk(serve(timeout_s=1), Transcript("hi"))
    assert NotHandled.from_event(event).text == "No answer within 1 seconds."
    assert device.cancelled == ["job1"]


def test_the_service_ends_with_questions_open(serve, device):
    """close() waits for nobody."""
    service = serve()
    with open_question(service, device) as sock:
        service.close()
        assert sock.recv(1) == b""
    device.wait(lambda: device.cancelled == ["job1"])


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\n",
        b"[1]\n",
        b"[" * 50_000 + b"\n",
        b"\xff\xfe\n",
        b"x" * (LINE_MAX + 2),
        b'{"type":3}\n',
        b'{"data":{"text":"no type"}}\n',
        b'{"type":"transcript"}\n',
        b'{"type":"transcript","data":{"text":7}}\n',
        b'{"type":"transcript","data":{"text":"x","context":[1]}}\n',
        b'{"type":"transcript","data":[1]}\n',
        b'{"type":"transcript","data_length":%d}\n' % (DATA_MAX + 1),
        b'{"type":"transcript","data_length":-1}\n',
        b'{"type":"transcript","data_length":"9"}\n',
        b'{"type":"transcript","data_length":true}\n',
        b'{"type":"transcript","data_length":4}\n[1]\n',
        b'{"type":"audio-chunk","payload_length":99999999999}\n',
    ],
    ids=lambda sent: sent[:48].decode("latin-1"),
)
def test_what_is_no_event_ends_the_connection(serve, device, sent):
    """Nothing is answered, nothing is run, and the next caller is served."""
    service = serve()
    assert raw(service, sent) == b"" and not device.asked
    assert service.counters["wyoming_bad_event"] == 1
    assert Info.is_type(talk(service, Describe())[0].type)


def test_an_event_that_never_ends(serve):
    """A byte now and then keeps no connection: an event has its time from the first byte to the last."""
    service = serve(event_s=0.2)
    with socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as sock:
        sock.sendall(b'{"type":"transcript",')
        assert sock.recv(1) == b""
    assert service.counters["wyoming_bad_event"] == 1


def test_silent_connections_make_room(serve, device):
    """All places taken by those who say nothing: the longest silent one goes, and the question is answered."""
    service = serve(connections_max=2)
    silent = [socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) for _ in range(2)]
    (event,) = talk(service, Transcript("hi"))
    assert Handled.is_type(event.type)
    assert silent[0].recv(1) == b"" and service.counters["wyoming_displaced"] == 1
    for sock in silent:
        sock.close()


def test_no_room_beside_open_questions(serve, device):
    """Those who wait for an answer keep their place, and one more is turned away."""
    service = serve(connections_max=1)
    with open_question(service, device):
        assert raw(service, b"") == b""
        assert service.counters["wyoming_full"] == 1


@pytest.mark.parametrize(("allow", "answered"), [(("127.0.0.0/8",), True), (("10.0.0.0/8", "::1"), False)])
def test_who_may_connect(serve, allow, answered):
    """Addresses outside of `allow` are hung up on."""
    service = serve(allow=allow)
    assert bool(raw_line(service, b'{"type":"describe"}\n')) is answered
    assert service.counters["wyoming_forbidden"] == (0 if answered else 1)


def test_a_port_that_is_taken_is_said_and_tried_again(serve):
    """With the key's name; and there is an answer from the moment that it is free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = serve(listen=f"127.0.0.1:{taken.getsockname()[1]}", retry_s=0.01)
        assert service.fault.startswith(f"[wyoming]: 127.0.0.1:{taken.getsockname()[1]} cannot be listened on: ")
    deadline = time.monotonic() + WAIT_S
    while service.fault is not None:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    assert b'"info"' in raw_line(service, b'{"type":"describe"}\n')


@pytest.mark.parametrize("host", ["192.0.2.1", "x" * 70 + ".local"])
def test_an_address_that_is_not_there_keeps_nobody_waiting(serve, host):
    """Not yet there at boot, or no name at all: the daemon lives, and its end waits for no port."""
    assert "cannot be listened on" in serve(listen=f"{host}:10200").fault  # the fixture closes it, and waits for run()


def test_many_callers(serve, device):
    """Forty at a time on eight places: every one that keeps its place is answered, and none hangs."""
    service = serve()
    with ThreadPoolExecutor(20) as callers:
        line = b'{"type":"transcript","data":{"text":"hi"}}\n'
        heard = list(callers.map(lambda _: raw_line(service, line), range(40)))
    answered = [line for line in heard if line]
    assert len(answered) >= 8 and all(json.loads(line)["type"] == "handled" for line in answered)


def test_a_model_that_is_an_assistant(serve, device, monkeypatch):
    """One with a schema of its own is asked to assist: a sentence alone, and what it says is spoken."""
    monkeypatch.setitem(MODEL, "model", {**MODEL["model"], "response_schema": True})
    device.answer = {"text": "Lamp on.", "call": {"intent": "turn_on"}, "speaker": "model"}
    (event,) = talk(serve(max_tokens=32, timeout_s=20), Transcript("lamp on", context={"conversation_id": "01J9Z"}))
    assert Handled.from_event(event).text == "Lamp on."
    ((_, op, fields),) = device.asked
    assert (op, fields) == ("assist", {"prompt": "lamp on", "max_tokens": 32, "ttl_ms": 20_000})
