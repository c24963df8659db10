"""Which engine runs a given thing, and what to do where none, or not the one that was asked for, does."""

import importlib
import importlib.util
import shlex
from pathlib import Path
from typing import Literal, NoReturn, Protocol, cast

from edgebit.bundle.archive import looks_like_bundle
from edgebit.bundle.model_format import MAGIC
from edgebit.bundle.other_kinds import looks_like_exported, looks_like_gguf
from edgebit.engines.engine import OpenOptions, TextEngine
from edgebit.errors import EngineError
from edgebit.onnx_engine.folder import source_of

Kind = Literal["model", "exported", "checkpoint"]

# --engine: the module that has open_engine(path, options).
ENGINES = {
    "native": "edgebit.engines.native_engine",
    "onnx": "edgebit.engines.ort_engine",
    "transformers": "edgebit.engines.transformers_engine",
}
RUNS: dict[Kind, str] = {"model": "native", "exported": "onnx", "checkpoint": "transformers"}
_NAMES: dict[Kind, str] = {
    "model": "a bundle or model file",
    "exported": "a folder exported for ONNX Runtime",
    "checkpoint": "a Hugging Face checkpoint",
}


class _EngineModule(Protocol):
    def open_engine(self, path: Path, options: OpenOptions) -> TextEngine: ...


def kind_of(path: Path) -> Kind:
    """What `path` is by its looks; whatever is nothing else counts as a model file, whose reader says what is wrong."""
    if looks_like_exported(path):
        return "exported"
    if path.is_dir() and not looks_like_bundle(path) and (path / "config.json").is_file():
        return "checkpoint"
    return "model"


def has_transformers() -> bool:
    """Whether transformers and what it computes with are installed; they are not imported for it."""
    return all(importlib.util.find_spec(name) is not None for name in ("transformers", "torch"))


def choose_engine(path: Path, asked: str = "auto") -> str:
    """The name of the engine that runs `path`: the one asked for, or for "auto" the one that can.

    Raises EngineError where that cannot be, with what makes of `path` what the engine takes.
    """
    kind = kind_of(path)
    able = RUNS[kind]
    if asked not in ("auto", able):
        if kind == "model" and not looks_like_bundle(path) and not _begins_as_model(path):
            _refuse_no_model(path, asked)
        raise EngineError(
            f"{path} is {_NAMES[kind]}, which the engine {asked} does not run. {_way_to(asked, path, kind)}"
        )
    if able == "transformers" and not has_transformers():
        raise EngineError(
            f"{path} is {_NAMES[kind]}, which only transformers runs as it is, and that is not installed: "
            f"pip install 'edgebit[parity]'. {_way_to('native', path, kind)}"
        )
    return able


def open_engine(path: Path, options: OpenOptions, engine: str) -> TextEngine:
    """The model at `path` in the engine of that name, which choose_engine() gave, ready to answer; close() it."""
    module = cast(_EngineModule, importlib.import_module(ENGINES[engine]))
    return module.open_engine(path, options)


def _begins_as_model(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _refuse_no_model(path: Path, engine: str) -> NoReturn:
    """Raise EngineError for what is neither a bundle nor a model file, nor known by its looks otherwise."""
    if looks_like_gguf(path):
        raise EngineError(f"{path} is a GGUF checkpoint. {_way_to(engine, path, 'checkpoint')}")
    raise EngineError(
        f"{path} is no model: neither {_NAMES['model']} nor {_NAMES['checkpoint']}, a GGUF or {_NAMES['exported']}. "
        "Name one of them"
    )


def _way_to(engine: str, path: Path, kind: Kind) -> str:
    """How the model at `path` becomes what `engine` runs."""
    if kind == "exported":
        source = source_of(path)
        return f"It was made from {source}: use that, or a model made from it, with --engine {engine}"
    here = shlex.quote(str(path))
    return {
        "native": f"Convert it: edgebit convert {here} --out model.ebm",
        "onnx": f"Export it first: edgebit export onnx {here} --out model-onnx, then run model-onnx",
        "transformers": f"Export it first: edgebit export hf {here} --out model-hf, then run model-hf",
    }[engine]
