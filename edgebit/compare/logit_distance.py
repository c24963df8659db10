"""How far the logits of an exported folder are from the native engine's, over one text."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebit.checkpoint.hints import Hints
from edgebit.errors import ExportError
from edgebit.native_model import native_model
from edgebit.onnx_engine.binding import NO_LIBRARY
from edgebit.onnx_engine.decoder import Decoder
from edgebit.onnx_engine.folder import TOKENIZER_NAME, OnnxFolder
from edgebit.onnx_engine.session import OnnxSession
from edgebit.progress import Progress
from edgebit.resources import evaluation_text
from edgebit.runtime.cores import default_threads
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model
from edgebit.runtime.tokenizer import Tokenizer

N_TOKENS, LEAST_TOKENS = 128, 16  # of fewer, a mean and a share say nothing
_SEED = 1  # of the tokens of a model without a tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class LogitDistance:
    """Of one token of a text after the other, each with those before it as context."""

    text: str
    tokens: int
    max_difference: float  # of any logit
    kl_mean: float  # nats: sum over the vocabulary of p (ln p - ln q), p the native engine's
    same_greedy: float  # the share of tokens after which both have the same likeliest token
    runtime: str


def measure_distance(
    source: Path, folder: Path, *, text: Path | None, hints: Hints, progress: Progress
) -> LogitDistance:
    """Run both over the first tokens of `text`, or of one that edgebit brings along.

    source: the model file, bundle or checkpoint that `folder` was exported from
    The engine's KV cache is float32, as the graph's; ONNX Runtime has no library of ours. Raises OnnxError where it
    is missing or cannot run the folder, EngineError where the native library is missing, ExportError for fewer than
    LEAST_TOKENS tokens, and what convert() raises.
    """
    session = OnnxSession.open(OnnxFolder.open(folder), threads=default_threads(), library=NO_LIBRARY)
    has_tokenizer = (folder / TOKENIZER_NAME).is_file()
    with native_model(source, template="none" if has_tokenizer else None, hints=hints, progress=progress) as model:
        name, ids = _tokens(model, text, session.folder.conf.context_max)
        if len(ids) < LEAST_TOKENS:
            raise ExportError(_too_few(len(ids), name, session.folder.conf.context_max))
        decoder = Decoder(session, ctx_len=len(ids))
        differences, divergences, same = [], [], 0
        with closing(Engine(model, ctx_len=len(ids), threads=default_threads(), kv="f32")) as engine:
            for place, token in enumerate(ids):
                progress("distance from the native engine", place, len(ids))
                engine.eval([token])
                ours, theirs = np.array(engine.logits(), np.float64), decoder.append([token])[0].astype(np.float64)
                differences.append(float(np.abs(ours - theirs).max()))
                divergences.append(_kl(ours, theirs))
                same += int(ours.argmax() == theirs.argmax())
    return LogitDistance(
        text=name,
        tokens=len(ids),
        max_difference=max(differences),
        kl_mean=float(np.mean(divergences)),
        same_greedy=same / len(ids),
        runtime=f"onnxruntime {session.version}",
    )


def _tokens(model: Model, text: Path | None, most: int) -> tuple[str, list[int]]:
    """What the tokens are of, and the tokens: begin-of-text, then the text's; random ones without a tokenizer."""
    count = min(N_TOKENS, most)
    if model.section("TOKN") is None:
        drawn = np.random.default_rng(_SEED).integers(0, model.info.vocab_size, count)
        return "random tokens: the model has no tokenizer", drawn.tolist()
    place = text or evaluation_text()
    with Tokenizer.from_model(model) as tokenizer:
        ids = tokenizer.encode(place.read_bytes())
    begin = [] if model.info.bos_token is None else [model.info.bos_token]
    return place.name, [*begin, *ids][:count]


def _too_few(found: int, name: str, most: int) -> str:
    words = f"it takes {LEAST_TOKENS} tokens or more, and"
    if most < LEAST_TOKENS:
        return f"{words} the context has {most}. Export with a longer --ctx"
    return f"{words} {name} has {found}, begin-of-text counted. Give a longer --text"


def _kl(p_logits: NDArray[np.float64], q_logits: NDArray[np.float64]) -> float:
    log_p, log_q = (each - each.max() - np.log(np.exp(each - each.max()).sum()) for each in (p_logits, q_logits))
    return max(0.0, float((np.exp(log_p) * (log_p - log_q)).sum()))
