"""The decoder of any model as a graph: what the engine computes (kernels/src/engine_layer.c), in the same order."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import NO_LAYER, Activation, Encoding, Granularity, Norms, Role
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.export.onnx_model.graph import ElementType, Graph
from edgebit.export.onnx_model.int8_rows import int8_rows
from edgebit.export.onnx_model.operators import LayerAttention, Operators
from edgebit.export.onnx_model.packing import int8_bytes, padded_columns
from edgebit.export.onnx_model.projections import Int8Matrix, Products, Stack
from edgebit.progress import Progress
from edgebit.ternary.layouts import TILE_ROWS

_FLOATS = {
    Encoding.F32: ElementType.FLOAT,
    Encoding.F16: ElementType.FLOAT16,
    Encoding.BF16: ElementType.BFLOAT16,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What of a decoder can be had in two ways."""

    int8_embedding: bool
    last_logits: bool  # those of each sequence's last token alone


class Decoder:
    """A checkpoint on its way into a graph."""

    def __init__(
        self, graph: Graph, checkpoint: Checkpoint, operators: Operators, products: Products, choices: Choices
    ) -> None:
        self._graph, self._checkpoint = graph, checkpoint
        self._conf = checkpoint.config.conf
        self._operators, self._products, self._choices = operators, products, choices

    def write(self, progress: Progress) -> None:
        """Everything from the tokens to logits and cache."""
        total = self._conf.n_layers + 2
        progress("embedding", 0, total)
        is_shared = self._choices.int8_embedding and self._conf.head_tied
        head = self._int8_matrix(Role.HEAD, "head") if is_shared else None
        hidden = self._embedding(head)
        for layer in range(self._conf.n_layers):
            progress(f"layer {layer}", layer + 1, total)
            hidden = self._layer(hidden, layer)
        progress("head", total - 1, total)
        wanted = self._operators.wanted(hidden, last=self._choices.last_logits)
        normed = self._norm(wanted, Role.FINAL_NORM, NO_LAYER)
        logits = self._products.int8(normed, head or self._head(), "head")
        positions: int | str = 1 if self._choices.last_logits else "sequence"
        self._graph.typed(logits, ElementType.FLOAT, ["batch", positions, self._conf.vocab_size])
        self._graph.node("Identity", [logits], outputs=["logits"])

    def _head(self) -> Int8Matrix:
        """One that the products alone read."""
        return self._int8_matrix(Role.HEAD, "head", with_scales=self._products.read_row_scales)

    def _int8_matrix(self, role: Role, name: str, *, with_scales: bool = True) -> Int8Matrix:
        """with_scales: something reads them; ONNX Runtime warns of a tensor that nothing does."""
        rows, columns = self._conf.shape_of(role)
        scales = np.empty(rows, np.float32)

        def chunks() -> Iterator[NDArray[np.uint8]]:
            first = 0
            for codes, of_rows in int8_rows(self._checkpoint, role):
                scales[first : first + len(codes)] = of_rows
                first += len(codes)
                yield int8_bytes(codes)

        stored = (rows, padded_columns(columns))
        weight = self._graph.initializer(f"{name}.weight", ElementType.UINT8, stored, chunks())
        scale = self._graph.initializer(f"{name}.scale", ElementType.FLOAT, (rows,), [scales]) if with_scales else ""
        return Int8Matrix(weight, scale, scales, columns)

    def _embedding(self, shared: Int8Matrix | None) -> str:
        graph, tokens = self._graph, self._operators.tokens
        if not self._choices.int8_embedding:
            encoding = self._checkpoint.embedding_encoding()
            rows = (stored for stored, _ in self._checkpoint.rows(Role.TOKEN_EMBEDDING))
            shape = self._conf.shape_of(Role.TOKEN_EMBEDDING)
            table = graph.initializer("embedding.weight", _FLOATS[encoding], shape, rows)
            found = graph.node("Gather", [table, tokens], "embedding.rows")
            return found if encoding == Encoding.F32 else graph.cast(found, ElementType.FLOAT)
        matrix = shared or self._int8_matrix(Role.TOKEN_EMBEDDING, "embedding")
        codes = graph.node("Gather", [matrix.codes, tokens], "embedding.rows")
        if padded_columns(matrix.columns) != matrix.columns:
            filling = padded_columns(matrix.columns) - matrix.columns
            codes, _ = graph.split(codes, [matrix.columns, filling], "embedding")
        whole = graph.node("Sub", [graph.cast(codes, ElementType.FLOAT), graph.constant(128, np.float32)])
        scale = graph.node("Unsqueeze", [graph.node("Gather", [matrix.scales, tokens]), graph.constant([-1])])
        return graph.node("Mul", [whole, scale], "embedding")

    def _layer(self, hidden: str, layer: int) -> str:
        graph, name = self._graph, f"layers.{layer}"
        x = self._norm(hidden, Role.INPUT_NORM, layer)
        mixed = self._attention(x, layer)
        if Norms.ATTN_SUB_NORM in self._conf.norms:
            mixed = self._norm(mixed, Role.ATTN_SUB_NORM, layer)
        (out,) = self._project(mixed, (Role.O_PROJ,), layer, "o_proj")
        hidden = graph.node("Add", [hidden, out], f"{name}.after_attention")
        x = self._norm(hidden, Role.POST_ATTENTION_NORM, layer)
        inner = self._gated(x, layer)
        if Norms.FFN_SUB_NORM in self._conf.norms:
            inner = self._norm(inner, Role.FFN_SUB_NORM, layer)
        (out,) = self._project(inner, (Role.DOWN_PROJ,), layer, "down_proj")
        return graph.node("Add", [hidden, out], f"{name}.after_ffn")

    def _attention(self, x: str, layer: int) -> str:
        roles = (Role.Q_PROJ, Role.K_PROJ, Role.V_PROJ)
        projected = self._project(x, roles, layer, "qkv_proj")
        if Norms.QK_NORM in self._conf.norms:
            q, k, v = self._apart(projected, roles, layer, "qkv")
            heads = ((q, Role.Q_NORM, self._conf.n_heads), (k, Role.K_NORM, self._conf.n_kv_heads))
            projected = [*(self._head_norm(value, role, layer, n) for value, role, n in heads), v]
        past, present = f"past_key_values.{layer}", f"present.{layer}"
        return self._operators.attention(
            LayerAttention(
                name=f"layers.{layer}",
                projected=tuple(projected),
                past_key=f"{past}.key",
                past_value=f"{past}.value",
                present_key=f"{present}.key",
                present_value=f"{present}.value",
            )
        )

    def _head_norm(self, x: str, role: Role, layer: int, n_heads: int) -> str:
        """RMSNorm of each head: [B, S, heads x head_dim]."""
        graph = self._graph
        by_head = graph.node("Reshape", [x, graph.constant([0, 0, n_heads, self._conf.head_dim])])
        return graph.node("Reshape", [self._norm(by_head, role, layer), graph.constant([0, 0, -1])])

    def _gated(self, x: str, layer: int) -> str:
        graph, roles = self._graph, (Role.GATE_PROJ, Role.UP_PROJ)
        gate, up = self._apart(self._project(x, roles, layer, "gate_up_proj"), roles, layer, "gate_up")
        if self._conf.activation == Activation.RELU2:
            positive = graph.node("Relu", [gate])
            acted = graph.node("Mul", [positive, positive])
        else:
            grown = graph.node("Exp", [graph.node("Neg", [gate])])
            acted = graph.node("Div", [gate, graph.node("Add", [grown, graph.constant(1, np.float32)])])
        return graph.node("Mul", [acted, up], f"layers.{layer}.gated")

    def _norm(self, x: str, role: Role, layer: int) -> str:
        name = f"layers.{layer}.{role.name.lower()}" if role.per_layer else role.name.lower()
        values = self._checkpoint.vector(role, layer)
        weight = self._graph.initializer(f"{name}.weight", ElementType.FLOAT, values.shape, [values])
        of_projection = role >= Role.Q_PROJ_NORM
        eps = self._conf.projection_norm_eps if of_projection else self._conf.rms_norm_eps
        return self._operators.rms_norm(x, weight, values.size, eps, name)

    def _project(self, x: str, roles: tuple[Role, ...], layer: int, name: str) -> list[str]:
        """The products of x with projections: one value for each, or one with all where they can be one product."""
        if self._are_one(roles, layer):
            stack = self._stack(roles, layer)
            return [self._products.ternary(x, stack, f"layers.{layer}.{name}")]
        outs = []
        for role in roles:
            own = self._norm(x, role.norm_of, layer) if Norms.PROJECTION_NORM in self._conf.norms else x
            stack = self._stack((role,), layer)
            outs.append(self._products.ternary(own, stack, f"layers.{layer}.{role.name.lower()}"))
        return outs

    def _are_one(self, roles: tuple[Role, ...], layer: int) -> bool:
        """Whether they read the same input, with scales of one form, and each but the last ends with a tile of rows."""
        if Norms.PROJECTION_NORM in self._conf.norms:
            return False
        whole = all(self._conf.shape_of(role)[0] % TILE_ROWS == 0 for role in roles[:-1])
        return whole and len({self._groups(role, layer) for role in roles}) == 1

    def _stack(self, roles: tuple[Role, ...], layer: int) -> Stack:
        parts = tuple(self._checkpoint.projection(role, layer) for role in roles)
        return Stack(parts, self._groups(roles[0], layer))

    def _groups(self, role: Role, layer: int) -> int:
        """Scales of a row."""
        scaling = self._checkpoint.scaling(role, layer)
        return self._conf.shape_of(role)[1] // scaling.group if scaling.granularity == Granularity.GROUP else 1

    def _apart(self, values: list[str], roles: tuple[Role, ...], layer: int, name: str) -> list[str]:
        if len(values) == len(roles):
            return values
        sizes = [self._conf.shape_of(role)[0] for role in roles]
        return self._graph.split(values[0], sizes, f"layers.{layer}.{name}")
