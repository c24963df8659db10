"""A device's admission, journal and queue, without MQTT."""

import dataclasses
import json
import time

from serving_fixtures import Engine, Serving, wait_for

from edgebit.daemon.adapters.adapters import Adapters
from edgebit.daemon.adapters.shelf import AdapterShelf
from edgebit.daemon.admission.acceptance import Acceptance
from edgebit.daemon.admission.adapter_desk import AdapterDesk
from edgebit.daemon.admission.admission import Admission
from edgebit.daemon.admission.gatekeeper import Gatekeeper
from edgebit.daemon.admission.journal import Journal
from edgebit.daemon.config.sections import Config, DeviceConfig, JournalConfig
from edgebit.daemon.contract.messages import Incoming, Refusal
from edgebit.errors import EngineError

IN, OUT = "edgebit/v1/pi/in/alice", "edgebit/v1/pi/out/alice"


class FakeAdapter:
    """Of the model `fake`, where its first line says so."""

    def __init__(self, data):
        head = data.partition(b"\n")[0]
        if head.startswith(b"adapter of ") and head != b"adapter of fake":
            raise Refusal(409, "adapter_unfit", f"the adapter was made for {head[11:].decode()}, this model is fake")
        if head != b"adapter of fake":
            raise EngineError("no adapter")
        self.closed = False

    def close(self):
        assert not self.closed
        self.closed = True


class Model(Engine):
    names = {"fake"}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.adapters = AdapterShelf()

    def open_adapter(self, data):
        return FakeAdapter(data)

    def fitting(self, request):
        if request.adapter is None:
            return request
        return dataclasses.replace(request, adapter_sha256=self.adapters.sha256(request.adapter))

    def encode(self, text):
        return list(text.encode())


class Device:
    """Admission to worker, without MQTT; restart() is a crash: nothing is tidied up."""

    def __init__(self, path, **sections):
        self._path = path
        self.config = Config(device=DeviceConfig(name="pi"), **sections)
        self.steps = []  # what happened, in order
        self.restart()

    def restart(self):
        self.model = Model()
        self.serving = Serving(self.model, limits=self.config.limits)
        self.heard, self.scheduler = self.serving.heard, self.serving.scheduler
        self.journal = Journal(self._path, JournalConfig())
        self.acceptance = Acceptance(self.heard, self.scheduler, self.journal)
        self.gate = Gatekeeper(self.config, self._path.parent)
        self.adapters = Adapters(self.config.adapters, self._path.parent / "adapters")
        self.adapters.attach(self.model)
        self.now = time.monotonic()  # as the watch for lost jobs has it
        self.admission = Admission(
            self.config,
            self.heard,
            self.scheduler,
            self.journal,
            self.acceptance,
            self.gate,
            lambda: self.model,
            dict,
            AdapterDesk(self.config.adapters.may_load, self.adapters, self.acceptance, self.gate),
            clock=lambda: self.now,
        )
        self.serving.endings.listeners.append(self.admission.batches)
        self.recovered = self.admission.recover()

    def take(self, *asked, **named):
        """Requests that have come together, as (operation, fields)."""
        self.admission.take([self.message(op, fields, n + 1, **named) for n, (op, fields) in enumerate(asked)])

    def message(self, op, fields, packet_id, connection=1, dup=False):
        return Incoming(
            topic=f"{IN}/{op}",
            payload=json.dumps(fields).encode(),
            received=time.monotonic(),
            connection=connection,
            packet_id=packet_id,
            dup=dup,
            mqtt5=True,
            ack=lambda: self.steps.append(("ack", packet_id)),
        )

    def run(self, *topics):
        """Until these have their last frame; gives them."""
        if not self.serving.worker.is_alive():
            self.serving.start()
        wait_for(lambda: set(topics) <= set(self.heard.bodies))
        return [self.heard.bodies[topic] for topic in topics]


def question(name, tokens=2, **more):
    return "generate", {"id": name, "prompt": "a question", "max_tokens": tokens, **more}
