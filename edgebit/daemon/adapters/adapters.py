"""What a device has of adapters: files on its disk, and those of them that fit its model open in the engine.

They survive a restart and the deploy of another bundle. One that does not fit the model is kept, and not loaded.
"""

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgebit.daemon.adapters.shelf import AdapterShelf
from edgebit.daemon.adapters.store import AdapterStore
from edgebit.daemon.config.safeguards import AdaptersConfig
from edgebit.daemon.contract.messages import Refusal
from edgebit.errors import EdgebitError

log = logging.getLogger("edgebit.adapters")


class AdaptableModel(Protocol):
    """What is needed of a loaded model: engine.LoadedModel has it. From any thread."""

    @property
    def adapters(self) -> AdapterShelf[Any]:
        """Those that answers may have."""

    def open_adapter(self, data: bytes) -> Any:
        """Open a file's content. Raises EdgebitError for a damaged one, Refusal for one of another model."""


@dataclass(frozen=True, slots=True)
class _Known:
    sha256: str
    size: int
    fault: str | None  # why it is not loaded


class Adapters:
    """From any thread."""

    def __init__(self, config: AdaptersConfig, folder: Path) -> None:
        """`folder` is where the files lie."""
        self._config = config
        self._store = AdapterStore(folder)
        self._lock = threading.Lock()
        self._model: AdaptableModel | None = None
        self._known: dict[str, _Known] = {}

    def attach(self, model: AdaptableModel) -> None:
        """Open what is there for a model, once it is loaded. What does not fit is said in the log and in describe()."""
        with self._lock:
            for stored in self._store.read():
                fault = None
                try:
                    model.adapters.put(stored.name, stored.sha256, model.open_adapter(stored.data))
                except (EdgebitError, Refusal) as error:
                    fault = str(error)
                    log.warning("adapter %s is not loaded: %s", stored.name, error)
                self._known[stored.name] = _Known(stored.sha256, len(stored.data), fault)
            self._model = model

    def load(self, name: str, sha256: str, data: bytes) -> bool:
        """Have an adapter under a name, on the disk and for answers; False where it was there already.

        Raises Refusal: 400 for a damaged file, 409 for one of another model or one too many, 503 where there is no
        model, or the disk takes nothing.
        """
        with self._lock:
            if self._model is None:
                raise Refusal(503, "not_ready", "the model is being loaded", retryable=True, retry_after_ms=2000)
            known = self._known.get(name)
            if known is not None and known.sha256 == sha256 and known.fault is None:
                return False
            if known is None and len(self._known) >= self._config.max_count:
                names = ", ".join(sorted(self._known)) or "none"
                words = f"this device keeps {self._config.max_count} adapters, and has {names}: unload one"
                raise Refusal(409, "too_many_adapters", words)
            try:
                adapter = self._model.open_adapter(data)
            except EdgebitError as error:
                raise Refusal(400, "bad_adapter", str(error)) from error
            try:
                self._store.put(name, sha256, data)
            except BaseException:
                adapter.close()
                raise
            self._model.adapters.put(name, sha256, adapter)
            self._close_unused(self._model)
            self._known[name] = _Known(sha256, len(data), None)
            log.info("adapter %s is loaded: %d bytes, sha256 %s", name, len(data), sha256)
            return True

    def unload(self, name: str) -> bool:
        """Have it no longer; answers that are being made with it go on. False where there is none of that name.

        Raises Refusal, 503, where the disk does not let it go.
        """
        with self._lock:
            if name not in self._known:
                return False
            self._store.remove(name)
            del self._known[name]
            if self._model is not None:
                self._model.adapters.remove(name)
                self._close_unused(self._model)
            log.info("adapter %s is unloaded", name)
            return True

    def describe(self) -> list[dict[str, Any]]:
        """For `info`, by name."""
        with self._lock:
            return [
                {"name": name, "sha256": known.sha256, "bytes": known.size, "loaded": known.fault is None}
                | ({"fault": known.fault} if known.fault is not None else {})
                for name, known in sorted(self._known.items())
            ]

    def _close_unused(self, model: AdaptableModel) -> None:
        """The engine closes those that answers had, when it next computes: others would pile up until then."""
        for adapter in model.adapters.take_unused():
            adapter.close()
