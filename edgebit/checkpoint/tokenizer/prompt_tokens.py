"""The tokens around a prompt: what goes first, what ends an answer, and the names that a chat template has for them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgebit.bundle.model_format import MAX_STOP_TOKENS
from edgebit.checkpoint.tokenizer.json_object import read_json_object
from edgebit.errors import TokenizerError

TURN_ENDERS = ("<|eot_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "<end_of_turn>", "</s>")


def named_tokens(config: dict[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and the like of tokenizer_config.json, whose values are texts or objects with one."""
    named = {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"):
        value = config.get(key)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            named[key] = text
    return named


def bos_token(
    data: dict[str, Any],
    config: dict[str, Any],
    named: Mapping[str, str],
    ids: Mapping[str, int],
    template: str | None,
) -> int | None:
    """What the tokenizer puts first: its post-processor says so, or tokenizer_config.json, or the chat template."""
    processor = data.get("post_processor") or {}
    steps = processor.get("processors", [processor]) if processor else []
    for step in steps:
        if step.get("type") == "TemplateProcessing":
            single = [next(iter(part.items())) for part in step["single"]]
            kinds = [kind for kind, _ in single]
            if kinds not in (["Sequence"], ["SpecialToken", "Sequence"]):
                raise TokenizerError(f"post-processor puts {kinds} around a text: only one token before it can be")
            if kinds[0] == "SpecialToken":
                special = step["special_tokens"][single[0][1]["id"]]
                if len(special["ids"]) != 1:
                    raise TokenizerError(f"post-processor puts {len(special['ids'])} tokens before a text")
                return int(special["ids"][0])
        elif step.get("type") != "ByteLevel":
            raise TokenizerError(f"post-processor {step.get('type')} is not supported")
    bos = named.get("bos_token")
    if bos is None or bos not in ids:
        return None
    written = template is not None and ("bos_token" in template or bos in template)
    return ids[bos] if config.get("add_bos_token") or written else None


def stop_tokens(
    folder: Path,
    named: Mapping[str, str],
    ids: Mapping[str, int],
    entries: Sequence[dict[str, Any]],
    template: str | None,
) -> tuple[int, ...]:
    """Every token after which an answer is over: what each configuration file names, and what ends a turn."""
    stops: list[int] = []
    for name in ("generation_config.json", "config.json"):
        eos = (read_json_object(folder / name) or {}).get("eos_token_id")
        stops += eos if isinstance(eos, list) else [] if eos is None else [eos]
    if named.get("eos_token") in ids:
        stops.append(ids[named["eos_token"]])
    special = {entry["content"] for entry in entries if entry.get("special")}
    stops += [ids[name] for name in TURN_ENDERS if name in special and name in (template or "")]
    return distinct_stop_tokens(stops)


def distinct_stop_tokens(stops: Iterable[int]) -> tuple[int, ...]:
    """Each of them once, in order. Raises TokenizerError where a model file has no room for all."""
    distinct = tuple(dict.fromkeys(map(int, stops)))
    if len(distinct) > MAX_STOP_TOKENS:
        raise TokenizerError(
            f"{len(distinct)} stop tokens ({', '.join(map(str, distinct))}): a model file has room for "
            f"{MAX_STOP_TOKENS}. Name fewer in the checkpoint's eos_token_id"
        )
    return distinct
