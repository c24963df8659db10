"""edgebitd tune: finds the settings of [engine] that serve a scenario best on this device, by short measurements.

Thread count, KV cache type and batch length are tried one after the other, each with the best of those before. What is
chosen from the figures is a pure function (`tune`); measuring stands in `EngineMeter`.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from edgebit.bundle.archive import locate_model, looks_like_bundle, open_bundle
from edgebit.bundle.manifest import MODEL_MEMBER
from edgebit.bundle.model_format import head_parts
from edgebit.daemon.config.reader import read_config
from edgebit.daemon.config.sections import Config, EngineConfig
from edgebit.daemon.install.settings import check_writable, plain_file, set_keys, to_toml
from edgebit.daemon.serving.engine import load_library
from edgebit.errors import BundleError, ConfigError
from edgebit.runtime.cores import default_threads
from edgebit.runtime.defaults import BATCH_LEN, CTX_LEN, DAEMON_MIB
from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.memory import read_buffer_bytes, total_memory_bytes
from edgebit.runtime.model import Model
from edgebit.runtime.speed import Speed, measure_speed

MIB = 1 << 20
BATCH_LENS = (BATCH_LEN, 16, 32, 64, 256)
SEARCHED_KV = ("f16", "int8")  # the first one is exact as golden probes have it
SHORTEST_CONTEXT = 256  # tokens; a context is not shortened below it to keep a memory limit
ROUNDS = 2  # of each comparison, so that a disturbance of some seconds does not decide it
SAME = 1.03  # times that differ by less are equal: measuring is no finer
WORTH = 1.05  # how much faster int8 must make answers in every round, since it changes them a little
PATIENCE = 2.0  # how much longer an answer may take for the sake of efficiency
_IN_CACHE = 1.1  # times the read bandwidth and more: a model that is read from a cache
_BOUND_BY_MEMORY, _BOUND_BY_CYCLES = 0.75, 0.6  # shares of the read bandwidth above and below which it is clear


# speed: the soonest whole answer to a request alone. Those that come together share each pass, which is not measured:
# what is best for one is taken to be best for them. What differs is the typical prompt and what may be used.
Goal = Literal["speed", "efficiency"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """What a device is for."""

    text: str
    goal: Goal
    prompt: int  # tokens of a typical prompt
    answer: int  # tokens of a typical answer
    cores: float = 1.0  # share of the big cores that may be used
    memory: float = 0.75  # share of the RAM that may be used


SCENARIOS = {
    "mobile": Scenario(
        text="little heat and battery, short answers, half of the cores and memory are others'",
        goal="efficiency", prompt=64, answer=64, cores=0.5, memory=0.5,
    ),
    "edge": Scenario(text="one question at a time, answered soon", goal="speed", prompt=128, answer=128),
    "server": Scenario(
        text="many questions with long prompts",
        goal="speed", prompt=512, answer=128, memory=0.85,
    ),
    "cloud": Scenario(
        text="the same with longer prompts and answers, and nothing else on the machine",
        goal="speed", prompt=1024, answer=256, memory=0.9,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the user allows; None: what the scenario has."""

    threads: int | None = None
    memory_mib: int | None = None
    seconds: float = 40.0  # that measuring may take, about; a slow device takes as long as each setting needs once


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Values for [engine] of edgebitd.toml."""

    threads: int
    kv: str
    batch_len: int
    ctx_len: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A setting and what it came to."""

    key: str  # of [engine], whose values were compared
    setting: Setting
    speed: Speed
    seconds: float  # for the scenario's typical answer, from the best of the rounds
    rounds: tuple[float, ...]  # the same of each round
    memory_bytes: int

    @property
    def value(self) -> Any:
        """Of the key that was compared."""
        return getattr(self.setting, self.key)

    @property
    def core_seconds(self) -> float:
        """What an answer costs of all cores: the measure of energy where no meter is."""
        return self.seconds * self.setting.threads


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """What was measured, what was chosen, and why."""

    scenario: str
    rows: tuple[Row, ...]
    setting: Setting
    shortened: bool  # whether the context had to be cut for the memory limit
    reasons: tuple[str, ...]


class Meter(Protocol):
    """A device that can be measured."""

    cores: int  # big ones
    memory_bytes: int | None  # RAM
    layout: str  # of the model's projections
    ctx_len: int  # that the daemon is configured to, or would take

    def memory_of(self, setting: Setting) -> int:
        """Bytes that the daemon would take."""

    def speed(self, setting: Setting, scenario: Scenario, budget_s: float) -> Speed:
        """Measured."""

    def memory_share(self, setting: Setting, speed: Speed) -> float:
        """What part of the measured read bandwidth decoding used."""


def tune(
    name: str,
    meter: Meter,
    limits: Limits,
    progress: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
) -> Tuning:
    """The best setting for SCENARIOS[name] within the limits. Raises ConfigError where nothing fits them."""
    scenario = SCENARIOS[name]
    threads_most = limits.threads or max(1, round(meter.cores * scenario.cores))
    memory_most = _memory_limit(scenario, meter, limits)
    reasons = [f"{name}: {scenario.text}. Goal: {scenario.goal}"]

    first = Setting(threads=threads_most, kv=SEARCHED_KV[0], batch_len=BATCH_LENS[0], ctx_len=meter.ctx_len)
    first, why = _within_memory(first, meter, memory_most)
    reasons += why
    stages: list[tuple[str, list[Setting]]] = [
        ("threads", [replace(first, threads=count) for count in thread_counts(threads_most)]),
        ("kv", [replace(first, kv=kind) for kind in SEARCHED_KV]),
        ("batch_len", [replace(first, batch_len=length) for length in BATCH_LENS if length <= max(16, first.ctx_len)]),
    ]
    budget_s = limits.seconds / ROUNDS / sum(len(settings) for _, settings in stages)
    end = clock() + limits.seconds
    rows: list[Row] = []
    best = first
    for key, candidates in stages:
        settings: dict[Setting, int] = {}  # and the memory that it takes
        for candidate in candidates:
            setting = replace(best, **{key: getattr(candidate, key)})
            memory = meter.memory_of(setting)
            if memory_most is None or memory <= memory_most:
                settings[setting] = memory
            else:
                reasons.append(f"{key} {getattr(setting, key)} would take {memory / MIB:,.0f} MiB: not tried")
        found: dict[Setting, Row] = {}
        for turn in range(ROUNDS):
            for setting, memory in settings.items():
                if setting in found and clock() > end:
                    continue
                progress(f"{key} {getattr(setting, key)}, round {turn + 1}")
                speed = meter.speed(setting, scenario, budget_s)
                rounds: tuple[float, ...] = (answer_seconds(speed, scenario),)
                if setting in found:
                    rounds = (*found[setting].rounds, *rounds)
                    speed = _better(speed, found[setting].speed)
                found[setting] = Row(
                    key=key,
                    setting=setting,
                    speed=speed,
                    seconds=answer_seconds(speed, scenario),
                    rounds=rounds,
                    memory_bytes=memory,
                )
        chosen, why_it = choose(list(found.values()), scenario.goal)
        best = chosen.setting
        rows += found.values()
        reasons.append(why_it)
    share = meter.memory_share(best, chosen.speed)
    reasons.append(layout_advice(meter.layout, share))
    return Tuning(
        scenario=name,
        rows=tuple(rows),
        setting=best,
        shortened=best.ctx_len != meter.ctx_len,
        reasons=tuple(reasons),
    )


def _better(one: Speed, other: Speed) -> Speed:
    """Whatever disturbs a measurement makes it slower: the best of several is nearest to the truth."""
    return Speed(
        prefill_tok_s=max(one.prefill_tok_s, other.prefill_tok_s),
        decode_tok_s=max(one.decode_tok_s, other.decode_tok_s),
        context=one.context,
    )


def thread_counts(most: int) -> list[int]:
    """What is worth trying: 1, 2, 3, 4, then steps of a half, up to `most`."""
    counts = [count for count in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256) if count < most]
    return [*counts, most]


def answer_seconds(speed: Speed, scenario: Scenario) -> float:
    """How long a typical prompt and answer take."""
    return scenario.prompt / speed.prefill_tok_s + scenario.answer / speed.decode_tok_s


def choose(rows: Sequence[Row], goal: Goal) -> tuple[Row, str]:
    """The row to take of those that differ in one key, and the reason in words."""
    key = rows[0].key
    fastest = min(rows, key=lambda row: row.seconds)
    if len(rows) == 1:
        return fastest, f"{key} {fastest.value}: nothing else to choose from"
    if key == "kv":
        return _choose_kv(rows, fastest)
    if key == "threads" and goal == "efficiency":
        patient = [row for row in rows if row.seconds <= PATIENCE * fastest.seconds]
        cheapest = min(row.core_seconds for row in patient)
        row = min((row for row in patient if row.core_seconds <= SAME * cheapest), key=lambda row: row.seconds)
        return row, (
            f"threads {row.setting.threads}: {row.core_seconds:.3g} core seconds for an answer, the least of those that"
            f" take at most {PATIENCE:g} times the fastest ({fastest.setting.threads} threads, {fastest.seconds:.3g} s)"
        )
    row = min((row for row in rows if row.seconds <= SAME * fastest.seconds), key=lambda row: int(row.value))
    others = "" if row is fastest else f", and {fastest.value} is no faster by more than {100 * SAME - 100:.0f} %"
    return (
        row,
        f"{key} {row.value}: {row.seconds:.3g} s for an answer, {3600 / row.seconds:,.0f} an hour, the fastest{others}",
    )


def _choose_kv(rows: Sequence[Row], fastest: Row) -> tuple[Row, str]:
    """f16 unless another one is worth it: int8 changes answers a little."""
    exact = next((row for row in rows if row.setting.kv == SEARCHED_KV[0]), None)
    if exact is None:
        return fastest, f"kv {fastest.setting.kv}: the memory limit leaves no other"
    gain = min(one / other for one, other in zip(exact.rounds, fastest.rounds, strict=False))
    if gain >= WORTH:
        return fastest, (
            f"kv {fastest.setting.kv}: answers are {100 * gain - 100:.0f} % faster than with"
            f" {exact.setting.kv} in every round, and may differ from its"
        )
    return exact, f"kv {exact.setting.kv}: no other is faster by {100 * WORTH - 100:.0f} % in every round"


def layout_advice(layout: str, share: float) -> str:
    """Whether the other layout would be faster, from the part of the read bandwidth that decoding used."""
    used = f"decode reads at {100 * share:.0f} % of what memory gives"
    if share > _IN_CACHE:
        return f"layout {layout}: {used}: the model lies in a cache, and the layout hardly matters"
    if layout == "t2" and share >= _BOUND_BY_MEMORY:
        return f"layout t2: {used}. t1 has about 15 % fewer bytes and would be faster: edgebit build --layout t1"
    if layout == "t1" and share < _BOUND_BY_CYCLES:
        return f"layout t1: {used}. t2 takes fewer cycles and may be faster: edgebit build --layout t2"
    return f"layout {layout}: {used}; nothing speaks for another"


def lines(tuning: Tuning) -> list[str]:
    """The table and the reasons, for people."""
    heads = (
        "compared",
        "threads",
        "KV",
        "batch",
        "context",
        "prefill tok/s",
        "decode tok/s",
        "answer s",
        "core s",
        "MiB",
    )
    table = [heads]
    for row in tuning.rows:
        setting, speed = row.setting, row.speed
        threads = f"{setting.threads}{' *' if setting == tuning.setting else ''}"
        table.append((
            row.key, threads, setting.kv, str(setting.batch_len), str(setting.ctx_len),
            f"{speed.prefill_tok_s:.1f}", f"{speed.decode_tok_s:.1f}", f"{row.seconds:.3g}", f"{row.core_seconds:.3g}",
            f"{row.memory_bytes / MIB:,.0f}",
        ))  # fmt: skip
    widths = [max(len(cells[column]) for cells in table) for column in range(len(heads))]
    found = [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in table
    ]
    return [*found, "", *tuning.reasons]


def engine_settings(tuning: Tuning) -> dict[str, Any]:
    """What goes into [engine]."""
    setting = tuning.setting
    found: dict[str, Any] = {
        "threads": setting.threads,
        "kv": setting.kv,
        "batch_len": setting.batch_len,
    }
    return {**found, "ctx_len": setting.ctx_len} if tuning.shortened else found


def _memory_limit(scenario: Scenario, meter: Meter, limits: Limits) -> int | None:
    if limits.memory_mib is not None:
        return limits.memory_mib * MIB
    return None if meter.memory_bytes is None else int(scenario.memory * meter.memory_bytes)


def _within_memory(setting: Setting, meter: Meter, memory_most: int | None) -> tuple[Setting, list[str]]:
    """`setting`, or as little of it as fits: int8 first, then a shorter context. Raises ConfigError where none does."""
    needed = 0
    context = setting.ctx_len
    while True:
        for kind in SEARCHED_KV:
            tried = replace(setting, kv=kind, ctx_len=context)
            needed = meter.memory_of(tried)
            if memory_most is None or needed <= memory_most:
                why = [] if context == setting.ctx_len else [f"ctx_len {context}: a longer one passes the memory limit"]
                return tried, why
        if context // 2 < SHORTEST_CONTEXT:
            limit = (memory_most or 0) // MIB
            raise ConfigError(
                f"a memory limit of {limit:,} MiB is too small: with {context} tokens of context it takes"
                f" {needed / MIB:,.0f} MiB. Give a higher one (--memory-max), or take a smaller model"
            )
        context //= 2


class EngineMeter:
    """Measures the engine itself."""

    def __init__(self, library: Library, model: Model, config: EngineConfig) -> None:
        self._library, self._model, self._config = library, model, config
        self.cores = default_threads()
        self.memory_bytes = total_memory_bytes()
        self.layout = str((model.meta().get("quantisation") or {}).get("layout", "t2"))
        self.ctx_len = min(config.ctx_len or CTX_LEN, model.info.context_max)

    def memory_of(self, setting: Setting) -> int:
        """See Meter: weights that are read, the head's low planes among them, which some ways of sampling need."""
        info = self._model.info
        with self._open(setting) as engine:
            stats = engine.stats()
        _, middle, low, _, middle_bounds = head_parts(info.vocab_size, info.hidden_size)
        weights = info.bytes_per_token + middle + low + middle_bounds
        others = MIB * (self._config.prefix_memory_mib + DAEMON_MIB)
        return weights + stats.kv_bytes + stats.arena_bytes + others

    def speed(self, setting: Setting, scenario: Scenario, budget_s: float) -> Speed:
        """See Meter."""
        with self._open(setting) as engine:
            return measure_speed(engine, prompt=scenario.prompt, batch_len=setting.batch_len, budget_s=budget_s)

    def memory_share(self, setting: Setting, speed: Speed) -> float:
        """See Meter."""
        read = self._library.measure_read(setting.threads, read_buffer_bytes())
        return self._model.info.bytes_per_token * speed.decode_tok_s / read

    def _open(self, setting: Setting) -> Engine:
        return Engine(
            self._model,
            ctx_len=setting.ctx_len,
            threads=setting.threads,
            batch_len=setting.batch_len,
            kv=setting.kv,
            logits_rows=1 + self._config.speculate,
        )


def tune_model(
    path: Path, name: str, limits: Limits, config: EngineConfig, progress: Callable[[str], None] = lambda text: None
) -> Tuning:
    """Tune for the bundle or model file at `path`, with the bundle's own library if it has one.

    Raises BundleError, EngineError, and ConfigError where nothing fits the limits.
    """
    bundle = open_bundle(path) if looks_like_bundle(path) else None
    place = bundle.member(MODEL_MEMBER) if bundle is not None else locate_model(path)
    library = load_library(bundle, config.isa or None)
    with Model.open(library, place.path, offset=place.offset, size=place.size) as model:
        busy = load_note()
        tuning = tune(name, EngineMeter(library, model, config), limits, progress)
    return tuning if busy is None else replace(tuning, reasons=(*tuning.reasons, busy))


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A tuning, and what became of it."""

    tuning: Tuning
    changed: bool  # whether a configuration was written
    said: str  # one line or more for people


def tune_and_write(
    path: Path,
    name: str,
    limits: Limits,
    config_path: Path | None,
    *,
    write: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Tune for the model at `path` and set [engine] in the configuration `config_path`, keeping all else in it.

    Raises what tune_model() does, and ConfigError where options or the configuration are wrong, before anything runs.
    """
    _check_limits(name, limits)
    if not path.exists():
        raise BundleError(f"{path}: no such file or folder")
    if config_path is not None:
        config_path = plain_file(config_path)
        if write:
            check_writable(config_path)
    config = read_config(config_path) if config_path is not None and config_path.exists() else Config()
    if config.engine.engine != "native":
        raise ConfigError(
            f'{config_path}: [engine]: engine = "{config.engine.engine}": tune measures our own engine. '
            "Set threads there by hand, or take that line out"
        )
    tuning = tune_model(path, name, limits, config.engine, progress)
    settings = engine_settings(tuning)
    if config_path is None or not write:
        return Outcome(
            tuning=tuning, changed=False, said="nothing was written. To use it:\n" + to_toml({"engine": settings})
        )
    changed = set_keys(config_path, "engine", settings)
    said = "written; it counts from the daemon's next start" if changed else "it was so already"
    return Outcome(tuning=tuning, changed=changed, said=f"{config_path}: {said}")


def _check_limits(name: str, limits: Limits) -> None:
    if name not in SCENARIOS:
        raise ConfigError(f"there is no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    if limits.threads is not None and not 1 <= limits.threads <= 256:
        raise ConfigError(f"--threads-max {limits.threads}: 1 to 256 are possible")
    if limits.memory_mib is not None and limits.memory_mib < 1:
        raise ConfigError(f"--memory-max {limits.memory_mib}: a number of MiB from 1 on is needed")
    if not 1 <= limits.seconds <= 3600:
        raise ConfigError(f"--seconds {limits.seconds:g}: 1 to 3600 are possible")


def load_note() -> str | None:
    """That the machine has other work, where it has; what is measured then is too low."""
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = os.cpu_count() or 1
    if busy <= 0.5 * cores:
        return None
    return (
        f"other work runs here (load {busy:.1f} on {cores} cores): the figures are low, and may mislead. Run it again"
    )
