"""From a message to a job or a refusal: the first look at every request, in one thread."""

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from edgebit.daemon.admission.batches import Batches
from edgebit.daemon.admission.lookup import KeptAnswers, NoAnswers, send_kept
from edgebit.daemon.admission.newest import Newest
from edgebit.daemon.config.sections import Config
from edgebit.daemon.contract.addressing import address_of, first_address
from edgebit.daemon.contract.fields import read_fields
from edgebit.daemon.contract.frames import AnswerWriter, Publisher
from edgebit.daemon.contract.messages import (
    Address,
    BatchItem,
    BatchRequest,
    CancelRequest,
    GenerateRequest,
    GetRequest,
    Incoming,
    PingRequest,
    Refusal,
    Request,
    TokenizeRequest,
)
from edgebit.daemon.contract.requests import ModelFacts, fingerprint, read_request
from edgebit.daemon.contract.topics import is_principal
from edgebit.daemon.serving.scheduler import Job, Scheduler

log = logging.getLogger("edgebit.admission")

REPLACED = Refusal(499, "replaced", "a newer request has taken its place")


class AskableModel(Protocol):
    """What admission needs of a loaded model."""

    @property
    def names(self) -> set[str]:
        """What a request may call it."""

    @property
    def ctx_len(self) -> int:
        """Tokens of prompt and answer together."""

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
        answers: KeptAnswers | None = None,
    ) -> None:
        """`model` gives the model once it is loaded, `state` what a ping is answered with."""
        self._config = config
        self._topics = config.topics
        self._publisher = publisher
        self._scheduler = scheduler
        self._model = model
        self._state = state
        self._answers = answers or NoAnswers()
        self._newest = Newest()
        self.batches = Batches()
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
            self._start(op, self._read(op, fields, address, incoming), address, incoming)
        except Refusal as refusal:
            self._refuse(op, refusal, address, fields)

    def _read(self, op: str, fields: dict[str, Any], address: Address, incoming: Incoming) -> Request:
        model = self._model()
        facts = ModelFacts(frozenset(model.names), model.ctx_len) if model is not None else None
        return read_request(op, fields, address, self._config, facts, incoming)

    def _refuse(self, op: str, refusal: Refusal, address: Address, fields: dict[str, Any]) -> None:
        self.counters[refusal.code] += 1
        log.info("%s by %s refused: %d %s", op[:64], address.principal, refusal.status, refusal.code)
        if refusal.status in (429, 503):
            refusal.details.setdefault("queue_len", self._scheduler.load().queue_len)
        self._writer(address, fields).error(refusal)

    def _start(self, op: str, request: Request, address: Address, incoming: Incoming) -> None:
        if isinstance(request, PingRequest):
            self._writer(address).done({"op": "ping", **self._state()})
        elif isinstance(request, CancelRequest):
            self._cancel(request, address)
        elif isinstance(request, GetRequest):
            self._get(request, address)
        elif self.fault is not None:
            raise Refusal(503, "fault", f"this device has no working model: {self.fault}")
        elif isinstance(request, TokenizeRequest):
            model = self._model()
            if model is None:
                raise Refusal(503, "not_ready", "the model is being loaded", retryable=True, retry_after_ms=2000)
            tokens = model.encode(request.text)
            self._writer(address).done({"op": "tokenize", "tokens": tokens, "count": len(tokens)})
        elif isinstance(request, BatchRequest):
            self._start_batch(request, address, incoming)
        else:
            self._start_job(request, address, fingerprint(op, incoming.payload), incoming)

    def _start_job(self, request: GenerateRequest, address: Address, mark: bytes, incoming: Incoming) -> None:
        if incoming.dup and not address.id_given and self._scheduler.has_repeat_of(address.principal, mark):
            self.counters["repeated"] += 1
            return
        self._scheduler.submit(Job(address=address, request=request, fingerprint=mark))
        if address.series is not None:
            before = self._newest.replace(address.principal, address.series, address.id)
            if before is not None:
                self._scheduler.cancel(address.principal, before, REPLACED)
        if request.ack:
            self._writer(address).ack({"queue_len": self._scheduler.load().queue_len})

    def _start_batch(self, request: BatchRequest, address: Address, incoming: Incoming) -> None:
        mark = fingerprint("batch", incoming.payload)
        ids = [item.id for item in request.items]
        repeated = incoming.dup and not address.id_given and self.batches.has_repeat_of(address.principal, mark)
        if repeated or not self.batches.begin((address.principal, address.id), mark, ids, self._writer(address)):
            self.counters["repeated"] += 1
            return
        for item in request.items:
            self._start_item(item, address, incoming)

    def _start_item(self, item: BatchItem, batch: Address, incoming: Incoming) -> None:
        """An item is what it would be if it had been sent alone, by the same caller to the same place."""
        fields = dict(item.fields)
        payload = json.dumps(fields, sort_keys=True).encode()
        user = tuple(pair for pair in incoming.user if pair[0] != "eb-id")
        own_place = incoming.response_topic if fields.get("reply_to") is None else None
        alone = dataclasses.replace(incoming, payload=payload, user=user, response_topic=own_place)
        address = dataclasses.replace(batch, id=item.id, id_given=batch.id_given)
        if not batch.topic_given:
            address = dataclasses.replace(address, topic=self._topics.reply(batch.principal, item.id))
        try:
            if item.refusal is not None:
                raise item.refusal
            address = address_of(alone, batch.principal, fields, self._topics, self._config)
            address = dataclasses.replace(address, deadline=min(address.deadline, batch.deadline))
            self._start(item.op, self._read(item.op, fields, address, alone), address, alone)
        except Refusal as refusal:
            self._refuse(item.op, refusal, address, fields)
            self.batches.item_ended((batch.principal, item.id), refusal.status, refusal.code)

    def _cancel(self, request: CancelRequest, address: Address) -> None:
        principal = address.principal
        target = self._newest.resolve(principal, request.target)
        jobs = self.batches.unfinished((principal, target)) or [target]
        found = [self._scheduler.cancel(principal, job_id) for job_id in jobs]
        # The job's own answer says 499. A cancel is answered only where that answer cannot be mixed up with it.
        if address.topic_given:
            self._writer(address).done({"op": "cancel", "cancelled": any(found)})

    def _get(self, request: GetRequest, address: Address) -> None:
        principal = address.principal
        target = self._newest.resolve(principal, request.target)
        writer = self._writer(address)
        progress = self.batches.progress((principal, target))
        if progress is not None:
            writer.done({"op": "get", "job": target, "state": "running", **progress})
            return
        where = self._scheduler.find(principal, target)
        if where is not None:
            writer.done({"op": "get", "job": target, **dataclasses.asdict(where)})
            return
        kept = self._answers.find(principal, target)
        if kept is None:
            raise Refusal(404, "unknown_job", "no job of yours with this id is waiting, running or kept")
        send_kept(writer, target, kept, request)

    def _writer(self, address: Address, fields: dict[str, Any] | None = None) -> AnswerWriter:
        text = (fields or {}).get("format") == "text"
        return AnswerWriter(self._publisher, self._config.device_name, address, format="text" if text else "json")
