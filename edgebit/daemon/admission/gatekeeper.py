"""Who may ask for what, in the order in which admission asks: identity, text, limits; and what is told of a refusal."""

import dataclasses
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebit.daemon.admission.identity import check_broker_name, describe_identity, is_shared
from edgebit.daemon.admission.input_checks import check_input, texts_of
from edgebit.daemon.admission.principals import Principals
from edgebit.daemon.admission.rate_limits import RateLimits
from edgebit.daemon.admission.signed_requests import SignedRequests, claimed_id
from edgebit.daemon.config.reader import open_secrets
from edgebit.daemon.config.sections import Config
from edgebit.daemon.connection.tls import read_validity
from edgebit.daemon.content_filter.content_filter import ContentFilter
from edgebit.daemon.contract.messages import Address, GenerateRequest, Incoming, Refusal, Request
from edgebit.daemon.contract.requests import ALL_OPS, OWN_OPS
from edgebit.daemon.privacy.answer_log import AnswerLog
from edgebit.daemon.privacy.hashed_names import SHARED, HashedNames
from edgebit.daemon.privacy.local_key import LOCAL_KEY, NAME_KEY, read_or_make_key
from edgebit.daemon.privacy.security_log import FILE as SECURITY_LOG
from edgebit.daemon.privacy.security_log import SecurityLog
from edgebit.daemon.sensors.energy import Energy
from edgebit.daemon.serving.job import AnswerFilter
from edgebit.daemon.serving.outcome import Outcome

log = logging.getLogger("edgebit.admission")

FREE_OPS = ("ping", *OWN_OPS)  # for everybody: they tell what `status` and `metrics` tell everybody
ENVELOPE_FACTOR = 2  # JSON within JSON has so many bytes more
FILTERED_MAX = 256  # answers between two looks
FILES_S = 1.0  # how often it is looked whether a file has changed


@dataclass(frozen=True, slots=True)
class Identified:
    """A message whose sender is known as well as it can be here."""

    incoming: Incoming  # out of its envelope, if it came in one
    seen: bool = False  # a copy of a signed request: it may be answered from what is known, and start nothing


class Gatekeeper:
    """An OutcomeListener too. In the main thread, but for job_ended()."""

    def __init__(self, config: Config, state_dir: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ConfigError where the principals, the rules or the certificate cannot be read."""
        self._config = config
        self._clock = clock
        self._shared = is_shared(config.mqtt.auth)
        self._principals = Principals(config.identity.principals)
        self._filter = ContentFilter(config.content_filter)
        self._validity = read_validity(Path(config.mqtt.cert)) if config.mqtt.cert else None
        self._looked_at = clock()
        self._open_secrets = open_secrets(config)
        self._filtered: deque[Outcome] = deque(maxlen=FILTERED_MAX)  # answers, for the main thread to note
        self.names = HashedNames(state_dir / NAME_KEY)
        self.limits = RateLimits(config.rate_limits, self._principals, self.names, shared=self._shared, clock=clock)
        self.security = SecurityLog(
            state_dir / SECURITY_LOG,
            max_bytes=config.privacy.security_log_kib << 10,
            files=config.privacy.security_log_files,
            clock=clock,
        )
        self._signed: SignedRequests | None = None
        if config.mqtt.auth == "signed":
            local = read_or_make_key(state_dir / LOCAL_KEY)
            self._signed = SignedRequests(
                config.topics.base, self._principals, config.identity.challenge_s, local_key=local, clock=clock
            )

    @property
    def counters(self) -> Counter[str]:
        """What metrics count beside refusals."""
        return self._filter.counters

    def name_of(self, principal: str) -> str:
        """A principal as logs name it; all are one where they cannot be told apart."""
        return self.names.of(SHARED if self._shared else principal)

    def identify(self, incoming: Incoming, principal: str, op: str) -> Identified:
        """That `principal` has sent the message, as far as the mode goes. Raises Refusal 401, 403, 409 or 413."""
        if incoming.inside or op in FREE_OPS:
            return Identified(incoming)
        if self._config.mqtt.auth == "broker-prop":
            check_broker_name(principal, incoming.user)
        if self._signed is None:
            return Identified(incoming)
        limit = ENVELOPE_FACTOR * self._config.limits.max_prompt_bytes
        if len(incoming.payload) > limit:
            raise Refusal(413, "payload_too_large", f"the envelope has {len(incoming.payload)} bytes, at most {limit}")
        opened = self._signed.open(principal, op, incoming.payload)
        inner = dataclasses.replace(_with_id(incoming, opened.id), payload=opened.payload, content_type=None)
        return Identified(inner, opened.seen)

    def as_claimed(self, incoming: Incoming) -> Incoming:
        """A message that identify() has refused, with the id that it claims: its refusal is waited for there."""
        job_id = claimed_id(incoming.payload) if self._signed is not None else None
        return incoming if job_id is None else _with_id(incoming, job_id)

    def check(self, request: Request) -> None:
        """That the request's texts are fit for a model and for this one's owner. Raises Refusal 400 or 451."""
        check_input(request, self._config.limits)
        if isinstance(request, GenerateRequest):
            self._filter.check_prompt(text for _, text in texts_of(request))

    def admit(self, address: Address, request: GenerateRequest) -> None:
        """Charge a job's principal. Raises Refusal 429; release() takes it back where the job is not taken."""
        size = sum(len(text.encode()) for _, text in texts_of(request))
        self.limits.admit(address.principal, address.id, prompt_bytes=size, max_tokens=request.max_tokens)

    def charge_request(self, address: Address, op: str) -> None:
        """Charge a principal for one request that is no job. Raises Refusal 429."""
        self.limits.admit(address.principal, address.id, prompt_bytes=0, max_tokens=0)
        nothing = Energy(joules=None, absent="it is no job")
        self.limits.job_ended(
            Outcome(principal=address.principal, job_id=address.id, op=op, status=200, energy=nothing)
        )

    def release(self, address: Address) -> None:
        """A job that was charged was not taken."""
        self.limits.release(address.principal, address.id)

    def guard(self, address: Address, request: GenerateRequest) -> AnswerFilter | None:
        """What the answer of a job passes through; None where nothing is looked at."""
        texts = [text for _, text in texts_of(request)]
        guard = self._filter.guard(texts) if self._filter.active else None
        if not self._config.privacy.log_prompts:
            return guard
        return AnswerLog(guard, address.id, self.name_of(address.principal), texts)

    def not_taken(self, address: Address, refusal: Refusal) -> None:
        """A request whose sender was known is refused: where it may be asked again, it may come as it was signed."""
        if self._signed is not None and refusal.retryable:
            self._signed.forget(address.principal, address.id)

    def refused(self, principal: str, op: str, refusal: Refusal) -> None:
        """Tell a refusal to the security log."""
        self.security.refused(refusal.status, refusal.code, self.name_of(principal), op if op in ALL_OPS else "?")

    def job_ended(self, outcome: Outcome) -> None:
        """See OutcomeListener."""
        self.limits.job_ended(outcome)
        if outcome.status == 451:
            self._filtered.append(outcome)

    def tick(self) -> None:
        """What is due: files that have changed, counts whose minute is over."""
        while self._filtered:
            ended = self._filtered.popleft()
            self.security.refused(ended.status, ended.code, self.name_of(ended.principal), ended.op)
        self.security.tick()
        if self._clock() - self._looked_at >= FILES_S:
            self._looked_at = self._clock()
            self.reload()

    def look_again(self) -> None:
        """Let the next tick() look at the files, whenever that was last done. From a signal's handler too."""
        self._looked_at = -math.inf

    def reload(self) -> None:
        """Read principals and rules again where they have changed; wrong ones leave those before in use."""
        self._principals.reload()
        self._filter.reload()
        self._open_secrets = open_secrets(self._config)

    def close(self) -> None:
        """Write what is still being counted."""
        self.tick()
        self.security.close()

    def warnings(self) -> dict[str, str]:
        """What the owner should mend, by what it is about. The certificate's end is a figure: certificate_days()."""
        found = {
            "principals": self._principals.fault,
            "content_filter": self._filter.fault,
            "clock": self._validity.early() if self._validity is not None else None,
            "secrets": "; ".join(self._open_secrets),
        }
        return {name: words for name, words in found.items() if words}

    def certificate_days(self) -> float | None:
        """How long the certificate that we came with holds on, by this device's clock; None without one."""
        return None if self._validity is None else self._validity.days_left()

    def describe(self) -> dict[str, Any]:
        """What `info` says of all this."""
        challenge = self._signed.challenge() if self._signed is not None else None
        body: dict[str, Any] = {
            "auth": self._config.mqtt.auth,
            "identity": describe_identity(self._config.mqtt.auth, challenge),
        }
        if (limits := self.limits.describe()) is not None:
            body["rate_limits"] = limits
        if (rules := self._filter.describe()) is not None:
            body["content_filter"] = rules
        if self._config.privacy.log_prompts:
            body["logs_prompts"] = True
        if self._validity is not None:
            warning = self._validity.warning()
            body["certificate"] = self._validity.describe() | ({"warning": warning} if warning else {})
        return body


def _with_id(incoming: Incoming, job_id: str) -> Incoming:
    user = (("eb-id", job_id), *(pair for pair in incoming.user if pair[0] != "eb-id"))
    return dataclasses.replace(incoming, user=user)
