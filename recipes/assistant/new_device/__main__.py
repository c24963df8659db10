"""Trains the adapter, converts it for the engine and measures what it changes.

python -m recipes.assistant.new_device --base edgebit/assistant_model --out DIR
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from recipes.assistant.new_device.effect import measure_effect, write_schema
from recipes.assistant.new_device.sentences import write_data

STEPS = 160
TRAINING = ("--lora", "8", "--replay-share", "0.75", "--row-length", "128", "--batch-tokens", "2048",
            "--learning-rate", "2e-3", "--eval-share", "0", "--save-every", "1000", "--json")  # fmt: skip


def edgebit(*arguments: object) -> None:
    """Run a command of edgebit; one that fails ends this as well."""
    done = subprocess.run([sys.executable, "-m", "edgebit", *map(str, arguments)], stdout=sys.stderr, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """Do all of it in the folder that the command names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", type=Path, required=True, help="the assistant: its master, or its packed folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for all that is made; must not hold an adapter")
    parser.add_argument("--most", type=int, default=400, help="lines of an old test set at most")
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    new, old = write_data(out)
    threads = os.environ.get("OMP_NUM_THREADS", "2")
    started = time.monotonic()
    edgebit("train", new, "--from", args.base, "--replay", old, "--steps", args.steps, "--threads", threads,
            "--out", out / "lora", *TRAINING)  # fmt: skip
    seconds = round(time.monotonic() - started)
    edgebit("adapter", "convert", out / "lora", "--for", args.base, "--out", out / "charger.adapter", "--force")
    write_schema(out)
    measured = {"training_seconds": seconds, "adapter_bytes": (out / "charger.adapter").stat().st_size,
                **measure_effect(args.base, out / "lora", out / "charger.adapter", args.most)}  # fmt: skip
    (out / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")
    for name, both in measured["sets"].items():
        before, after = both["before"]["exact"], both["after"]["exact"]
        print(f"{name:15} exact {before['share']:.1%} before, {after['share']:.1%} after, of {after['of']}")
    peft = measured["peft"]
    print(f"peft            {peft['answers'] - peft['different']} of {peft['answers']} answers equal, token for token")
    print(f"trained in {seconds} s; {measured['adapter_bytes']:,} bytes")


if __name__ == "__main__":
    main()
