"""README.md of a master that was made here: what it is and how it came to be; the rest is for its maker to say."""

from collections.abc import Sequence
from pathlib import Path

from edgebit import __version__
from edgebit.train.decoder import Decoder
from edgebit.train.trainer import Outcome, Settings


def model_card(
    name: str,
    data: Sequence[Path],
    decoder: Decoder,
    settings: Settings,
    outcome: Outcome,
    seed: int,
    *,
    origin: str = "",
) -> str:
    """The text, with the front matter that the hub reads; origin: a sentence on the model that it was begun with."""
    shape, schedule = decoder.shape, settings.schedule
    tags = '[bitnet, "1.58-bit"]' if decoder.ternary else "[bitnet]"
    count = sum(parameter.numel() for parameter in decoder.parameters())
    kind = "ternary weights, int8 activations" if decoder.ternary else "float weights and activations: a float twin"
    files = ", ".join(path.name for path in data)
    last = outcome.records[-1]
    measured = f"Loss of the last step {last.loss:.4f} nats a token."
    if outcome.held_out is not None:
        found = outcome.held_out
        measured += f" On {found.tokens:,} held-out tokens: loss {found.loss:.4f}, {found.accuracy:.1%} predicted."
    origin, others = (f"\n{origin}\n", " and that model") if origin else ("", "")
    return f"""---
library_name: transformers
tags: {tags}
---
# {name}
{count:,} parameters ({kind}): {shape.num_hidden_layers} layers of {shape.hidden_size}, feed-forward
{shape.intermediate_size}, {shape.num_attention_heads} heads, {shape.num_key_value_heads} key-value heads, vocabulary
{shape.vocab_size:,}, context {shape.max_position_embeddings}.

Trained by edgebit {__version__} on {files}: {schedule.steps:,} steps of {settings.batch_rows} rows, seed {seed},
learning rate {schedule.learning_rate:g}, {last.tokens:,} tokens learnt. {measured}
{origin}
Whom it is for, what its data{others} and their licences are, and where it fails: say it here.
"""
