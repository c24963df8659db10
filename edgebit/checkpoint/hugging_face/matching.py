"""Tells from config.json which family a checkpoint is of."""

from collections.abc import Mapping
from typing import Any

from edgebit.checkpoint.hugging_face.families import ARCHITECTURES, FAMILIES, REFUSED_CLASSES, Family, describe_form
from edgebit.errors import CheckpointError

# What transformers never quantises by itself; other modules must be ternary.
_KEPT = {"lm_head", "model.embed_tokens", "embed_tokens", "model.norm"}


def match_family(config: Mapping[str, Any], where: str) -> Family:
    """The family that config.json describes; `where` names that file.

    Raises CheckpointError saying what was found and what is known.
    """
    class_name, model_type = _model_class(config, where)
    linear_class, mode, use_rms_norm = _quantization(config.get("quantization_config"), where)
    evidence = class_name, model_type, linear_class, mode
    for family in FAMILIES:
        architecture, storage = family.architecture, family.storage
        if evidence == (architecture.class_name, architecture.model_type, storage.linear_class, storage.mode):
            for key, wanted in architecture.demands.items():
                if config.get(key) != wanted:
                    found = config.get(key)
                    raise CheckpointError(f"{where}: {key} is {found!r}; of {family.form}, {wanted!r} is known")
            return family.with_projection_norms() if use_rms_norm else family
    raise CheckpointError(f"{where}: unknown model: {describe_form(*evidence)}. {_known(class_name)}")


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


def _known(class_name: str) -> str:
    """What is known of this class, or which classes are known."""
    forms = [family.form for family in FAMILIES if family.architecture.class_name == class_name]
    if forms:
        return f"Known of it are: {'; '.join(forms)}"
    return f"Known are: {', '.join(architecture.class_name for architecture in ARCHITECTURES)}"
