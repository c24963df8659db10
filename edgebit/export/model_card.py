"""README.md of an exported folder: the licence, what the model is, where it came from."""

from collections.abc import Iterable
from typing import Literal

from edgebit import __version__
from edgebit.checkpoint.checkpoint import Checkpoint


def model_card(
    checkpoint: Checkpoint, library: Literal["transformers", "onnx"], usage: str = "", lossy: Iterable[str] = ()
) -> str:
    """The text, with the front matter that the hub reads the licence from.

    library: what runs the folder; usage: a paragraph on how; lossy: what is not as in the source, each a sentence
    """
    config = checkpoint.config
    licence = f"license: {config.licence}\n" if config.licence else ""
    lost = "".join(f"{each[0].upper()}{each[1:]}.\n" for each in lossy)
    files = ", ".join(path.name for path in checkpoint.weight_files())
    return f"""---
{licence}library_name: {library}
tags: [bitnet, "1.58-bit"]
---
# {config.name}
Written by edgebit {__version__} from {files} ({checkpoint.format}, family {checkpoint.family}).
Ternary codes and their scales are those of the source.
{lost}{config.conf.parameters:,} parameters; context {config.conf.context_max} tokens.
{usage}
{_licence_text(config.licence)}
"""


def _licence_text(licence: str | None) -> str:
    if licence is None:
        return "The source says nothing of a licence: ask its makers before you pass it on."
    return f"Licence of the source: {licence}. Its terms go with these weights."
