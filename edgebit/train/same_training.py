"""What a training must have in common with the one it goes on from, in the words of the options that decide it."""

from collections.abc import Mapping
from typing import Any

from edgebit.errors import TrainError

SIZE_OPTIONS = {
    "hidden_size": "--hidden-size", "num_hidden_layers": "--layers", "num_attention_heads": "--heads",
    "num_key_value_heads": "--kv-heads", "intermediate_size": "--ffn-size", "max_position_embeddings": "--context",
}  # fmt: skip
_MODELS = {"from": "--from", "base": "--from", "teacher": "TEACHER"}  # facts that are SHA-256 of a model's weights
_DATA = "DATA, --eval, --replay, --format and all else that says which data are learnt"
# Facts that others follow from: of the rows' length the documents, of these with --epochs the steps.
_FIRST = ("rank", *_MODELS, "ternary", "row_length", "data")
_SAVED_LATER = {"bf16_products": False}  # as trainings were whose states have no such fact
# Facts of a training by the options that users give, in the order in which they are compared.
OPTIONS = {
    "rank": "--lora", **_MODELS, "ternary": "--float", "row_length": "--row-length", "batch_rows": "--batch-tokens",
    "accumulate": "--accumulate", "steps": "--steps", "learning_rate": "--learning-rate",
    "weight_decay": "--weight-decay", "warmup": "--warmup", "seed": "--seed", "device": "--device",
    "bf16_products": "--bf16", **SIZE_OPTIONS, "vocab_size": "--vocab", "form": "--student",
    "temperature": "--temperature", "share": "--teacher-share", "alpha": "--lora-alpha",
    "dropout": "--lora-dropout", "targets": "--lora-targets", "rslora": "--lora-rslora",
}  # fmt: skip


def check_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise TrainError where what a training was begun with differs from what it is to go on with, saying the first."""
    before = {**_SAVED_LATER, **before}
    for name in dict.fromkeys([*_FIRST, *OPTIONS, *before, *now]):
        if before.get(name) != now.get(name):
            raise TrainError(
                f"{_difference(name, before, now)}: it would not be the same training. Give what it was begun with, or "
                "another --out to begin anew"
            )


def _difference(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if name == "data":
        return f"the data are not those that the training was begun with ({_DATA})"
    if name in _MODELS and before.get(name) and now.get(name):
        return f"the model of {_MODELS[name]} has other weights than the one that the training was begun with"
    option = OPTIONS.get(name, name)
    then, today = (_given(option, _value(name, facts)) for facts in (before, now))
    return f"the training was begun {then}, and now it is {today}"


def _value(name: str, facts: Mapping[str, Any]) -> Any:
    """As the option takes it."""
    if name == "batch_rows":
        return facts[name] * facts.get("row_length", 1)
    if name == "ternary":
        return not facts.get(name, True)
    return bool(facts.get(name)) if name in _MODELS else facts.get(name)


def _given(option: str, value: Any) -> str:
    if value is None or value is False:
        return f"without {option}"
    return f"with {option}" if value is True else f"with {option} {value}"
