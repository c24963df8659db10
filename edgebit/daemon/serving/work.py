"""What a job comes to, in tokens, how fast the engine gets through it, and when a job would be answered."""

from collections.abc import Iterable
from dataclasses import dataclass

_SHARE = 0.2  # of a new measurement in a smoothed one
_ANSWER_TOKENS = 256.0  # of an answer, until some have been given


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens to compute: of a prompt, and of an answer."""

    prompt: int = 0
    answer: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.prompt + other.prompt, self.answer + other.answer)

    def __sub__(self, other: "Work") -> "Work":
        return Work(self.prompt - other.prompt, self.answer - other.answer)

    @property
    def tokens(self) -> int:
        """Both together: what fairness counts in."""
        return self.prompt + self.answer


NOTHING = Work()


@dataclass(frozen=True, slots=True, kw_only=True)
class PassFigures:
    """One pass of the engine."""

    took_s: float
    prompt_tokens: int = 0  # computed of prompts
    decoding: int = 0  # answers that it gave a token
    drawn: int = 0  # tokens, drafts that came true among them


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTotals:
    """What all passes since the start come to; one that goes on counts in busy_s up to now."""

    busy_s: float = 0.0
    decode_s: float = 0.0  # in passes of decoding alone
    drawn: int = 0  # tokens, in those
    answer_s: float = 0.0  # answers times seconds, in those

    def with_pass(self, done: PassFigures) -> "PassTotals":
        """The totals after one more."""
        alone = bool(done.decoding) and not done.prompt_tokens
        return PassTotals(
            busy_s=self.busy_s + done.took_s,
            decode_s=self.decode_s + (done.took_s if alone else 0.0),
            drawn=self.drawn + (done.drawn if alone else 0),
            answer_s=self.answer_s + (done.took_s * done.decoding if alone else 0.0),
        )


class Pace:
    """How fast the engine is, from its own passes, smoothed. Not for several threads at once."""

    def __init__(self) -> None:
        self._decode: dict[int, tuple[float, float]] = {}  # by answers in a pass: its seconds, tokens of each
        self._prompt_s: float | None = None  # a token, in passes of prompts alone
        self._mixed_s: float | None = None  # a token, beyond what decoding takes, in passes of both
        self._answer_tokens = _ANSWER_TOKENS

    def record_pass(self, done: PassFigures) -> None:
        """After each pass."""
        if not done.decoding:
            if done.prompt_tokens:
                self._prompt_s = smoothed(self._prompt_s, done.took_s / done.prompt_tokens)
        elif not done.prompt_tokens:
            before_s, before_each = self._decode.get(done.decoding, (None, None))
            each = done.drawn / done.decoding
            self._decode[done.decoding] = smoothed(before_s, done.took_s), smoothed(before_each, each)
        elif (decode_s := self._pass_s(done.decoding)) is not None:
            self._mixed_s = smoothed(self._mixed_s, max(done.took_s - decode_s, 0.0) / done.prompt_tokens)

    def record_answer(self, tokens: int) -> None:
        """After each answer: its length."""
        self._answer_tokens = smoothed(self._answer_tokens, float(tokens))

    def expected(self, prompt: int, max_tokens: int) -> Work:
        """A job of so many prompt tokens: answers are taken to be as long as they lately were."""
        return Work(prompt, max(1, min(max_tokens, round(self._answer_tokens))))

    def prompt_most(self, stall_s: float) -> int | None:
        """Tokens of prompts that a pass computes in so many seconds beside others' decoding; None: not known."""
        a_token_s = self._mixed_s if self._mixed_s is not None else self._prompt_s
        return None if a_token_s is None else max(1, int(stall_s / max(a_token_s, 1e-9)))

    def tok_s(self, answers: int) -> float | None:
        """Tokens a second over all, with so many answers at once: measured, or at the next smaller number that was."""
        known = [n for n in self._decode if n <= answers] or sorted(self._decode)[:1]
        if not known:
            return None
        took_s, each = self._decode[max(known)]
        return max(known) * each / max(took_s, 1e-9)

    def seconds(self, work: Work, answers: int, sustainable_tok_s: float | None, duty: float) -> float | None:
        """How long the work takes with so many answers at once, where heat allows for no more than that speed."""
        tok_s = self.tok_s(answers)
        if not tok_s or self._prompt_s is None:  # 0: no pass has drawn a token yet, each ended its answer
            return None
        tok_s *= duty
        slower = 1.0
        if sustainable_tok_s is not None and sustainable_tok_s < tok_s:
            slower = tok_s / max(sustainable_tok_s, 1e-9)
        return slower * (work.prompt * self._prompt_s / duty + work.answer / tok_s)

    def _pass_s(self, decoding: int) -> float | None:
        known = [n for n in self._decode if n <= decoding]
        return self._decode[max(known)][0] if known else None


def before_done(own: Work, queued: Work, running: Iterable[Work]) -> Work:
    """All that is computed until a job is answered, itself among it.

    `queued`: the waiting jobs whose turn comes first. All that run are given a token at a time in turn, so one that
    runs now takes no more than the job and those before it, however long it still is.
    """
    total = own + queued
    for each in running:
        share = min(each.tokens, total.tokens)
        prompt = min(each.prompt, share)
        total += Work(prompt, share - prompt)
    return total


def smoothed(before: float | None, now: float) -> float:
    """A measurement put into those before it."""
    return now if before is None else before + _SHARE * (now - before)
