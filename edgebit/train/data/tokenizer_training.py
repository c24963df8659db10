"""A tokenizer of one's own: byte-level BPE with Llama 3's pre-tokenizer, its merges learnt from the training data."""

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from edgebit.bundle.prompt_program import PromptProgram, Segment
from edgebit.checkpoint.chat_template.choice import BUILT_IN, needed_tokens, read_template
from edgebit.checkpoint.chat_template.compiler import compile_chat_template
from edgebit.checkpoint.tokenizer import PreTokenizer, read_tokenizer
from edgebit.checkpoint.tokenizer.byte_alphabet import BYTE_OF
from edgebit.checkpoint.tokenizer.pre_tokenizers import write_pre_tokenizer
from edgebit.checkpoint.tokenizer.prompt_tokens import TURN_ENDERS
from edgebit.errors import EngineError, TrainError
from edgebit.train.data.examples import Example, Text
from edgebit.train.data.tokenizer_files import BEGIN_OF_TEXT, END_OF_TEXT, vocabulary, write_trained
from edgebit.train.requirements import require_packages

TEMPLATE = "bitnet"  # the chat template, unless another is chosen: that of BitNet b1.58 2B4T
_N_BYTES = 256
_MOST = 4096  # tokens, where nothing is said
_MARK = re.compile(r"<\|[a-z0-9_]+\|>|<(?:start|end)_of_turn>")


def train_tokenizer(
    examples: Iterable[Example], folder: Path, *, vocab_size: int | None, template: str = TEMPLATE
) -> None:
    """Learn a tokenizer, and write its files into `folder`.

    vocab_size: its tokens, exactly; None: 4096, or as many as the examples give
    template: a built-in chat template's name, a file with Jinja, or "none"; the tokens that mark its turns are special
    ones, the last of the vocabulary. The same examples in the same order give the same files.
    Raises TrainError where the examples do not give so many tokens, or `tokenizers` is not installed.
    """
    require_packages(("tokenizers",))
    jinja = read_template(template)
    special = special_tokens(template, jinja)
    wanted = _MOST if vocab_size is None else vocab_size
    if wanted < _N_BYTES + len(special):
        raise TrainError(
            f"a vocabulary of {wanted} is too small: {_N_BYTES} bytes and {len(special)} special tokens go into it"
        )
    program = None if jinja is None else _program(jinja, special)
    merges = _learnt_merges(pieces(examples, program, special), wanted - len(special))
    made = len(vocabulary(merges)) + len(special)
    if vocab_size is not None and made != vocab_size:
        raise TrainError(
            f"the data give a vocabulary of {made} tokens, not {vocab_size}: more would never be met. "
            f"Give more data, or --vocab {made}"
        )
    write_trained(folder, merges, special, jinja)


def special_tokens(template: str, jinja: str | None) -> tuple[str, ...]:
    """Begin and end of text, and what marks turns; in a file's template, what looks like `<|...|>` there."""
    if template in BUILT_IN:
        marks: Sequence[str] = needed_tokens(template)
    else:
        marks = [*_MARK.findall(jinja or ""), *(mark for mark in TURN_ENDERS if mark in (jinja or ""))]
    return tuple(dict.fromkeys([BEGIN_OF_TEXT, END_OF_TEXT, *marks]))


def pieces(examples: Iterable[Example], program: PromptProgram | None, special: Sequence[str]) -> Iterator[str]:
    """The texts that merges are learnt from: as the engine sees them, cut where a special token stands."""
    cuts = re.compile("|".join(map(re.escape, special)))
    for example in examples:
        if isinstance(example, Text) or program is None:
            texts = [example.text] if isinstance(example, Text) else [message.content for message in example.messages]
            yield from texts
            continue
        try:
            segments = [*program.render(example.messages[:-1]), (example.messages[-1].content, False)]
        except EngineError:
            continue  # said where it is rendered to be learnt
        yield from _cut(segments, cuts)


def _cut(segments: Iterable[Segment], cuts: re.Pattern[str]) -> Iterator[str]:
    text = ""
    for part, is_template in segments:
        first, *others = cuts.split(part) if is_template else [part]
        text += first
        for other in others:
            if text:
                yield text
            text = other
    if text:
        yield text


def _program(jinja: str, special: Sequence[str]) -> PromptProgram:
    """Of the template with a tokenizer that has no merges yet."""
    with tempfile.TemporaryDirectory() as folder:
        write_trained(Path(folder), [], special, jinja)
        return compile_chat_template(jinja, read_tokenizer(Path(folder)))


def _learnt_merges(texts: Iterator[str], size: int) -> list[tuple[str, str]]:
    """At most as many merges as make a vocabulary of `size` tokens, in their order."""
    from tokenizers import Tokenizer, models, trainers

    untrained = json.loads(Tokenizer(models.BPE()).to_str())
    untrained["pre_tokenizer"] = write_pre_tokenizer(PreTokenizer.LLAMA3)
    tokenizer = Tokenizer.from_str(json.dumps(untrained))
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=list(BYTE_OF), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]
