"""One model on one device: memory, speed, energy, and what would fit; pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgebit.errors import TargetError
from edgebit.footprint import LOW_PLANES, Footprint
from edgebit.plan.adapter_memory import AdapterFacts, adapter_memory
from edgebit.plan.model_facts import ModelFacts
from edgebit.roofline import LAYOUT_BITS, Estimate, Machine, Range, choose_layout_on, estimate, machine_of
from edgebit.runtime.defaults import BATCH_LEN, CTX_LEN, DAEMON_MIB, PREFIX_MEMORY_MIB
from edgebit.runtime.session import SPECULATE
from edgebit.targets import Target, devices

MIB = 1 << 20
SYSTEM_BYTES = 256 * MIB  # left to kernel, firmware and system: an assumption

# J a token, up to which a class reaches; above the last one it is the class after it.
ENERGY_CLASSES = {"A": 0.25, "B": 0.5, "C": 1.0, "D": 2.0, "E": 4.0}
_LAST_CLASS = "F"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOptions:
    """What to plan for; None: as the target has it."""

    context: int | None = None  # tokens; None: what the daemon would take
    kv: str = "f16"
    layout: str = "auto"
    threads: int | None = None
    memory_mib: int | None = None
    adapters: tuple[AdapterFacts, ...] = ()  # that are loaded at once


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
    memory = _memory(footprint, target, options, context=context, kv=options.kv, threads=threads)
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
    if options.adapters:
        notes.append("speed and energy are those without an adapter")
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


def _memory(
    footprint: Footprint, target: Target, options: PlanOptions, *, context: int, kv: str, threads: int
) -> dict[str, int]:
    parts = footprint.memory(
        context=context,
        kv=kv,
        threads=threads,
        logits_rows=1 + SPECULATE,
        page_bytes=1024 * target.page_kib,
    )
    adapters = adapter_memory(options.adapters, footprint.conf)
    return {**parts, **adapters, "prefix cache": MIB * PREFIX_MEMORY_MIB, "daemon": MIB * DAEMON_MIB}


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
        memory = _memory(facts.footprint(new_layout), target, options, context=length, kv=kv, threads=threads)
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
