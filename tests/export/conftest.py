"""What the tests of exports share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgebit.convert import convert


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
