"""What a plan needs to know of a model, from a checkpoint, a model file, a bundle or the name of a shape."""

from dataclasses import dataclass
from pathlib import Path

from edgebit.bundle.archive import locate_model
from edgebit.bundle.model_format import PER_TENSOR, Conf, Encoding, Granularity, Role, Scaling, ScalingOf
from edgebit.bundle.model_reader import ModelFile
from edgebit.checkpoint.hints import NO_HINTS, Hints
from edgebit.checkpoint.opening import find_gguf, open_checkpoint
from edgebit.errors import CheckpointError
from edgebit.footprint import Footprint
from edgebit.synthesize import SHAPES, Shape

_TOKENIZER_BYTES = 56  # a token's share of the tokenizer's tables: Llama 3's, with 280,147 merges for 128,256 tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What a plan needs to know of a model."""

    name: str
    conf: Conf
    embedding: Encoding
    layout: str | None  # that its projections are stored in; None: it is still to be converted
    other_bytes: int  # of the model file beside the tensors
    scaling: ScalingOf = lambda role, layer: PER_TENSOR
    place: Path | None = None  # the model file or bundle, where it is one

    def footprint(self, layout: str) -> Footprint:
        """Its sizes with the projections in `layout`."""
        return Footprint(
            conf=self.conf, layout=layout, embedding=self.embedding, other_bytes=self.other_bytes, scaling=self.scaling
        )

    @property
    def needs_t2(self) -> bool:
        """Whether all projections have scales by group of columns, which layout t2 alone holds."""
        return all(
            self.scaling(role, layer).granularity == Granularity.GROUP
            for role, layer in self.conf.roles()
            if role.is_projection
        )


def facts_of(model: str) -> ModelFacts:
    """The facts of a checkpoint's folder or GGUF file, a model file, a bundle, or the shape of that name.

    Raises CheckpointError where `model` is none of them, and what their readers raise.
    """
    path = Path(model)
    if path.is_dir() or find_gguf(path) is not None:
        return _facts_of_checkpoint(path)
    if path.exists():
        return _facts_of_file(path)
    if model in SHAPES:
        return _facts_of_shape(model, SHAPES[model])
    raise CheckpointError(
        f"there is no model {model!r}: neither a checkpoint's folder or GGUF file, a model file or a bundle of that"
        f" name, nor one of the shapes {', '.join(SHAPES)}"
    )


def _facts_of_checkpoint(path: Path) -> ModelFacts:
    any_dialect = Hints(i2s_dialect="x86")  # it says which code a weight is: none is read here
    checkpoint = open_checkpoint(path, any_dialect if find_gguf(path) is not None else NO_HINTS)
    try:
        conf = checkpoint.config.conf
        projections = [(role, layer) for role, layer in conf.roles() if role.is_projection]
        scaling = {(role, layer): checkpoint.scaling(role, layer) for role, layer in projections}
        return ModelFacts(
            name=checkpoint.config.name,
            conf=conf,
            embedding=checkpoint.embedding_encoding(),
            scaling=lambda role, layer: scaling[role, layer],
            layout=None,
            other_bytes=_TOKENIZER_BYTES * conf.vocab_size,
        )
    finally:
        checkpoint.close()


def _facts_of_file(path: Path) -> ModelFacts:
    place = locate_model(path)
    with ModelFile(place.path, place.offset, place.size) as file:
        embedding = next(tensor.encoding for tensor in file.tensors if tensor.role == Role.TOKEN_EMBEDDING)
        scaling = {(tensor.role, tensor.layer): Scaling(tensor.granularity, tensor.group) for tensor in file.tensors}
        return ModelFacts(
            name=str(file.meta.get("name") or path.name),
            conf=file.conf,
            embedding=embedding,
            layout="t1" if any(tensor.encoding == Encoding.T1 for tensor in file.tensors) else "t2",
            scaling=lambda role, layer: scaling[role, layer],
            other_bytes=sum(section.size for tag, section in file.sections.items() if tag != "DATA"),
            place=path,
        )


def _facts_of_shape(name: str, shape: Shape) -> ModelFacts:
    return ModelFacts(
        name=name,
        conf=shape.conf,
        embedding=Encoding[shape.dtype],
        layout=None,
        other_bytes=_TOKENIZER_BYTES * shape.vocab_size,
    )
