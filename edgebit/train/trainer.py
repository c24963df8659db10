"""The loop: steps of AdamW on batches of rows, evaluated now and then, saved so that it goes on at the exact step."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgebit.errors import TrainError
from edgebit.train.batch import Batch, Evaluation, Objective, batch_of, cross_entropy, evaluate
from edgebit.train.compilation import compiled
from edgebit.train.decoder import Decoder
from edgebit.train.records import Listener, Record
from edgebit.train.rows import Row, RowSource
from edgebit.train.same_training import check_same
from edgebit.train.schedule import Schedule
from edgebit.train.training_state import newest_state, write_state


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a decoder is trained."""

    schedule: Schedule
    batch_rows: int = 32  # rows that a step learns from
    accumulate: int = 1  # parts that they are computed in, one after the other
    clip: float = 1.0  # most that the norm of all gradients may be
    device: str = "cpu"
    compile: bool = True
    bf16_products: bool = False  # factors of matrix products rounded to bfloat16, their sums kept in float32
    threads: int | None = None  # None: as many as torch takes
    evaluate_every: int = 0  # steps; 0: at the end alone
    save_every: int = 200  # steps

    def __post_init__(self) -> None:
        """Raise TrainError where the rows do not divide into the parts, or the device is not there."""
        if self.batch_rows < 1 or self.accumulate < 1 or self.batch_rows % self.accumulate:
            raise TrainError(f"{self.batch_rows} rows do not divide into {self.accumulate} parts. Take a divisor")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise TrainError("--device cuda: PyTorch finds no GPU here. Install its build for CUDA, or leave it out")

    def decisive(self) -> dict[str, Any]:
        """What the result hangs on."""
        return {
            **asdict(self.schedule), "batch_rows": self.batch_rows, "accumulate": self.accumulate,
            "clip": self.clip, "device": self.device,
            "bf16_products": self.bf16_products,
        }  # fmt: skip


@dataclass(slots=True)
class Outcome:
    """How far a training came."""

    records: list[Record] = field(default_factory=list)
    finished: bool = False
    held_out: Evaluation | None = None


def train(
    decoder: Decoder,
    source: RowSource,
    settings: Settings,
    *,
    objective: Objective = cross_entropy,
    held_out: Sequence[Row] = (),
    state_folder: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
) -> Outcome:
    """Train the parameters of `decoder` that want gradients, in place, and evaluate it.

    state_folder: where it is saved; what is there already is gone on from. None: nowhere
    facts: what else a training must have in common with the one it goes on from, by names that users know
    Raises TrainError where the loss is no number, memory or disk is full, or it cannot go on from what is there.
    """
    listener = listener or Listener()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    # Where a CPU has no products of bfloat16 (AVX512-BF16, AMX, SVE), "medium" computes them in float32.
    torch.set_float32_matmul_precision("medium" if settings.bf16_products else "highest")
    decoder.to(settings.device)
    run = _Run(decoder, source, settings, objective, {**settings.decisive(), **(facts or {})})
    if state_folder is not None and (state := newest_state(state_folder, listener.noted)):
        run.restore(state)
    last = settings.schedule.steps
    if run.done < last and settings.compile:
        listener.compiling()
        run.compile(listener.noted)
    if run.done < last:
        listener.began(run.done, last)
    else:  # it may have been killed after its last state and before what is made of it
        listener.saved(run.outcome.records)
    while run.done < last:
        record = run.step()
        due = settings.evaluate_every and run.done % settings.evaluate_every == 0
        if held_out and (due or run.done == last):
            record = run.evaluated(record, held_out)
        run.outcome.records.append(record)
        listener.stepped(record)
        stopping = run.done < last and listener.should_stop()
        if state_folder is not None and (stopping or run.done % settings.save_every == 0 or run.done == last):
            write_state(state_folder, run.done, run.state())
            listener.saved(run.outcome.records)
        if stopping:
            return run.outcome
    run.outcome.finished = True
    if held_out and run.outcome.held_out is None:  # gone on from the very end
        run.outcome.held_out = evaluate(decoder, held_out, device=settings.device)
    return run.outcome


class _Run:
    """A training on its way: what is saved, and one step of it."""

    def __init__(
        self, decoder: Decoder, source: RowSource, settings: Settings, objective: Objective, facts: dict[str, Any]
    ) -> None:
        self._decoder, self._source, self._settings, self._objective = decoder, source, settings, objective
        self._facts = facts
        self._trained = {name: each for name, each in decoder.named_parameters() if each.requires_grad}
        self._body: nn.Module = decoder.model
        self._optimizer = _optimizer(list(self._trained.values()))
        self.outcome = Outcome()
        self.done = 0

    def state(self) -> dict[str, Any]:
        return {
            "facts": self._facts, "step": self.done, "optimizer": self._optimizer.state_dict(),
            "model": {name: each.detach() for name, each in self._trained.items()},
            "rng": torch.get_rng_state(), "source": self._source.state(),
            "records": [asdict(record) for record in self.outcome.records],
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        check_same(state["facts"], self._facts)
        if state["model"].keys() != self._trained.keys():
            raise TrainError("the training that was begun trains other parameters. Give another --out to begin anew")
        self._decoder.load_state_dict(state["model"], strict=False)
        self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        self._source.restore(state["source"])
        self.outcome.records = [Record(**record) for record in state["records"]]
        self.done = int(state["step"])

    def compile(self, note: Callable[[str], None]) -> None:
        """Compile what a step computes, on rows that are not learnt from; where that fails, it is noted."""
        self._decoder.train()
        place, rng = self._source.state(), torch.get_rng_state()
        rows = self._source.take(self._settings.batch_rows // self._settings.accumulate)
        self._source.restore(place)
        self._body = compiled(self._decoder.model, batch_of(rows, self._settings.device), note)
        torch.set_rng_state(rng)  # which dropout has drawn from

    def step(self) -> Record:
        settings, step = self._settings, self.done
        rate = settings.schedule.learning_rate_at(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
            if group["decays"]:
                group["weight_decay"] = settings.schedule.weight_decay_at(step)
        rows = self._source.take(settings.batch_rows)
        learnt = sum(row.learnt for row in rows)
        if not learnt:
            raise TrainError(f"step {step + 1}: no token of its {len(rows)} rows is learnt. Give data with answers")
        self._decoder.train()
        self._optimizer.zero_grad(set_to_none=True)
        with _memory_faults_named(step, settings):
            loss = self._backward(rows, learnt)
        with _memory_faults_named(step, settings):
            norm = nn.utils.clip_grad_norm_(self._trained.values(), settings.clip).item()
        for what, value in (("the loss", loss), ("the norm of the gradients", norm)):
            if not math.isfinite(value):
                raise TrainError(
                    f"step {step + 1}: {what} is {value}. Begin anew with a lower learning rate, such as "
                    f"--learning-rate {settings.schedule.learning_rate / 2:g}, or a longer --warmup"
                )
        with _memory_faults_named(step, settings):
            self._optimizer.step()
        self.done += 1
        before = self.outcome.records[-1].tokens if self.outcome.records else 0
        return Record(step=self.done, loss=loss, learning_rate=rate, tokens=before + learnt)

    def evaluated(self, record: Record, held_out: Sequence[Row]) -> Record:
        at_once = self._settings.batch_rows // self._settings.accumulate
        found = evaluate(self._decoder, held_out, rows_at_once=at_once, device=self._settings.device)
        self.outcome.held_out = found if self.done == self._settings.schedule.steps else None
        return Record(**{**asdict(record), "held_out_loss": found.loss, "held_out_accuracy": found.accuracy})

    def _backward(self, rows: list[Row], learnt: int) -> float:
        """Mean loss of all learnt tokens; gradients are added part by part."""
        size = self._settings.batch_rows // self._settings.accumulate
        total = 0.0
        for at in range(0, len(rows), size):
            part = batch_of(rows[at : at + size], self._settings.device)
            loss = self._loss(part) / learnt
            loss.backward()
            total += loss.item()
        return total

    def _loss(self, batch: Batch) -> torch.Tensor:
        hidden = self._body(batch.ids, batch.positions, batch.documents).flatten(0, 1)[batch.learnt]
        return self._objective(self._decoder, hidden, batch)


@contextmanager
def _memory_faults_named(step: int, settings: Settings) -> Iterator[None]:
    """Too little memory becomes a TrainError that says in how many parts it may do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)):
            raise
        rows, parts = settings.batch_rows, settings.accumulate
        more = next((count for count in range(parts + 1, rows + 1) if rows % count == 0), None)
        cure = f"--accumulate {more}" if more else "shorter rows, or a smaller model"
        raise TrainError(f"step {step + 1}: not enough memory for {rows // parts} rows at once. Give {cure}") from error


def _optimizer(parameters: Sequence[nn.Parameter]) -> torch.optim.AdamW:
    """AdamW with the moments of the BitNet papers; norms do not decay."""
    groups = [
        {"params": [each for each in parameters if each.ndim >= 2], "decays": True},
        {"params": [each for each in parameters if each.ndim < 2], "decays": False},
    ]
    filled = [group for group in groups if group["params"]]
    return torch.optim.AdamW(filled, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
