"""What of [engine] belongs to our own engine alone: asked of another one it is refused, since it would be ignored."""

from edgebit.daemon.config.sections import EngineConfig

# A key; values that ask for nothing which ONNX Runtime does not do, beside the default; why others are refused.
_NATIVE_ONLY: tuple[tuple[str, tuple[object, ...], str], ...] = (
    ("kv", ("f32",), "its KV cache is f32"),
    ("isa", (), "ONNX Runtime and the library of operators pick for themselves"),
    ("speculate", (0,), "it tries no drafts"),
    ("prefix_memory_mib", (0,), "it gives no states to keep"),
    ("prefix_disk_mib", (), "it gives no states to keep"),
)
# What is left out without being asked, for the log.
LEFT_OUT = "a KV cache of f32, no drafts of next tokens, no prefix cache, and threads that stay: pauses alone meet heat"


def foreign_engine_fault(engine: EngineConfig) -> str | None:
    """What of [engine] does not fit together, in words that begin with the key's name; None where all does."""
    if engine.engine == "native":
        return None
    if not engine.onnx_folder:
        return 'onnx_folder is needed with engine = "onnx": name the folder that `edgebit export onnx` wrote'
    default = EngineConfig()
    for key, others, why in _NATIVE_ONLY:
        value = getattr(engine, key)
        if value not in (getattr(default, key), *others):
            return f'{key} = {value!r} is not for engine = "onnx": {why}. Take the line out'
    return None
