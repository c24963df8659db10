"""The adapters that are open, by name. One that answers in the making use goes when the last of them has ended."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from edgebit.daemon.contract.messages import Refusal

A = TypeVar("A")


@dataclass(eq=False, slots=True)
class _Open(Generic[A]):
    adapter: A
    sha256: str


@dataclass(slots=True)
class AdapterShelf(Generic[A]):
    """From any thread."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open: dict[str, _Open[A]] = field(default_factory=dict)
    _used: Counter[int] = field(default_factory=Counter)  # by id of the adapter: answers in the making
    _retired: list[A] = field(default_factory=list)  # off the shelf, and not closed yet

    def put(self, name: str, sha256: str, adapter: A) -> None:
        """Have it under a name from now on, in the place of the one before."""
        with self._lock:
            self._retire(name)
            self._open[name] = _Open(adapter, sha256)

    def remove(self, name: str) -> bool:
        """No new answer has it. False where there is none of that name."""
        with self._lock:
            return self._retire(name)

    def sha256(self, name: str) -> str:
        """What the adapter's file is. Raises Refusal, 404, naming those that there are."""
        with self._lock:
            if name not in self._open:
                raise self._unknown(name)
            return self._open[name].sha256

    def clear(self) -> None:
        """Remove all."""
        with self._lock:
            for name in list(self._open):
                self._retire(name)

    def take(self, name: str, sha256: str) -> A:
        """The adapter for one answer; give_back() must follow. Raises Refusal, 404, where it is not there any more."""
        with self._lock:
            found = self._open.get(name)
            if found is None:
                raise self._unknown(name)
            if found.sha256 != sha256:
                words = f"adapter {name!r} was replaced by another while the request waited: ask again"
                raise Refusal(404, "adapter_not_found", words, retryable=True)
            self._used[id(found.adapter)] += 1
            return found.adapter

    def give_back(self, adapter: A) -> None:
        """An answer has ended."""
        with self._lock:
            self._used[id(adapter)] -= 1

    def take_retired(self) -> list[A]:
        """Those that were removed or replaced and that no answer needs any more, for whoever closes them; each once."""
        with self._lock:
            done = [each for each in self._retired if not self._used[id(each)]]
            for adapter in done:
                self._retired.remove(adapter)
                del self._used[id(adapter)]
            return done

    def take_unused(self) -> list[A]:
        """Those of take_retired() that no answer has ever had: no sequence has them, so any thread may close them."""
        with self._lock:
            done = [each for each in self._retired if id(each) not in self._used]
            self._retired = [each for each in self._retired if id(each) in self._used]
            return done

    def _retire(self, name: str) -> bool:
        before = self._open.pop(name, None)
        if before is not None:
            self._retired.append(before.adapter)
        return before is not None

    def _unknown(self, name: str) -> Refusal:
        names = ", ".join(repr(each) for each in sorted(self._open)) or "none"
        return Refusal(
            404, "adapter_not_found", f"adapter {name[:64]!r} is not loaded on this device; there are: {names}"
        )
