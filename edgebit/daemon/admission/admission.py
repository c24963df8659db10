"""From a message to a job or a refusal: the first look at every request, in one thread."""

import contextlib
import dataclasses
import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from edgebit.daemon.admission.acceptance import ANSWER_BYTES, Acceptance, identity_of
from edgebit.daemon.admission.adapter_desk import AdapterDesk
from edgebit.daemon.admission.batch_items import first_address_of, sent_alone
from edgebit.daemon.admission.batches import Batches, Items, fitting
from edgebit.daemon.admission.gatekeeper import Gatekeeper, Identified
from edgebit.daemon.admission.journal import JobRecord, Journal
from edgebit.daemon.admission.journal_records import Asked, Entry, Identity
from edgebit.daemon.admission.lookup import send_kept
from edgebit.daemon.admission.newest import Newest
from edgebit.daemon.admission.orphans import Orphans
from edgebit.daemon.admission.recovery import address_again, interrupted, too_often, verdict
from edgebit.daemon.admission.schema_compiler import SchemaCompiler
from edgebit.daemon.config.sections import Config
from edgebit.daemon.contract.addressing import address_of, first_address
from edgebit.daemon.contract.fields import read_fields
from edgebit.daemon.contract.frames import AnswerRecord, AnswerWriter, Publisher
from edgebit.daemon.contract.messages import (
    Address,
    BatchItem,
    BatchRequest,
    CancelRequest,
    GenerateRequest,
    GetRequest,
    Incoming,
    LoadAdapterRequest,
    PingRequest,
    Refusal,
    Request,
    TokenizeRequest,
    UnloadAdapterRequest,
)
from edgebit.daemon.contract.requests import ADAPTER_OPS, ALL_OPS, ModelFacts, read_request
from edgebit.daemon.contract.topics import is_principal
from edgebit.daemon.serving.endings import refusal_for
from edgebit.daemon.serving.job import Job
from edgebit.daemon.serving.scheduler import Scheduler

log = logging.getLogger("edgebit.admission")

REPLACED = Refusal(499, "replaced", "a newer request has taken its place")

OwnOp = Callable[[dict[str, Any]], dict[str, Any]]  # from a request's fields to the answer's; raises Refusal


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
        journal: Journal,
        acceptance: Acceptance,
        gate: Gatekeeper,
        model: Callable[[], AskableModel | None],
        state: Callable[[], dict[str, Any]],
        adapters: AdapterDesk,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`model` gives the model once it is loaded, `state` what a ping is answered with."""
        self._config = config
        self._topics = config.topics
        self._publisher = publisher
        self._scheduler = scheduler
        self._journal = journal
        self._acceptance = acceptance
        self._gate = gate
        self._model = model
        self._state = state
        self._adapters = adapters
        self._schemas = SchemaCompiler(gate.name_of)
        self._newest = Newest()
        self.batches = Batches()
        self._orphans = Orphans(journal, lambda key: scheduler.has(key) or self.batches.has(key), clock)
        self.fault: str | None = None  # why the model could not be loaded
        self.on_refusal: Callable[[int, str], None] = lambda status, code: None  # hears of requests that become no job
        self.own_ops: dict[str, OwnOp] = {}  # how each of OWN_OPS is answered
        self.counters: Counter[str] = Counter()

    def recover(self) -> int:
        """Once, before anything is taken: send answers again that may not have arrived, take up what is unfinished.

        Gives how many jobs were unfinished.
        """
        for message in self._journal.undelivered():
            self.counters["sent_again"] += 1
            try:
                self._publisher.publish(message)
            except Exception:
                log.exception("an answer of before the restart cannot be sent")
                self.counters["internal"] += 1
        unfinished = self._journal.unfinished()
        for entry, asked, left_s in unfinished:
            self._take_up(entry, asked, left_s)
        self._acceptance.commit(at_any_cost=True)
        self._acceptance.release()
        return len(unfinished)

    def tick(self) -> None:
        """Answer jobs that were lost track of. Often, from the thread of take()."""
        for entry in self._orphans.found():
            log.error("job %s is answered by nobody: it is given up", entry.identity.id)
            self.counters["orphaned"] += 1
            self._interrupt(entry, self._journal.asked(entry), "the device has lost track of it")

    def take(self, requests: Sequence[Incoming]) -> None:
        """Look at all that has come; what is accepted is on the disk before any is acknowledged, and runs then."""
        for incoming in requests:
            try:
                self.handle(incoming)
            except Exception:
                log.exception("handling a request failed")
                self.counters["internal"] += 1
        refused = self._acceptance.commit()
        for job, refusal in refused:
            self._give_up(job)
            self._gate.not_taken(job.address, refusal)
            self._refuse(job.request.op, refusal, job.address, {"format": job.request.format})
            self.batches.item_ended(job.key, refusal.status, refusal.code)
        for incoming in requests:
            incoming.ack()
        for job in self._acceptance.ready:
            if job.request.ack:
                self._writer(job.address, {"format": job.request.format}).ack(self._crowd())
        self._acceptance.release()

    def handle(self, incoming: Incoming) -> None:
        """Answer, accept or refuse one message."""
        self.counters["received"] += 1
        parsed = self._topics.parse_request(incoming.topic)
        if parsed is None or not is_principal(parsed[0]):
            self.counters["bad_topic"] += 1
            return
        principal, op = parsed
        if incoming.retain and not incoming.mqtt5:
            # Under 3.1.1 the flag stands on stored messages only: one from before, which would run at every connection.
            self.counters["retained"] += 1
            topic = self._topics.nameless(incoming.topic)
            log.warning("a retained request on %s is not run: clear it with an empty retained message", topic)
            return
        try:
            identified = self._gate.identify(incoming, principal, op)
        except Refusal as refusal:
            claimed = self._gate.as_claimed(incoming)
            self._refuse(op, refusal, first_address(claimed, principal, self._topics, self._config), {})
        else:
            self._handle_identified(identified, principal, op)

    def _handle_identified(self, identified: Identified, principal: str, op: str) -> None:
        incoming = identified.incoming
        address = first_address(incoming, principal, self._topics, self._config)
        fields: dict[str, Any] = {}
        try:
            fields = read_fields(incoming, op, self._config)
            address = address_of(incoming, principal, fields, self._topics, self._config)
            if incoming.refusal is not None:
                raise incoming.refusal
            if incoming.retain:
                raise Refusal(400, "retained", "a request must not be retained: it would run at every connection")
            if identified.seen and self._journal.entry(principal, address.id) is None:
                if incoming.dup and self._acceptance.is_redelivered(identity_of(op, address, incoming)):
                    return
                raise Refusal(
                    401, "replayed", "this signed request came before; ask anew: another id, another signature"
                )
            if op in self.own_ops:
                self._writer(address).done({"op": op, **self.own_ops[op](fields)})
            else:
                self._start(op, fields, self._read(op, fields, address, incoming), address, incoming)
        except Exception as error:
            refusal = refusal_for(error)
            if refusal is not error:
                log.exception("handling a request failed")
            if not identified.seen:
                self._gate.not_taken(address, refusal)
            self._refuse(op, refusal, address, fields)

    def _read(self, op: str, fields: Mapping[str, Any], address: Address, incoming: Incoming | None) -> Request:
        model = self._model()
        facts = ModelFacts(frozenset(model.names), model.ctx_len) if model is not None else None
        compiled = functools.partial(self._schemas.program, address.principal, charged=incoming is not None)
        request = read_request(op, fields, address, self._config, facts, compiled, incoming)
        self._gate.check(request)
        return request

    def _refuse(self, op: str, refusal: Refusal, address: Address, fields: Mapping[str, Any]) -> None:
        self.counters[refusal.code] += 1
        name, op = self._gate.name_of(address.principal), op if op in ALL_OPS else "?"
        log.info("%s by %s refused: %d %s", op, name, refusal.status, refusal.code)
        self._gate.refused(address.principal, op, refusal)
        self.on_refusal(refusal.status, refusal.code)
        if refusal.status in (429, 503):
            refusal = refusal.telling(**self._crowd())
        self._writer(address, fields).error(refusal)

    def _crowd(self) -> dict[str, int]:
        """How much there is to do before whoever comes now."""
        load = self._scheduler.load()
        crowd = {"queue_len": load.queue_len}
        return crowd if load.eta_ms is None else {**crowd, "eta_ms": load.eta_ms}

    def _start(
        self, op: str, fields: Mapping[str, Any], request: Request, address: Address, incoming: Incoming
    ) -> None:
        if isinstance(request, PingRequest):
            self._writer(address).done({"op": "ping", **self._state()})
        elif isinstance(request, CancelRequest):
            self._cancel(request, address)
        elif isinstance(request, GetRequest):
            self._get(request, address)
        elif isinstance(request, TokenizeRequest):
            self._tokenize(request, address)
        elif isinstance(request, LoadAdapterRequest | UnloadAdapterRequest):
            self._refuse_without_model()
            writer = functools.partial(self._writer, address, None)
            self._adapters.answer(op, request, address, incoming, writer)
        elif isinstance(request, BatchRequest):
            self._start_batch(request, address, incoming)
        else:
            identity = identity_of(op, address, incoming)
            if not self._acceptance.is_repeat(identity, address, incoming.dup):
                self._start_job(fields, request, address, identity)

    def _tokenize(self, request: TokenizeRequest, address: Address) -> None:
        self._refuse_without_model()
        model = self._model()
        if model is None:
            raise Refusal(503, "not_ready", "the model is being loaded", retryable=True, retry_after_ms=2000)
        tokens = model.encode(request.text)
        self._writer(address).done({"op": "tokenize", "tokens": tokens, "count": len(tokens)})

    def _refuse_without_model(self) -> None:
        if self.fault is not None:
            raise Refusal(503, "fault", f"this device has no working model: {self.fault}")

    # Jobs

    def _start_job(
        self, fields: Mapping[str, Any], request: GenerateRequest, address: Address, identity: Identity
    ) -> None:
        self._refuse_without_model()
        self._gate.admit(address, request)
        job = Job(address=address, request=request)
        try:
            self._acceptance.accept(fields, job, identity, functools.partial(self._gate.guard, address, request))
        except Exception:
            self._give_up(job)
            raise
        if address.series is not None:
            before = self._newest.replace(address.principal, address.series, address.id)
            if before is not None:
                self._scheduler.cancel(address.principal, before, REPLACED)

    def _give_up(self, job: Job) -> None:
        """A job that was let in was not taken: neither charged nor judged."""
        self._gate.release(job.address)
        if job.filter is not None:
            job.filter.close()

    def _start_batch(self, request: BatchRequest, address: Address, incoming: Incoming) -> None:
        """Items that are known already are answered again or waited for, like any request that comes again."""
        identity = identity_of("batch", address, incoming)
        if incoming.dup and self._acceptance.is_redelivered(identity):
            return
        known = self._journal.entry(address.principal, address.id) if address.id_given else None
        if known is not None and known.identity.fingerprint != identity.fingerprint:
            raise Refusal(409, "id_in_use", f"id {address.id!r} belongs to another request")
        key, writer = (address.principal, address.id), self._writer(address)
        if not self.batches.begin(key, identity.fingerprint, [item.id for item in request.items], writer):
            self.counters["repeated"] += 1
            return
        for item in request.items:
            self._start_item(item, address, incoming)

        def record(items: Items) -> AnswerRecord:
            asked = self._acceptance.asked("batch", {"items": items}, address)
            return self._acceptance.write_down(identity, asked, address)

        with contextlib.suppress(Refusal):  # what becomes of the items is said all the same
            self.batches.write_down(key, record)  # after its items, so that it is never found without them

    def _start_item(self, item: BatchItem, batch: Address, incoming: Incoming) -> None:
        """An item is what it would be if it had been sent alone, by the same caller to the same place."""
        fields = dict(item.fields)
        alone = sent_alone(item, incoming)
        address = first_address_of(item, batch, self._topics)
        try:
            if item.refusal is not None:
                raise item.refusal
            address = address_of(alone, batch.principal, fields, self._topics, self._config)
            address = dataclasses.replace(address, deadline=min(address.deadline, batch.deadline))
            self._start(item.op, fields, self._read(item.op, fields, address, alone), address, alone)
        except Exception as error:
            refusal = refusal_for(error)
            if refusal is not error:
                log.exception("handling a request failed")
            self._refuse(item.op, refusal, address, fields)
            self.batches.item_refused((batch.principal, batch.id), item.id, refusal)
        else:
            self._tell_if_ended(batch.principal, item.id)

    def _tell_if_ended(self, principal: str, item_id: str) -> None:
        """An item of a batch that was finished before hears no end any more."""
        entry = self._journal.entry(principal, item_id)
        if entry is not None and entry.ended is not None:
            self.batches.item_ended((principal, item_id), entry.ended.status, entry.ended.code)

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
            writer.done({"op": "get", "job": target, "state": "running", **fitting(writer, progress)})
            return
        where = self._scheduler.find(principal, target)
        if where is not None:
            writer.done({"op": "get", "job": target, **dataclasses.asdict(where)})
            return
        kept = self._journal.find(principal, target)
        if kept is not None:
            send_kept(writer, target, kept, request)
        elif self._journal.entry(principal, target) is not None:  # out of the queue, and its end on its way to the disk
            writer.done({"op": "get", "job": target, "state": "running", "position": 0, "eta_ms": 0})
        else:
            raise Refusal(404, "unknown_job", "no job of yours with this id is waiting, running or kept")

    # After a restart

    def _take_up(self, entry: Entry, asked: Asked | None, left_s: float) -> None:
        """One that cannot be taken up keeps no other from it, and the daemon not from its start."""
        try:
            if asked is not None:
                self._resume(entry, asked, left_s)
        except Exception:
            log.exception("job %s of before the restart cannot be taken up", entry.identity.id)
            self.counters["internal"] += 1
            asked = None
        if asked is None:
            self._interrupt(entry, None, "what was asked cannot be made out after the restart")

    def _interrupt(self, entry: Entry, asked: Asked | None, words: str) -> None:
        """End a job that nobody works on."""
        refusal = interrupted(words)
        self.counters[refusal.code] += 1
        self.on_refusal(refusal.status, refusal.code)
        try:
            address = address_again(entry, asked, time.monotonic())
            record = JobRecord(self._journal, entry)
            self._writer(address, asked.fields if asked else None, record, entry.frames_sent).error(refusal)
        except Exception:
            log.exception("the end of job %s was not sent", entry.identity.id)
        self.batches.item_ended(entry.key, refusal.status, refusal.code)

    def _resume(self, entry: Entry, asked: Asked, left_s: float) -> None:
        """Run a job of before the restart anew, or say why not."""
        address = address_again(entry, asked, time.monotonic() + left_s)
        refusal = too_often(entry) if asked.op == "batch" else verdict(entry, left_s)
        record = self._journal.resume(entry, ANSWER_BYTES)
        if asked.op in ADAPTER_OPS:
            # Its end was not on the disk, so it was not acknowledged. It comes again, and does nothing twice.
            self._acceptance.give_up(record)
            return
        if asked.op == "batch" and refusal is None:
            self._resume_batch(entry, asked, self._writer(address, record=record))
            return
        if asked.series is not None:
            self._newest.replace(address.principal, asked.series, address.id)
        try:
            if refusal is not None:
                raise refusal
            request = self._read(asked.op, asked.fields, address, None)
            if not isinstance(request, GenerateRequest):
                raise Refusal(400, "unsupported", f"{asked.op} is no longer answered by this device")
        except Refusal as refusal:
            self.counters[refusal.code] += 1
            self.on_refusal(refusal.status, refusal.code)
            log.warning("job %s of before the restart: %d %s", address.id, refusal.status, refusal.code)
            self._writer(address, asked.fields, record, entry.frames_sent).error(refusal)
            self.batches.item_ended(entry.key, refusal.status, refusal.code)
            return
        self.counters["resumed"] += 1
        request = dataclasses.replace(request, seed=asked.seed, priority=asked.priority)
        job = Job(address=address, request=request, record=record, filter=self._gate.guard(address, request))
        self._acceptance.resume(job, record)

    def _resume_batch(self, entry: Entry, asked: Asked, writer: AnswerWriter) -> None:
        """Wait for the items again; they are jobs of their own, and taken up as such."""
        items: Mapping[str, Mapping[str, Any] | None] = asked.fields["items"]
        ends = {item_id: end and (end["status"], end.get("code", "")) for item_id, end in items.items()}
        self.batches.begin(entry.key, entry.identity.fingerprint, list(ends), writer)
        principal, _ = entry.key
        for item_id, end in ends.items():
            if end is not None:
                self.batches.item_ended((principal, item_id), *end)
            elif self._journal.entry(principal, item_id) is None:
                self.batches.item_ended((principal, item_id), 500, "interrupted")
            else:
                self._tell_if_ended(principal, item_id)

    def _writer(
        self,
        address: Address,
        fields: Mapping[str, Any] | None = None,
        record: AnswerRecord | None = None,
        seq: int = 0,
    ) -> AnswerWriter:
        text = (fields or {}).get("format") == "text"
        return AnswerWriter(
            self._publisher,
            self._config.device_name,
            address,
            format="text" if text else "json",
            seq=seq,
            record=record,
        )
