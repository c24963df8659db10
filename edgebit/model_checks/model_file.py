"""What can be checked of a model file alone: its sums and structure, and its golden probes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgebit.bundle.model_reader import ModelFile
from edgebit.checks import Check
from edgebit.errors import BundleError, CheckpointError, EngineError
from edgebit.model_checks.at_work import check_probes
from edgebit.model_checks.response_schema import check_response_schema
from edgebit.model_checks.weights import check_bytes
from edgebit.progress import Progress, unwatched
from edgebit.runtime.library import Library


def check_model_file(path: Path, *, run: bool = True, progress: Progress = unwatched) -> list[Check]:
    """Check every byte of the model file at `path` and, with `run`, its golden probes at each ISA level.

    What is wrong with the file is a failed check, never an error; nothing of a damaged one is run.
    """
    checks = guarded("every byte", lambda: check_bytes(path, progress))
    if checks[0].status == "passed":
        with ModelFile(path) as file:
            checks += check_response_schema(file)
    if not run or checks[0].status == "failed":
        why = "not asked for, or the check before it failed"
        return [*checks, Check("golden probes", "not run", why)]
    return checks + check_probes_at_each_level(path, progress)


def check_probes_at_each_level(path: Path, progress: Progress) -> list[Check]:
    """The golden probes at each ISA level that this machine's engine knows."""
    try:
        levels = Library.load().isa_names
    except EngineError as error:
        return [Check("golden probes", "not run", str(error))]
    checks: list[Check] = []
    for level in levels:
        progress(f"golden probes, {level}", 0, 0)
        checks += guarded(f"golden probes, {level}", partial(check_probes, path, level))
    return checks


def guarded(name: str, run: Callable[[], Check]) -> list[Check]:
    """Its check, or a failed one: what an error tells of the model is a finding."""
    try:
        return [run()]
    except (BundleError, CheckpointError, EngineError) as error:
        return [Check(name, "failed", str(error))]
