"""Ten thousand requests of a thousand principals leave nothing behind but the last answers."""

import json
import threading
import time

import pytest
from serving_fixtures import OWN_FACTS, Engine, NoLedger

from edgebit.daemon.adapters.adapters import Adapters
from edgebit.daemon.admission.acceptance import Acceptance
from edgebit.daemon.admission.adapter_desk import AdapterDesk
from edgebit.daemon.admission.admission import Admission
from edgebit.daemon.admission.gatekeeper import Gatekeeper
from edgebit.daemon.admission.journal import Journal
from edgebit.daemon.assistant.assistant import Assistant
from edgebit.daemon.config.safeguards import AdaptersConfig
from edgebit.daemon.config.sections import Config, DeviceConfig, JournalConfig, LimitsConfig, ServingConfig
from edgebit.daemon.contract.messages import Incoming
from edgebit.daemon.serving.batch_loop import BatchLoop
from edgebit.daemon.serving.endings import Endings
from edgebit.daemon.serving.finishing import Finishing
from edgebit.daemon.serving.scheduler import Scheduler

REQUESTS = 10_000
PRINCIPALS = 1_000
TOGETHER = 16


class Broker:
    """Takes every message at once."""

    packet_max = 0

    def __init__(self):
        self.answered = {}
        self.room = threading.Condition()

    def publish(self, message):
        body = json.loads(message.payload)
        if message.delivered is not None:
            message.delivered()
        if body.get("done"):
            with self.room:
                self.answered[message.topic] = self.answered.get(message.topic, 0) + 1
                self.room.notify()
        return True


class Model(Engine):
    names = {"fake"}  # noqa: RUF012

    def encode(self, text):
        return list(text.encode())


def incoming(n):
    fields = {"prompt": f"question {n}", "max_tokens": n % 4 + 1, **({"id": f"j{n}"} if n % 3 else {})}
    return Incoming(
        topic=f"edgebit/v1/pi/in/p{n % PRINCIPALS}/generate",
        payload=json.dumps(fields).encode(),
        received=time.monotonic(),
        connection=1,
        packet_id=n % 65_535 + 1,
        mqtt5=True,
    )


@pytest.mark.slow
def test_ten_thousand_requests(tmp_path):
    """The file stays below its limit, and all that grows with requests is small again at the end."""
    config = Config(
        device=DeviceConfig(name="pi"),
        limits=LimitsConfig(queue_max=64),
        journal=JournalConfig(size_mib=1, answers_max=100),
        serving=ServingConfig(share_prefixes=True),
    )
    broker = Broker()
    endings = Endings(broker, "pi", ledger=NoLedger(), assistant=Assistant(lambda: OWN_FACTS))
    scheduler = Scheduler(config.limits, config.serving, endings)
    journal = Journal(tmp_path / "journal", config.journal)
    acceptance = Acceptance(broker, scheduler, journal)
    model = Model(sequences=4)
    gate = Gatekeeper(config, tmp_path)
    desk = AdapterDesk((), Adapters(AdaptersConfig(), tmp_path / "adapters"), acceptance, gate)
    admission = Admission(config, broker, scheduler, journal, acceptance, gate, lambda: model, dict, desk)
    endings.listeners.append(admission.batches)
    scheduler.set_engine(model)
    finishing = Finishing(scheduler, endings)
    loop = threading.Thread(target=BatchLoop(scheduler, model, endings, finishing).run)
    finisher = threading.Thread(target=finishing.run)
    loop.start()
    finisher.start()
    largest = 0
    for first in range(0, REQUESTS, TOGETHER):
        admission.take([incoming(n) for n in range(first, min(first + TOGETHER, REQUESTS))])
        journal.tick()
        largest = max(largest, (tmp_path / "journal").stat().st_size)
        with broker.room:
            assert broker.room.wait_for(lambda: sum(broker.answered.values()) >= first - 32, 60)  # noqa: B023
    with broker.room:
        assert broker.room.wait_for(lambda: sum(broker.answered.values()) >= REQUESTS, 60)
    scheduler.stop()
    loop.join(60)
    finishing.close()
    finisher.join(60)
    assert len(broker.answered) == REQUESTS and set(broker.answered.values()) == {1}
    assert endings.counters["answered"] == REQUESTS
    journal.close()
    assert largest <= 1 << 20
    again = Journal(tmp_path / "journal", config.journal)
    again.tick()
    kept = [n for n in range(REQUESTS) if n % 3 and again.entry(f"p{n % PRINCIPALS}", f"j{n}") is not None]
    assert 0 < len(kept) <= 100 and again.unfinished() == [] and again.fault is None
    assert len(again.undelivered()) <= 1000, "what had no tick after it"
    again.close()
    load = scheduler.load()
    assert (load.running, load.queue_len) == (0, 0) and acceptance.ready == []
