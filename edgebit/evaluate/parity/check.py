"""The check: tokens, embedding, each layer alone and in a row, norm, logits, greedy; and where they depart first."""

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import NO_LAYER, ActivationQuantisation, Role
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.hugging_face.json_file import read_json
from edgebit.checkpoint.hugging_face.matching import match_family
from edgebit.checkpoint.model_file_checkpoint import open_model_file
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.checks import Check
from edgebit.errors import CheckpointError
from edgebit.evaluate.model_opening import open_sound_model
from edgebit.evaluate.parity import tokens, weights
from edgebit.evaluate.parity.agreement import (
    LOGITS_DIFFERENCE,
    SURE_GAP,
    LogitsAgreement,
    RowAgreement,
    compare_logits,
    compare_rows,
)
from edgebit.evaluate.parity.layer_steps import LayerSteps, rms_norm
from edgebit.evaluate.parity.reference import LayerRun, Reference
from edgebit.progress import Progress
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model
from edgebit.runtime.token_ids import spread_ids
from edgebit.runtime.tokenizer import Tokenizer

_ENGINE_EMBEDDINGS = 8  # tokens whose embedding is taken from the engine as well as from the file
_INT15_STEP = 1 / 16383  # of the largest activation: what the engine rounds to where the reference keeps floats
_PROMPT = 16  # of the ids: what greedy goes on from


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityOptions:
    """How much is compared."""

    text: str | None = None  # what is tokenized and computed; None: one that comes with edgebit
    n_tokens: int = 64
    n_greedy: int = 32
    threads: int = 1


@dataclass(frozen=True, slots=True)
class LayerResult:
    """A layer fed with the reference's input, and the stream after it where each layer was fed with ours."""

    layer: int
    alone: RowAgreement
    chained: RowAgreement
    fault: str | None  # where inside it the two depart


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was compared with what, and how it went."""

    reference: str
    n_tokens: int
    checks: tuple[Check, ...]
    layers: tuple[LayerResult, ...]
    logits: LogitsAgreement
    departure: str | None  # where the two depart first; None: nowhere

    @property
    def holds(self) -> bool:
        return all(check.status != "failed" for check in self.checks)


def run_parity(path: Path, folder: Path, options: ParityOptions, progress: Progress) -> Report:
    """Compare the model file or bundle at `path` with the checkpoint in `folder`, run by the reference implementation.

    Raises EdgebitError where the reference is not installed, CheckpointError where it cannot run the checkpoint or that
    is of another model, BundleError and EngineError where the model file cannot be run.
    """
    with (
        open_sound_model(path) as model,
        contextlib.closing(open_model_file(path)) as file,
        _opened_source(folder) as source,
    ):
        progress("loading the reference", 0, 1)
        reference = Reference(folder)
        _check_same_shape(model, reference, path, folder)
        return _Parity(file, model, source, reference, folder, options, progress).run()


@contextlib.contextmanager
def _opened_source(folder: Path) -> Iterator[Checkpoint | None]:
    """The checkpoint as edgebit reads it, to say which numbers differ; None where edgebit does not know its form.

    Raises CheckpointError where it is damaged: the reference's loader has no words for that.
    """
    config = read_json(folder / "config.json")
    try:
        match_family(config, str(folder))
    except CheckpointError:
        yield None
        return
    with contextlib.closing(open_checkpoint(folder)) as source:
        yield source


def _check_same_shape(model: Model, reference: Reference, path: Path, folder: Path) -> None:
    ours = (model.info.n_layers, model.info.hidden_size, model.info.vocab_size)
    theirs = (reference.n_layers, reference.hidden_size, reference.vocab_size)
    if ours != theirs:
        raise CheckpointError(
            f"{path} and {folder} are not the same model: layers, hidden size and vocabulary are "
            f"{', '.join(map(str, ours))} and {', '.join(map(str, theirs))}"
        )


class _Parity:
    def __init__(
        self,
        file: Checkpoint,
        model: Model,
        source: Checkpoint | None,
        reference: Reference,
        folder: Path,
        options: ParityOptions,
        progress: Progress,
    ) -> None:
        self._file, self._model, self._source, self._reference = file, model, source, reference
        self._folder, self._options, self._progress = folder, options, progress
        is_int15 = file.config.conf.activation_quantisation == ActivationQuantisation.INT15
        self._rounding = np.float32(_INT15_STEP if is_int15 else 0)  # which the reference does not have
        self._checks: list[Check] = []
        self._departure: str | None = None

    def run(self) -> Report:
        ids = self._compare_tokens()
        layers, normed = self._compare_layers(ids)
        logits = self._compare_logits(ids, normed)
        self._compare_greedy(ids)
        return Report(
            reference=self._reference.name,
            n_tokens=len(ids),
            checks=tuple(self._checks),
            layers=tuple(layers),
            logits=logits,
            departure=self._departure,
        )

    def _note(self, name: str, passed: bool, detail: str, where: str | None = None) -> None:
        """A check that ran; the first that fails is where the two depart."""
        self._checks.append(Check(name, "passed" if passed else "failed", detail))
        if not passed and self._departure is None:
            self._departure = where or f"{name}: {detail}"

    def _compare_tokens(self) -> list[int]:
        """The ids that everything after is computed from: the reference's own of the text, where it has a tokenizer."""
        info, text = self._model.info, self._options.text or tokens.TEXT
        start = [] if info.bos_token is None else [info.bos_token]
        most = min(self._options.n_tokens, info.context_max)
        encode = tokens.reference_encoder(self._folder)
        if encode is None:
            self._checks.append(Check("tokenizer", "not run", "the checkpoint has none"))
            return (start + spread_ids(info.vocab_size, most, first=1))[:most]
        wanted = encode(text)
        if self._model.section("TOKN") is None:
            self._note("tokenizer", False, "the checkpoint has one, the model file has not")
        else:
            with Tokenizer.from_model(self._model) as tokenizer:
                difference = tokens.describe_difference(text, tokenizer.encode(text), wanted, tokenizer)
            self._note(
                "tokenizer", difference is None, difference or f"the same {len(wanted)} ids of {len(text)} letters"
            )
        return (start + wanted)[:most]

    def _compare_embedding(self, ids: list[int], wanted: NDArray[np.float32]) -> None:
        ours = _embedding_rows(self._file, ids)
        exact = bool(np.array_equal(ours, wanted))
        error = compare_rows(ours, wanted)
        lossy = "int8" in " ".join(self._file.notes) and error.largest <= 0.51 / 127
        with Engine(self._model, ctx_len=2) as engine:
            for token, row in list(zip(ids, ours, strict=True))[:_ENGINE_EMBEDDINGS]:
                engine.truncate()
                if engine.run_probe([token], 0).layer_crc[0] != zlib.crc32(row.astype("<f4").tobytes()):
                    self._note("embedding", False, f"the engine reads token {token} other than it stands in the file")
                    return
        detail = "exact" if exact else f"int8 rows, within half a step: {error.largest:.2g} of a row's largest value"
        if not exact and not lossy:
            wrong = int(np.nonzero((ours != wanted).any(axis=1))[0][0])
            detail = f"token {ids[wrong]} has another row: {error.largest:.2g} of its largest value away"
        self._note("embedding", exact or lossy, detail)

    def _compare_layers(self, ids: list[int]) -> tuple[list[LayerResult], NDArray[np.float32]]:
        """Embedding, layers and final norm, while the reference runs; and what it has after that norm."""
        results: list[LayerResult] = []
        chained, end = bytearray(), np.empty(0, np.float32)
        with Engine(self._model, ctx_len=len(ids), threads=self._options.threads, kv="f32") as engine:

            def watch(run: LayerRun) -> None:
                nonlocal chained, end
                self._progress("layers", run.layer, self._reference.n_layers)
                if run.layer == 0:
                    self._compare_embedding(ids, run.stream.given)
                    chained = bytearray(run.stream.given.tobytes())
                alone, end = bytearray(run.stream.given.tobytes()), run.stream.made
                for memory in (alone, chained):
                    engine.truncate()
                    engine.eval_layer(run.layer, memory)
                noise = np.maximum(run.noise, self._rounding)
                by_itself, in_a_row = (compare_rows(_rows(memory, end), end, noise) for memory in (alone, chained))
                results.append(LayerResult(run.layer, by_itself, in_a_row, self._find_fault(run, by_itself)))

            normed = self._reference.run(ids, watch)
        faults = [result for result in results if result.fault]
        said = f"departing: {_listed([result.layer for result in faults])}" if faults else "each as the reference's"
        where = f"layer {faults[0].layer}, {faults[0].fault}" if faults else None
        self._note("layers", not faults, said, where)
        self._compare_final_norm(end, normed)
        self._compare_head(ids, _rows(chained, end))
        return results, normed

    def _find_fault(self, run: LayerRun, alone: RowAgreement) -> str | None:
        """What inside a layer departs, in words: a step of the file's own numbers, or else the engine."""
        try:
            for step in LayerSteps(self._file, run.layer, run.modules).compare():
                if not step.agreement.holds:
                    why = self._explain(step.role, step.name, run.layer)
                    return f"{step.name}: {step.agreement.largest:.2g} of the largest value away{why}"
        except (KeyError, ValueError) as error:
            return f"parts: the reference has other ones than the model file: {error}"
        if alone.holds:
            return None
        return (
            f"engine: {alone.largest:.2g} of the largest value away, though every step that is computed from the model "
            "file gives the reference's numbers: a fault of the engine. Please report it"
        )

    def _explain(self, role: Role | None, name: str, layer: int) -> str:
        """Which of the file's numbers are not the checkpoint's."""
        if name == "activation":
            return f"; the model file says {self._file.config.conf.activation.name.lower()}"
        if self._source is None:
            return ""
        if role is None:
            found = weights.describe_rope(self._file, self._source)
        else:
            found = weights.describe_difference(self._file, self._source, role, layer)
            ours, wanted = self._file.config.conf.rms_norm_eps, self._source.config.conf.rms_norm_eps
            if found is None and ours != wanted and not role.is_projection:
                found = f"rms_norm_eps is {ours:.6g}; the checkpoint's {wanted:.6g}"
        return f"; {found}" if found else "; its numbers are the checkpoint's as edgebit reads it"

    def _compare_final_norm(self, given: NDArray[np.float32], normed: NDArray[np.float32]) -> None:
        conf = self._file.config.conf
        ours = rms_norm(given, self._file.vector(Role.FINAL_NORM, NO_LAYER), conf.rms_norm_eps)
        found = compare_rows(ours, normed)
        why = self._explain(Role.FINAL_NORM, "final_norm", NO_LAYER) if not found.holds else ""
        self._note("final norm", found.holds, f"largest error {found.largest:.2g}{why}")

    def _compare_head(self, ids: list[int], end: NDArray[np.float32]) -> None:
        """The engine's logits beside the file's own head, of the engine's own stream after the last layer."""
        file, conf = self._file, self._file.config.conf
        normed = rms_norm(end, file.vector(Role.FINAL_NORM, NO_LAYER), conf.rms_norm_eps)
        wanted = np.concatenate([normed @ values.T for _, values in file.rows(Role.HEAD)], axis=1)
        difference = float(np.abs(self._engine_logits(ids) - wanted).mean() / max(float(wanted.std()), 1e-30))
        detail = f"mean difference {difference:.3f} of the logits' deviation, of int8 rows"
        self._note("head", difference <= LOGITS_DIFFERENCE, detail)

    def _compare_logits(self, ids: list[int], normed: NDArray[np.float32]) -> LogitsAgreement:
        self._progress("logits", 0, 1)
        found = compare_logits(self._engine_logits(ids), self._reference.logits(normed), ids)
        detail = (
            f"mean difference {found.mean_difference:.3f} of their deviation, the same best token at "
            f"{100 * found.same_argmax:.1f} %, divergence {found.mean_divergence:.2g} nats, loss {found.loss:.3f} for "
            f"{found.reference_loss:.3f}"
        )
        where = None
        if not found.holds and self._departure is None:
            difference = weights.describe_difference(self._file, self._source, Role.HEAD) if self._source else None
            where = f"head: {difference}" if difference else None
        self._note("logits", found.holds, detail, where)
        return found

    def _compare_greedy(self, ids: list[int]) -> None:
        """The reference's own continuation, fed to both: the same best token wherever the reference is sure."""
        prompt = ids[: min(_PROMPT, max(1, len(ids) - 1))]
        n = min(self._options.n_greedy, self._model.info.context_max - len(prompt))
        if n < 1:
            self._checks.append(Check("greedy", "not run", "no tokens were asked for"))
            return
        taken = self._reference.greedy(prompt, n, lambda done: self._progress("greedy", done, n))
        fed = prompt + taken[:-1]
        wanted = self._reference.logits(self._reference.run(fed))[len(prompt) - 1 :]
        ours = self._engine_logits(fed)[len(prompt) - 1 :].argmax(axis=1)
        best = np.sort(np.partition(wanted, -2, axis=1)[:, -2:], axis=1)
        sure = np.nonzero(best[:, 1] - best[:, 0] >= SURE_GAP)[0]
        other = [int(step) for step in sure if ours[step] != wanted[step].argmax()]
        detail = f"{len(sure) - len(other)} of {len(sure)} sure tokens are the same, of {n}"
        if other:
            at = other[0]
            detail += f"; first at {at}: {int(ours[at])} for {int(wanted[at].argmax())}"
        self._note("greedy", not other, detail)

    def _engine_logits(self, ids: list[int]) -> NDArray[np.float32]:
        with Engine(
            self._model, ctx_len=len(ids), threads=self._options.threads, logits_rows=len(ids), kv="f32"
        ) as engine:
            engine.eval_batch(ids, [0] * len(ids), [True] * len(ids))
            return np.stack([np.array(engine.logits(row), np.float32) for row in range(len(ids))])


def _rows(memory: bytearray, like: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.frombuffer(memory, np.float32).reshape(like.shape)


def _embedding_rows(file: Checkpoint, ids: list[int]) -> NDArray[np.float32]:
    """The embedding of these tokens, [tokens, hidden]."""
    found = np.empty((len(ids), file.config.conf.hidden_size), np.float32)
    wanted, first = np.array(ids), 0
    for _, values in file.rows(Role.TOKEN_EMBEDDING):
        here = np.nonzero((wanted >= first) & (wanted < first + len(values)))[0]
        found[here] = values[wanted[here] - first]
        first += len(values)
    return found


def _listed(layers: list[int]) -> str:
    return ", ".join(map(str, layers[:8])) + (" ..." if len(layers) > 8 else "")
