"""A folder that `edgebit export onnx` wrote: which files it has, what they say, and whether they are whole."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from edgebit.bundle.lfs_pointer import LFS_POINTER, is_lfs_pointer
from edgebit.bundle.other_kinds import GRAPH_NAME
from edgebit.bundle.prompt_program import PromptProgram
from edgebit.errors import BundleError, OnnxError
from edgebit.onnx_engine.exported_conf import ExportedConf
from edgebit.onnx_engine.file_faults import no_file, unreadable
from edgebit.onnx_engine.onnx_file import OnnxFile, read_onnx_file
from edgebit.resources import ORT_SONAME

MODEL_NAME, LIBRARY_NAME = GRAPH_NAME, ORT_SONAME
TOKENIZER_NAME, PROMPT_NAME = "edgebit.tokn", "edgebit.prmt"  # sections TOKN and PRMT of docs/model-format.md
LIBRARY_VARIABLE = "EDGEBIT_ORT_LIBRARY"  # in the environment: another library than the folder's own
DOMAIN, DOMAIN_VERSION = "ai.edgebit", 1  # of the operators
MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's own operators
_CHUNK = 1 << 20
_AGAIN = "Copy it again, or export the model again"


def source_of(path: Path) -> str:
    """The name of the model that the folder at `path` was made from, as far as it says."""
    try:
        return OnnxFolder.open(path).source
    except OnnxError:
        return "a model that its model.onnx does not name"


@dataclass(frozen=True, slots=True)
class OnnxFolder:
    """An exported folder whose model.onnx is read, and whose weights have the size that it says."""

    path: Path
    onnx: OnnxFile
    conf: ExportedConf

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the folder at `path`, or the one of an ONNX file named instead.

        Raises OnnxError where it is none, or a file of it is missing, cut short or of another kind.
        """
        folder = path.parent if path.suffix == ".onnx" and not path.is_dir() else path
        model = folder / MODEL_NAME
        if not model.is_file():
            if folder != path and path.is_file():
                raise OnnxError(
                    f"{path} is read by the name {MODEL_NAME}, with its weights beside it, and {folder} has none. "
                    "Give it that name again, or export the model again"
                )
            raise OnnxError(
                f"{folder} holds no {MODEL_NAME}: it is no folder of the ONNX variant. "
                "Write one: edgebit export onnx MODEL --out DIR"
            )
        _refuse_pointer(model)
        onnx = read_onnx_file(model)
        if "edgebit.version" not in onnx.metadata or "edgebit.conf" not in onnx.metadata:
            raise OnnxError(
                f"{model} was not written by edgebit: its metadata has no edgebit.version and edgebit.conf. "
                "Export the model with: edgebit export onnx MODEL --out DIR"
            )
        version = onnx.opsets.get(DOMAIN, DOMAIN_VERSION)
        if version != DOMAIN_VERSION:
            raise OnnxError(
                f"{model} has operators of {DOMAIN} in version {version}, this edgebit knows {DOMAIN_VERSION}. "
                "Use a newer edgebit, or export the model again"
            )
        opened = cls(folder, onnx, ExportedConf.from_json(onnx.metadata["edgebit.conf"], str(model)))
        opened._check_interface()
        opened._check_sizes()
        return opened

    @property
    def model_path(self) -> Path:
        """The graph."""
        return self.path / MODEL_NAME

    @property
    def library_path(self) -> Path:
        """Where the folder's own library of operators lies, if it has one."""
        return self.path / LIBRARY_NAME

    @property
    def source(self) -> str:
        """The name of the model that it was made from."""
        return self.onnx.metadata.get("edgebit.source", "a model that it does not name")

    @property
    def ops(self) -> str:
        """Of whose operators the float parts are: "contrib" or "standard"."""
        return self.onnx.metadata.get("edgebit.ops", "contrib")

    @property
    def fallback(self) -> str:
        """What stands in for our operators without the library: "compact", "exact" or "none"."""
        return self.onnx.metadata.get("edgebit.fallback", "none")

    @property
    def own_operators(self) -> int:
        """How many nodes of the graph are of our domain; 0: it needs no library."""
        return sum(count for (domain, _), count in self.onnx.operators.items() if domain == DOMAIN)

    @property
    def has_fallback(self) -> bool:
        """Whether every operator of ours in the graph has a body in the file."""
        ours = {kind for kind in self.onnx.operators if kind[0] == DOMAIN}
        return ours <= self.onnx.functions

    def multiplies_two_bits(self, *, with_library: bool) -> bool:
        """Whether ternary products run by ONNX Runtime's MatMulNBits for 2 bits."""
        return self.fallback == "compact" and not with_library if self.own_operators else self.is_stock

    @property
    def is_stock(self) -> bool:
        """Whether it was exported with --stock: without any operator of ours."""
        return (MICROSOFT, "MatMulNBits") in self.onnx.operators and not self.own_operators

    @property
    def groups_queries(self) -> bool:
        """Whether every layer is a GroupQueryAttention, which can append to its KV cache in place."""
        return self.onnx.operators.get((MICROSOFT, "GroupQueryAttention"), 0) >= self.conf.n_layers

    @property
    def gives_all_logits(self) -> bool:
        """Whether the graph gives the logits of every token that it is given, not of the last alone."""
        (logits,) = (value for value in self.onnx.outputs if value.name == "logits")
        return len(logits.shape) == 3 and logits.shape[1] != 1

    @property
    def weight_bytes(self) -> int:
        """Of all weights beside the graph."""
        return sum(self._file(location).stat().st_size for location in {each.location for each in self.onnx.external})

    def outside_weights(self) -> list[Path]:
        """Files of weights that are links to outside the folder."""
        home = Path(os.path.realpath(self.path))
        places = (self.path / location for location in sorted({each.location for each in self.onnx.external}))
        return [place for place in places if not Path(os.path.realpath(place)).is_relative_to(home)]

    def tokenizer_section(self) -> bytes:
        """The bytes of the tokenizer. Raises OnnxError where the folder has none, or another than was exported."""
        content = self.read_small(TOKENIZER_NAME)
        if content is None:
            raise OnnxError(
                f"{self.path} cannot take text: there is no {TOKENIZER_NAME}. "
                "Export the model again, from one that has its tokenizer"
            )
        return content

    def prompt_program(self) -> PromptProgram | None:
        """How a conversation becomes a prompt; None where the model has no chat template. Raises as above."""
        content = self.read_small(PROMPT_NAME)
        if content is None:
            return None
        try:
            return PromptProgram.from_bytes(content)
        except BundleError as error:
            raise OnnxError(f"{self.path / PROMPT_NAME}: {error}. {_AGAIN}") from error

    def read_small(self, name: str) -> bytes | None:
        """A file beside the weights, the same that was exported; None: it is not there, and was not then.

        Raises OnnxError where it is missing, altered or cannot be read.
        """
        place, wanted = self.path / name, self.sums().get(name)
        if wanted is None and not place.exists():
            return None
        try:
            content = place.read_bytes()
        except OSError as error:
            raise unreadable(place, error, _AGAIN) from error
        found = hashlib.sha256(content).hexdigest()
        if wanted is not None and found != wanted:
            raise self._altered(name, found, wanted)
        return content

    def verify(self, progress: Callable[[int], None] = lambda done: None) -> list[str]:
        """Read every file whose SHA-256 model.onnx has, and compare; gives their names.

        progress: is told of bytes done since the last call. Raises OnnxError naming the first file that differs.
        """
        for name, wanted in self.sums().items():
            found = _sha256(self._file(name), progress)
            if found != wanted:
                raise self._altered(name, found, wanted)
        return list(self.sums())

    def sums(self) -> dict[str, str]:
        """File name: SHA-256 in hex, as far as model.onnx has them."""
        return self._sums("edgebit.files_sha256")

    def source_sums(self) -> dict[str, str]:
        """The same of the files that the model was made from."""
        return self._sums("edgebit.source_sha256")

    def _sums(self, key: str) -> dict[str, str]:
        try:
            sums = json.loads(self.onnx.metadata.get(key, "{}"))
        except (ValueError, RecursionError):
            sums = None
        if not isinstance(sums, dict) or not all(isinstance(each, str) for each in sums.values()):
            raise OnnxError(f"{self.model_path}: {key} is no JSON of sums. Export the model again")
        return sums

    def _altered(self, name: str, found: str, wanted: str) -> OnnxError:
        return OnnxError(
            f"{self.path / name} is damaged or altered: its SHA-256 is {found}, {MODEL_NAME} says {wanted}. {_AGAIN}"
        )

    def _file(self, name: str) -> Path:
        """A file beside model.onnx that it names."""
        parts = PurePosixPath(name)
        if not name or parts.is_absolute() or ".." in parts.parts:
            raise OnnxError(f"{self.model_path} names a file outside its folder: {name!r}. Export the model again")
        place = self.path / name
        if not os.path.isfile(place):  # noqa: PTH113  # Path.is_file() raises where a name is too long for any file
            if other := no_file(place):
                raise OnnxError(f"{place} {other}, and {MODEL_NAME} needs a file of that name. {_AGAIN}")
            raise OnnxError(f"{place} is missing, {MODEL_NAME} needs it. Copy the whole folder, or export it again")
        return place

    def _check_interface(self) -> None:
        """Raise OnnxError where inputs and outputs are not those of a decoder with a KV cache."""
        layers = range(self.conf.n_layers)
        wanted_in = {"input_ids", "attention_mask"} | {n for i in layers for n in kv_names("past_key_values", i)}
        wanted_out = {"logits"} | {name for i in layers for name in kv_names("present", i)}
        for kind, wanted, found in (
            ("input", wanted_in, self.onnx.inputs),
            ("output", wanted_out, self.onnx.outputs),
        ):
            names = Counter(value.name for value in found)
            lacking, surplus = Counter(wanted) - names, names - Counter(wanted)
            if lacking or surplus:
                name = min(lacking + surplus)
                what = "has no" if name in lacking else "has a surplus"
                raise OnnxError(
                    f"{self.model_path} {what} {kind} {name}: it is no decoder of edgebit's. Export it again"
                )

    def _check_sizes(self) -> None:
        """Raise OnnxError where a file of weights is missing, or does not end where the last of them does."""
        ends: dict[str, int] = {}
        to_the_end = {tensor.location for tensor in self.onnx.external if tensor.length is None}
        for tensor in self.onnx.external:
            ends[tensor.location] = max(ends.get(tensor.location, 0), tensor.offset + (tensor.length or 0))
        for location, end in ends.items():
            place = self._file(location)
            _refuse_pointer(place)
            size = place.stat().st_size
            if size < end:
                raise OnnxError(
                    f"{place} ends at byte {size}, the weights that {MODEL_NAME} places in it at byte {end}: "
                    "a copy cut short. Copy it again, or export the model again"
                )
            if size > end and location not in to_the_end:
                raise OnnxError(
                    f"{place} has {size} bytes, the weights that {MODEL_NAME} places in it end at byte {end}: "
                    "it is of another model, or was altered. Copy the whole folder again, or export the model again"
                )


def kv_names(prefix: str, layer: int) -> tuple[str, str]:
    """Names of a layer's keys and values among inputs ("past_key_values") or outputs ("present")."""
    return f"{prefix}.{layer}.key", f"{prefix}.{layer}.value"


def _refuse_pointer(path: Path) -> None:
    try:
        with path.open("rb") as file:
            if is_lfs_pointer(file):
                raise OnnxError(f"{path} {LFS_POINTER}")
    except OSError as error:
        raise unreadable(path, error, _AGAIN) from error


def _sha256(path: Path, progress: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                progress(len(chunk))
    except OSError as error:
        raise unreadable(path, error, _AGAIN) from error
    return digest.hexdigest()
