"""From a message to a job or a refusal: the first look at every request, in one thread."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from edgebit.daemon.config.sections import Config
from edgebit.daemon.contract.frames import AnswerWriter, Publisher
from edgebit.daemon.contract.messages import (
    Address,
    CancelRequest,
    Incoming,
    PingRequest,
    Refusal,
    Request,
    TokenizeRequest,
    address_of,
    fingerprint,
    first_address,
    read_fields,
    read_request,
)
from edgebit.daemon.contract.topics import is_principal
from edgebit.daemon.serving.scheduler import Job, Scheduler

log = logging.getLogger("edgebit.admission")


class AskableModel(Protocol):
    """What admission needs of a loaded model."""

    @property
    def names(self) -> set[str]:
        """What a request may call it."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""


class Admission:
    """Takes requests, and answers at once what needs no engine."""

    def __init__(
        self,
        config: Config,
        publisher: Publisher,
        scheduler: Scheduler,
        model: Callable[[], AskableModel | None],
        state: Callable[[], dict[str, Any]],
    ) -> None:
        """`model` gives the model once it is loaded, `state` what a ping is answered with."""
        self._config = config
        self._topics = config.topics
        self._publisher = publisher
        self._scheduler = scheduler
        self._model = model
        self._state = state
        self.fault: str | None = None  # why the model could not be loaded
        self.counters: Counter[str] = Counter()

    def handle(self, incoming: Incoming) -> None:
        """Answer, queue or refuse one message."""
        self.counters["received"] += 1
        parsed = self._topics.parse_request(incoming.topic)
        if parsed is None or not is_principal(parsed[0]):
            self.counters["bad_topic"] += 1
            return
        principal, op = parsed
        if incoming.retain and not incoming.mqtt5:
            # Under 3.1.1 the flag stands on stored messages only: one from before, which would run at every connection.
            self.counters["retained"] += 1
            log.warning("a retained request on %s is not run: clear it with an empty retained message", incoming.topic)
            return
        address = first_address(incoming, principal, self._topics, self._config)
        fields: dict[str, Any] = {}
        try:
            fields = read_fields(incoming, op, self._config)
            address = address_of(incoming, principal, fields, self._topics, self._config)
            if incoming.retain:
                raise Refusal(400, "retained", "a request must not be retained: it would run at every connection")
            model = self._model()
            names = model.names if model is not None else {str(fields.get("model"))}
            request = read_request(op, fields, address, self._config, names)
            self._start(op, request, address, incoming)
        except Refusal as refusal:
            self.counters[refusal.code] += 1
            log.info("%s by %s refused: %d %s", op[:64], principal, refusal.status, refusal.code)
            self._writer(address, fields).error(refusal)

    def _start(self, op: str, request: Request, address: Address, incoming: Incoming) -> None:
        if isinstance(request, PingRequest):
            self._writer(address).done({"op": "ping", **self._state()})
        elif isinstance(request, CancelRequest):
            found = self._scheduler.cancel(address.principal, request.target)
            # The job's own answer says 499. A cancel is answered only where that answer cannot be mixed up with it.
            if address.topic_given:
                self._writer(address).done({"op": "cancel", "cancelled": found})
        elif self.fault is not None:
            raise Refusal(503, "fault", f"this device has no working model: {self.fault}")
        elif isinstance(request, TokenizeRequest):
            model = self._model()
            if model is None:
                raise Refusal(503, "not_ready", "the model is being loaded", retryable=True, retry_after_ms=2000)
            tokens = model.encode(request.text)
            self._writer(address).done({"op": "tokenize", "tokens": tokens, "count": len(tokens)})
        else:
            mark = fingerprint(op, incoming.payload)
            if incoming.dup and not address.id_given and self._scheduler.has_repeat_of(address.principal, mark):
                self.counters["repeated"] += 1
                return
            self._scheduler.submit(Job(address=address, request=request, fingerprint=mark))

    def _writer(self, address: Address, fields: dict[str, Any] | None = None) -> AnswerWriter:
        text = (fields or {}).get("format") == "text"
        return AnswerWriter(self._publisher, self._config.device_name, address, format="text" if text else "json")
