"""This machine: its figures, measured, and a prediction for it held against a run of the engine."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from edgebit.bundle.archive import locate_model
from edgebit.errors import TargetError
from edgebit.footprint import LOW_PLANES, Footprint
from edgebit.plan.device_plan import MIB, Plan
from edgebit.plan.model_facts import ModelFacts
from edgebit.roofline import ENGINE_SHARE, Machine, Range, estimate
from edgebit.runtime.cores import default_threads
from edgebit.runtime.defaults import BATCH_LEN
from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.memory import read_buffer_bytes, rss_bytes, total_memory_bytes
from edgebit.runtime.model import Model
from edgebit.runtime.speed import measure_speed
from edgebit.targets import Target, host_target

PREFILL_SHARE = 0.6  # of this machine's int8 peak that the engine is made to reach
_ROUNDS = 5  # of measuring this machine; the lowest and the highest are left out, as disturbed
_CHECK_PROMPT = 128  # tokens
_CHECK_S = 6.0  # how long a prediction is checked


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A prediction for this machine beside what was measured there."""

    predicted: Range
    measured: float

    @property
    def ratio(self) -> float:
        """Measured to the middle of what was predicted."""
        return self.measured / self.predicted.middle

    @property
    def within(self) -> bool:
        """Whether the measurement lies in the range that was predicted."""
        return self.predicted.low <= self.measured <= self.predicted.high


@dataclass(frozen=True, kw_only=True, slots=True)
class Checks:
    """What a plan says of this machine, checked with one run of the engine alone."""

    context: int  # tokens that were there when decoding began
    decode: Check  # tok/s
    prefill: Check | None  # tok/s; None: not predicted
    memory: Check | None  # bytes that the engine held after so many tokens as the run had; None: not told here


def measure_host(library: Library) -> tuple[Target, Machine]:
    """This machine as a target with its RAM, and as what it was measured to be. Takes a few seconds."""
    cores = default_threads()
    size = read_buffer_bytes()
    reads = _measured(lambda: library.measure_read(cores, size))
    core_reads = reads if cores == 1 else _measured(lambda: library.measure_read(1, size))
    products = _measured(lambda: library.measure_int8(1)).high
    machine = Machine(
        cores=cores,
        read_bytes_s=Range(ENGINE_SHARE * reads.low, reads.high),
        core_read_bytes_s=Range(ENGINE_SHARE * core_reads.low, core_reads.high),
        weights_s={"gemm_c8": Range(PREFILL_SHARE * products, products)},
    )
    memory = total_memory_bytes()
    target = dataclasses.replace(
        host_target(),
        cores=cores,
        memory_mib=None if memory is None else memory // MIB,
        read_gb_s=_gb_s(reads),
        read_core_gb_s=_gb_s(core_reads),
        sources=tuple((figure, "measured now, here") for figure in ("read_gb_s", "read_core_gb_s")),
    )
    return target, machine


def _measured(measure: Callable[[], float]) -> Range:
    figures = sorted(measure() for _ in range(_ROUNDS))
    return Range(figures[1], figures[-2])


def _gb_s(bytes_s: Range) -> tuple[float, float]:
    return round(bytes_s.low / 1e9, 2), round(bytes_s.high / 1e9, 2)


def check_plan(
    plan: Plan, facts: ModelFacts, machine: Machine, library: Library, *, seconds: float = _CHECK_S
) -> Checks:
    """Measure what `plan` predicts for this machine, with its own model file or bundle.

    Raises TargetError where the model is no file yet, EngineError where it cannot run.
    """
    if facts.place is None or plan.layout != facts.layout:
        raise TargetError(
            f"--check measures a model file or bundle as it is, and {facts.name} in layout {plan.layout} is none. Build"
            " it first: edgebit build MODEL --target host"
        )
    found = locate_model(facts.place)
    before = rss_bytes()
    with (
        Model.open(library, found.path, offset=found.offset, size=found.size) as model,
        Engine(model, ctx_len=plan.context, threads=plan.threads, kv=plan.kv) as engine,
    ):
        speed = measure_speed(engine, prompt=_CHECK_PROMPT, batch_len=BATCH_LEN, budget_s=seconds)
        held = rss_bytes()
        used = min(plan.context, speed.context + engine.stats().decode_tokens)
    footprint = facts.footprint(plan.layout)
    decode = estimate(machine, footprint.decode_parts(speed.context, plan.kv), plan.threads)
    prefill = estimate(machine, footprint.prefill_parts(), plan.threads, batch=min(speed.context, BATCH_LEN))
    if decode is None:
        raise TargetError("nothing was predicted for this machine, so nothing can be checked")
    return Checks(
        context=speed.context,
        decode=Check(predicted=decode.tokens_s, measured=speed.decode_tok_s),
        prefill=None
        if prefill is None or prefill.missing
        else Check(predicted=prefill.tokens_s, measured=speed.prefill_tok_s),
        memory=None
        if before is None or held is None
        else Check(predicted=_run_bytes(footprint, plan, used), measured=held - before),
    )


def _run_bytes(footprint: Footprint, plan: Plan, tokens: int) -> Range:
    """What an engine alone holds after greedy steps: of the head's low planes a part, of the tokenizer nothing."""
    page = 1024 * plan.target.page_kib
    parts = footprint.memory(context=tokens, kv=plan.kv, threads=plan.threads, logits_rows=1, page_bytes=page)
    most = sum(parts.values()) - footprint.other_bytes
    return Range(most - parts[LOW_PLANES], most)
