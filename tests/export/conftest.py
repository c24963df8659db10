"""What the tests of exports share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgebit.convert import convert
from edgebit.export.to_onnx import OnnxForm, export_onnx


@pytest.fixture(scope="session")
def quick_model(
    reference_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Gives the model file of a reference checkpoint, without golden probes, made once a run."""
    folder = tmp_path_factory.mktemp("models")

    def model(name: str) -> Path:
        path = folder / f"{name}.ebm"
        if not path.exists():
            convert(reference_checkpoint(name), path, probes=False)
        return path

    return model


@pytest.fixture(scope="session")
def exported(
    reference_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Gives the folder of a reference checkpoint, with all logits, made once a run for each form."""
    parent = tmp_path_factory.mktemp("onnx")

    def folder(name: str, **form: object) -> Path:
        out = parent / "-".join([name, *(f"{key}={value}" for key, value in form.items())])
        if not out.exists():
            export_onnx(reference_checkpoint(name), out, form=OnnxForm(**{"logits": "all", **form}))
        return out

    return folder
