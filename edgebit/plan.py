"""Service: what a model will need and reach on a device, predicted before anything is built or sent.

Memory is counted from the model's own sizes; speed and energy are estimates of edgebit/roofline.py from a target's
figures. docs/plan.md has the formulas.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgebit.bundle.archive import locate_model
from edgebit.bundle.model_format import PER_TENSOR, Conf, Encoding, Granularity, Role, Scaling, ScalingOf
from edgebit.bundle.model_reader import ModelFile
from edgebit.checkpoint.hints import NO_HINTS, Hints
from edgebit.checkpoint.opening import find_gguf, open_checkpoint
from edgebit.errors import CheckpointError, TargetError
from edgebit.footprint import LOW_PLANES, Footprint
from edgebit.roofline import (
    ENGINE_SHARE,
    LAYOUT_BITS,
    Estimate,
    Machine,
    Range,
    choose_layout_on,
    estimate,
    machine_of,
)
from edgebit.runtime.cores import default_threads
from edgebit.runtime.defaults import BATCH_LEN, CTX_LEN, DAEMON_MIB, PREFIX_MEMORY_MIB
from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.memory import read_buffer_bytes, rss_bytes, total_memory_bytes
from edgebit.runtime.model import Model
from edgebit.runtime.session import SPECULATE
from edgebit.runtime.speed import measure_speed
from edgebit.synthesize import SHAPES, Shape
from edgebit.targets import Target, devices, host_target

MIB = 1 << 20
SYSTEM_BYTES = 256 * MIB  # left to kernel, firmware and system: an assumption
PREFILL_SHARE = 0.6  # of this machine's int8 peak that the engine is made to reach
_TOKENIZER_BYTES = 56  # a token's share of the tokenizer's tables: Llama 3's, with 280,147 merges for 128,256 tokens
_ROUNDS = 5  # of measuring this machine; the lowest and the highest are left out, as disturbed
_CHECK_PROMPT = 128  # tokens
_CHECK_S = 6.0  # how long a prediction is checked

# J a token, up to which a class reaches; above the last one it is the class after it.
ENERGY_CLASSES = {"A": 0.25, "B": 0.5, "C": 1.0, "D": 2.0, "E": 4.0}
_LAST_CLASS = "F"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What a plan needs to know of a model."""

    name: str
    conf: Conf
    embedding: Encoding
    layout: str | None  # that its projections are stored in; None: it is still to be converted
    other_bytes: int  # of the model file beside the tensors
    scaling: ScalingOf = lambda role, layer: PER_TENSOR
    place: Path | None = None  # the model file or bundle, where it is one

    def footprint(self, layout: str) -> Footprint:
        """Its sizes with the projections in `layout`."""
        return Footprint(
            conf=self.conf, layout=layout, embedding=self.embedding, other_bytes=self.other_bytes, scaling=self.scaling
        )

    @property
    def needs_t2(self) -> bool:
        """Whether all projections have scales by group of columns, which layout t2 alone holds."""
        return all(
            self.scaling(role, layer).granularity == Granularity.GROUP
            for role, layer in self.conf.roles()
            if role.is_projection
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOptions:
    """What to plan for; None: as the target has it."""

    context: int | None = None  # tokens; None: what the daemon would take
    kv: str = "f16"
    layout: str = "auto"
    threads: int | None = None
    memory_mib: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a model is predicted to need and reach on one device; speed and energy None where figures are missing."""

    model: str
    target: Target
    layout: str
    layout_reason: str
    kv: str
    context: int
    threads: int
    memory: Mapping[str, int]  # bytes, by what they are for
    memory_bytes: int  # all of it
    available_bytes: int | None  # RAM without what is left to the system; None: not known
    fits: bool | None
    notes: tuple[str, ...]  # what would fit, what is not known
    bytes_per_token: int  # that a decode step reads with an empty context
    decode: Estimate | None  # with an empty context
    decode_full: Estimate | None  # at the end of the context
    prefill: Estimate | None
    joules_per_token: Range | None
    energy_class: str | None  # of the middle of joules_per_token


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


def facts_of(model: str) -> ModelFacts:
    """The facts of a checkpoint's folder or GGUF file, a model file, a bundle, or the shape of that name.

    Raises CheckpointError where `model` is none of them, and what their readers raise.
    """
    path = Path(model)
    if path.is_dir() or find_gguf(path) is not None:
        return _facts_of_checkpoint(path)
    if path.exists():
        return _facts_of_file(path)
    if model in SHAPES:
        return _facts_of_shape(model, SHAPES[model])
    raise CheckpointError(
        f"there is no model {model!r}: neither a checkpoint's folder or GGUF file, a model file or a bundle of that"
        f" name, nor one of the shapes {', '.join(SHAPES)}"
    )


def _facts_of_checkpoint(path: Path) -> ModelFacts:
    any_dialect = Hints(i2s_dialect="x86")  # it says which code a weight is: none is read here
    checkpoint = open_checkpoint(path, any_dialect if find_gguf(path) is not None else NO_HINTS)
    try:
        conf = checkpoint.config.conf
        projections = [(role, layer) for role, layer in conf.roles() if role.is_projection]
        scaling = {(role, layer): checkpoint.scaling(role, layer) for role, layer in projections}
        return ModelFacts(
            name=checkpoint.config.name,
            conf=conf,
            embedding=checkpoint.embedding_encoding(),
            scaling=lambda role, layer: scaling[role, layer],
            layout=None,
            other_bytes=_TOKENIZER_BYTES * conf.vocab_size,
        )
    finally:
        checkpoint.close()


def _facts_of_file(path: Path) -> ModelFacts:
    place = locate_model(path)
    with ModelFile(place.path, place.offset, place.size) as file:
        embedding = next(tensor.encoding for tensor in file.tensors if tensor.role == Role.TOKEN_EMBEDDING)
        scaling = {(tensor.role, tensor.layer): Scaling(tensor.granularity, tensor.group) for tensor in file.tensors}
        return ModelFacts(
            name=str(file.meta.get("name") or path.name),
            conf=file.conf,
            embedding=embedding,
            layout="t1" if any(tensor.encoding == Encoding.T1 for tensor in file.tensors) else "t2",
            scaling=lambda role, layer: scaling[role, layer],
            other_bytes=sum(section.size for tag, section in file.sections.items() if tag != "DATA"),
            place=path,
        )


def _facts_of_shape(name: str, shape: Shape) -> ModelFacts:
    return ModelFacts(
        name=name,
        conf=shape.conf,
        embedding=Encoding[shape.dtype],
        layout=None,
        other_bytes=_TOKENIZER_BYTES * shape.vocab_size,
    )


def make_plans(facts: ModelFacts, target: Target, options: PlanOptions) -> list[Plan]:
    """One plan for each device that the target stands for; pure. Raises TargetError for options that cannot be."""
    return [make_plan(facts, device, options, machine_of(device)) for device in devices(target)]


def make_plan(facts: ModelFacts, target: Target, options: PlanOptions, machine: Machine) -> Plan:
    """The plan for one device whose speed `machine` describes; pure. Raises TargetError for options that cannot be."""
    context = min(CTX_LEN, facts.conf.context_max) if options.context is None else options.context
    if context > facts.conf.context_max:
        raise TargetError(f"a context of {context} tokens is longer than {facts.name} was made for,"
                          f" {facts.conf.context_max}")  # fmt: skip
    threads = options.threads or machine.cores or 1
    choice = choose_layout_on({target.name: machine}, threads)
    layout: str = choice.layout
    reason = choice.reason
    if facts.needs_t2:
        layout, reason = "t2", "the one that holds scales by group"
    elif options.layout != "auto":
        layout, reason = options.layout, "as asked for"
    elif facts.layout is not None:
        other = choice.is_estimated and choice.layout != facts.layout
        better = f"; {choice.layout} would be faster ({choice.reason})" if other else ""
        layout, reason = facts.layout, f"as the file has it{better}"
    footprint = facts.footprint(layout)
    memory = _memory(footprint, target, context, options.kv, threads)
    needed = sum(memory.values())
    available = _available(target, options)
    fits = None if available is None else needed <= available
    parts = footprint.decode_parts(0, options.kv)
    decode = estimate(machine, parts, threads)
    prefill = estimate(machine, footprint.prefill_parts(), threads, batch=BATCH_LEN)
    notes = _notes(target, decode, prefill)
    if machine.cores is not None and threads > machine.cores:
        notes.append(
            f"{threads} threads are more than the {machine.cores} cores that count there: no faster than those"
        )
    if fits is False:
        notes += _what_would_fit(facts, target, options, layout, context, threads, available or 0)
    joules = _joules_per_token(target, threads, decode)
    return Plan(
        model=facts.name,
        target=target,
        layout=layout,
        layout_reason=reason,
        kv=options.kv,
        context=context,
        threads=threads,
        memory=memory,
        memory_bytes=needed,
        available_bytes=available,
        fits=fits,
        notes=tuple(notes),
        bytes_per_token=sum(part.n_bytes for part in parts),
        decode=decode,
        decode_full=estimate(machine, footprint.decode_parts(context, options.kv), threads),
        prefill=None if prefill is None or prefill.missing else prefill,
        joules_per_token=joules,
        energy_class=None if joules is None else energy_class(joules.middle),
    )


def energy_class(joules_per_token: float) -> str:
    """A to F; each class takes up to twice the energy of the one before."""
    return next((name for name, most in ENERGY_CLASSES.items() if joules_per_token <= most), _LAST_CLASS)


def _memory(footprint: Footprint, target: Target, context: int, kv: str, threads: int) -> dict[str, int]:
    parts = footprint.memory(
        context=context,
        kv=kv,
        threads=threads,
        logits_rows=1 + SPECULATE,
        page_bytes=1024 * target.page_kib,
    )
    return {**parts, "prefix cache": MIB * PREFIX_MEMORY_MIB, "daemon": MIB * DAEMON_MIB}


def _available(target: Target, options: PlanOptions) -> int | None:
    memory_mib = options.memory_mib or target.memory_mib
    return None if memory_mib is None else max(0, memory_mib * MIB - SYSTEM_BYTES)


def _joules_per_token(target: Target, threads: int, decode: Estimate | None) -> Range | None:
    """Of the whole device, its idle power among it."""
    if decode is None or target.idle_w is None or target.load_w is None:
        return None
    busy = min(1.0, threads / (target.cores or threads))
    watts = target.idle_w + busy * (target.load_w - target.idle_w)
    return Range(watts / decode.tokens_s.high, watts / decode.tokens_s.low)


def _notes(target: Target, decode: Estimate | None, prefill: Estimate | None) -> list[str]:
    """What is not known, and so is not in the estimates."""
    if decode is None:
        return [
            f"no speed: the read bandwidth of {target.name} is not known (read_gb_s in its target file). On the device"
            " itself, `edgebit plan` without --target measures it"
        ]
    missing = [*decode.missing, *(prefill.missing if prefill is not None else ())]
    notes = []
    if missing:
        effects = ["decode is taken as bound by memory alone"] if decode.missing else []
        effects += ["prefill is not estimated"] if "gemm_c8" in missing else []
        notes.append(f"cycles_per_weight of {target.name} lacks {', '.join(missing)}: {', and '.join(effects)}")
    if target.memory_mib is None:
        notes.append(f"whether it fits is not known: {target.name} has no memory_mib. --memory MIB says it")
    return notes


def _what_would_fit(
    facts: ModelFacts, target: Target, options: PlanOptions, layout: str, context: int, threads: int, available: int
) -> list[str]:
    """The least changes with which it fits, or how much RAM it takes at least."""
    denser = min(LAYOUT_BITS, key=lambda name: LAYOUT_BITS[name])
    shorter = [context >> shift for shift in range(1, 12) if context >> shift >= 256]
    changes = [(layout, "int8", context), (denser, "int8", context)]
    changes += [(layout, options.kv, length) for length in shorter]
    changes += [(layout, "int8", length) for length in shorter] + [(denser, "int8", length) for length in shorter]
    fitting: dict[str, str] = {}  # by what is left out of memory: "" is nothing
    least = 0
    for new_layout, kv, length in [(layout, options.kv, context), *changes]:
        memory = _memory(facts.footprint(new_layout), target, length, kv, threads)
        needed = sum(memory.values())
        least = min(least or needed, needed)
        said = [f"--context {length}"] if length != context else []
        said += [f"--kv {kv}"] if kv != options.kv else []
        said += [f"--layout {new_layout}"] if new_layout != layout else []
        for without in ("", LOW_PLANES):
            left = needed - memory.get(without, 0)
            if left <= available:
                fitting.setdefault(without, f"{' '.join(said) or 'these options'} ({left / MIB:,.0f} MiB)")
    notes = []
    if "" in fitting:
        notes.append(f"it would fit with {fitting['']}")
    else:
        notes.append(f"to fit it takes {(least + SYSTEM_BYTES) / MIB:,.0f} MiB of RAM at least, with a short context")
    if LOW_PLANES in fitting:
        notes.append(
            f"greedy answers would fit with {fitting[LOW_PLANES]}: they leave the {LOW_PLANES} on the disk, which"
            " sampling without top_k reads for each token"
        )
    return notes


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
