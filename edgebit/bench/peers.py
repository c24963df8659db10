"""Programs that edgebit is measured against: anything that takes llama-bench's options and prints its JSON.

    --against 'NAME=PROGRAM -m model.gguf OPTIONS...'

gets `-p`, `-n`, `-t`, `-r 1` and `-o json` behind it. What else it can do is read off its --help. A Python package or
another engine becomes a peer through a small program that speaks the same way (bench/peers/README.md).
"""

import contextlib
import json
import math
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebit.asked_process.cores import cores_for, pinned
from edgebit.errors import PeerError
from edgebit.runtime.memory import peak_rss_bytes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,31}")
_RESERVED = ("edgebit", "machine", "onnx")
_OUTPUT_MOST = 16 << 20
_TIMEOUT_S = 1800.0
_HELP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class PeerRun:
    """What one run of a peer came to. `said`: what it tells of itself; `doubts`: figure -> why it may mean nothing."""

    figures: dict[str, float]
    peak_rss: dict[str, int]  # bytes: prefill (prompts and decode), context
    said: dict[str, Any]
    doubts: dict[str, str]


@dataclass(frozen=True, slots=True)
class Peer:
    """A program, and which of llama-bench's options it has."""

    name: str
    argv: tuple[str, ...]
    depth_option: str | None = None  # "-d" (llama.cpp) or "-gp" (ik_llama.cpp): decode behind a context
    cold_options: tuple[str, ...] = ()  # leave its warm-up run out

    def measure(self, threads: int, prefill: Sequence[int], decode_tokens: int, contexts: Sequence[int]) -> PeerRun:
        """One round: prompts and decode in one process, each long context and the start in one of its own.

        Raises PeerError where it fails or prints what cannot be read.
        """
        run = PeerRun({}, {}, {}, {})
        generated = decode_tokens if 0 in contexts else 0
        rows = self._call(threads, ["-p", ",".join(map(str, prefill or [0])), "-n", str(generated)])
        for tokens in prefill:
            rows.take(run, f"prefill/{tokens}", n_prompt=tokens, n_gen=0)
        if generated:
            for figure in ("decode/0", "all_logits/0"):  # a peer computes all logits
                rows.take(run, figure, n_prompt=0, n_gen=generated)
        run.said.update(rows.said)
        run.peak_rss.update({"prefill": rows.peak_rss} if rows.peak_rss else {})
        for context in filter(None, contexts) if self.depth_option else ():
            rows = self._call(threads, self._depth_arguments(context, decode_tokens))
            depth = {"n_prompt": context} if self.depth_option == "-gp" else {"n_depth": context}
            rows.take(run, f"decode/{context}", n_gen=decode_tokens, **depth)
            run.peak_rss.update({"context": rows.peak_rss} if rows.peak_rss else {})
        rows = self._call(threads, ["-p", "0", "-n", "1", *self.cold_options])
        # Without an option to leave it out, a run begins with a token more than was asked for.
        unasked = 0.0 if self.cold_options else 1 / rows.speed(n_prompt=0, n_gen=1)[0]
        run.figures["start_s"] = max(rows.seconds - unasked, 0.0)
        return run

    def _depth_arguments(self, context: int, tokens: int) -> list[str]:
        if self.depth_option == "-gp":
            return ["-p", "0", "-n", "0", "-gp", f"{context},{tokens}"]
        return ["-p", "0", "-n", str(tokens), "-d", str(context)]

    def _call(self, threads: int, arguments: Sequence[str]) -> "_Rows":
        argv = [*self.argv, *arguments, "-t", str(threads), "-r", "1", "-o", "json"]
        with pinned(cores_for(threads)):
            done = _run(argv, self.name)
        return _Rows(self.name, parse_rows(done.output, self.name), threads, done.seconds, done.peak_rss)


def parse_peer(text: str) -> Peer:
    """The peer of `--against NAME=COMMAND`. Raises PeerError where it is put wrongly or the program is not there."""
    name, equals, command = text.partition("=")
    if not equals or not _NAME.fullmatch(name) or name in _RESERVED:
        raise PeerError(
            f"--against {text!r}: NAME=COMMAND is needed, such as 'llamacpp=/opt/llama-bench -m model.gguf'; "
            f"a name has letters, digits and . _ + - and is none of {', '.join(_RESERVED)}"
        )
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise PeerError(f"--against {name}: the command cannot be taken apart: {error}") from error
    program = shutil.which(str(Path(argv[0]).expanduser())) if argv else None
    if program is None:
        raise PeerError(
            f"--against {name}: there is no program {argv[0] if argv else ''!r} that can be run. Give its path"
        )
    return Peer(name, (program, *argv[1:]), *_options_of(program, argv[1:], name))


def _options_of(program: str, rest: Sequence[str], name: str) -> tuple[str | None, tuple[str, ...]]:
    """What its --help names. An interpreter's script comes first among the arguments, so it gets --help too."""
    script = [argument for argument in rest[:1] if Path(argument).is_file()]
    try:
        done = subprocess.run(
            [program, *script, "--help"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_HELP_TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"--against {name}: {program} cannot be asked for its --help: {error}") from error
    words = set(re.split(r"[\s,]+", (done.stdout + done.stderr)[:_OUTPUT_MOST].decode(errors="replace")))
    if not words & {"-p", "--n-prompt"}:
        raise PeerError(
            f"--against {name}: the --help of {program} has no option -p: it is not like llama-bench. "
            "Another kind of engine needs a small program in front of it that is (bench/peers/README.md)"
        )
    depth = "-d" if "--n-depth" in words else "-gp" if "-gp" in words else None
    cold = ("--no-warmup",) if "--no-warmup" in words else ("-w", "0") if "--warmup" in words else ()
    return depth, cold


@dataclass(frozen=True, slots=True)
class _Done:
    output: str
    seconds: float
    peak_rss: int | None


def _run(argv: Sequence[str], name: str) -> _Done:
    """Run a peer to its end, and take its time and memory."""
    with contextlib.suppress(OSError):  # a child's peak begins with ours, and ours with what it holds now
        Path("/proc/self/clear_refs").write_text("5")
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
            )
        except OSError as error:
            raise PeerError(f"{name}: {argv[0]} cannot be started: {error.strerror}") from error
        _lift_stack_limit(process.pid)
        try:
            status, peak_rss = _wait(process, name)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        seconds = time.monotonic() - began
        if status:
            errors.seek(max(errors.seek(0, os.SEEK_END) - 400, 0))
            said = " ".join(errors.read().decode(errors="replace").split())
            how = f"was killed by signal {-status}" if status < 0 else f"ended with exit code {status}"
            raise PeerError(f"{name} {how}: {shlex.join(argv)}: {said[-300:] or 'it said nothing'}")
        output.seek(0)
        return _Done(output.read(_OUTPUT_MOST).decode(errors="replace"), seconds, peak_rss)


def _lift_stack_limit(pid: int) -> None:
    """As much stack as the system allows: one peer needs more than the usual 8 MiB for long prompts, and dies."""
    with contextlib.suppress(OSError, AttributeError, ValueError):  # macOS has no prlimit
        _, hard = resource.getrlimit(resource.RLIMIT_STACK)
        resource.prlimit(pid, resource.RLIMIT_STACK, (hard, hard))


def _wait(process: subprocess.Popen[bytes], name: str) -> tuple[int, int | None]:
    """Exit status and peak RSS in bytes. A child's figure begins with what we held when we started it, so one that is
    no higher than that says nothing."""
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline:
            raise PeerError(f"{name} was stopped: it had not ended after {_TIMEOUT_S:.0f} s")
        time.sleep(0.002)
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * (1024 if os.uname().sysname == "Linux" else 1)
    return process.returncode, peak if peak > peak_rss_bytes() else None


def parse_rows(output: str, name: str) -> list[dict[str, Any]]:
    """The objects of llama-bench's JSON: a list, whatever was logged before it, or one object a line.

    Raises PeerError where there is neither.
    """
    for found in re.finditer(r"^\s*\[", output, re.MULTILINE):
        with contextlib.suppress(ValueError, RecursionError):
            rows, _ = json.JSONDecoder().raw_decode(output, found.end() - 1)
            if rows and isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
                return rows
    lines = []
    for line in output.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict):
                lines.append(row)
    if not lines:
        raise PeerError(f"{name}: no JSON of llama-bench in what it printed: {' '.join(output.split())[-200:]!r}")
    return lines


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of one call. What a peer prints is not trusted further than it can be checked."""

    name: str
    rows: list[dict[str, Any]]
    threads: int
    seconds: float
    peak_rss: int | None

    def take(self, run: PeerRun, figure: str, **wanted: int) -> None:
        """Put the speed of the row whose numbers are `wanted` into `run`, with what speaks against it."""
        run.figures[figure], doubt = self.speed(**wanted)
        if doubt:
            run.doubts[figure] = doubt

    def speed(self, **wanted: int) -> tuple[float, str | None]:
        """Tokens a second of the row whose numbers are `wanted`, and what speaks against it; a number that it does not
        have counts as 0. Raises PeerError where there is no such row or speed."""
        for row in self.rows:
            if all(_number(row.get(key, 0)) == value for key, value in wanted.items()):
                return self._speed_of(row)
        raise PeerError(f"{self.name}: what it printed has no row with {wanted}")

    def _speed_of(self, row: dict[str, Any]) -> tuple[float, str | None]:
        samples = row.get("samples_ts")
        value = _number(samples[0] if isinstance(samples, list) and samples else row.get("avg_ts"))
        if value is None or value <= 0:
            raise PeerError(f"{self.name}: a row has no speed above 0 in samples_ts or avg_ts")
        used = _number(row.get("n_threads"))
        if used is not None and used != self.threads:
            return value, f"it ran with {used:g} threads where {self.threads} were asked for"
        return value, str(row["doubt"])[:300] if row.get("doubt") else None

    @property
    def said(self) -> dict[str, Any]:
        """What it tells of its model and itself, of the kinds that we know."""
        row = self.rows[0]
        texts = {key: str(row[key])[:200] for key in ("build_commit", "model_type") if row.get(key)}
        sizes = {key: _number(row.get(key)) for key in ("model_size", "model_n_params")}
        return texts | {key: int(size) for key, size in sizes.items() if size is not None and size > 0}


def _number(value: object) -> float | None:
    """`value` where it is a finite number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
