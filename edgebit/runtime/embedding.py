"""Embeddings of texts, as Qwen3-Embedding and its like give them: the last token's final hidden state, of length 1."""

import math
from collections.abc import Sequence

from edgebit.runtime.engine import Engine


def embed(engine: Engine, tokens: Sequence[int]) -> list[float]:
    """The embedding of a text, hidden_size floats; sequence 0 of the engine is emptied for it and left with the text.

    `tokens`: the text with the end token that the model was trained to be read at. Raises ContextFullError where the
    context is shorter than it, and EngineError where there are none.
    """
    engine.truncate()
    state = list(engine.eval_states(tokens, [0] * len(tokens))[0])
    length = math.sqrt(math.fsum(value * value for value in state))
    return [value / length for value in state] if length > 0 else state
