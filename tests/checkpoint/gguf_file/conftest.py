"""The small model that the tests of GGUF files share."""

from typing import Any

import pytest

from tests.checkpoint.gguf_file.tiny_model import Tiny


@pytest.fixture
def tiny(tmp_path):
    def make(form: str, **options: Any) -> Tiny:
        return Tiny(form, tmp_path / "hf", **options)

    return make
