"""Fixtures of the ONNX variant: the library of operators, folders made by hand and exported ones, whole or damaged."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from edgebit.errors import OnnxError
from edgebit.resources import ort_library as built_ort_library
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model


@pytest.fixture(scope="session")
def ort_library(native: Library, skip: Callable[[str], NoReturn]) -> Path:
    """libedgebit_ort of this machine; it is built with the engine."""
    try:
        return built_ort_library()
    except OnnxError as error:
        skip(str(error))


@pytest.fixture(scope="session")
def hand_made(native: Library, reference_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Gives a new folder of onnx_folders.write_folder() at each call, with the tokenizer of a reference model."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    import onnx_folders

    with Model.open(native, reference_model("bitnet-packed")) as model:
        vocab_size, tokenizer, program = model.info.vocab_size, model.section("TOKN"), model.section("PRMT")

    def make(**form: Any) -> Path:
        folder = tmp_path_factory.mktemp("by-hand") / "folder"
        whole = {"vocab_size": vocab_size, "tokenizer": tokenizer, "program": program}
        return onnx_folders.write_folder(folder, **(whole | form))

    return make


@pytest.fixture(scope="session")
def exported(native: Library, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives the folder exported from a model, made once a run for each form; without the library. Not to be changed."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    from edgebit.export.to_onnx import OnnxForm, export_onnx

    folders: dict[Any, Path] = {}

    def export(model: Path, **form: Any) -> Path:
        key = (model, *sorted(form.items()))
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("exported") / model.stem
            export_onnx(model, folders[key], form=OnnxForm(**form))
        return folders[key]

    return export


@pytest.fixture
def damaged(hand_made: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Gives a copy of a folder made by hand whose bytes a function has changed: name of the file, old bytes -> new."""
    whole: dict[Any, Path] = {}

    def damage(name: str, change: Callable[[bytes], bytes | None], **form: Any) -> Path:
        key = tuple(sorted(form.items()))
        whole.setdefault(key, hand_made(**form))
        folder = tmp_path / f"damaged{len(list(tmp_path.iterdir()))}"
        shutil.copytree(whole[key], folder)
        content = change((folder / name).read_bytes())
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        return folder

    return damage
