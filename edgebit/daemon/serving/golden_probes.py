"""The model file's golden probes, run beside the engine that answers: on one of their own, over the same weights."""

import threading

from edgebit.bundle.archive import Member
from edgebit.bundle.model_reader import ModelFile
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model


class GoldenProbes:
    """The probes of an open model. check() in one thread at a time, cancel() in any."""

    def __init__(self, model: Model, place: Member, threads: int) -> None:
        """`place` is the model's file, or its place in the bundle's."""
        self._model = model
        self._place = place
        self._threads = threads
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    def check(self) -> int:
        """Run all probes; gives how many there are.

        Raises BundleError naming the first that differs, EngineError where memory is short, Cancelled after cancel().
        """
        with ModelFile(self._place.path, self._place.offset, self._place.size) as file:
            context = file.probe_context
            if not file.probes:
                return 0
        with Engine(self._model, ctx_len=context, threads=self._threads) as engine:
            with self._lock:
                self._engine = engine
            try:
                return engine.check_probes()
            finally:
                with self._lock:
                    self._engine = None

    def cancel(self) -> None:
        """End check(), where it runs."""
        with self._lock:
            if self._engine is not None:
                self._engine.cancel()
