"""What is compared: a model as one engine runs it."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgebit.checkpoint.model_file_checkpoint import is_model_file
from edgebit.engines.choice import RUNS, choose_engine, has_transformers, kind_of
from edgebit.engines.engine import OpenOptions
from edgebit.errors import EngineError, OnnxError
from edgebit.onnx_engine.binding import NO_LIBRARY
from edgebit.onnx_engine.folder import OnnxFolder, source_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is the same for all of them."""

    threads: int
    ctx_len: int = 0  # tokens; 0: the model's own maximum
    kv: str = "f32"  # native only: the type that the others have


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """One that is asked."""

    name: str  # in the report, each another
    path: Path  # the model
    engine: str  # as --engine has it
    settings: Settings
    without_library: bool = False  # onnx only: its fallback

    def options(self) -> OpenOptions:
        """What its engine is opened with. No drafts: where they come true, a step's time says nothing."""
        return OpenOptions(
            threads=self.settings.threads,
            ctx_len=self.settings.ctx_len,
            kv=self.settings.kv,
            speculate=0,
            ort_library=NO_LIBRARY if self.without_library else None,
        )


def choose_contestants(
    models: Sequence[Path], engines: Sequence[str], settings: Settings, *, also_fallback: bool = False
) -> list[Contestant]:
    """Each model in each of the engines; without any, several models in their own, and a single one in all there are.

    also_fallback: ONNX Runtime a second time, without our operators, where the graph has any
    What cannot be run is among them, to be told in its row. Raises EngineError where there is one alone, or a fallback
    of none.
    """
    found: list[Contestant] = []
    for model in models:
        chosen = engines or (engines_for(model) if len(models) == 1 else [RUNS[kind_of(model)]])
        for engine in chosen:
            name = engine if len(models) == 1 else f"{model}, {engine}" if len(chosen) > 1 else str(model)
            found.append(Contestant(name=name, path=model, engine=engine, settings=settings))
            if also_fallback and engine == "onnx" and _needs_library(model):
                found.append(replace(found[-1], name=f"{name}, without library", without_library=True))
    if also_fallback and not any(one.without_library for one in found):
        is_stock = any(one.engine == "onnx" for one in found)
        why = "has operators of edgebit's to leave out" if is_stock else "is run by it"
        raise EngineError(f"--also-fallback is ONNX Runtime's, and none of these {why}. Leave it out")
    if len(found) < 2:
        raise EngineError(
            f"only the engine {found[0].engine} is asked of {models[0]}: there is nothing to compare it with. "
            f"Name a second MODEL, {_company(models[0], engines)}"
        )
    return _distinct(found)


def _company(model: Path, engines: Sequence[str]) -> str:
    """What else a model that is asked alone can be compared with."""
    if kind_of(model) == "exported":
        fallback = ", or run it without its library too: --also-fallback" if _needs_library(model) else ""
        return f"such as what it was made from ({source_of(model)}){fallback}"
    if engines:
        return "or a second --engine"
    return "or install an engine: pip install 'edgebit[onnx]' or 'edgebit[parity]'"


def engines_for(model: Path) -> list[str]:
    """All engines that are installed and can run a model, or what can be made of it."""
    if kind_of(model) == "exported":
        return ["onnx"]
    has_onnx = all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxruntime"))
    return ["native", *(["onnx"] if has_onnx else []), *(["transformers"] if has_transformers() else [])]


def is_run_as_it_is(model: Path, engine: str) -> bool:
    """Whether an engine takes a model; if not, making.make() makes of it what the engine takes.

    Raises EngineError where neither can be, saying what to use.
    """
    kind = kind_of(model)
    if kind == "exported" or (kind == "checkpoint" and engine == "transformers"):
        choose_engine(model, engine)
        return True
    if engine == "native":
        return kind == "model" and is_model_file(model)
    return False


def _needs_library(model: Path) -> bool:
    """Whether its graph has operators of ours, as all have that are made here; --stock exports have none."""
    try:
        return kind_of(model) != "exported" or OnnxFolder.open(model).own_operators > 0
    except OnnxError:  # to be told in its row
        return True


def _distinct(contestants: list[Contestant]) -> list[Contestant]:
    """With a number behind a name that stood before."""
    seen: dict[str, int] = {}
    out = []
    for contestant in contestants:
        count = seen[contestant.name] = seen.get(contestant.name, 0) + 1
        out.append(contestant if count == 1 else replace(contestant, name=f"{contestant.name} ({count})"))
    return out
