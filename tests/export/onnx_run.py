"""An exported folder in ONNX Runtime, and the native engine beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model

onnxruntime = pytest.importorskip("onnxruntime")

PAST, PRESENT = "past_key_values", "present"


def open_session(folder: Path, library: Path | None = None, level: int = 99) -> Any:
    """level: of optimization, as GraphOptimizationLevel numbers it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(level)
    if library is not None:
        options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options)


class OnnxRun:
    """Sequences over a session that is asked for all logits."""

    def __init__(self, session: Any, batch: int = 1) -> None:
        self._session, self._mask = session, np.zeros((batch, 0), np.int64)
        self._outputs = [output.name for output in session.get_outputs()]
        self._cache = {
            value.name: np.zeros((batch, value.shape[1], 0, value.shape[3]), np.float32)
            for value in session.get_inputs()
            if value.name.startswith(PAST)
        }

    def step(self, tokens: Sequence[int] | np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Logits, [batch, tokens, vocabulary], of tokens that follow; mask: which of them are there."""
        ids = np.asarray(tokens, np.int64).reshape(len(self._mask), -1)
        self._mask = np.concatenate([self._mask, np.ones_like(ids) if mask is None else mask], axis=1)
        feed = {"input_ids": ids, "attention_mask": self._mask, **self._cache}
        found = dict(zip(self._outputs, self._session.run(None, feed), strict=True))
        self._cache = {name: found[PRESENT + name.removeprefix(PAST)] for name in self._cache}
        return found["logits"]


class NativeRun:
    """The engine with a KV cache of float32, as the graph has it."""

    def __init__(self, library: Library, path: Path, ctx_len: int = 120) -> None:
        self.model = Model.open(library, path)
        self._engine = Engine(self.model, ctx_len=ctx_len, logits_rows=ctx_len, kv="f32")

    def __enter__(self) -> "NativeRun":
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()
        self.model.close()

    def step(self, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
        """Logits, [tokens, vocabulary], of tokens that follow."""
        ids = [int(token) for token in tokens]
        self._engine.eval_batch(ids, [0] * len(ids), [True] * len(ids))
        return np.stack([np.array(self._engine.logits(row)) for row in range(len(ids))])

    def states(self, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
        """What the head reads, [tokens, hidden], of tokens that follow."""
        ids = [int(token) for token in tokens]
        rows = self._engine.eval_states(ids, [0] * len(ids), [True] * len(ids))
        return np.stack([np.array(row) for row in rows])

    def forget(self) -> None:
        """Begin a new sequence."""
        self._engine.truncate()
