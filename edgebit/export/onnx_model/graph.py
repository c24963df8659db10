"""A graph in the making: nodes with names, constants, and initializers that lie in external data.

The only module that speaks to the package `onnx`, which is an extra. No weight is ever held here: an initializer is the
place of its bytes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebit.errors import OnnxError
from edgebit.export.onnx_model.external_data import ExternalData

Dims = Sequence[int | str]  # a name stands for a size that each run has for itself
Attribute = int | float | str | list[int]


class ElementType(IntEnum):
    """Types of tensors, as ONNX numbers them."""

    FLOAT = 1
    UINT8 = 2
    INT8 = 3
    INT32 = 6
    INT64 = 7
    BOOL = 9
    FLOAT16 = 10
    DOUBLE = 11
    BFLOAT16 = 16


_BYTES = {  # of weights
    ElementType.FLOAT: 4, ElementType.FLOAT16: 2, ElementType.BFLOAT16: 2, ElementType.UINT8: 1, ElementType.INT8: 1,
}  # fmt: skip


def load_onnx() -> ModuleType:
    """The package `onnx`. Raises OnnxError where it is not installed."""
    try:
        import onnx
        import onnx.helper
    except ImportError as missing:
        raise OnnxError(
            f"writing ONNX needs the package onnx ({missing}). Install it: pip install 'edgebit[onnx]'"
        ) from missing
    return onnx


class Nodes:
    """Nodes in the order they compute in: of a graph, or of a function's body."""

    def __init__(self) -> None:
        """Raises OnnxError where onnx is not installed."""
        self.onnx = load_onnx()
        self.nodes: list[Any] = []
        self._taken: set[str] = set()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        name: str | None = None,
        *,
        domain: str = "",
        outputs: Sequence[str] | None = None,
        **attributes: Attribute,
    ) -> str:
        """Add a node; the name of its first output, which is `name`, or made from the operator's.

        inputs: names of values, "" for one left out; outputs: their names, where they must be certain ones
        """
        name = self._free(name or operator)
        given = [name] if outputs is None else list(outputs)
        made = self.onnx.helper.make_node(operator, list(inputs), given, name=name, domain=domain, **attributes)
        self.nodes.append(made)
        return given[0]

    def split(self, value: str, sizes: Sequence[int], name: str) -> list[str]:
        """Parts of the last axis."""
        outputs = [self._free(f"{name}.{i}") for i in range(len(sizes))]
        self.node("Split", [value, self.constant(list(sizes))], name, outputs=outputs, axis=-1)
        return outputs

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """A small tensor that stands in the graph itself."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            tensor = self.onnx.numpy_helper.from_array(array)
            self._constants[key] = self.node("Constant", [], "constant", value=tensor)
        return self._constants[key]

    def cast(self, value: str, to: ElementType) -> str:
        return self.node("Cast", [value], to=int(to))

    def _free(self, name: str) -> str:
        """`name`, or that with a number, where a node or a value has it."""
        free, n = name, 1
        while free in self._taken:
            free, n = f"{name}.{n}", n + 1
        self._taken.add(free)
        return free


class Body(Nodes):
    """The body of a function, whose inputs and outputs have the names that the function gives them."""

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self._taken |= {*inputs, *outputs}

    def attribute(self, name: str) -> str:
        """The value of an integer attribute of the node that the body stands for: [1]."""
        made = self.onnx.helper.make_node("Constant", [], [self._free(name)], name=self._free(f"of.{name}"))
        made.attribute.append(self._reference("value_int", name))
        self.nodes.append(made)
        return self.node("Reshape", [made.output[0], self.constant([1])])

    def node_with(self, operator: str, inputs: Sequence[str], referred: Mapping[str, str], **rest: Any) -> str:
        """A node some of whose integer attributes are those of the node that the body stands for."""
        name = self.node(operator, inputs, **rest)
        for attribute, of in referred.items():
            self.nodes[-1].attribute.append(self._reference(attribute, of))
        return name

    def _reference(self, attribute: str, of: str) -> Any:
        kind = self.onnx.AttributeProto.INT
        return self.onnx.AttributeProto(name=attribute, type=kind, ref_attr_name=of)


class Graph(Nodes):
    """A model in the making, whose weights go to `data`."""

    def __init__(self, data: ExternalData) -> None:
        super().__init__()
        self._data = data
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._typed: list[Any] = []
        self._initializers: list[Any] = []
        self._functions: list[Any] = []

    def input(self, name: str, kind: ElementType, dims: Dims) -> None:
        self._taken.add(name)
        self._inputs.append(self.onnx.helper.make_tensor_value_info(name, int(kind), dims))

    def output(self, name: str, kind: ElementType, dims: Dims) -> None:
        """Declare an output: a node that gives it names it so."""
        self._outputs.append(self.onnx.helper.make_tensor_value_info(name, int(kind), dims))

    def typed(self, name: str, kind: ElementType, dims: Dims) -> str:
        """Say what a value is that only who knows its operator could tell; the name."""
        self._typed.append(self.onnx.helper.make_tensor_value_info(name, int(kind), dims))
        return name

    def initializer(self, name: str, kind: ElementType, dims: Sequence[int], chunks: Iterable[NDArray[Any]]) -> str:
        """A tensor whose bytes, in pieces, go to external data."""
        span = self._data.write(chunks, math.prod(dims) * _BYTES[kind])
        tensor = self.onnx.TensorProto(name=self._free(name), data_type=int(kind), dims=dims)
        tensor.data_location = self.onnx.TensorProto.EXTERNAL
        for key, value in (("location", self._data.path.name), ("offset", span.offset), ("length", span.size)):
            tensor.external_data.add(key=key, value=str(value))
        self._initializers.append(tensor)
        return str(tensor.name)

    def function(
        self,
        domain: str,
        name: str,
        body: Body,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Sequence[str],
        opsets: Mapping[str, int],
    ) -> None:
        """What a node of that name means where nobody has registered a kernel for it."""
        imports = [self.onnx.helper.make_opsetid(each, version) for each, version in opsets.items()]
        made = self.onnx.helper.make_function(
            domain, name, list(inputs), list(outputs), body.nodes, imports, list(attributes)
        )
        self._functions.append(made)

    def save(self, path: Path, *, opsets: Mapping[str, int], ir_version: int, metadata: Mapping[str, str]) -> None:
        """Write the model's file, which has no weights. Raises OSError where the disk does not take it."""
        helper = self.onnx.helper
        graph = helper.make_graph(
            self.nodes, "edgebit", self._inputs, self._outputs, self._initializers, value_info=self._typed
        )
        model = helper.make_model(
            graph,
            producer_name="edgebit",
            ir_version=ir_version,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
            functions=self._functions,
        )
        helper.set_model_props(model, dict(metadata))
        path.write_bytes(model.SerializeToString())
