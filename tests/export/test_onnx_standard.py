"""`edgebit export onnx --ops standard`: ONNX's own operators compute what the native engine computes.

Their norm and attention are sums in float32, in another order than the engine's. Where a value stands on a tie, that
rounds it to another int8, and the noise of the whole quantizer shows from there on: more often than with `contrib`
(docs/decisions/onnx-fallbacks.md has counts). So limits are those of tests/reference/README.md.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from export.onnx_run import NativeRun, OnnxRun, open_session

onnx = pytest.importorskip("onnx")

NAMES = sorted(path.name for path in (Path(__file__).parents[1] / "reference").iterdir() if path.is_dir())
BY_BODIES = ["bitnet-packed", "bonsai-f16", "legacy-1bitllm-f16-head100", "qwen3-rmsnorm-packed"]
N_TOKENS, N_GREEDY = 40, 64
PIECES = (0, 17, 18, 33, 40)
CLEAR = 0.25  # between the best logit and the second


def assert_near(found: np.ndarray, wanted: np.ndarray) -> None:
    """Half of the tokens to a step of the head's 15 bits, all in the mean."""
    errors = np.abs(found - wanted).max(axis=1)
    assert np.median(errors) < 1e-3, errors
    assert np.abs(found - wanted).mean() < 0.03 * wanted.std(), errors
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.95, errors


@pytest.mark.parametrize(
    ("name", "computes"), [*((name, "library") for name in NAMES), *((name, "exact body") for name in BY_BODIES)]
)
def test_logits_are_the_engines(name, computes, request, native, quick_model, exported):
    """In one pass and in pieces; then 64 greedy tokens, the same wherever the second is not near."""
    kernels = request.getfixturevalue("ort_library") if computes == "library" else None
    folder = exported(name, ops="standard", fallback="exact" if kernels is None else "none")
    session = open_session(folder, kernels)
    with NativeRun(native, quick_model(name)) as engine:
        tokens = np.random.default_rng(1).integers(0, engine.model.info.vocab_size, N_TOKENS)
        wanted = engine.step(tokens)
        run, in_pieces = OnnxRun(session), OnnxRun(session)
        found = run.step(tokens)[0]
        assert_near(found, wanted)
        assert_near(np.concatenate([in_pieces.step(tokens[a:b])[0] for a, b in pairwise(PIECES)]), wanted)
        ours, theirs = found[-1], wanted[-1]
        for i in range(N_GREEDY):
            token, (second, best) = int(theirs.argmax()), np.sort(theirs)[-2:]
            assert int(ours.argmax()) == token or best - second < CLEAR, f"greedy token {i}"
            ours, theirs = run.step([token])[0, -1], engine.step([token])[-1]


@pytest.mark.parametrize("level", [0, 1, 2, 99])
def test_first_tokens_are_the_engines(level, native, quick_model, exported):
    """Before there is anything to attend to, at every level of optimization: to a step of the head's 15 bits."""
    session = open_session(exported("llama-bitlinear-packed", ops="standard", fallback="exact"), level=level)
    errors = []
    for token in range(0, 200, 9):
        with NativeRun(native, quick_model("llama-bitlinear-packed")) as engine:
            errors.append(np.abs(OnnxRun(session).step([token])[0] - engine.step([token])).max())
    assert np.median(errors) < 1e-5 and max(errors) < 5e-4, errors


def test_only_onnx_s_own_operators_are_asked_for(exported):
    """But for our two, which have bodies of ONNX's operators."""
    graph = onnx.load(exported("qwen3-rmsnorm-packed", ops="standard", fallback="exact") / "model.onnx")
    assert {each.domain: each.version for each in graph.opset_import} == {"": 24, "ai.edgebit": 1}
    assert {node.op_type for node in graph.graph.node if node.domain} == {"TernaryMatMul", "Int8MatMul"}
    assert {"Attention", "RotaryEmbedding", "RMSNormalization"} <= {node.op_type for node in graph.graph.node}
    assert all(not node.domain for function in graph.functions for node in function.node)
