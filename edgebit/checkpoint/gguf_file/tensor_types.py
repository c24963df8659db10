"""What a GGUF tensor is: decided by how many bytes it has, since one type number means several things.

Sources: ggml.h of llama.cpp (0 to 43), bitnet.cpp (36, 38, 39) and ik_llama.cpp (134 to 335); PrismML's own numbers and
the two sizes of 42 as published in their models' files.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edgebit.checkpoint.gguf_file.container import StoredTensor
from edgebit.errors import CheckpointError
from edgebit.ternary.ggml import blocks, floats
from edgebit.ternary.ggml.i2_s import TAIL_BYTES

RowLayout = blocks.BlockLayout | floats.FloatLayout

START_AGAIN = "Start from the Hugging Face checkpoint, or from a GGUF file in TQ2_0, TQ1_0 or I2_S"
_TABLES = f"is packed for the tables of one build of bitnet.cpp. {START_AGAIN}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorType:
    """One of the things that a type number can stand for."""

    name: str
    block: int  # weights of a row that go together
    block_bytes: int
    row_bytes: int = 0  # before the blocks of each row
    tail_bytes: int = 0  # after the whole tensor
    layout: RowLayout | None = None  # of types that edgebit takes apart itself, those with groups as weights only
    has_groups: bool = False  # has more than three values to a scale: read by the gguf package, but as weights
    refusal: str | None = None  # why edgebit does not read it

    @property
    def is_float(self) -> bool:
        return isinstance(self.layout, floats.FloatLayout)

    @property
    def is_ternary(self) -> bool:
        """Whether weights of this type are ternary. Floats may be, and Q4_0, for rows too narrow for others."""
        return self.name == "I2_S" or isinstance(self.layout, blocks.BlockLayout)

    def size(self, shape: tuple[int, ...]) -> int | None:
        """Bytes of a tensor of that shape; None: its rows are not whole blocks."""
        if shape[-1] % self.block:
            return None
        rows = 1
        for dimension in shape[:-1]:
            rows *= dimension
        return rows * (self.row_bytes + shape[-1] // self.block * self.block_bytes) + self.tail_bytes


def _own(name: str, layout: RowLayout) -> TensorType:
    if isinstance(layout, floats.FloatLayout):
        return TensorType(name=name, block=1, block_bytes=layout.row_bytes(1), layout=layout)
    return TensorType(
        name=name, block=layout.block, block_bytes=layout.block_bytes, row_bytes=layout.row_bytes(0), layout=layout
    )


def _grouped(name: str, block: int, block_bytes: int, ternary: RowLayout | None = None) -> TensorType:
    return TensorType(name=name, block=block, block_bytes=block_bytes, layout=ternary, has_groups=True)


def _refused(name: str, block: int, block_bytes: int, why: str) -> TensorType:
    return TensorType(name=name, block=block, block_bytes=block_bytes, refusal=why)


_STQ1_0 = _refused("STQ1_0", 256, 42, f"takes a codebook that edgebit does not have. {START_AGAIN}")
_GIVEN_UP = f"is no longer in use. {START_AGAIN}"
_ROTATED = "goes with rotated activations (Hadamard), which edgebit does not compute"
_UNDESCRIBED = f"is described nowhere that edgebit's makers know of. {START_AGAIN}"

# Where several share a number, no two of them give a tensor the same size.
TYPES: Mapping[int, tuple[TensorType, ...]] = {
    0: (_own("F32", floats.F32),),
    1: (_own("F16", floats.F16),),
    2: (_grouped("Q4_0", 32, 18, blocks.Q4_0),),
    3: (_grouped("Q4_1", 32, 20),),
    6: (_grouped("Q5_0", 32, 22),),
    7: (_grouped("Q5_1", 32, 24),),
    8: (_grouped("Q8_0", 32, 34),),
    10: (_grouped("Q2_K", 256, 84),),
    11: (_grouped("Q3_K", 256, 110),),
    12: (_grouped("Q4_K", 256, 144),),
    13: (_grouped("Q5_K", 256, 176),),
    14: (_grouped("Q6_K", 256, 210),),
    20: (_grouped("IQ4_NL", 32, 18),),
    23: (_grouped("IQ4_XS", 256, 136),),
    30: (_own("BF16", floats.BF16),),
    34: (_own("TQ1_0", blocks.TQ1_0),),
    35: (_own("TQ2_0", blocks.TQ2_0),),
    36: (TensorType(name="I2_S", block=4, block_bytes=1, tail_bytes=TAIL_BYTES),),
    39: (_refused("MXFP4", 32, 17, f"holds 4-bit floats and no ternary weights. {START_AGAIN}"),),
    41: (_own("Q1_0", blocks.Q1_0),),
    42: (_own("Q2_0", blocks.Q2_0_64), _own("Q2_0", blocks.Q2_0_128), _STQ1_0),
    43: (_STQ1_0,),
    134: (_own("IQ1_BN", blocks.IQ1_BN),),
    135: (_own("IQ2_BN", blocks.IQ2_BN),),
    142: (_refused("PQ2_0", 128, 34, _UNDESCRIBED), _refused("IQ2_TN", 256, 66, _GIVEN_UP)),
    143: (_refused("PTQ1_0", 128, 28, _ROTATED), _refused("IQ1_TN", 256, 54, _GIVEN_UP)),
}
# Types whose size follows from tables that the file does not have, or that nobody writes any more.
_REFUSED_AT_ANY_SIZE = {
    38: f"is TL1: it {_TABLES}",
    39: f"is TL2: it {_TABLES}",
    335: "is IQ2_BN_R4, repacked for one engine. Make the file anew with IQ2_BN (llama-quantize without --repack)",
}


def type_of(tensor: StoredTensor, alignment: int, where: str) -> TensorType:
    """What the tensor is; `where` names file and tensor. Raises CheckpointError where that is nothing edgebit reads."""
    known = TYPES.get(tensor.type_id, ())
    for found in known:
        size = found.size(tensor.shape)
        if size is not None and size <= tensor.span <= -(-size // alignment) * alignment:
            if found.refusal is not None:
                raise CheckpointError(f"{where} is of type {found.name}, which {found.refusal}")
            return found
    if tensor.type_id in _REFUSED_AT_ANY_SIZE:
        raise CheckpointError(f"{where} {_REFUSED_AT_ANY_SIZE[tensor.type_id]}")
    if not known:
        raise CheckpointError(f"{where} is of type {tensor.type_id}, which edgebit does not know. {START_AGAIN}")
    raise CheckpointError(f"{where} {_misfit(tensor, known)}")


def _misfit(tensor: StoredTensor, known: tuple[TensorType, ...]) -> str:
    sizes = {(found.name, found.block): found.size(tensor.shape) for found in known}
    words = [
        f"{name} would take {size} bytes" if size is not None else f"{name} has rows of whole blocks of {block}"
        for (name, block), size in sizes.items()
    ]
    fitting = [size for size in sizes.values() if size is not None]
    fault = "a copy cut short, tensors that overlap" if fitting and tensor.span < min(fitting) else "a damaged table"
    return (
        f"has {tensor.span} bytes up to the next tensor or the end of the file, and shape {list(tensor.shape)}; "
        f"{', '.join(words)}: {fault}, or a type that edgebit does not know by the number {tensor.type_id}"
    )
