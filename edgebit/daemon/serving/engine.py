"""The model that the daemon answers with: from a bundle's files to a ready session, and what it says about itself."""

import dataclasses
import hashlib
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from edgebit.bundle.adapter_format import parse_adapter
from edgebit.bundle.archive import Bundle, locate_model, looks_like_bundle, open_bundle
from edgebit.bundle.manifest import LIBRARY_MEMBER, MODEL_MEMBER
from edgebit.daemon.adapters.shelf import AdapterShelf
from edgebit.daemon.config.sections import EngineConfig
from edgebit.daemon.contract.messages import GenerateRequest, Refusal, ResponseSchema
from edgebit.daemon.serving.onnx_opening import open_onnx
from edgebit.daemon.serving.session_opening import Opened, open_native
from edgebit.runtime.adapter import Adapter
from edgebit.runtime.generation import Answer, Generation
from edgebit.runtime.json_schema import compile_schema, parse_schema
from edgebit.runtime.library import Library
from edgebit.runtime.memory import available_memory_bytes, total_memory_bytes
from edgebit.runtime.model import Model
from edgebit.runtime.token_ids import spread_ids

LEFT_BYTES = 16 << 20  # of memory, that a request must leave to others
MEMORY_RETRY_MS = 10_000
_WARM_UP_PROMPT, _WARM_UP_ANSWER = 32, 8  # tokens


class LoadedModel:
    """A model with its engine, open until close().

    One thread, but for encode(), request_ids(), answer_key() and cancel().
    """

    def __init__(
        self,
        library: Library,
        model: Model,
        opened: Opened,
        bundle: Bundle | None,
        aliases: Sequence[str] = (),
    ) -> None:
        self._library = library
        self._meta = model.meta()
        self._model = model
        self._session = opened.session
        self._about = opened.about
        self._own_program = _own_program(model)
        self._threads = self._session.engine.stats().n_threads
        self._bundle = bundle
        self._aliases = aliases
        self.adapters: AdapterShelf[Adapter] = AdapterShelf()
        self._adapter_of: dict[Generation, Adapter] = {}
        self._going: dict[Generation, int] = {}  # tokens of its KV cache that each answer in the making may come to
        self.probes = opened.probes
        self._description = self._describe()

    @classmethod
    def open(cls, path: Path, config: EngineConfig, state_dir: Path | None = None) -> Self:
        """Open the bundle (folder or file) or model file at `path`, with the bundle's own native library if it has one.

        state_dir: where the prefix cache may keep files; None: nowhere
        Raises BundleError for damaged files, EngineError where the library or memory fails.
        """
        bundle = open_bundle(path) if looks_like_bundle(path) else None
        place = bundle.member(MODEL_MEMBER) if bundle is not None else locate_model(path)
        library = load_library(bundle, config.isa or None)
        model = Model.open(library, place.path, offset=place.offset, size=place.size)
        try:
            if config.engine == "onnx":
                opened = open_onnx(model, place, _sha256(bundle), config)
            else:
                opened = open_native(model, place, config, state_dir)
        except BaseException:
            model.close()
            raise
        return cls(library, model, opened, bundle, config.aliases)

    @property
    def sequences(self) -> int:
        """How many answers can be in the making at once."""
        return self._session.engine.sequences

    @property
    def names(self) -> set[str]:
        """What a request may call the model: its name, its hash if it came in a bundle, and what the owner calls it."""
        return {str(name) for name in (self._name, _sha256(self._bundle), *self._aliases) if name}

    @property
    def ctx_len(self) -> int:
        """Tokens of prompt and answer together."""
        return self._session.engine.ctx_len

    def describe(self) -> dict[str, Any]:
        """The engine's part of the info document, as it was opened; after close() too."""
        return self._description

    def _describe(self) -> dict[str, Any]:
        info, stats, program = self._model.info, self._session.engine.stats(), self._session.program
        return {
            "model": {
                "name": self._name,
                "aliases": list(self._aliases),
                "sha256": _sha256(self._bundle),
                "family": self._meta.get("family"),
                "licence": self._meta.get("licence"),
                "parameters": self._meta.get("parameters"),
                "context_max": info.context_max,
                "vocab_size": info.vocab_size,
                "chat_template": program is not None,
                "system_messages": program is not None and program.allow_system,
                "response_schema": self._own_program is not None,
            },
            "bundle": self._bundle.id if self._bundle is not None else None,
            "engine": {
                "version": self._library.version,
                "isa": self._session.engine.isa,
                "threads": stats.n_threads,
                "ctx_len": self.ctx_len,
                "sequences": self.sequences,
                "weight_bytes": stats.weight_bytes,
                "kv_bytes": stats.kv_bytes,
                **self._about,
            },
        }

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, special tokens in it taken as text, nothing put before it."""
        return self._session.tokenizer.encode(text)

    def request_ids(self, request: GenerateRequest) -> list[int]:
        """Token ids of a request's prompt: in the model's template, or as it stands if raw or the model has none."""
        if request.prompt is not None and (not request.messages or self._session.program is None):
            return self._session.prompt_ids(request.prompt)
        return self._session.chat_ids(request.messages)

    def open_adapter(self, data: bytes) -> Adapter:
        """An adapter of this model. Raises BundleError for a damaged file, Refusal for another model's."""
        if self._about["name"] != "native":
            words = f"the engine of this device, {self._about['name']}, takes no adapters"
            raise Refusal(409, "adapter_unfit", words)
        file = parse_adapter(data, "the adapter")
        if file.base != self._model.weights_fingerprint():
            words = f"adapter {file.name} was made for other weights than those of this device's model, {self._name}"
            raise Refusal(409, "adapter_unfit", words)
        return Adapter.open(self._library, self._model, data)

    def fitting(self, request: GenerateRequest) -> GenerateRequest:
        """The request with its adapter looked up.

        Raises Refusal: 404 where there is none of that name, 400 where the model has no schema of its own.
        """
        wanted = request.response_schema
        if wanted is not None and wanted.program is None and self._own_program is None:
            words = f"the model {self._name} has no schema of its own: it makes no calls"
            raise Refusal(400, "not_supported_by_model", words)
        if request.adapter is None:
            return request
        sha256 = request.adapter_sha256 or self.adapters.sha256(request.adapter)
        return dataclasses.replace(request, adapter_sha256=sha256)

    def answer_key(self, request: GenerateRequest, ids: Sequence[int]) -> bytes | None:
        """A hash of all that determines the answer; None where it is drawn with a seed that nobody has asked for."""
        sampling = self._session.sampling(request.sampling, seed=request.seed)
        if sampling.temperature == 0:
            sampling = dataclasses.replace(sampling, seed=0)  # nothing is drawn
        elif not request.seed_given:
            return None
        schema = request.response_schema
        rest = repr((sampling, request.max_tokens, request.stop, request.adapter_sha256, schema))
        return hashlib.sha256(array("i", ids).tobytes() + rest.encode()).digest()

    def begin(self, request: GenerateRequest, ids: Sequence[int], answer: Answer, owner: str) -> Generation:
        """Begin an answer; sampling as asked, then as the model's makers advise.

        Raises Refusal where its KV cache would take more memory than there is, or the adapter has gone.
        """
        self._close_retired()
        adapter = None
        if request.adapter is not None:
            adapter = self.adapters.take(request.adapter, request.adapter_sha256)
        try:
            generation = self._begin(request, ids, answer, owner, adapter)
        except BaseException:
            if adapter is not None:
                self.adapters.give_back(adapter)
            raise
        if adapter is not None:
            self._adapter_of[generation] = adapter
        return generation

    def _begin(
        self, request: GenerateRequest, ids: Sequence[int], answer: Answer, owner: str, adapter: Adapter | None
    ) -> Generation:
        generation = self._session.begin(
            ids,
            answer,
            sampling=self._session.sampling(request.sampling, seed=request.seed),
            max_tokens=request.max_tokens,
            stop=request.stop,
            owner=owner,
            adapter=adapter,
            constraint=self._program(request.response_schema),
        )
        tokens = min(len(ids) + request.max_tokens, self.ctx_len)
        try:
            self._check_memory(self._to_touch(generation, tokens))
        except Refusal:
            self._session.end(generation)
            raise
        self._going[generation] = tokens
        return generation

    def _program(self, schema: ResponseSchema | None) -> bytes | None:
        """What the answer is held to."""
        return None if schema is None else schema.program if schema.program is not None else self._own_program

    def _close_retired(self) -> None:
        """Adapters that were unloaded leave the sequences, which only the engine's own thread may touch, and memory."""
        for adapter in self.adapters.take_retired():
            self._session.drop_adapter(adapter)
            adapter.close()

    def _check_memory(self, tokens: int) -> None:
        """That there is memory for so many tokens beside those that answers in the making may still come to."""
        free = available_memory_bytes() if tokens else None
        if free is None:
            return
        engine = self._session.engine
        a_token = engine.stats().kv_bytes / (engine.ctx_len * engine.sequences)
        free -= int(a_token * sum(self._to_touch(each, most) for each, most in self._going.items()))
        wanted = int(a_token * tokens)
        if wanted + LEFT_BYTES <= free:
            return
        mib = 1 << 20
        words = (
            f"the request needs up to {wanted // mib} MiB of memory for its KV cache, and {max(free, 0) // mib} MiB are"
            " free: ask for fewer tokens, or later"
        )
        total = total_memory_bytes()
        if total is not None and wanted + LEFT_BYTES > total:
            raise Refusal(507, "memory", words)
        raise Refusal(503, "memory_short", words, retryable=True, retry_after_ms=MEMORY_RETRY_MS)

    def _to_touch(self, generation: Generation, tokens: int) -> int:
        """For how many of the tokens that an answer may come to, prompt and all, there is no memory taken yet."""
        held = generation.held
        taken = max(held.touched, len(held.tokens)) if self._session.engine.keeps_memory else len(held.tokens)
        return max(tokens - taken, 0)

    def step(
        self, generations: Sequence[Generation], prompt_most: int | None = None
    ) -> list[tuple[Generation, list[str]]]:
        """One pass for all that are not done; gives the text of each token drawn. Raises Cancelled, or EngineError."""
        return self._session.step(generations, prompt_most=prompt_most)

    def end(self, generation: Generation) -> None:
        """Give back what the answer had, done or not."""
        self._going.pop(generation, None)
        self._session.end(generation)
        self._give_adapter_back(generation)

    def forget(self, generation: Generation) -> None:
        """The same, and nothing that was computed for it is used again."""
        self._going.pop(generation, None)
        self._session.forget(generation)
        self._give_adapter_back(generation)

    def _give_adapter_back(self, generation: Generation) -> None:
        if (adapter := self._adapter_of.pop(generation, None)) is not None:
            self.adapters.give_back(adapter)

    def warm_up(self) -> tuple[GenerateRequest, list[int]]:
        """A short request that touches what all requests need."""
        request = GenerateRequest(
            prompt="",
            messages=(),
            sampling={"temperature": 0.0},
            seed=0,
            max_tokens=_WARM_UP_ANSWER,
            stop=(),
            stream=False,
            format="json",
        )
        room = self._session.engine.ctx_len - _WARM_UP_ANSWER
        return request, spread_ids(self._model.info.vocab_size, max(1, min(_WARM_UP_PROMPT, room)))

    def keep(self) -> None:
        """Put what ended answers came to into the prefix cache, for prompts that begin alike."""
        self._session.keep()
        self._close_retired()

    def set_threads(self, threads: int) -> None:
        """Compute with so many threads from now on; 0, or more than it was opened with: with all of these.

        An engine whose threads are fixed goes on with those it has.
        """
        if not self._session.engine.threads_fixed:
            self._session.engine.set_threads(min(threads or self._threads, self._threads))

    def cancel(self) -> None:
        """End the pass in progress, or the next one. From any thread."""
        self._session.cancel()

    def cancel_reset(self) -> None:
        """Take back a cancel() that came too late."""
        self._session.engine.cancel_reset()

    def close(self) -> None:
        """Give everything back."""
        self._session.close()
        self.adapters.clear()
        for adapter in self.adapters.take_retired():
            adapter.close()
        self._model.close()

    @property
    def _name(self) -> str:
        return self._bundle.manifest.model.name if self._bundle is not None else str(self._meta.get("name", "model"))


def _own_program(model: Model) -> bytes | None:
    """The compiled schema that the model's answers follow, if it has one."""
    section = model.section("SCHM")
    return None if section is None else compile_schema(parse_schema(bytes(section)))


def _sha256(bundle: Bundle | None) -> str | None:
    """Of the model file, as the manifest has it."""
    return bundle.manifest.files[MODEL_MEMBER].sha256 if bundle is not None else None


def load_library(bundle: Bundle | None, isa: str | None) -> Library:
    """The bundle's own native library if it has one, or this machine's. Raises EngineError."""
    if bundle is None or LIBRARY_MEMBER not in bundle.members:
        return Library.load(isa=isa)
    place = bundle.member(LIBRARY_MEMBER)
    if place.path != bundle.path:
        return Library.load(place.path, isa=isa)
    # A library inside a tar cannot be loaded in place. Once loaded, its file may go.
    with tempfile.TemporaryDirectory(prefix="edgebit-") as folder:
        copy = Path(folder) / Path(LIBRARY_MEMBER).name
        bundle.extract(LIBRARY_MEMBER, copy)
        return Library.load(copy, isa=isa)
