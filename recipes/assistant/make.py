"""Makes the assistant from the data in this folder: tokenizer, ternary model, float twin, packed checkpoint, figures.

    python -m recipes.assistant.make --out DIR

Both trainings run side by side, with one thread each. Stopped and started again, they go on where they were.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from recipes.assistant.training import FORMS, make_tokenizer


def main() -> None:
    """Make all of it in the folder that the command names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder for all that is made")
    out: Path = parser.parse_args().out
    make_tokenizer(out / "tokenizer")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "recipes.assistant.training"]
    running = [subprocess.Popen([*command, form, "--out", str(out)], env=environment) for form in FORMS]
    failed = [form for form, process in zip(FORMS, running, strict=True) if process.wait()]
    if failed:
        sys.exit(f"the training of {' and '.join(failed)} failed: see above")
    sys.exit(subprocess.run([sys.executable, "-m", "recipes.assistant.measure", "--out", str(out)]).returncode)


if __name__ == "__main__":
    main()
