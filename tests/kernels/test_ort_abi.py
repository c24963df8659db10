"""Our declarations of ONNX Runtime's C interface against a header of its own, where a machine has one."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
ABI = (ROOT / "kernels" / "ort" / "ort_abi.h").read_text()
INCLUDES = [Path("/usr/include"), Path("/usr/local/include"), Path("/opt/onnxruntime/include")]
CONSTANTS = {
    "EB_ORT_FAIL": "ORT_FAIL",
    "EB_ORT_INVALID_ARGUMENT": "ORT_INVALID_ARGUMENT",
    "EB_ORT_NOT_IMPLEMENTED": "ORT_NOT_IMPLEMENTED",
    "EB_ORT_FLOAT": "ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT",
    "EB_ORT_UINT8": "ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8",
    "EB_ORT_FLOAT16": "ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16",
    "EB_ORT_BFLOAT16": "ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16",
    "EB_ORT_REQUIRED": "INPUT_OUTPUT_REQUIRED",
    "EB_ORT_OPTIONAL": "INPUT_OUTPUT_OPTIONAL",
    "EB_ORT_ATTRIBUTE_INT": "ORT_OP_ATTR_INT",
}


def real_header(skip: Callable[[str], NoReturn]) -> Path:
    """The onnxruntime_c_api.h that EDGEBIT_ORT_HEADER names, or one of the machine (Debian: libonnxruntime-dev)."""
    named = os.environ.get("EDGEBIT_ORT_HEADER")
    found = [Path(named)] if named else [p for folder in INCLUDES for p in folder.rglob("onnxruntime_c_api.h")]
    return found[0] if found else skip("this machine has no onnxruntime_c_api.h; EDGEBIT_ORT_HEADER names none")


def assertions() -> list[str]:
    """What C must find true of the real header, from the text of ours."""
    functions = re.findall(r"\bF\((\w+), (\d+),", ABI)
    members = re.findall(r"\(\*(\w+)\)\(", ABI[ABI.index("typedef struct OrtCustomOp {") :])
    base = re.findall(r"\(\*(\w+)\)\(", ABI[ABI.index("typedef struct OrtApiBase {") : ABI.index("EB_ORT_FUNCTIONS")])
    assert (len(functions), len(members), base) == (25, 25, ["GetApi", "GetVersionString"])
    told = [(f"offsetof(OrtApi, {name})", f"{place} * sizeof(void *)") for name, place in functions]
    # A header of an older release has fewer members; those before them must stand where ours do.
    told += [(f"offsetof(OrtCustomOp, {name})", f"{at + 1} * sizeof(void *)") for at, name in enumerate(members[:21])]
    told += [(f"offsetof(OrtApiBase, {name})", f"{at} * sizeof(void *)") for at, name in enumerate(base)]
    for ours, theirs in CONSTANTS.items():
        value = re.search(rf"\b{ours} = (\d+)", ABI)
        assert value, ours
        told.append((theirs, value[1]))
    return [f'_Static_assert({real} == {ours}, "{real} is not {ours}");' for real, ours in told]


def test_places_and_numbers_are_those_of_a_real_header(
    skip: Callable[[str], NoReturn], require_tool: Callable[[str], str], tmp_path: Path
):
    """Every function that the library calls, every member of an operator, every constant."""
    header = real_header(skip)
    program = tmp_path / "places.c"
    program.write_text(f'#include <stddef.h>\n#include "{header.name}"\n' + "\n".join(assertions()) + "\n")

    command = [require_tool("cc"), "-std=c11", "-fsyntax-only", "-I", str(header.parent), str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_the_comparison_can_fail(require_tool: Callable[[str], str], tmp_path: Path):
    """A header whose functions stand elsewhere is found out."""
    program = tmp_path / "places.c"
    program.write_text(
        "#include <stddef.h>\ntypedef struct { void *first, *CreateStatus; } OrtApi;\n"
        + next(line for line in assertions() if "CreateStatus" in line)
    )

    command = [require_tool("cc"), "-std=c11", "-fsyntax-only", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert "offsetof(OrtApi, CreateStatus) is not 0" in done.stderr
