"""A bundle as a harness sees it: texts in, likelihoods and texts out. What drives it needs no tokenizer of its own."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from edgebit.bundle.prompt_program import Message
from edgebit.errors import EdgebitError
from edgebit.evaluate.likelihood import Likelihood, LikelihoodEngine, Pair, PairEncoder, Segment
from edgebit.runtime.generation import Answer
from edgebit.runtime.model import Model
from edgebit.runtime.sampler import SamplingParams
from edgebit.runtime.session import Session

_MAX_TOKENS = 256  # of an answer, unless asked otherwise: the harness's own
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # the first that is given
_SAMPLING = ("top_k", "top_p", "min_p")


class TextModel:
    """Likelihoods, answers and chat prompts of one model. One thread at a time; close() gives its engines back."""

    def __init__(self, model: Model, *, max_length: int | None, threads: int, kv: str, seed: int) -> None:
        """max_length: tokens that are read at once, by default the model's context.

        Raises EdgebitError where that is more than the model takes, or it has no tokenizer.
        """
        most = model.info.context_max
        self.max_length = most if max_length is None else max_length
        if not 2 <= self.max_length <= most:
            raise EdgebitError(f"max_length is {max_length}, and the model takes 2 to {most}")
        if model.section("TOKN") is None:
            raise EdgebitError(f"{model.source} has no tokenizer: it cannot read texts. Take a model that has one")
        self._model, self._threads, self._kv, self._seed = model, threads, kv, seed
        self._session = Session(model, ctx_len=self.max_length, threads=threads, kv=kv, speculate=0)
        self._encoder = PairEncoder(model, self._session.tokenizer)
        self._scoring: LikelihoodEngine | None = None
        self._rendered: dict[str, list[Segment]] = {}  # chat prompts, by their text

    def close(self) -> None:
        """Give the engines back; the model is the caller's."""
        self._session.close()
        if self._scoring is not None:
            self._scoring.close()

    @property
    def fingerprint(self) -> str:
        """What stands for the model's weights and configuration, hexadecimal."""
        return f"{self._model.fingerprint():016x}"

    @property
    def template(self) -> str | None:
        """What stands around messages, as one text that differs where templates do; None: the model has none."""
        return None if self._session.program is None else repr(self._session.program)

    def likelihoods(self, texts: Sequence[tuple[str, str]]) -> Iterator[tuple[int, Likelihood]]:
        """Of each continuation after its context, with its place; in an order that computes little twice."""
        pairs = [self._pair(context, continuation) for context, continuation in texts]
        order = sorted(range(len(pairs)), key=lambda place: pairs[place].context)
        for _, alike in groupby(order, key=lambda place: pairs[place].context):
            group = list(alike)
            yield from zip(group, self._engine.score([pairs[place] for place in group]), strict=True)

    def rolling(self, text: str) -> float:
        """The log-likelihood of a whole text: each token after as many before it as fit, in windows that meet.

        The first is scored after begin-of-text, or else a stop token. Source: lm_eval.utils.get_rolling_token_windows
        with a context of one token.
        """
        most, tokens = self.max_length, self._encoder.from_prefix(text)
        pairs = []
        for first in range(1, len(tokens), most):
            end = min(first + most, len(tokens))
            begin = max(end - 1 - most, 0)
            pairs.append(Pair(tokens[begin:first], tokens[first:end]))
        return sum((self._engine.score([pair])[0].log_prob for pair in pairs), 0.0)

    def generate(self, context: str, asked: Mapping[str, Any]) -> str:
        """The text that follows, up to a stop string, a stop token or the most tokens.

        asked: the harness's own names: until, max_gen_toks, do_sample, temperature, top_k, top_p, min_p. A context that
        leaves no room loses its beginning.
        """
        stop = asked.get("until") or []
        most = int(next((asked[name] for name in _LENGTHS if asked.get(name) is not None), _MAX_TOKENS))
        room = self.max_length - most
        if room < 1:
            raise EdgebitError(f"max_gen_toks is {most}, and the model reads {self.max_length} tokens: give fewer")
        answer = Answer(prompt_tokens=0)
        ids = self._context_ids(context)[-room:]
        for _ in self._session.generate(
            ids,
            answer,
            sampling=self._sampling(asked),
            max_tokens=most,
            stop=[stop] if isinstance(stop, str) else [text for text in stop if text],
        ):
            pass
        return answer.text

    def chat(self, history: Sequence[Mapping[str, str]], *, answer_next: bool) -> str:
        """The text of a conversation by the model's own template; that text is known again as a context.

        answer_next: what follows begins an answer; otherwise it goes on with the last message, which is an answer begun
        Raises EdgebitError where the model has no template, EngineError where it does not take the order of roles.
        """
        program = self._session.program
        if program is None:
            raise EdgebitError(f"{self._model.source} has no chat template: leave --apply_chat_template out")
        messages = [Message(message["role"], message["content"]) for message in history]
        if answer_next:
            segments = program.render(messages)
        else:
            segments = [*program.render(messages[:-1]), (messages[-1].content, False)]
        text = "".join(part for part, _ in segments)
        self._rendered[text] = segments
        return text

    @property
    def _engine(self) -> LikelihoodEngine:
        if self._scoring is None:
            self._scoring = LikelihoodEngine(self._model, ctx_len=self.max_length, threads=self._threads, kv=self._kv)
        return self._scoring

    def _segments(self, context: str) -> tuple[list[Segment], bool]:
        """A context as texts, those of a template marked, and whether begin-of-text goes first."""
        segments, program = self._rendered.get(context), self._session.program
        if segments is None or program is None:
            return [(context, False)], True
        begin, tokenizer = self._model.info.bos_token, self._session.tokenizer
        if not program.add_bos or begin is None or not tokenizer.is_special(begin):
            return segments, program.add_bos
        name = tokenizer.token_bytes(begin).decode("utf-8", "surrogateescape")
        return [(name, True), *segments], False  # a part of the text, as Session.chat_ids has it

    def _pair(self, context: str, continuation: str) -> Pair:
        segments, bos = self._segments(context)
        return self._encoder.encode_segments(segments, continuation, bos=bos).fitted(self.max_length)

    def _context_ids(self, context: str) -> list[int]:
        segments, bos = self._segments(context)
        return (self._encoder.begin if bos else []) + self._session.tokenizer.encode_segments(segments)

    def _sampling(self, asked: Mapping[str, Any]) -> SamplingParams:
        """Greedy unless a temperature is asked for; do_sample alone is temperature 1, as transformers has it."""
        default = 1.0 if asked.get("do_sample") else 0.0
        temperature = 0.0 if asked.get("do_sample") is False else float(asked.get("temperature", default))
        others = {name: asked[name] for name in _SAMPLING if asked.get(name) is not None}
        return SamplingParams(temperature=temperature, seed=self._seed, **others)
