"""Service: a model's golden probes through a built edgebit-run, on every CPU of the target that this machine can be."""

import dataclasses
import tempfile
from pathlib import Path

from edgebit.artifacts import Check, check_probes, check_probes_here
from edgebit.convert import convert
from edgebit.resources import demo_model_dir
from edgebit.targets import Target, host_target

EMULATED_MODEL_MAX = 256 << 20  # bytes: a 2B model took more than ten minutes for its first probe under qemu


def check_model_probes(runner: Path, model: Path, model_size: int, target: Target) -> list[Check]:
    """Run the golden probes of `model`, a model file or a bundle, whose model has `model_size` bytes.

    A model too large to emulate is stood in for by the one that ships: it goes through the same micro-kernels. Its own
    probes then run on the device, before it goes live, and here where this machine has the target's architecture.
    """
    if model_size <= EMULATED_MODEL_MAX:
        return check_probes(runner, model, target)
    with tempfile.TemporaryDirectory(prefix="edgebit-probes-") as folder:
        stand_in = Path(folder, "demo.ebm")
        convert(demo_model_dir(), stand_in)
        checks = [
            dataclasses.replace(check, name=f"{check.name}, the shipped model's")
            for check in check_probes(runner, stand_in, target)
        ]
    if target.arch == host_target().arch:
        return [*checks, check_probes_here(runner, model)]
    text = f"{model_size >> 20} MiB are too many to emulate; the device runs them before the bundle goes live"
    return [*checks, Check("probes of this model", "not run", text)]
