"""The safetensors container, beside the safetensors library."""

import numpy as np
from safetensors.numpy import load_file, save_file

from edgebit.checkpoint.hugging_face.safetensors_file import SafetensorsFile, as_float32, write_safetensors


def test_safetensors_files_agree_with_the_library_both_ways(tmp_path):
    """What the safetensors library wrote we read, and what we wrote it reads, value for value."""
    rng = np.random.default_rng(11)
    tensors = {
        "a": rng.standard_normal((3, 5), np.float32),
        "b": rng.integers(0, 256, (7,), np.uint8),
        "c": rng.standard_normal((2, 2, 2)).astype(np.float16),
        "empty": np.zeros((0, 4), np.float32),
    }
    save_file(tensors, tmp_path / "theirs.safetensors")
    with SafetensorsFile(tmp_path / "theirs.safetensors") as file:
        assert file.tensors.keys() == tensors.keys()
        for name, values in tensors.items():
            assert np.array_equal(file.read(name), values)
        assert np.array_equal(file.read("a", 1, 1), tensors["a"][1:2])

    kinds = {"a": "F32", "b": "U8", "c": "F16", "empty": "F32"}
    described = {name: (kinds[name], values.shape) for name, values in tensors.items()}
    write_safetensors(tmp_path / "ours.safetensors", described, tensors.values(), {"format": "pt"})
    loaded = load_file(tmp_path / "ours.safetensors")
    assert all(np.array_equal(loaded[name], values) for name, values in tensors.items())


def test_bf16_becomes_float32_exactly():
    """Every one of the 65,536 bit patterns is the upper half of its float32."""
    bits = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(as_float32(bits, "BF16").view(np.uint32), bits.astype(np.uint32) << 16)
