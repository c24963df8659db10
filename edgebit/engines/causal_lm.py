"""Loads a checkpoint with Hugging Face transformers, as it is, to compute in float32 without compiling anything.

What transformers needs for ternary models (versions 5.23 and 5.24) is all here.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgebit.checkpoint.hugging_face.json_file import read_json
from edgebit.errors import CheckpointError, EdgebitError

# 1bitLLM's own modelling file is not run: its mathematics is BitNetForCausalLM's, quantised online, with other names.
_LEGACY_ARCHITECTURE = "BitnetForCausalLM"
_LEGACY_NAMES = {"inner_attn_ln": "attn_sub_norm", "ffn_layernorm": "ffn_sub_norm"}
_LEGACY_KEYS = ("model_type", "architectures", "weight_bits", "input_bits", "torch_dtype", "dtype", "auto_map")
_ONLINE = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}


def import_transformers() -> tuple[Any, Any]:
    """The modules torch and transformers. Raises EdgebitError where they are not installed, with what installs them."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise EdgebitError(
            "transformers, the reference implementation, is not installed. Install it: pip install 'edgebit[parity]'"
        ) from error
    return torch, transformers


def load_causal_lm(torch: Any, transformers: Any, folder: Path) -> Any:
    """The model in `folder`, its weights in the checkpoint's own type; ternary products are computed in float32.

    Raises CheckpointError where transformers cannot load it, saying why.
    """
    with torch.compiler.set_stance("force_eager"):  # nothing is compiled, which would need a C++ compiler
        model = _load(transformers, folder)
    for module in model.modules():
        if type(module).__name__ == "BitLinear":
            module.dtype = torch.float32  # what it computes in; it kept the file's
    return model


def _load(transformers: Any, folder: Path) -> Any:
    config = read_json(folder / "config.json")
    architectures = config.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    options: dict[str, Any] = {
        "dtype": "auto", "attn_implementation": "eager", "local_files_only": True, "output_loading_info": True,
    }  # fmt: skip
    if name == _LEGACY_ARCHITECTURE:
        loader = transformers.BitNetForCausalLM
        kept = {key: value for key, value in config.items() if key not in _LEGACY_KEYS}
        options["config"] = transformers.BitNetConfig(**kept)
        options["config"].quantization_config = _ONLINE
        options["key_mapping"] = _LEGACY_NAMES
    elif isinstance(name, str) and name.endswith("ForCausalLM") and hasattr(transformers, name):
        loader = getattr(transformers, name)
    else:
        raise CheckpointError(
            f"{folder}: transformers {transformers.__version__} has no class {name!r}, so it cannot be the reference "
            "of this model (modelling files beside a checkpoint are never run)"
        )
    with _quiet(transformers):
        try:
            model, info = loader.from_pretrained(folder, **options)
        except Exception as error:  # safetensors' and tokenizers' own are of no narrower class
            said = " ".join(str(error).split())[:400]
            raise CheckpointError(
                f"{folder}: transformers {transformers.__version__} cannot load it: {said}"
            ) from error
    lost = sorted({str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[kind]})
    if lost:
        raise CheckpointError(f"{folder}: transformers' {name} does not take it as it is: {', '.join(lost[:5])}")
    return model.eval()


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the warnings and bars that transformers prints while it loads."""
    logging = transformers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
