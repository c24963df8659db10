"""A llama-bench that computes nothing, and what misbehaves in it by name."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FAKE = Path(__file__).with_name("fake_llama_bench.py")


@pytest.fixture
def against(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Gives --against's text for a fake peer of that mode; `help` names whose --help it shows."""

    def text(mode: str = "sound", *, name: str = "fake", help: str = "llama.cpp") -> str:
        monkeypatch.setenv("FAKE_HELP", help)
        return f"{name}={shlex.join([sys.executable, str(FAKE), '-m', mode])}"

    return text
