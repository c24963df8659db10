"""An exported folder in ONNX Runtime, measured as a peer of our engine: one round is two processes, start and work."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebit.asked_process.process import AskedProcess
from edgebit.bench.onnx_worker import OnnxSpec
from edgebit.bench.peers import PeerRun
from edgebit.bundle.conf_section import SIZE_MAX
from edgebit.errors import EngineError, OnnxError, PeerError
from edgebit.onnx_engine.folder import OnnxFolder

ONNX = "onnx"
_WARM_TOKENS = 8
_READ_IN_PART = ("embedding.weight", "rope.cos", "rope.sin")  # tensors of which a step reads a row
_FOR_THE_FALLBACK = ".block_scale"


@dataclass(frozen=True, slots=True)
class OnnxPeer:
    """A peer (edgebit.bench.peers) that needs no program: name, and measure()."""

    folder: Path
    library: str | None = None  # of operators, or "none"; None: as binding.find_library()
    name: str = ONNX

    def check(self, ctx_len: int) -> None:
        """Open it once as it will be measured. Raises OnnxError where that fails: a round would only say it later."""
        try:
            with _process(
                OnnxSpec(folder=str(self.folder), library=self.library, threads=1, ctx_len=ctx_len)
            ) as opened:
                opened.ask("said")
        except EngineError as error:
            raise OnnxError(str(error)) from error

    def measure(self, threads: int, prefill: Sequence[int], decode_tokens: int, contexts: Sequence[int]) -> PeerRun:
        """One round. Raises PeerError where it fails."""
        longest = max((*prefill, *(context + decode_tokens + 1 for context in contexts)), default=1)
        spec = OnnxSpec(folder=str(self.folder), library=self.library, threads=threads, ctx_len=longest)
        try:
            figures = _start(spec)
            with _process(spec) as process:
                run = PeerRun(figures, {}, process.ask("said"), {})
                _work(process, run, prefill, decode_tokens, contexts)
        except EngineError as error:
            raise PeerError(f"{self.folder}: {error}") from error
        return run


def model_info(folder: OnnxFolder) -> dict[str, int]:
    """The sizes that a report tells of a model (model.ModelInfo), from what the folder says.

    Raises OnnxError where it does not say all.
    """
    told: dict[str, Any] = json.loads(folder.onnx.metadata["edgebit.conf"])
    for name, most in SIZE_MAX.items():
        if type(told.get(name)) is not int or not 1 <= told[name] <= most:
            raise OnnxError(f"{folder.model_path}: edgebit.conf does not say {name}. Export the model again")
    read = sum(
        each.length or 0
        for each in folder.onnx.external
        if each.name not in _READ_IN_PART and not each.name.endswith(_FOR_THE_FALLBACK)
    )
    sizes = {name: told[name] for name in SIZE_MAX}
    return {**sizes, "weight_bytes": folder.weight_bytes, "bytes_per_token": read}


def kv_bytes_per_token(info: dict[str, int]) -> int:
    """Keys and values of a token, in float32."""
    return 2 * 4 * info["n_layers"] * info["n_kv_heads"] * info["head_dim"]


def _start(spec: OnnxSpec) -> dict[str, float]:
    """A fresh process up to its first token and its end."""
    began = time.monotonic_ns()
    with _process(spec) as process:
        clock = process.ask("start")["clock_ns"]
    ended = time.monotonic_ns()
    figures = {
        "start_s": ended - began,
        "first_token_s": clock["token"] - began,
        "engine_open_s": clock["engine"] - clock["began"],
    }
    return {name: value / 1e9 for name, value in figures.items()}


def _work(
    process: AskedProcess, run: PeerRun, prefill: Sequence[int], decode_tokens: int, contexts: Sequence[int]
) -> None:
    process.ask("prefill", tokens=_WARM_TOKENS)
    for tokens in prefill:
        run.figures[f"prefill/{tokens}"] = tokens / process.ask("prefill", tokens=tokens)["seconds"]
    for kind, some in (("prefill", [0] if 0 in contexts else []), ("context", [each for each in contexts if each])):
        for context in some:
            done = process.ask("decode", context=context, tokens=decode_tokens)
            run.figures[f"decode/{context}"] = decode_tokens / done["seconds"]
        if kind == "prefill" or some:
            run.peak_rss[kind] = process.ask("memory")["peak_rss_bytes"]
    if 0 in contexts:
        run.figures["all_logits/0"] = run.figures["decode/0"]  # it computes all of them


def _process(spec: OnnxSpec) -> AskedProcess:
    return AskedProcess.of_module("edgebit.bench.onnx_worker", spec.argument(), spec.threads)
