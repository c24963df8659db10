"""Documents beside transformers' own: ids of apply_chat_template, and the mask of what assistants said."""

import random
from pathlib import Path

import pytest

from edgebit.bundle.prompt_program import Message
from edgebit.train.data.examples import Conversation
from edgebit.train.data.rendering import Encoder
from edgebit.train.data.tokenizer_training import train_tokenizer
from edgebit.train.rows import IGNORED

pytestmark = pytest.mark.reference
transformers = pytest.importorskip("transformers")

# ChatML with the marks that transformers reads a mask from.
TEMPLATE = """{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\n' -}}
{%- if message.role == 'assistant' -%}
{%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}
{%- else -%}{{- message.content + '<|im_end|>' -}}{%- endif -%}
{{- '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"""
WORDS = ("turn", "the", "bedroom lamp", "percent,", "please.", "Is", "it?", "Grüße", "🙂", "1234", "don't", "\n")


def test_ids_and_mask_are_those_of_transformers(native, tmp_path):
    """On 200 conversations; the line after the last turn is none of ours."""
    rng = random.Random(5)
    (tmp_path / "marked.jinja").write_text(TEMPLATE)
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    said = [
        [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(2 * rng.randint(1, 3))] for _ in range(200)
    ]
    examples = [Conversation(tuple(conversation(contents))) for contents in said]
    train_tokenizer(examples, folder, vocab_size=300, template=str(tmp_path / "marked.jinja"))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)

    with Encoder(folder) as encoder:
        for example in examples:
            (document,) = encoder.documents(example)
            messages = [{"role": message.role, "content": message.content} for message in example.messages]
            wanted = theirs.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
            begin = [theirs.bos_token_id]
            ids, mask = begin + wanted["input_ids"], [0, *wanted["assistant_masks"]]
            assert ids[: len(document.ids)] == list(document.ids), messages
            assert mask[: len(document.ids)] == [int(label != IGNORED) for label in document.labels], messages
            assert theirs.decode(ids[len(document.ids) :]) == "\n"


def conversation(contents: list[str]) -> list[Message]:
    return [Message(("user", "assistant")[place % 2], content or "x") for place, content in enumerate(contents)]


def test_transformers_loads_a_tokenizer_that_was_learnt(learnt):
    """With the same names for the tokens that begin and end."""
    for template in ("bitnet", "chatml", "alpaca"):
        theirs = transformers.AutoTokenizer.from_pretrained(Path(learnt(template)))

        assert (theirs.bos_token, theirs.eos_token) == ("<|begin_of_text|>", "<|end_of_text|>")
        assert len(theirs) == 512 and theirs.encode("the light")[0] == theirs.bos_token_id
