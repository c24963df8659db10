"""Alive, ready, healthy; golden probes at their times; and what a service manager hears of it."""

import os
import socket
import threading

import pytest

from edgebit.daemon.monitoring.health import OVERDUE, RETRY_S, STALE, Facts, GoldenProbe, judge
from edgebit.daemon.monitoring.notify import Notifier
from edgebit.daemon.monitoring.progress import Progress, stall
from edgebit.daemon.monitoring.vitals import Situation, Vitals
from edgebit.errors import BundleError, EngineError
from edgebit.runtime.eval_errors import Cancelled

HOUR = 3600.0
FACTS = {
    "loop_age_s": 0.1, "stall": None, "dead": None, "state": "ready", "fault": None, "connected": True,
    "refuses": None, "doubt": None,
}  # fmt: skip


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Probes:
    """Probes that end as they are told to."""

    def __init__(self, *ends):
        self.ends = list(ends)
        self.runs = self.cancels = 0

    def check(self):
        self.runs += 1
        end = self.ends.pop(0) if self.ends else 3
        if isinstance(end, BaseException):
            raise end
        return end

    def cancel(self):
        self.cancels += 1


@pytest.mark.parametrize(
    ("changed", "levels", "why"),
    [
        ({}, (True, True, True), ""),
        ({"state": "busy"}, (True, True, True), ""),
        ({"doubt": "no probe yet"}, (True, True, False), "no probe yet"),
        ({"connected": False}, (True, False, False), "broker"),
        ({"state": "init"}, (True, False, False), "being loaded"),
        ({"state": "draining"}, (True, False, False), "draining"),
        ({"refuses": "too hot"}, (True, False, False), "too hot"),
        ({"state": "fault", "fault": "model.ebm is damaged"}, (True, False, False), "damaged"),
        ({"stall": "the engine has made no step"}, (False, False, False), "no step"),
        ({"dead": "the worker thread has died"}, (False, False, False), "died"),
        ({"loop_age_s": 100.0}, (False, False, False), "main thread"),
    ],
)
def test_levels(changed, levels, why):
    """Each needs the one before, and says what is against it."""
    health = judge(Facts(**{**FACTS, **changed}))
    assert (health.alive, health.ready, health.healthy) == levels
    assert why in " ".join(health.why)


def make(interval_s=HOUR):
    clock = Clock()
    return GoldenProbe(interval_s, lambda run: run(), clock), clock


def test_probes_run_at_the_start_and_at_their_interval():
    """While nothing is to be answered."""
    probe, clock = make()
    probes = Probes()
    assert probe.doubt() is not None
    probe.tend(probes, busy=True)
    assert probes.runs == 0
    for _ in range(3):
        probe.tend(probes, busy=False)
    assert probes.runs == 1 and probe.doubt() is None and probe.count == 3
    clock.now += HOUR
    probe.tend(probes, busy=False)
    assert probes.runs == 2
    clock.now += STALE * HOUR + 1
    assert "have not passed for" in (probe.doubt() or "")


def test_a_device_that_is_never_idle_is_probed_beside_its_work():
    """After two intervals without a chance."""
    probe, clock = make()
    probes = Probes()
    for _ in range(int(OVERDUE) * 60 - 1):
        clock.now += 60
        probe.tend(probes, busy=True)
    assert probes.runs == 0
    clock.now += 60
    probe.tend(probes, busy=True)
    assert probes.runs == 1


def test_a_probe_that_differs_is_a_fault_until_it_passes():
    """Tried again each minute; only a verdict ends it."""
    probe, clock = make()
    probes = Probes(BundleError("golden probe 0: layer 3 differs"), EngineError("no memory"), 3)
    probe.tend(probes, busy=False)
    assert "layer 3" in (probe.fault or "") and probe.to_json()["passed"] is False
    clock.now += RETRY_S - 1
    probe.tend(probes, busy=False)
    assert probes.runs == 1
    clock.now += 1
    probe.tend(probes, busy=False)
    assert "layer 3" in (probe.fault or "")
    clock.now += RETRY_S
    probe.tend(probes, busy=False)
    assert probe.fault is None and probe.doubt() is None
    assert probe.to_json() == {"passed": True, "count": 3, "passed_s_ago": 0.0}


def test_too_little_memory_is_no_verdict():
    """It is a doubt, and no reason to refuse work."""
    probe, _ = make()
    probe.tend(Probes(EngineError("no memory for the arena")), busy=False)
    assert probe.fault is None and "no memory" in (probe.doubt() or "")
    assert probe.to_json()["passed"] is None


def test_a_run_that_fails_by_a_fault_of_ours_is_not_begun_again_at_once():
    """It would be a thread and a traceback for each turn of the main thread; it proves nothing, so doubt stays."""
    probe, clock = make()
    probes = Probes(OSError("the card is gone"))
    with pytest.raises(OSError, match="card"):
        probe.tend(probes, busy=False)
    probe.tend(probes, busy=False)
    assert probes.runs == 1 and probe.doubt() is not None
    clock.now += RETRY_S
    probe.tend(probes, busy=False)
    assert probes.runs == 2 and probe.doubt() is None


def test_an_interval_of_0_runs_none():
    """And doubts nothing."""
    probe, _ = make(0)
    probes = Probes()
    probe.tend(probes, busy=False)
    assert probes.runs == 0 and probe.doubt() is None


class Waiting:
    """Probes that run until they are cancelled."""

    def __init__(self):
        self.started, self.cancelled = threading.Event(), threading.Event()

    def check(self):
        self.started.set()
        assert self.cancelled.wait(60)
        raise Cancelled

    def cancel(self):
        self.cancelled.set()


@pytest.mark.parametrize("by", ["request", "stop"])
def test_a_run_makes_way(by):
    """For a request, and for the daemon's end; there is no verdict then."""
    probe = GoldenProbe(HOUR, lambda run: threading.Thread(target=run, daemon=True).start())
    probes = Waiting()
    probe.tend(probes, busy=False)
    assert probes.started.wait(60)
    if by == "request":
        probe.tend(probes, busy=True)
    probe.stop(10.0)
    assert probes.cancelled.is_set() and probe._idle.is_set()
    assert probe.to_json()["passed"] is None


PROGRESS = {"network_at": 1000.0, "loading_since": None, "step_at": None}


@pytest.mark.parametrize(
    ("changed", "seconds", "stands"),
    [
        ({}, 179, ""),
        ({}, 181, "network"),
        ({"loading_since": 1000.0, "network_at": 1890.0}, 899, ""),
        ({"loading_since": 1000.0, "network_at": 1890.0}, 901, "loaded"),
        ({"step_at": 1000.0}, 119, ""),
        ({"step_at": 1000.0}, 121, "engine"),
    ],
)
def test_what_stands_still(changed, seconds, stands):
    """A table of silences."""
    found = stall(Progress(**{**PROGRESS, **changed}), 1000.0 + seconds, 120.0)
    assert (stands in found) if stands else found is None


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A service manager's socket, and the name a daemon finds it under."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@edgebit-test-{os.getpid()}-{id(request)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name[1:] if name.startswith("@") else name)
        sock.settimeout(10)
        yield sock, name


def heard(sock):
    """All that was said until now."""
    sock.setblocking(False)
    words = []
    try:
        while True:
            words.append(sock.recv(4096).decode())
    except BlockingIOError:
        return words


def test_words_to_a_service_manager(manager):
    """Over a socket of the file system or an abstract one, which leaves the environment."""
    sock, name = manager
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/x"}
    notifier = Notifier.from_environment(environment)
    assert environment == {"HOME": "/x"} and notifier.watchdog_s == 30.0
    notifier.ready()
    notifier.status("ready,\nconnected")
    notifier.status("ready, connected")
    notifier.alive()
    notifier.stopping()
    assert heard(sock) == ["READY=1", "STATUS=ready, connected", "WATCHDOG=1", "STOPPING=1"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "x"},
        {"NOTIFY_SOCKET": "@" + "x" * 200},
        {"WATCHDOG_USEC": "30000000"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
    ],
)
def test_nobody_to_tell(environment):
    """Is no error."""
    notifier = Notifier.from_environment(dict(environment))
    notifier.ready()
    notifier.alive()
    assert notifier.watchdog_s is None


def test_a_manager_that_does_not_read_holds_nobody(manager):
    """Words that do not fit are dropped."""
    _, name = manager
    notifier = Notifier(name, 1.0)
    for _ in range(5000):
        notifier.alive()


class Life:
    """Vitals with a manager of their own and a situation that tests change."""

    def __init__(self, name, watchdog_s):
        self.clock = Clock()
        self.progress = dict(PROGRESS)
        self.state = "ready"
        probe = GoldenProbe(0, lambda run: run(), self.clock)
        self.vitals = Vitals(
            self.situation, probe, step_max_s=120.0, notifier=Notifier(name, watchdog_s), clock=self.clock
        )

    def situation(self):
        return Situation(progress=Progress(**self.progress), dead=None, state=self.state, fault=None, connected=True)


def test_the_watchdog_is_told_as_long_as_work_goes_on(manager):
    """A slow engine is told of, one that hangs is not; READY comes first and once."""
    sock, name = manager
    life = Life(name, 60.0)
    assert life.vitals.turn() is None
    assert heard(sock) == ["READY=1", "STATUS=ready, connected", "WATCHDOG=1"]

    life.state = "busy"
    for second in range(0, 600, 5):  # a token each 100 s
        life.clock.now = 1000.0 + second
        life.progress |= {"network_at": life.clock.now, "step_at": 1000.0 + second // 100 * 100}
        assert life.vitals.turn() is None
    words = heard(sock)
    assert words.count("WATCHDOG=1") >= 50 and "STATUS=busy, connected" in words

    for second in range(600, 900, 5):  # and then none any more
        life.clock.now = 1000.0 + second
        life.progress |= {"network_at": life.clock.now}
        assert life.vitals.turn() is None
        assert life.vitals.health().alive == (second <= 620)
    assert heard(sock).count("WATCHDOG=1") <= 4


def test_who_nobody_watches_ends_itself(manager):
    """Without a watchdog, a part that hangs is a reason to end: whoever keeps the daemon running starts it anew."""
    _, name = manager
    life = Life(name, None)
    assert life.vitals.turn() is None
    life.clock.now += 200
    assert "network" in (life.vitals.turn() or "")
