"""Tells from config.json which family a checkpoint is of."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgebit.checkpoint.hugging_face.families import FAMILIES, FLOAT_FAMILIES, REFUSED_CLASSES, Family, describe_form
from edgebit.errors import CheckpointError

WAYS_TO_TERNARY = (
    "`edgebit distill` trains an ordinary model towards ternary; `edgebit convert --from-float` rounds it as it is, "
    "which loses most of its quality"
)
# What transformers never quantises by itself; other modules must be ternary.
_KEPT = {"lm_head", "model.embed_tokens", "embed_tokens", "model.norm"}


def match_family(config: Mapping[str, Any], where: str, families: Sequence[Family] = FAMILIES) -> Family:
    """The one of the families that config.json describes; `where` names that file.

    Raises CheckpointError saying what was found and what is known.
    """
    class_name, model_type = _model_class(config, where)
    linear_class, mode, use_rms_norm = _quantization(config.get("quantization_config"), where)
    evidence = class_name, model_type, linear_class, mode
    for family in families:
        architecture, storage = family.architecture, family.storage
        if evidence == (architecture.class_name, architecture.model_type, storage.linear_class, storage.mode):
            for key, wanted in architecture.demands.items():
                found = {**architecture.defaults, **config}.get(key)
                if found != wanted:
                    raise CheckpointError(f"{where}: {key} is {found!r}; of {family.form}, {wanted!r} is known")
            return family.with_projection_norms() if use_rms_norm else family
    raise CheckpointError(
        f"{where}: unknown model: {describe_form(*evidence)}. {_known(class_name, linear_class, families)}"
    )


def _model_class(config: Mapping[str, Any], where: str) -> tuple[str, str]:
    classes, model_type = config.get("architectures"), config.get("model_type")
    class_name = classes[0] if isinstance(classes, list) and len(classes) == 1 else None
    if not isinstance(class_name, str) or not isinstance(model_type, str):
        raise CheckpointError(
            f"{where}: one name in architectures and a model_type are needed; found {classes!r}, {model_type!r}"
        )
    if class_name in REFUSED_CLASSES:
        raise CheckpointError(f"{where}: {class_name}: {REFUSED_CLASSES[class_name]}")
    return class_name, model_type


def _quantization(quantization: Any, where: str) -> tuple[str | None, str | None, bool]:
    """linear_class, quantization_mode and use_rms_norm, with transformers' defaults; no class: nothing is said."""
    if quantization is None:
        return None, None, False
    if not isinstance(quantization, dict) or quantization.get("quant_method") != "bitnet":
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise CheckpointError(f"{where}: quantization_config.quant_method is {method!r}; known is 'bitnet'")
    kept = quantization.get("modules_to_not_convert") or []
    if not isinstance(kept, list) or not all(isinstance(module, str) and module in _KEPT for module in kept):
        raise CheckpointError(
            f"{where}: modules_to_not_convert is {kept!r}; only lm_head may be: all projections must be ternary"
        )
    use_rms_norm = quantization.get("use_rms_norm", False)
    if not isinstance(use_rms_norm, bool):
        raise CheckpointError(f"{where}: use_rms_norm is {use_rms_norm!r}; true or false is needed")
    linear_class = str(quantization.get("linear_class", "bitlinear"))
    return linear_class, str(quantization.get("quantization_mode", "offline")), use_rms_norm


def _known(class_name: str, linear_class: str | None, families: Sequence[Family]) -> str:
    """What is known of this class, or which classes are known."""
    forms = [family.form for family in families if family.architecture.class_name == class_name]
    known = f"Known of it are: {'; '.join(forms)}" if forms else ""
    if linear_class is None and any(family.architecture.class_name == class_name for family in FLOAT_FAMILIES):
        return f"{known or 'It is no ternary model'}. {WAYS_TO_TERNARY}"
    return known or f"Known are: {', '.join(dict.fromkeys(family.architecture.class_name for family in families))}"
