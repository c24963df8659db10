"""Checks before a weight is read: the names, shapes and types of a checkpoint's tensors, and that biases are zero."""

from pathlib import Path

from edgebit.bundle.model_format import Conf, Role
from edgebit.checkpoint.hugging_face.families import IGNORED_SUFFIX, SCALE_SUFFIX, Family, Scale
from edgebit.checkpoint.hugging_face.tensor_source import FLOAT_DTYPES, TensorSource, describe_place, float_vector
from edgebit.errors import CheckpointError


class TensorCheck:
    """The tensors that a family's models have, compared with those of one checkpoint."""

    def __init__(self, path: Path, conf: Conf, family: Family, tensors: TensorSource) -> None:
        self._path, self._conf, self._family, self._tensors = path, conf, family, tensors
        self._expected: set[str] = set()

    def run(self) -> list[str]:
        """Check all tensors; notes on what is left out.

        Raises CheckpointError naming file and tensor where one is missing, unknown, or of another shape or type.
        """
        for role, layer in self._conf.roles():
            if role != Role.ROPE_INV_FREQ:
                self._check(role, layer)
        notes = self._check_biases()
        unknown = sorted(name for name in self._tensors.names() - self._expected if not name.endswith(IGNORED_SUFFIX))
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise CheckpointError(
                f"{self._where(unknown[0])}{more}: {self._family.form} has no such tensor, "
                "so the model would compute something else"
            )
        return notes

    def _check(self, role: Role, layer: int) -> None:
        name = self._family.tensor_name(role, layer)
        self._expected.add(name)
        rows, columns = self._conf.shape_of(role)
        if role == Role.HEAD and self._conf.head_tied and name not in self._tensors.names():
            return
        if role.is_projection:
            self._check_projection(name, rows, columns)
        elif role in (Role.TOKEN_EMBEDDING, Role.HEAD):
            self._check_tensor(name, (rows, columns), FLOAT_DTYPES)
        else:
            self._check_tensor(name, (columns,), FLOAT_DTYPES)

    def _check_projection(self, name: str, rows: int, columns: int) -> None:
        scale = self._family.storage.scale
        if scale in (Scale.ABSMEAN, Scale.STORED):
            self._check_tensor(name, (rows, columns), FLOAT_DTYPES)
            return
        scale_name = name + SCALE_SUFFIX
        self._expected.add(scale_name)
        unpacked = name in self._tensors.names() and self._tensors.info(name).shape == (rows, columns)
        if scale == Scale.MULTIPLY and unpacked:  # transformers saves them so after it has loaded packed ones
            self._check_tensor(name, (rows, columns), FLOAT_DTYPES)
        elif rows % 4:
            raise CheckpointError(f"{self._path}: tensor {name}: {rows} output rows are no multiple of 4")
        else:
            self._check_tensor(name, (rows // 4, columns), ("U8",))
        self._check_tensor(scale_name, (1,), FLOAT_DTYPES)

    def _check_tensor(self, name: str, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
        if name not in self._tensors.names():
            raise CheckpointError(f"{self._path}: tensor {name} is missing, which {self._family.form} has")
        info = self._tensors.info(name)
        if info.dtype not in dtypes:
            known = " or ".join(dtypes)
            raise CheckpointError(f"{self._where(name)} is of type {info.dtype}; {self._family.form} has {known} there")
        if info.shape != shape:
            found, wanted = list(info.shape), list(shape)
            raise CheckpointError(f"{self._where(name)} has shape {found}; config.json asks for {wanted}")

    def _check_biases(self) -> list[str]:
        """Biases of projections may be there where they are all zero: edgebit adds none."""
        names = []
        for role, layer in self._conf.roles():
            if role.is_projection and self._family.bias_name(role, layer) in self._tensors.names():
                names.append(self._family.bias_name(role, layer))
                self._check_tensor(names[-1], (self._conf.shape_of(role)[0],), FLOAT_DTYPES)
                values = float_vector(self._tensors, names[-1])
                if values.any():
                    at = int(values.nonzero()[0][0])
                    raise CheckpointError(
                        f"{self._where(names[-1])} holds {values[at]} at {at}: biases other than zero are not known"
                    )
        self._expected.update(names)
        return [f"{len(names)} biases are all zero and left out"] if names else []

    def _where(self, name: str) -> str:
        return describe_place(self._tensors, name)
