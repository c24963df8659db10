"""Measures the assistant that make.py has made, draws the pictures and renews the card's tables.

    python -m recipes.assistant.measure --out DIR [--card edgebit/assistant_model/README.md] [--json]

DIR is the folder that make.py was given. Written there: measured.json, and pictures/. With --card the pictures go to
docs/pictures as well, and the part of the card between its marks is made anew.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from recipes.assistant.measuring import card, pictures
from recipes.assistant.measuring.measurement import measure

MOST = 1000  # lines of a test set: an interval of 95 % is then 1 to 3 points wide to each side
SHOWN = Path(__file__).parents[2] / "docs" / "pictures"
NAMES = {"ternary": "ternary, schema", "ternary_free": "ternary, free", "float": "float twin",
         "nearest": "TF-IDF neighbour"}  # fmt: skip


def losses_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The losses of each form, from the last states of its trainings, whose steps are counted on."""
    from edgebit.train.training_state import newest_state

    found: dict[str, list[tuple[int, float]]] = {}
    for form in ("ternary", "float"):
        points = found[form] = []
        for folder in sorted({folder.resolve() for folder in run.glob(f"{form}-state*")}):
            before = points[-1][0] if points else 0
            if state := newest_state(folder, print):
                points += [(before + record["step"], record["loss"]) for record in state["records"]]
    return found


def drawn(measured: dict[str, Any], losses: dict[str, list[tuple[int, float]]]) -> dict[str, str]:
    """The card's pictures by name, as SVG."""
    groups = {
        split: {
            words: (share["share"], share["low"], share["high"])
            for system, words in NAMES.items()
            if (share := measured["systems"][system][split]["exact"])
        }
        for split in card.SPLITS
    }
    matrix = {(wanted, found): count for wanted, found, count in measured["matrix"]}
    return {
        "quality.svg": pictures.bars(
            "Exact match by test set", "share of lines with the right call and slots, %; lines: 95 % interval", groups
        ),
        "confusions.svg": pictures.confusion_matrix(
            "Calls asked for (rows) and answered (columns)", "green: right; red: taken for another", matrix
        ),
        "loss.svg": pictures.loss_curves("Training of the assistant and its float twin", losses),
    }


def main() -> None:
    """Measure what the command names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="the folder that make.py has filled")
    parser.add_argument("--most", type=int, default=MOST, help="lines of a test set at most")
    parser.add_argument("--card", type=Path, help="the model card whose tables are renewed")
    parser.add_argument("--json", action="store_true", help="print measured.json")
    args = parser.parse_args()
    run: Path = args.out
    losses = losses_of(run)
    measured = measure(run, args.most, lambda words: print(words, file=sys.stderr, flush=True))
    measured["steps"] = max((points[-1][0] for points in losses.values() if points), default=0)
    (run / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")
    (run / "pictures").mkdir(exist_ok=True)
    for name, content in drawn(measured, losses).items():
        (run / "pictures" / name).write_text(content)
        if args.card:
            SHOWN.mkdir(exist_ok=True)
            (SHOWN / f"assistant-{name}").write_text(content)
    section = card.generated(measured, "../../docs/pictures/assistant-")
    if args.card:
        card.refresh(args.card, section)
    print(json.dumps(measured, indent=1) if args.json else section)


if __name__ == "__main__":
    main()
