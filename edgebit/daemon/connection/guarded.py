"""Callbacks that paho calls."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

log = logging.getLogger("edgebit.mqtt")

P = ParamSpec("P")


class Counting(Protocol):
    """What has such callbacks."""

    counters: Counter[str]


Owner = TypeVar("Owner", bound=Counting)


def guarded(callback: Callable[Concatenate[Owner, P], None]) -> Callable[Concatenate[Owner, P], None]:
    """An exception in a callback would end paho's loop: it is logged instead."""
    name = getattr(callback, "__name__", "callback")

    def call(self: Owner, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            callback(self, *args, **kwargs)
        except Exception:
            log.exception("%s failed", name)
            self.counters["callback_failed"] += 1

    return call
