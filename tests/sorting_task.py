"""A small task that a tiny decoder learns in seconds: say some tokens again in order."""

import random

from edgebit.train.rows import IGNORED, Document
from edgebit.train.shape import ModelShape

BEGIN, ANSWER, END = 24, 25, 26
SHAPE = ModelShape(
    vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip


def sorting_documents(count: int, seed: int = 1) -> list[Document]:
    """Documents of 7 to 13 tokens, of which the sorted ones and the end are learnt."""
    generator = random.Random(seed)
    return [sorting_document(generator.sample(range(24), generator.randint(2, 5))) for _ in range(count)]


def sorting_document(tokens: list[int]) -> Document:
    prompt, answer = [BEGIN, *tokens, ANSWER], [*sorted(tokens), END]
    return Document([*prompt, *answer], [IGNORED] * len(prompt) + answer)
