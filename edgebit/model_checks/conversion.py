"""All checks of a conversion, one after the other."""

from pathlib import Path

from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checks import Check
from edgebit.errors import BundleError, EngineError
from edgebit.model_checks.at_work import check_answer
from edgebit.model_checks.model_file import check_probes_at_each_level, guarded
from edgebit.model_checks.texts import check_template, check_tokenizer
from edgebit.model_checks.weights import check_bytes, check_head, check_tensors
from edgebit.progress import Progress, unwatched
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model

_NEED_AN_ENGINE = ("tokenizer", "chat template", "answer", "golden probes")


def check_conversion(path: Path, source: Checkpoint, model: Checkpoint, progress: Progress = unwatched) -> list[Check]:
    """Check the model file at `path`, which `model` reads as a checkpoint, against the checkpoint `source`.

    Every byte's sum, every tensor read back and compared, the tokenizer there and back and beside Hugging Face's, the
    chat template rendered again, the golden probes at each ISA level of this machine, and an answer of a few tokens.
    What is wrong with the model is a failed check, never an error.
    """
    checks = [
        *guarded("every byte", lambda: check_bytes(path, progress)),
        *guarded("tensors", lambda: check_tensors(path, source, model, progress)),
        *guarded("head as stored", lambda: check_head(path, source)),
    ]
    try:
        library = Library.load()
    except EngineError as error:
        return [*checks, *(Check(name, "not run", str(error)) for name in _NEED_AN_ENGINE)]
    try:
        with Model.open(library, path) as opened:
            progress("tokenizer and chat template", 0, 0)
            checks += guarded("tokenizer", lambda: check_tokenizer(opened, source))
            checks += guarded("chat template", lambda: check_template(opened, source))
            progress("an answer", 0, 0)
            checks += guarded("answer", lambda: check_answer(opened))
    except (BundleError, EngineError) as error:
        return [*checks, Check("engine", "failed", str(error))]
    return checks + check_probes_at_each_level(path, progress)
