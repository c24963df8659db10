"""How the tensors of a model are stored in a model file, and where each will lie. Standard library only."""

from edgebit.bundle.model_format import (
    NO_LAYER,
    PER_ROW,
    PER_TENSOR,
    UNSCALED,
    Conf,
    Encoding,
    Granularity,
    Role,
    Scaling,
    ScalingOf,
    Tensor,
    aligned,
    values_size,
)


def stored_as(
    role: Role, layer: int, *, embedding: Encoding, layout: Encoding, scaling: ScalingOf
) -> tuple[Encoding, Scaling]:
    """The encoding of a tensor, and which of its weights share a scale.

    embedding: the encoding of the token embedding; layout: of ternary weights, but those with scales by group are t2
    always; scaling: which weights of each projection share a scale
    """
    if role.is_projection:
        scaled = scaling(role, layer)
        return Encoding.T2 if scaled.granularity == Granularity.GROUP else layout, scaled
    match role:
        case Role.HEAD:
            return Encoding.H8, PER_ROW
        case Role.TOKEN_EMBEDDING:
            return embedding, PER_ROW if embedding == Encoding.I8 else UNSCALED
    return Encoding.F32, UNSCALED


def plan_tensors(
    conf: Conf,
    data_start: int,
    *,
    embedding: Encoding,
    layout: Encoding,
    scaling: ScalingOf = lambda role, layer: PER_TENSOR,
) -> list[Tensor]:
    """Where every tensor of a model will lie, from byte `data_start` of the file on, in the order of conf.roles().

    The rest as stored_as() has it.
    """
    tensors, position = [], data_start
    for role, layer in conf.roles():
        rows, columns = conf.shape_of(role)
        encoding, scaled = stored_as(role, layer, embedding=embedding, layout=layout, scaling=scaling)
        n_scales = scaled.count(rows, columns)
        size = values_size(encoding, rows, columns, scaled.group)
        scales_offset = position + aligned(size) if n_scales else 0
        tensors.append(
            Tensor(
                role=role,
                layer=layer if role.per_layer else NO_LAYER,
                encoding=encoding,
                granularity=scaled.granularity,
                rows=rows,
                columns=columns,
                offset=position,
                size=size,
                scales_offset=scales_offset,
                n_scales=n_scales,
                group=scaled.group,
            )
        )
        position += aligned(size) + aligned(4 * n_scales)
    return tensors
