"""Golden probes on the real engine, beside a model that answers."""

import shutil
import threading

import pytest

from edgebit.bundle.model_format import Role
from edgebit.bundle.model_reader import ModelFile
from edgebit.daemon.config.sections import EngineConfig
from edgebit.daemon.contract.messages import GenerateRequest
from edgebit.daemon.monitoring.health import RETRY_S, GoldenProbe
from edgebit.daemon.serving.engine import LoadedModel
from edgebit.runtime.engine import Engine
from edgebit.runtime.generation import Answer


@pytest.fixture
def file(native, reference_model, tmp_path):
    """A copy of a reference model's file that a test may damage."""
    return shutil.copyfile(reference_model("bitnet-packed"), tmp_path / "model.ebm")


@pytest.fixture
def model(file):
    opened = LoadedModel.open(file, EngineConfig(threads=1))
    yield opened
    opened.close()


class Watch:
    """The probes at their times; a run is over when now() returns."""

    def __init__(self, model):
        self._model = model
        self._now = 0.0
        self.probe = GoldenProbe(3600.0, self._spawn, clock=lambda: self._now)

    def _spawn(self, run):
        self.thread = threading.Thread(target=run)
        self.thread.start()

    def begin(self):
        self._now += max(RETRY_S, 3600.0)
        self.probe.tend(self._model.probes, busy=False)

    def now(self):
        self.begin()
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self.probe.to_json()["passed"]


def flip(path, role):
    """Change a byte of a tensor where the engine has it mapped; done twice, all is as before."""
    with ModelFile(path) as file:
        tensor = next(tensor for tensor in file.tensors if tensor.role == role)
        place = tensor.offset + tensor.size // 2
    with path.open("r+b") as raw:
        raw.seek(place)
        byte = raw.read(1)[0]
        raw.seek(place)
        raw.write(bytes([byte ^ 0x01]))


def test_weights_that_change_in_place_are_found(file, model):
    """A bad card under a model that runs: the probes pass, then name what differs, and pass once all is well again."""
    with ModelFile(file) as read:
        count = len(read.probes)
    watch = Watch(model)
    assert watch.now() is True and watch.probe.count == count > 0 and watch.probe.doubt() is None
    flip(file, Role.Q_PROJ)
    assert watch.now() is False
    assert "golden probe" in watch.probe.fault and "layer" in watch.probe.fault
    flip(file, Role.Q_PROJ)
    assert watch.now() is True and watch.probe.fault is None


def answer_of(model):
    ids = model.encode("the sky is")
    request = GenerateRequest(
        prompt="",
        messages=(),
        sampling={"temperature": 0.0},
        seed=1,
        max_tokens=8,
        stop=(),
        stream=False,
        format="json",
    )
    generation = model.begin(request, ids, Answer(prompt_tokens=len(ids)), "")
    while not generation.done:
        model.step([generation])
    model.end(generation)
    return generation.answer.text


def test_a_request_ends_a_run_and_not_its_own_answer(model, monkeypatch):
    """The run has begun when the request comes; there is no verdict, the answer is as ever."""
    real, begun, go = Engine.check_probes, threading.Event(), threading.Event()

    def held(engine):
        begun.set()
        assert go.wait(30)
        return real(engine)

    before = answer_of(model)
    watch = Watch(model)
    monkeypatch.setattr(Engine, "check_probes", held)
    watch.begin()
    assert begun.wait(30)
    watch.probe.tend(model.probes, busy=True)
    assert answer_of(model) == before
    go.set()
    watch.thread.join(30)
    assert watch.probe.to_json()["passed"] is None and watch.probe.fault is None
    assert watch.now() is True
