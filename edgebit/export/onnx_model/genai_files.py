"""What onnxruntime-genai reads beside graph and weights: its configuration, and a tokenizer in a form that it loads."""

from pathlib import Path

from edgebit.bundle.model_format import Conf
from edgebit.bundle.prompt_program import PromptProgram
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.errors import TokenizerError
from edgebit.export.onnx_model.genai_config import genai_config
from edgebit.export.onnx_model.genai_tokenizer import fit_tokenizer_config
from edgebit.export.tokenizer_files import write_json

GENAI_CONFIG = "genai_config.json"


def write_genai_files(
    folder: Path,
    checkpoint: Checkpoint,
    conf: Conf,
    prompt: bytes | None,
    *,
    model: str,
    library: str | None,
    shares_cache: bool,
) -> list[str]:
    """Write genai_config.json into `folder` and fit the tokenizer_config.json that lies there; notes for the user.

    prompt: section PRMT; None: the model has no chat template that edgebit knows. The rest as genai_config() has it.
    """
    config = genai_config(conf, checkpoint.config.generation, model=model, library=library, shares_cache=shares_cache)
    write_json(folder / GENAI_CONFIG, config)
    try:
        tokenizer = checkpoint.tokenizer()
    except TokenizerError:  # the folder has the checkpoint's own files, as they are
        return []
    if tokenizer is None:
        return []
    program = None if prompt is None else PromptProgram.from_bytes(prompt)
    return fit_tokenizer_config(folder, tokenizer, program)
