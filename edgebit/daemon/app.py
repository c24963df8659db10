"""The daemon put together: the only place that starts threads.

Main thread: events, admission, reports, watch over the others. Network thread: mqtt.Connection. Worker thread: loads
the model, then batch_loop.BatchLoop. Endings: last frames. Sensors, pool and Wyoming have one each. Everything between
them goes through queues or takes a lock of its own.
"""

import faulthandler
import functools
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgebit.daemon.adapters.adapters import AdaptableModel, Adapters
from edgebit.daemon.admission.acceptance import Acceptance
from edgebit.daemon.admission.adapter_desk import AdapterDesk
from edgebit.daemon.admission.admission import Admission, AskableModel
from edgebit.daemon.admission.gatekeeper import Gatekeeper
from edgebit.daemon.admission.journal import Journal
from edgebit.daemon.admission.local_callers import LocalCallers
from edgebit.daemon.admission.storage_events import StorageEvents
from edgebit.daemon.assistant.assistant import Assistant
from edgebit.daemon.config.sections import Config
from edgebit.daemon.connection.connection_counter import ConnectionCounter
from edgebit.daemon.connection.events import Connected, Disconnected
from edgebit.daemon.connection.mqtt import CLOSE_S, Connection
from edgebit.daemon.connection.pool import Pool
from edgebit.daemon.connection.pool_membership import Fitness
from edgebit.daemon.connection.role import device_role
from edgebit.daemon.contract.messages import Incoming
from edgebit.daemon.governor.loop import GovernorLoop
from edgebit.daemon.home_assistant.announcer import Announcer
from edgebit.daemon.inbox import FromInside, Inbox
from edgebit.daemon.monitoring.health import Probes
from edgebit.daemon.monitoring.progress import Progress
from edgebit.daemon.monitoring.vitals import Situation
from edgebit.daemon.monitoring.watch import Watch
from edgebit.daemon.reports import Events, Reports
from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.kinds import sampler_of
from edgebit.daemon.serving.answering import AnsweringEngine
from edgebit.daemon.serving.batch_loop import BatchLoop
from edgebit.daemon.serving.endings import Endings
from edgebit.daemon.serving.finishing import Finishing
from edgebit.daemon.serving.scheduler import Scheduler
from edgebit.daemon.state_claim import StateClaim
from edgebit.errors import EdgebitError, EngineError

if TYPE_CHECKING:
    from edgebit.daemon.home_assistant.wyoming import WyomingService

log = logging.getLogger("edgebit")

BUSY_TICK_S = 0.1  # how often deadlines and the state are looked at
IDLE_TICK_S = 1.0
# How long each part may take to end, beside serving.drain_s; together less than service managers wait.
PROBE_STOP_S = 3.0
WORKER_STOP_S = 10.0
LAST_FRAMES_S = 5.0
NETWORK_STOP_S = 3.0
STOP_S = IDLE_TICK_S + PROBE_STOP_S + WORKER_STOP_S + LAST_FRAMES_S + 2 * CLOSE_S + NETWORK_STOP_S


class DaemonModel(AskableModel, AdaptableModel, AnsweringEngine[Any], Protocol):
    """A loaded model, as engine.LoadedModel is one."""

    @property
    def probes(self) -> Probes:
        """Its golden probes."""

    def describe(self) -> dict[str, Any]:
        """The engine's part of the info document; after close() too."""

    def close(self) -> None:
        """Give everything back."""


class Daemon:
    """One device's daemon; run() until SIGTERM or SIGINT."""

    def __init__(self, config: Config, state_dir: Path, load: Callable[[], DaemonModel], *, slot: str = "") -> None:
        """`load` opens the model, in the worker thread.

        Raises ConfigError for wrong files, and for a state_dir that is wrong or another daemon's.
        """
        self._claim = StateClaim(state_dir)
        self._config = config
        self._topics = config.topics
        self._load = load
        self._stopping = threading.Event()
        self._inbox = Inbox(self._stopping)
        counter = ConnectionCounter(state_dir / "connection")
        self._connection = Connection(config, device_role(config), counter.next, self._inbox.deliver)
        self._events = Events(self._connection, config.topics.event)
        self._pool = Pool(config, self._inbox.deliver) if config.pool.names else None
        self._home = Announcer(config.home_assistant, self._connection, state_dir / "home_assistant")
        inside = ("wyoming",) if config.wyoming.listen else ()
        self._local = LocalCallers(self._connection, config.topics, inside, self._inbox.deliver_inside)
        files = DeviceFiles(Path(config.report.sensors_root))
        self._sensors = sampler_of(files, config.sensors, config.power, state_dir)
        assistant = Assistant(lambda: self._reports.own_facts(), config.assistant.devices)
        self._endings = Endings(self._local, config.device_name, ledger=self._sensors.energy, assistant=assistant)
        self._scheduler = Scheduler(config.limits, config.serving, self._endings)
        self._finishing = Finishing(self._scheduler, self._endings)
        self._governor = GovernorLoop(
            config.governor,
            self._scheduler,
            self._sensors.readings,
            self._threads_opened,
            threads_fixed=config.engine.engine != "native",
        )
        self._model: DaemonModel | None = None
        self._journal = Journal(state_dir / "journal", config.journal)
        self._storage_events = StorageEvents(lambda: self._journal.fault, self._events.publish)
        self._acceptance = Acceptance(self._local, self._scheduler, self._journal)
        self._gate = Gatekeeper(config, state_dir)
        self._adapters = Adapters(config.adapters, state_dir / "adapters")
        self._admission = Admission(
            config,
            self._local,
            self._scheduler,
            self._journal,
            self._acceptance,
            self._gate,
            lambda: self._model,
            lambda: self._reports.status(),
            AdapterDesk(config.adapters.may_load, self._adapters, self._acceptance, self._gate),
        )
        self._wyoming = self._open_wyoming() if config.wyoming.listen else None
        parts = (self._admission, self._acceptance, self._gate, self._endings, self._connection, self._journal)
        self._reports = Reports(
            config=config,
            slot=slot,
            stopping=self._stopping,
            model=lambda: self._model,
            connection=self._connection,
            pool=self._pool,
            events=self._events,
            scheduler=self._scheduler,
            endings=self._endings,
            sensors=self._sensors,
            governor=self._governor,
            journal=self._journal,
            gate=self._gate,
            admission=self._admission,
            adapters=self._adapters,
            home=self._home,
            counting=[part for part in (*parts, self._pool, self._wyoming) if part is not None],
        )
        self._network = threading.Thread(target=self._connection.run, name="network", daemon=True)
        self._worker = threading.Thread(target=self._work, name="worker", daemon=True)
        self._finisher = threading.Thread(target=self._finishing.run, name="endings", daemon=True)
        runs = {"sensors": self._sensors, "pool": self._pool, "wyoming": self._wyoming}
        others = [threading.Thread(target=part.run, name=name, daemon=True) for name, part in runs.items() if part]
        self._threads = [self._network, self._worker, self._finisher, *others]
        self._loading_since: float | None = time.monotonic()
        self._load_fault: str | None = None
        self._watch = self._reports.watch = Watch(
            config,
            state_dir,
            situation=self._situation,
            readings=self._sensors.readings,
            working=self._reports.working,
            for_alerts=self._reports.for_alerts,
            warnings=self._warnings,
            metrics=self._reports.metrics,
            about=self._reports.about,
            publish_event=self._events.publish,
            spawn=lambda name, run: threading.Thread(target=run, name=name, daemon=True).start(),
        )
        self._endings.listeners += [self._admission.batches, self._gate, self._watch.outcomes]
        self._admission.on_refusal = self._watch.outcomes.refused
        self._admission.own_ops |= {
            "history": lambda fields: self._watch.history(fields, self._connection.packet_max),
            "health": lambda fields: self._watch.health(),
        }
        self._signals = 0

    def run(self) -> int:
        """Serve until a signal; gives the exit code: 0, or EngineError's if a thread died or the model never worked."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_hangup)
        self._sensors.sample()  # once before anything is published
        if interrupted := self._admission.recover():
            self._events.publish("interrupted", jobs=interrupted)
        for thread in self._threads:
            thread.start()
        fault = None
        while not self._stopping.is_set() and fault is None:
            self._take_events()
            self._scheduler.expire()
            self._journal.tick()
            self._admission.tick()
            if self._connection.connected:
                self._acceptance.send_unsent(lambda: self._connection.room)
            self._gate.tick()
            self._storage_events.tick()
            for happening in self._governor.tick():
                self._events.publish(happening.event, **happening.facts)
            self._look_at_pool()
            fault = self._look_after() or self._dead_thread()
            self._reports.tick()
            fault = None if self._stopping.is_set() else fault  # a thread may end once it is told to, which comes first
        if fault is not None:
            log.critical("%s; ending, so that the service manager starts anew", fault)
        self._shut_down()
        return EngineError.exit_code if fault or self._admission.fault else 0

    def _take_events(self) -> None:
        """What has come since: requests together, since one write to the disk does for all of them."""
        load = self._scheduler.load()
        busy = load.running or load.queue_len or self._reports.is_behind
        patience_s = BUSY_TICK_S if busy else min(IDLE_TICK_S, self._config.report.interval_s)
        requests: list[Incoming] = []
        for event in self._inbox.take(patience_s):
            if isinstance(event, FromInside):
                requests.append(event.incoming)
            elif not isinstance(event, Incoming):
                self._guarded(functools.partial(self._take_news, event))
            else:
                request = self._pool.take(event) if self._pool is not None else event
                if self._is_request(request):
                    requests.append(request)
        if requests:
            self._guarded(functools.partial(self._admission.take, requests))

    def _take_news(self, event: Connected | Disconnected) -> None:
        if isinstance(event, Connected):
            self._acceptance.connected(event.number, event.session_present)
            self._reports.announce(event)
        elif event.was_connected:
            log.info("disconnected: %s", event.reason)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception:
            log.exception("handling an event failed")
            self._admission.counters["internal"] += 1

    def _is_request(self, incoming: Incoming) -> bool:
        """Whether a message from the broker is for admission; Home Assistant's word that it has started is not."""
        if self._local.owns(incoming):
            self._admission.counters["reserved_principal"] += 1
            topic = self._topics.nameless(incoming.topic)
            log.info("a request on %s is not run: its principal asks from inside only", topic)
        elif not self._home.hears(incoming):
            return True
        incoming.ack()
        return False

    def _open_wyoming(self) -> "WyomingService":
        from edgebit.daemon.home_assistant.wyoming import WyomingService  # asyncio is loaded where it is needed

        return WyomingService(
            self._config.wyoming,
            self._local,
            lambda: self._reports.described(),
            device=self._config.device_name,
            remembers=self._config.serving.sessions_max > 0,
        )

    def _work(self) -> None:
        try:
            model = self._load()
            self._adapters.attach(model)
            loop = BatchLoop(self._scheduler, model, self._endings, self._finishing)
            if self._config.serving.warm_up:
                loop.warm_up()
        except (EdgebitError, OSError, MemoryError) as error:
            log.error("the model cannot be loaded: %s", error)
            self._loading_since, self._load_fault = None, str(error)
            self._admission.fault = self._load_fault
            self._scheduler.fail(f"no working model: {error}")
            self._stopping.wait()
            return
        self._model, self._loading_since = model, None
        self._scheduler.set_engine(model)
        log.info("the model is ready")
        self._inbox.wake()
        loop.run()

    def _look_after(self) -> str | None:
        """Do what monitoring has to do; while a golden probe fails, no work is done. Gives why to end, where so."""
        load = self._scheduler.load()
        probes = self._model.probes if self._model is not None else None
        end = self._watch.turn(probes, busy=bool(load.running or load.queue_len))
        fault = self._load_fault or self._watch.fault
        if fault != self._admission.fault:
            self._admission.fault = fault
            if fault is not None:
                self._scheduler.fail(f"no working model: {fault}")
        return end

    def _situation(self) -> Situation:
        return Situation(
            progress=Progress(
                network_at=min(part.alive_at for part in (self._connection, self._pool) if part is not None),
                loading_since=self._loading_since,
                step_at=self._scheduler.step_at,
            ),
            dead=self._dead_thread(),
            state=self._reports.state(),
            fault=self._admission.fault,
            connected=self._connection.connected,
            refuses=None if self._governor.levers.admit else self._governor.levers.reason,
        )

    def _warnings(self) -> dict[str, str]:
        """What the owner should mend, by what it is about."""
        port = self._wyoming.fault if self._wyoming is not None else None
        return {**self._gate.warnings(), **({"wyoming": port} if port else {})}

    def _threads_opened(self) -> int:
        """That the engine was opened with; 0 while there is none."""
        return int(self._reports.described().get("engine", {}).get("threads", 0))

    def _on_signal(self, number: int, frame: object) -> None:
        log.info("%s: stopping", signal.Signals(number).name)
        self._signals += 1
        self._stopping.set()
        self._inbox.wake()

    def _on_hangup(self, number: int, frame: object) -> None:
        self._gate.look_again()
        self._inbox.wake()

    def _dead_thread(self) -> str | None:
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        return f"the {dead[0]} thread has died" if dead else None

    def _look_at_pool(self) -> None:
        """Join or leave, and tell it."""
        if self._pool is None:
            return
        levers = self._scheduler.levers
        load, sequences = self._scheduler.load(), self._model.sequences if self._model is not None else 0
        fitness = Fitness(
            connected=self._connection.connected,
            state=self._reports.state(),
            held_back=None if levers.in_pool else levers.reason,
            waiting=max(0, load.queue_len + load.running - sequences),  # what has just come and fits does not wait
        )
        changed = self._pool.look(fitness)
        if changed is not None:
            for name in self._config.pool.names:
                self._events.publish("pool_joined" if changed.is_in else "pool_left", pool=name, reason=changed.reason)

    def _shut_down(self) -> None:
        self._stopping.set()  # where no signal has: whoever asks hears that it ends, and no thread waits for this one
        self._look_at_pool()
        self._reports.publish_status()
        if self._wyoming is not None:
            self._wyoming.close()
        self._sensors.stop()
        self._watch.stopping(PROBE_STOP_S)
        self._drain()
        if self._worker.is_alive():
            log.error("the worker did not end within %.0f s", WORKER_STOP_S)
        elif self._model is not None:
            self._model.close()  # not before callers are heard no more: they ask for its tokens too
        self._finishing.close()
        self._finisher.join(LAST_FRAMES_S)
        if self._pool is not None:
            self._pool.close()
        self._connection.close()
        self._network.join(NETWORK_STOP_S)
        self._journal.tick()
        self._journal.close()
        self._watch.close()
        self._gate.close()
        self._claim.close()
        log.info("stopped")

    def _drain(self) -> None:
        """Let the worker finish what can be finished, and hear callers meanwhile; a second signal ends that."""
        drain_s = self._config.serving.drain_s if self._network.is_alive() else 0.0
        self._scheduler.stop(drain_s)
        end = time.monotonic() + drain_s + WORKER_STOP_S
        while self._worker.is_alive() and time.monotonic() < end:
            if self._signals > 1:
                self._scheduler.stop()
            self._take_events()
            self._scheduler.expire()
            self._journal.tick()
        self._worker.join(0)


def set_up_logging(level: str) -> None:
    """One line a record on standard error, and where each thread stood if a signal such as the watchdog's ends us.

    Prompts, answers and callers' names are not among them (docs/privacy.md).
    """
    faulthandler.enable()
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
