"""What a checkpoint's tokenizer and chat template add to a model file: TOKN and PRMT, begin and stop tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgebit.bundle.model_format import Conf
from edgebit.checkpoint.chat_template.choice import HOW_TO_CHOOSE, added_tokens, read_choice
from edgebit.checkpoint.chat_template.compiler import compile_chat_template
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.tokenizer import SPECIAL, CheckpointTokenizer
from edgebit.checkpoint.tokenizer.prompt_tokens import TURN_ENDERS, distinct_stop_tokens
from edgebit.errors import TokenizerError


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSections:
    """What makes a model of token ids one of text."""

    conf: Conf  # with the tokenizer's own begin-of-text and stop tokens
    sections: dict[str, bytes]  # by tag
    chat_template: str | None  # the Jinja text that PRMT is compiled from
    named_tokens: Mapping[str, str] = field(default_factory=dict)  # as that text may name them
    notes: tuple[str, ...] = ()


def read_text_sections(checkpoint: Checkpoint, template: str | None = None) -> TextSections:
    """The sections of the checkpoint's own chat template or, with `template`, of the one chosen (read_choice).

    Without a tokenizer a model takes token ids only, so one that is there must fit. Raises TokenizerError where it does
    not, and where the template cannot be carried over exactly.
    """
    conf, tokenizer = checkpoint.config.conf, checkpoint.tokenizer()
    if tokenizer is None:
        if template is not None:
            raise TokenizerError(f"--template {template}: {checkpoint.path} has no tokenizer, so no text goes in")
        note = f"{checkpoint.path} has no tokenizer: the model takes token ids only, and a daemon cannot answer"
        return TextSections(conf=conf, sections={}, chat_template=None, notes=(note,))
    sections = {"TOKN": tokenizer.section(conf.vocab_size)}
    notes: list[str] = []
    stops = tokenizer.stop_tokens or conf.stop_tokens
    jinja = tokenizer.chat_template
    if template is not None:
        jinja = read_choice(template, tokenizer)
        stops = _with_turn_enders(stops, jinja or "", tokenizer)
        notes.append(_choice_note(template, jinja, tokenizer))
    elif jinja is None:
        notes.append(
            f"{checkpoint.path} has no chat template: prompts are plain text, and no chat is possible. {HOW_TO_CHOOSE}"
        )
    if jinja is not None:
        try:
            sections["PRMT"] = compile_chat_template(jinja, tokenizer).to_bytes()
        except TokenizerError as error:
            whose = checkpoint.path if template is None else f"--template {template}"
            raise TokenizerError(f"{whose}: {str(error).rstrip('.')}. {HOW_TO_CHOOSE}") from error
    return TextSections(
        conf=replace(conf, bos_token=-1 if tokenizer.bos_token is None else tokenizer.bos_token, stop_tokens=stops),
        sections=sections,
        chat_template=jinja,
        named_tokens=tokenizer.named_tokens,
        notes=tuple(notes),
    )


def _choice_note(template: str, jinja: str | None, tokenizer: CheckpointTokenizer) -> str:
    given = "the checkpoint's own is left out" if tokenizer.chat_template is not None else "the checkpoint has none"
    if jinja is None:
        return f"no chat template: prompts are plain text, and {given}"
    return f"chat template {template}, as asked for: {given}"


def _with_turn_enders(stops: tuple[int, ...], jinja: str, tokenizer: CheckpointTokenizer) -> tuple[int, ...]:
    """The stop tokens, and those that end a turn in a template which the tokenizer's files know nothing of."""
    added = added_tokens(tokenizer)
    enders = [added[name] for name in TURN_ENDERS if name in jinja and name in added]
    return distinct_stop_tokens([*stops, *(token for token in enders if tokenizer.flags[token] & SPECIAL)])
