"""The part of an exported folder's README.md that says what runs it."""

from collections.abc import Collection
from typing import Literal

from edgebit.export.onnx_model.fallback import WITHOUT_LIBRARY, Fallback
from edgebit.export.onnx_model.genai_files import GENAI_CONFIG
from edgebit.export.onnx_model.text_files import FILES
from edgebit.onnx_engine.folder import LIBRARY_NAME

_OLDEST = {"contrib": "1.19.2", "standard": "1.24"}
_TWO_BITS = "1.24"  # the first release whose MatMulNBits takes weights of 2 bits


def how_to_run(ops: Literal["contrib", "standard"], fallback: Fallback, *, stock: bool, files: Collection[str]) -> str:
    """Markdown; files: the names of what is in the folder."""
    register = f'options.register_custom_ops_library("./{LIBRARY_NAME}")\n' if LIBRARY_NAME in files else ""
    genai = "\nonnxruntime-genai reads the folder as it is.\n" if GENAI_CONFIG in files else ""
    edgebit = '\nedgebit too answers with it: `edgebit run FOLDER "..."`.\n' if FILES["TOKN"] in files else ""
    return f"""
## How to run it
{_needs(ops, fallback, stock=stock, files=files)}

```python
import onnxruntime

options = onnxruntime.SessionOptions()
{register}session = onnxruntime.InferenceSession("model.onnx", options)
```
Inputs are `input_ids` and `attention_mask`, int64 [batch, tokens], the mask with those of all steps before, and of each
layer N `past_key_values.N.key` and `.value`, float [batch, heads, tokens before, size]. Outputs are `logits`, and
`present.N.key` and `.value`, which are the next step's past.
{genai}{edgebit}"""


def _needs(ops: Literal["contrib", "standard"], fallback: Fallback, *, stock: bool, files: Collection[str]) -> str:
    if stock:
        return f"ONNX Runtime {_TWO_BITS} or later (fast from 1.28 on), and nothing else."
    start = f"ONNX Runtime {_OLDEST[ops]} or later, with edgebit's operators: `{LIBRARY_NAME}`, "
    where = (
        "for the kind of machine that this was exported for" if LIBRARY_NAME in files else "which is not in this folder"
    )
    oldest = f"; that takes ONNX Runtime {_TWO_BITS}" if fallback == "compact" else ""
    return f"{start}{where}; {WITHOUT_LIBRARY[fallback]}{oldest}."
