"""An ONNX Runtime session over an exported folder, with our operators where the library is there.

onnxruntime and numpy are imported when a session is made, so that all else works without them.
"""

import importlib
import os
from types import ModuleType
from typing import Any, Self

from edgebit.errors import OnnxError
from edgebit.onnx_engine.binding import Binding, OperatorLibrary, State, find_library
from edgebit.onnx_engine.folder import OnnxFolder
from edgebit.onnx_engine.ort_faults import (
    INSTALL,
    check_version,
    explain,
    explain_library,
    in_short,
    is_slow,
    lacks_library,
)
from edgebit.runtime.eval_errors import Cancelled

_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_ONLY_ERRORS = 3  # ONNX Runtime's log level


class OnnxSession:
    """A folder's graph, loaded and ready to run; several KV caches (decoder.Decoder) can share it."""

    def __init__(self, folder: OnnxFolder, runtime: ModuleType, inference: Any, binding: Binding, threads: int) -> None:
        self.folder = folder
        self.runtime = runtime  # the module onnxruntime
        self.numpy = importlib.import_module("numpy")
        self.inference = inference  # its InferenceSession
        self.binding = binding
        self.threads = threads

    @classmethod
    def open(cls, folder: OnnxFolder, *, threads: int, library: str | None = None) -> Self:
        """Load the graph to run on so many threads.

        library: the path of the library of operators, or "none"; None takes EDGEBIT_ORT_LIBRARY's, or the folder's own
        Raises OnnxError where ONNX Runtime is missing or too old, the library or a file is damaged, memory is short.
        """
        runtime = import_onnxruntime()
        version: str = runtime.__version__
        operators = usable_operators(folder, version, library)
        made_before = operators.kernels() if operators is not None else 0
        inference = _load(runtime, folder, threads, operators)
        made = operators.kernels() - made_before if operators is not None else 0
        state: State = "none" if not folder.own_operators else "bound" if made else "fallback"
        slow = folder.multiplies_two_bits(with_library=made > 0) and is_slow(version)
        binding = Binding(state, operators.path if operators is not None else None, folder.fallback, slow)
        return cls(folder, runtime, inference, binding, threads)

    @property
    def version(self) -> str:
        """Of ONNX Runtime."""
        version: str = self.runtime.__version__
        return version

    def run(self, bound: Any, options: Any) -> None:
        """Run the graph once with the inputs and outputs of an IOBinding.

        options: RunOptions; where its `terminate` is set, from any thread, Cancelled is raised and it is unset.
        Raises OnnxError where the run fails.
        """
        try:
            self.inference.run_with_iobinding(bound, options)
        except failures(self.runtime) as error:
            if options.terminate:
                options.terminate = False
                raise Cancelled from None
            raise explain(error, self.folder, self.version) from error


def usable_operators(folder: OnnxFolder, version: str, library: str | None = None) -> OperatorLibrary | None:
    """The library of operators that a folder runs with; None: without one. The graph itself is not loaded.

    version: of ONNX Runtime; library: as in OnnxSession.open(). Raises OnnxError where that version is too old for what
    is there, the library is of no use here, or there is none and no fallback.
    """
    place = find_library(folder, library)
    check_version(version, folder, with_library=place is not None)
    if folder.own_operators and place is None and not folder.has_fallback:
        raise lacks_library(folder)
    return OperatorLibrary.load(place, by_option=library is not None) if place is not None else None


def import_onnxruntime() -> ModuleType:
    """The module onnxruntime, told to send nothing to its makers (docs/onnx.md).

    Raises OnnxError where it, or numpy, is not installed or cannot be loaded.
    """
    os.environ.setdefault(_NO_TELEMETRY, "1")  # is read when it is loaded
    try:
        importlib.import_module("numpy")
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name in ("onnxruntime", "numpy")
        what = f"{error.name} is not installed" if missing else f"onnxruntime cannot be loaded: {in_short(str(error))}"
        raise OnnxError(f"{what}, and ONNX folders run by it. Install it: {INSTALL}") from error
    runtime.disable_telemetry_events()  # for one that somebody else has loaded
    return runtime


def failures(runtime: ModuleType) -> tuple[type[Exception], ...]:
    """The exceptions that ONNX Runtime raises. Its bindings know those it has; others come as Python's own."""
    own = vars(runtime.capi.onnxruntime_pybind11_state).values()
    raised = [each for each in own if isinstance(each, type) and issubclass(each, Exception)]
    return (*raised, RuntimeError, ValueError, MemoryError)


def _load(runtime: ModuleType, folder: OnnxFolder, threads: int, operators: OperatorLibrary | None) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = _ONLY_ERRORS + 1  # what it logs on failing is in what it raises
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # one is kept for each length of a context, and none comes back
    if operators is not None:
        try:
            options.register_custom_ops_library(str(operators.path.resolve()))
        except failures(runtime) as error:
            raise explain_library(error, str(operators.path), runtime.__version__) from error
    try:
        return runtime.InferenceSession(str(folder.model_path), options, providers=["CPUExecutionProvider"])
    except failures(runtime) as error:
        raise explain(error, folder, runtime.__version__) from error
