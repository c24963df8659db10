"""A llama-bench for tests: computes nothing, and misbehaves as the name of its model says.

-m MODE: see MODES. FAKE_LOG names a file that each call's arguments are added to, with the cores it may run on.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

HELP = {
    "llama.cpp": "  -p, --n-prompt <n>\n  -n, --n-gen <n>\n  -d, --n-depth <n>\n  --no-warmup   skip warmup runs\n",
    "ik": "  -p, --n-prompt <n>\n  -n, --n-gen <n>\n  -gp <pp,tg>\n  -w, --warmup <0|1>\n",
    "old": "  -p, --n-prompt <n>\n  -n, --n-gen <n>\n",
    "other": "usage: something else entirely\n",
}
PREFILL_TS, DECODE_TS = 200.0, 50.0


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[-1:] == ["--help"]:
        print(HELP[os.environ.get("FAKE_HELP", "llama.cpp")])
        return
    valued = [word for word in arguments if word != "--no-warmup"]
    options = dict(zip(valued[::2], valued[1::2], strict=True))
    if log := os.environ.get("FAKE_LOG"):
        with Path(log).open("a") as file:
            file.write(json.dumps([arguments, len(os.sched_getaffinity(0)), os.getpid()]) + "\n")
    mode = options["-m"]
    threads, depth = int(options["-t"]), int(options.get("-d", 0))
    rows = [row(int(size), 0, depth, PREFILL_TS, threads) for size in options["-p"].split(",") if size != "0"]
    if options["-n"] != "0":
        rows.append(row(0, int(options["-n"]), depth, DECODE_TS, threads))
    if "-gp" in options:
        prompt, generated = map(int, options["-gp"].split(","))
        rows.append(row(prompt, generated, 0, DECODE_TS, threads))
    MODES[mode](rows)


def row(n_prompt: int, n_gen: int, n_depth: int, speed: float, threads: int) -> dict[str, object]:
    return {
        "build_commit": "0123abc", "model_type": "fake", "n_threads": threads, "n_prompt": n_prompt, "n_gen": n_gen,
        "n_depth": n_depth, "avg_ts": speed, "samples_ts": [speed],
    }  # fmt: skip


def show(rows: list[dict[str, object]], **changed: object) -> None:
    print("warning: something was logged [to standard output]")
    print(json.dumps([{**row, **changed} for row in rows], indent=1))


def die_by_signal(rows: list[dict[str, object]]) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def fail(rows: list[dict[str, object]]) -> None:
    print("\x1b[31mmodel is broken\x1b[0m", file=sys.stderr)
    sys.exit(3)


MODES = {
    "sound": show,
    "lines": lambda rows: print("log\n" + "\n".join(map(json.dumps, rows))),
    "too-fast": lambda rows: show(rows, avg_ts=1e15, samples_ts=[1e15]),
    "wrong-threads": lambda rows: show(rows, n_threads=64),
    "doubtful": lambda rows: show(rows, doubt="a prompt gave other logits at once than token by token\x1b[2J"),
    "not-a-number": lambda rows: print(json.dumps([{**row, "samples_ts": [float("nan")]} for row in rows])),
    "negative": lambda rows: show(rows, samples_ts=[-5.0]),
    "text-for-speed": lambda rows: show(rows, samples_ts=["fast"], avg_ts="very"),
    "other-rows": lambda rows: show(rows, n_prompt=7, n_gen=7),
    "no-output": lambda rows: None,
    "not-json": lambda rows: print("| model | t/s |\n| --- | --- |"),
    "cut-off": lambda rows: print(json.dumps(rows)[:-20]),
    "deep": lambda rows: print("[" * 200_000),
    "list-of-numbers": lambda rows: print("[1, 2, 3]"),
    "signal": die_by_signal,
    "hangs": lambda rows: time.sleep(600),
    "fails": fail,
}

if __name__ == "__main__":
    main()
