"""Hugging Face transformers behind the protocol of all: a checkpoint's folder as it is, computed in float32.

Tokens, chat template and mathematics are transformers' own, which makes it the independent one of the engines. The loop
around it is not its generate(): ours streams, ends between two tokens, measures prefill apart from decode, and draws
with the C sampler, so that the same seed and logits give the same tokens in every engine.
"""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgebit.bundle.prompt_program import Message
from edgebit.checkpoint.hugging_face.json_file import read_json
from edgebit.engines.causal_lm import import_transformers, load_causal_lm
from edgebit.engines.engine import OpenOptions
from edgebit.engines.text_pieces import TextPieces
from edgebit.errors import CheckpointError, EngineError
from edgebit.runtime.cores import default_threads
from edgebit.runtime.generation import Answer, answer_limit
from edgebit.runtime.library import Library
from edgebit.runtime.sampler import Sampler, SamplingParams
from edgebit.runtime.sampling import advised_sampling, choose_sampling

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


class TransformersEngine:
    """A causal language model and its tokenizer."""

    name = "transformers"

    def __init__(self, folder: Path, options: OpenOptions) -> None:
        """Load the checkpoint in `folder`.

        Raises EdgebitError where transformers is not installed, CheckpointError where it cannot load it, EngineError
        for a context longer than the model's.
        """
        started = time.monotonic()
        self._torch, transformers = import_transformers()
        self._threads = options.threads or default_threads()
        self._torch.set_num_threads(self._threads)
        self._folder, self._version = folder, str(transformers.__version__)
        self._library = Library.load()  # whose sampler draws
        self._model = load_causal_lm(self._torch, transformers, folder)
        self._torch.nn.Module.float(self._model)  # its own float() refuses a quantised model: packed codes stay
        self._tokenizer = _load_tokenizer(transformers, folder)
        generation = folder / "generation_config.json"
        self._advice = advised_sampling(read_json(generation) if generation.is_file() else {})
        self._new_cache = transformers.DynamicCache  # which a forward pass fills
        named = inspect.signature(self._model.forward).parameters
        self._cache_argument = "cache" if "cache" in named else "past_key_values"  # its older name
        self._vocab_size = int(self._model.get_output_embeddings().weight.shape[0])
        self._context_len = _context_len(self._model.config, options.ctx_len, folder)
        self._stop_tokens = _stop_tokens(self._model)
        self.load_s = time.monotonic() - started

    @property
    def description(self) -> str:
        """Versions and threads."""
        return f"transformers {self._version}, torch {self._torch.__version__}, float32, {self._threads} threads"

    @property
    def context_len(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self._context_len

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer has one."""
        return self._tokenizer is not None and bool(self._tokenizer.chat_template)

    @property
    def notes(self) -> Sequence[str]:
        """None: there is only one way that it runs."""
        return ()

    def prompt_ids(self, prompt: str) -> list[int]:
        """Tokens of a plain prompt, as the tokenizer begins one."""
        return list(self._own_tokenizer().encode(prompt, split_special_tokens=True))

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation in the tokenizer's template; names of special tokens in contents become those.

        Made as model cards have it, text first: the tokenizer then begins it, where the template has not done so.
        """
        if not self.has_chat_template:
            raise EngineError(f"{self._folder} has no chat template: it is a base model. Give it a plain prompt.")
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # the template's own exceptions and jinja2's
            said = " ".join(str(error).split())[:300]
            raise EngineError(f"{self._folder}: its chat template refuses this conversation: {said}") from error
        begun = bool(self._tokenizer.bos_token) and text.startswith(self._tokenizer.bos_token)
        return list(self._tokenizer.encode(text, add_special_tokens=not begun))

    def sampling(self, asked: Mapping[str, float | None], *, seed: int) -> SamplingParams:
        """As asked for, then as the model's makers advise, then greedy."""
        return choose_sampling(asked, self._advice, seed=seed)

    def generate(
        self,
        ids: Sequence[int],
        answer: Answer,
        *,
        sampling: SamplingParams,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[str]:
        """Yield the answer to `ids` piece by piece, and fill in `answer`."""
        limit = answer_limit(ids, self._context_len, max_tokens)
        pieces = TextPieces(self._decode, stop)
        with Sampler(self._library, self._vocab_size, sampling) as sampler:
            for token in ids:
                sampler.accept(token)
            for drawn, token in enumerate(self._tokens(ids, sampler, answer, cancelled), 1):
                stopped = token in self._stop_tokens
                if not stopped:
                    answer.tokens.append(token)
                    piece, stopped = pieces.push(token)
                    answer.text += piece
                    if piece:
                        yield piece
                if stopped or drawn == limit:
                    answer.done_reason = "stop" if stopped else "length"
                    break
            else:
                answer.done_reason = "cancelled"
        rest = pieces.finish()
        answer.text += rest
        if rest:
            yield rest

    def figures(self) -> dict[str, Any]:
        """Versions, threads, and the memory of weights in MiB."""
        tensors = [*self._model.parameters(), *self._model.buffers()]
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return {
            "transformers": self._version,
            "torch": str(self._torch.__version__),
            "weights_mib": round(size / 2**20, 1),
            "threads": self._threads,
        }

    def keep(self) -> None:
        """Nothing is kept from one answer to the next."""

    def close(self) -> None:
        """Let go of the weights; Python gives them back."""
        self._model = None

    def _tokens(
        self, ids: Sequence[int], sampler: Sampler, answer: Answer, cancelled: Callable[[], bool]
    ) -> Iterator[int]:
        """Each token as it is drawn, with no end but `cancelled`; the times of `answer` are those up to it."""
        started_ns = time.monotonic_ns()
        cache = {self._cache_argument: self._new_cache()}
        step = list(ids)
        while not cancelled():
            with self._torch.inference_mode(), self._torch.compiler.set_stance("force_eager"):
                made = self._model(self._torch.tensor([step]), use_cache=True, logits_to_keep=1, **cache)
            step = [sampler.sample(memoryview(made.logits[0, -1].numpy().copy()))]
            now_ns = time.monotonic_ns() - started_ns
            answer.prompt_ns = answer.prompt_ns or now_ns
            answer.decode_ns = now_ns - answer.prompt_ns
            yield step[0]

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._own_tokenizer().decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _own_tokenizer(self) -> Any:
        if self._tokenizer is None:
            raise EngineError(f"{self._folder} cannot take text: it has no tokenizer")
        return self._tokenizer


def open_engine(path: Path, options: OpenOptions) -> TransformersEngine:
    """The checkpoint in the folder `path`. Raises as TransformersEngine."""
    return TransformersEngine(path, options)


def _load_tokenizer(transformers: Any, folder: Path) -> Any:
    """None where the checkpoint has none."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises that very class
        said = " ".join(str(error).split())[:400]
        raise CheckpointError(f"{folder}: transformers cannot load its tokenizer: {said}") from error


def _context_len(config: Any, asked: int, folder: Path) -> int:
    """Tokens of the context: as asked for, or for 0 as many as the model was made for.

    Raises EngineError where that is fewer than asked for, or is asked for and the configuration has no such number.
    """
    most: int | None = getattr(config, "max_position_embeddings", None)
    length = asked or most
    if length is None:
        raise EngineError(f"{folder / 'config.json'} does not say how many tokens the model takes. Say it: --ctx 2048")
    if most is not None and asked > most:
        raise EngineError(f"{folder}: a context of {asked} tokens was asked for, the model's is {most}")
    return int(length)


def _stop_tokens(model: Any) -> frozenset[int]:
    """As its own generate() takes them: one, several or none."""
    ends = model.generation_config.eos_token_id
    return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
