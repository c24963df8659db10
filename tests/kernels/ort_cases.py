"""Graphs of one operator with their inputs and what numpy says of them, as files that any ONNX Runtime can be given.

The arithmetic follows docs/onnx.md, "The operators": nothing of edgebit's export is used here. Run as a program, with
the library, a folder of cases and a number of threads, it plays them in the onnxruntime that Python finds and prints a
JSON object: {"version", "kernels": how many were made, "wrong": the names of cases with another result}.
"""

import ctypes
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LEVELS = {8: (127, 128, 1e-5), 15: (16256, 16256, 1e-20)}  # highest code, lowest, least absmax


def quantised(x: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers of x float32 [tokens, columns], and each token's scale [tokens, 1]: absmax, halves to even."""
    most, lowest, least = LEVELS[bits]
    absmax = np.maximum(np.fmax.reduce(np.abs(x), axis=-1, keepdims=True, initial=0), np.float32(least))
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = x * (np.float32(most) / absmax)
        codes = np.where(np.isnan(scaled), -lowest, np.clip(np.rint(scaled), -lowest, most))
        return codes.astype(np.int64), absmax / np.float32(most)


def ternary_product(x: np.ndarray, weights: np.ndarray, scales: np.ndarray, groups: int, bits: int) -> np.ndarray:
    """Y float32 [tokens, rows] of TernaryMatMul; weights int8 [rows, columns]."""
    codes, x_scale = quantised(x, bits)
    with np.errstate(invalid="ignore", over="ignore"):
        parts = [
            (part @ of.T.astype(np.int64)).astype(np.float32) * (x_scale * (scales[g] if groups > 1 else scales))
            for g, (part, of) in enumerate(zip(np.split(codes, groups, 1), np.split(weights, groups, 1), strict=True))
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
    return total


def int8_product(x: np.ndarray, weights: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Y float32 [tokens, rows] of Int8MatMul; weights int8 [rows, columns]."""
    codes, x_scale = quantised(x, 15)
    with np.errstate(invalid="ignore", over="ignore"):
        return (codes @ weights.T.astype(np.int64)).astype(np.float32) * (scales * x_scale)


def packed_n2(weights: np.ndarray, groups: int) -> np.ndarray:
    """Ternary weights int8 [rows, columns] in layout n2: uint8 [groups, tiles, chunks, 4, 16]."""
    rows, columns = weights.shape
    tiles, chunks = -(-rows // 4), -(-columns // groups // 64)
    codes = np.full((groups, tiles * 4, chunks * 64), 2, np.uint8)
    codes[:, :rows, : columns // groups] = weights.reshape(rows, groups, -1).swapaxes(0, 1) + 2
    by_byte = codes.reshape(groups, tiles, 4, chunks, 16, 4) << np.arange(0, 8, 2, np.uint8)
    return np.ascontiguousarray(by_byte.sum(-1, dtype=np.uint8).swapaxes(2, 3))


def packed_rows(weights: np.ndarray) -> np.ndarray:
    """Int8 weights [rows, columns] as Int8MatMul takes them: uint8 [rows, columns up to a multiple of 16]."""
    rows, columns = weights.shape
    codes = np.full((rows, -(-columns // 16) * 16), 128, np.uint8)
    codes[:, :columns] = weights.astype(np.int16) + 128
    return codes


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operator, its weights and its input."""

    name: str
    op: str  # TernaryMatMul or Int8MatMul
    weights: np.ndarray
    scales: np.ndarray
    x: np.ndarray  # float32 [..., columns]
    groups: int = 1
    bits: int = 8
    dtype: str = "float32"  # of X and Y: float32, float16 or bfloat16
    block_size: int = 0  # not 0: block_scales are given

    def wanted(self) -> np.ndarray:
        """Y as float32, after its own type."""
        import ml_dtypes  # noqa: F401 - gives numpy the type bfloat16

        flat = self.x.reshape(-1, self.x.shape[-1]).astype(self.dtype).astype(np.float32)
        if self.op == "Int8MatMul":
            y = int8_product(flat, self.weights, self.scales)
        else:
            y = ternary_product(flat, self.weights, self.scales, self.groups, self.bits)
        with np.errstate(over="ignore"):
            return y.astype(self.dtype).astype(np.float32).reshape(*self.x.shape[:-1], len(self.weights))

    def model(self) -> bytes:
        """The graph: X float32, a cast to the operator's type and back, Y float32."""
        from onnx import TensorProto, helper, numpy_helper

        rows, columns = self.weights.shape
        kind = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
        attributes = {"K": columns, "N": rows} | ({"activation_bits": self.bits} if self.op == "TernaryMatMul" else {})
        packed = packed_n2(self.weights, self.groups) if self.op == "TernaryMatMul" else packed_rows(self.weights)
        tensors = {"B": packed, "S": self.scales}
        if self.block_size:
            attributes["block_size"] = self.block_size
            tensors["block_scales"] = np.ones((rows, columns // self.block_size), np.float32)
        op = helper.make_node(self.op, ["x", *tensors], ["y"], self.name, domain="ai.edgebit", **attributes)
        nodes = [
            helper.make_node("Cast", ["X"], ["x"], to=kind[self.dtype]),
            op,
            helper.make_node("Cast", ["y"], ["Y"], to=TensorProto.FLOAT),
        ]
        graph = helper.make_graph(
            nodes, "case",
            [helper.make_tensor_value_info("X", TensorProto.FLOAT, None)],
            [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(values, name) for name, values in tensors.items()],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.edgebit", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()

    def write(self, folder: Path) -> None:
        """NAME.onnx and NAME.npz."""
        (folder / f"{self.name}.onnx").write_bytes(self.model())
        np.savez(folder / f"{self.name}.npz", X=self.x, Y=self.wanted())


def all_cases() -> list[Case]:
    """Shapes that fill neither tiles nor chunks, ranks, groups, both widths, all types, extremes, what is no number."""
    rng = np.random.default_rng(7)

    def ternary(name: str, rows: int, columns: int, *tokens: int, groups: int = 1, **more: object) -> Case:
        one = rows % 2 == 0 and groups == 1
        scales = rng.random((groups, rows) if groups > 1 else 1 if one else rows, np.float32) + np.float32(0.01)
        weights = rng.integers(-1, 2, (rows, columns), np.int8)
        x = rng.standard_normal((*tokens, columns)).astype(np.float32)
        case = {"weights": weights, "scales": scales, "x": x, "groups": groups}
        return Case(name=name, op="TernaryMatMul", **(case | more))  # type: ignore[arg-type]

    def head(name: str, rows: int, columns: int, *tokens: int, **more: object) -> Case:
        weights = rng.integers(-128, 128, (rows, columns)).astype(np.int8)
        x = rng.standard_normal((*tokens, columns)).astype(np.float32)
        case = {"weights": weights, "scales": rng.random(rows, np.float32), "x": x}
        return Case(name=name, op="Int8MatMul", **(case | more))  # type: ignore[arg-type]

    odd = rng.standard_normal((3, 130)).astype(np.float32)
    odd[0, 5], odd[1, 7], odd[2, 0] = np.nan, np.inf, -np.inf
    full = np.ones((37, 200), np.int8)
    return [
        *(ternary(f"t{m}", 37, 130, m) for m in (1, 2, 3, 4, 5, 8, 9, 40, 200)),
        ternary("one", 1, 1, 1),
        ternary("wide", 2000, 1280, 1),
        ternary("wide_many", 500, 640, 70, bits=15),
        ternary("vector", 6, 64),
        ternary("empty", 6, 64, 2, 0),
        ternary("rank5", 6, 64, 1, 2, 1, 3),
        ternary("groups", 33, 300, 3, groups=3),
        ternary("groups_i15", 130, 256, 12, groups=2, bits=15),
        ternary("i15", 7, 63, 5, bits=15),
        ternary("f16", 21, 130, 2, 5, dtype="float16"),
        ternary("f16_many", 21, 130, 33, dtype="float16", groups=2),
        ternary("f16_overflow", 21, 130, 2, dtype="float16", scales=np.full(1, 1e5, np.float32)),
        ternary("bf16", 21, 130, 7, dtype="bfloat16"),
        ternary("bf16_i15", 21, 130, 1, dtype="bfloat16", bits=15),
        ternary("no_numbers", 9, 130, x=odd),
        ternary("no_numbers_i15", 9, 130, x=odd, bits=15),
        ternary("highest", 37, 200, weights=full, x=np.full((2, 200), 3.7, np.float32)),
        ternary("lowest", 37, 200, weights=-full, x=np.full((9, 200), 3.7, np.float32)),
        ternary("zeros", 8, 64, x=np.zeros((2, 64), np.float32)),
        ternary("block_scales", 8, 64, 3, block_size=32),
        head("head", 300, 200, 1),
        head("head_some", 37, 63, 2, 3),
        head("head_wide", 1500, 320, 1),
        head("head_f16", 20, 48, 3, dtype="float16"),
        head("head_bf16", 20, 48, 1, dtype="bfloat16"),
        head("head_no_numbers", 9, 130, x=odd),
        head("head_extremes", 5, 48, weights=np.full((5, 48), -128, np.int8), x=np.full((1, 48), -2, np.float32)),
    ]


def play(library: Path, folder: Path, threads: int) -> dict[str, object]:
    """Runs the folder's cases, each in a session of its own; the results that are not NaN must be equal bit for bit."""
    import onnxruntime

    wrong = []
    for path in sorted(folder.glob("*.onnx")):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.register_custom_ops_library(str(library))
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        case = np.load(path.with_suffix(".npz"))
        (y,) = session.run(None, {"X": case["X"]})
        if y.shape != case["Y"].shape or not np.array_equal(y, case["Y"], equal_nan=True):
            wrong.append(path.stem)
    count = ctypes.CDLL(str(library)).edgebit_ort_kernels
    count.restype = ctypes.c_uint64
    return {"version": onnxruntime.__version__, "kernels": count(), "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(play(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
