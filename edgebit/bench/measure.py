"""Runs what is measured, round by round: the machine's limits, edgebit and each peer, once for each thread count.

Whatever disturbs the machine for a while then disturbs all of them, and a ratio is taken within a round. Everything
runs in processes of its own, kept to as many cores as it has threads.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from edgebit.asked_process.cores import cores_for, pinned
from edgebit.asked_process.process import AskedProcess
from edgebit.bench.machine import load_now
from edgebit.bench.onnx_peer import OnnxPeer
from edgebit.bench.peers import Peer, PeerRun
from edgebit.bench.worker import Spec
from edgebit.bundle.archive import Member
from edgebit.errors import EngineError, PeerError
from edgebit.resources import native_library
from edgebit.runtime.engine import KV_TYPES
from edgebit.runtime.memory import last_cache_bytes, read_buffer_bytes

EDGEBIT = "edgebit"
Listener = Callable[[str, int, int], None]  # what is being done, steps done, steps in all
_WARM_TOKENS = 8
_PROBE_CONTEXT = 128  # tokens: golden probes need less
_SEQUENCE_STEPS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchOptions:
    """What is measured, in tokens; the defaults are those of `edgebit bench`."""

    model: Member | None  # None: our own engine is not measured
    context_max: int  # the model's
    threads: tuple[int, ...]
    rounds: int = 5
    prefill: tuple[int, ...] = (128, 512)
    decode_tokens: int = 32
    contexts: tuple[int, ...] = (0, 2048)
    sequences: tuple[int, ...] = ()
    kv: str = KV_TYPES[0]  # how the KV cache holds keys and values
    isa: str | None = None
    peers: tuple[Peer | OnnxPeer, ...] = ()
    facts: dict[str, Any] | None = None  # of the model, where that is None

    @property
    def ctx_len(self) -> int:
        """The context that every single-sequence engine is opened with: the longest that a test needs."""
        needed = max((*self.prefill, *(context + self.decode_tokens + 1 for context in self.contexts)), default=1)
        return max(needed, min(_PROBE_CONTEXT, self.context_max))


# (contestant, threads) -> figure -> its value in each round:
#   "prefill/128", "decode/2048"   tok/s, of that prompt and behind that context
#   "all_logits/0"                 decode where all logits are wanted, as peers compute them, not the highest alone
#   "middle_rows/2048", "low_rows/2048"   rows of the head that a step of "decode/2048" reads again in that plane
#   "sequences/4"                  tok/s of all together
#   "read", "int8", "int8_any"     of the machine: bytes/s, products/s, and these at the highest ISA level
#   those of START_FIGURES
Series = dict[tuple[str, int], dict[str, list[float]]]
MACHINE = "machine"
HEAD_PLANES = ("middle_rows", "low_rows")
START_FIGURES = ("start_s", "native_start_s", "first_token_s", "library_load_s", "model_open_s", "engine_open_s")


@dataclass(slots=True)
class Measurement:
    """What came out, not yet put together."""

    options: BenchOptions
    facts: dict[str, Any] = field(default_factory=dict)  # of the worker's engine
    probes: int = 0  # golden probes that were equal
    cache_bytes: int = 0  # of the last cache
    buffer_bytes: int = 0  # read for the limit of memory
    series: Series = field(default_factory=dict)
    memory: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)  # peak RSS: prefill, context
    peers: dict[tuple[str, int], list[PeerRun]] = field(default_factory=dict)
    # (peer, threads) -> why it was left out from then on
    failures: dict[tuple[str, int], str] = field(default_factory=dict)
    load: list[dict[str, float | None]] = field(default_factory=list)  # before the first round and after each

    @property
    def reads_memory(self) -> bool:
        """Whether a decode step must read memory: a model that the last cache may hold says nothing about it."""
        return int(self.facts["info"]["bytes_per_token"]) > 2 * self.cache_bytes

    def add(self, name: str, threads: int, figures: Mapping[str, float]) -> None:
        """Put a round's figures down."""
        row = self.series.setdefault((name, threads), {})
        for figure, value in figures.items():
            row.setdefault(figure, []).append(value)


def measure(options: BenchOptions, listener: Listener = lambda what, done, total: None) -> Measurement:
    """Measure edgebit, the machine's limits and the peers.

    Raises EngineError where edgebit itself cannot run. A peer that fails is left out from then on, and `failures` has
    the reason.
    """
    done, total = 0, options.rounds * len(options.threads) * (1 + bool(options.model) + len(options.peers)) + 1
    out = Measurement(options, cache_bytes=last_cache_bytes(), buffer_bytes=read_buffer_bytes())
    with contextlib.ExitStack() as stack:
        edgebit = stack.enter_context(_Edgebit(options))
        listener("golden probes", done, total)
        out.facts, out.probes = edgebit.facts, edgebit.check()
        out.load.append(load_now())
        done += 1
        for turn in range(options.rounds):
            for threads in options.threads:
                for name, run in _in_turn(_contestants(options, edgebit, out, threads), turn):
                    listener(f"round {turn + 1}, {threads} thread{'s' * (threads > 1)}: {name}", done, total)
                    run()
                    done += 1
            out.load.append(load_now())
        for threads in options.threads if options.model is not None else ():
            out.memory[EDGEBIT, threads] = edgebit.memory(threads)
    listener("done", total, total)
    return out


def _in_turn(contestants: list[tuple[str, Callable[[], None]]], turn: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """All of them, each round another first, so that none always follows the same one."""
    first = turn % len(contestants)
    yield from contestants[first:]
    yield from contestants[:first]


def _contestants(
    options: BenchOptions, edgebit: "_Edgebit", out: Measurement, threads: int
) -> list[tuple[str, Callable[[], None]]]:
    def of_peer(peer: Peer | OnnxPeer) -> None:
        if (peer.name, threads) in out.failures:
            return
        try:
            run = peer.measure(threads, options.prefill, options.decode_tokens, options.contexts)
        except PeerError as error:
            out.failures[peer.name, threads] = str(error)
            return
        out.add(peer.name, threads, run.figures)
        out.peers.setdefault((peer.name, threads), []).append(run)

    return [
        ("the machine's limits", lambda: out.add(MACHINE, threads, edgebit.limits(threads, out.buffer_bytes))),
        *([(EDGEBIT, lambda: out.add(EDGEBIT, threads, edgebit.measure(threads)))] if options.model else []),
        *((peer.name, lambda peer=peer: of_peer(peer)) for peer in options.peers),
    ]


class _Edgebit:
    """Our own side: one process for each thread count and kind of test, kept from round to round."""

    def __init__(self, options: BenchOptions) -> None:
        self._options = options
        self._stack = contextlib.ExitStack()
        self._processes: dict[tuple[str, int], AskedProcess] = {}
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        with self._stack:  # where it does not come to the end of this, nothing stays
            if self._options.model is not None:
                self.facts = self._process("prefill", self._options.threads[0]).ask("facts")
            else:
                about = self._process("limits", self._options.threads[0]).ask("about_library")
                self.facts = about | (self._options.facts or {})
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, value, trace)  # processes hear of Ctrl-C by it

    def check(self) -> int:
        """Golden probes that came out bit for bit as they must, which also brings the model into the page cache."""
        if self._options.model is None:
            return 0
        with _start_worker(self._spec("check", max(self._options.threads))) as process:
            return int(process.ask("probes")["probes"])

    def limits(self, threads: int, buffer_bytes: int) -> dict[str, float]:
        """The machine's, at the ISA level of the engine; "int8_any" at the highest that it has."""
        found = self._process("limits", threads).ask("limits", n_bytes=buffer_bytes)
        figures = {"read": found["read_bytes_s"], "int8": found["int8_mac_s"], "int8_any": found["int8_mac_s"]}
        if self._options.isa is not None:
            unmasked = self._process("unmasked limits", threads).ask("limits", n_bytes=buffer_bytes)
            figures["int8_any"] = unmasked["int8_mac_s"]
        return figures

    def measure(self, threads: int) -> dict[str, float]:
        """One round."""
        options, figures = self._options, self._start(threads)
        process = self._process("prefill", threads)
        for tokens in options.prefill:
            process.ask("prefill", tokens=_WARM_TOKENS)
            figures[f"prefill/{tokens}"] = tokens / process.ask("prefill", tokens=tokens)["seconds"]
        for context in options.contexts:
            # A long context has a process of its own: it is computed once, and its memory is told apart.
            place = self._process("context", threads) if context else process
            done = place.ask("decode", context=context, tokens=options.decode_tokens)
            figures[f"decode/{context}"] = options.decode_tokens / done["seconds"]
            figures |= {f"{plane}/{context}": done[plane] for plane in HEAD_PLANES}
        if 0 in options.contexts:
            done = process.ask("decode", context=0, tokens=options.decode_tokens, all_logits=True)
            figures["all_logits/0"] = options.decode_tokens / done["seconds"]
        for count in options.sequences:
            seconds = self._process("sequences", threads).ask("sequences", count=count, tokens=_SEQUENCE_STEPS)
            figures[f"sequences/{count}"] = count * _SEQUENCE_STEPS / seconds["seconds"]
        return figures

    def memory(self, threads: int) -> dict[str, int]:
        """Peak RSS of the processes: after prompts and decode, and with the longest context."""
        kinds = ("prefill", "context") if any(self._options.contexts) else ("prefill",)
        found = {kind: self._process(kind, threads).ask("memory")["peak_rss_bytes"] for kind in kinds}
        return {kind: size for kind, size in found.items() if size is not None}

    def _start(self, threads: int) -> dict[str, float]:
        """A fresh process up to its first token and its end; the page cache has the model by now."""
        spec = self._spec("prefill", threads)
        began = time.monotonic_ns()
        with _start_worker(spec) as process:
            clock = process.ask("start")["clock_ns"]
        ended = time.monotonic_ns()
        figures = {
            "start_s": ended - began,
            "first_token_s": clock["token"] - began,
            "library_load_s": clock["library"] - clock["began"],
            "model_open_s": clock["model"] - clock["library"],
            "engine_open_s": clock["engine"] - clock["model"],
        }
        native = self._native_start(spec)
        return {name: value / 1e9 for name, value in figures.items()} | ({"native_start_s": native} if native else {})

    def _native_start(self, spec: Spec) -> float | None:
        """Seconds that edgebit-run takes for one token, from its start to its end; None where it is not built."""
        program = native_library().parent / "edgebit-run"
        if not program.is_file():
            return None
        argv = [str(program), str(spec.model), "--ids", "0", "-n", "1", "--kv", spec.kv, "--threads", str(spec.threads)]
        environment = os.environ | ({} if spec.isa is None else {"EDGEBIT_ISA": spec.isa})
        with pinned(cores_for(spec.threads)):
            began = time.monotonic()
            done = subprocess.run(
                [*argv, "--ctx", str(spec.ctx_len)],
                stdin=subprocess.DEVNULL, capture_output=True, check=False, env=environment,
            )  # fmt: skip
            seconds = time.monotonic() - began
        if done.returncode:
            raise EngineError(f"{program} failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
        return seconds

    def _spec(self, kind: str, threads: int) -> Spec:
        options, model = self._options, self._options.model
        if model is None or kind in ("limits", "unmasked limits"):
            return Spec(model=None, threads=threads, isa=options.isa if kind == "limits" else None)
        sequences = max(options.sequences, default=1) if kind == "sequences" else 1
        return Spec(
            model=str(model.path),
            offset=model.offset,
            size=model.size,
            threads=threads,
            ctx_len=_SEQUENCE_STEPS + 1 if kind == "sequences" else options.ctx_len,
            sequences=sequences,
            kv=KV_TYPES[0] if kind == "check" else options.kv,
            isa=options.isa,
        )

    def _process(self, kind: str, threads: int) -> AskedProcess:
        if (kind, threads) not in self._processes:
            self._processes[kind, threads] = self._stack.enter_context(_start_worker(self._spec(kind, threads)))
        return self._processes[kind, threads]


def _start_worker(spec: Spec) -> AskedProcess:
    """edgebit/bench/worker.py in a process of its own."""
    # -I -S: nothing of this machine's Python but the standard library, as fast as it starts on a device.
    return AskedProcess.of_module("edgebit.bench.worker", spec.argument(), spec.threads, "-I", "-S")
