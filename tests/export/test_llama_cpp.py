"""llama.cpp loads what `edgebit export gguf` writes, and computes it as near as its arithmetic lets it.

llama.cpp quantises activations in blocks of 256 (or 32) values, BitNets were trained with one scale a token: so logits
differ a little, and a greedy answer can part where two tokens are nearly as likely. What is measured is the KL
divergence of each position's distribution from the engine's, and the token chosen where the engine is sure.
"""

from pathlib import Path

import numpy as np
import pytest

llama_cpp = pytest.importorskip("llama_cpp", reason="llama.cpp loads what we export (pip install llama-cpp-python)")

from export.rope_variant import with_rope  # noqa: E402

from edgebit.convert import convert  # noqa: E402
from edgebit.export.to_gguf import export_gguf  # noqa: E402
from edgebit.runtime.engine import Engine  # noqa: E402
from edgebit.runtime.model import Model  # noqa: E402

pytestmark = pytest.mark.reference
MEMORISED = Path(__file__).with_name("memorised")
N = 160  # tokens


def llama_logits(path: Path, ids: list[int]) -> np.ndarray:
    """float32 [tokens, vocabulary], with a KV cache of f32."""
    model = llama_cpp.Llama(
        str(path), n_ctx=N, n_batch=N, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0
    )
    model.eval(ids)
    return np.array(model.scores[: len(ids)])


def engine_logits(native, path: Path, ids: list[int]) -> np.ndarray:
    with Model.open(native, path) as model, Engine(model, ctx_len=N, logits_rows=len(ids), kv="f32") as engine:
        engine.eval_batch(ids, [0] * len(ids), [True] * len(ids))
        return np.stack([np.frombuffer(engine.logits(row), np.float32) for row in range(len(ids))])


def greedy(native, path: Path, prompt: list[int], n: int) -> list[int]:
    with Model.open(native, path) as model, Engine(model, ctx_len=N, kv="f32") as engine:
        ids = list(prompt)
        engine.eval(prompt)
        for _ in range(n):
            ids.append(int(np.frombuffer(engine.logits(), np.float32).argmax()))
            engine.eval(ids[-1:])
    return ids


def llama_greedy(path: Path, prompt: list[int], n: int) -> list[int]:
    model = llama_cpp.Llama(str(path), n_ctx=N, n_batch=N, logits_all=True, verbose=False, n_threads=1)
    ids = list(prompt)
    model.eval(prompt)
    for _ in range(n):
        ids.append(int(np.array(model.scores[len(ids) - 1]).argmax()))
        model.eval(ids[-1:])
    return ids


def kl(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Of each row, in nats."""
    p, q = (x.astype(np.float64) - x.max(axis=1, keepdims=True) for x in (wanted, found))
    p, q = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in (p, q))
    return (np.exp(p) * (p - q)).sum(axis=1)


@pytest.mark.parametrize("kind", ["tq2_0", "tq1_0"])
@pytest.mark.parametrize("exact", [False, True], ids=["block-scales", "exact-scales"])
@pytest.mark.parametrize("name", ["legacy-1bitllm-f32", "llama-bitlinear-packed"])
def test_llama_cpp_computes_it(name, exact, kind, native, reference_checkpoint, reference_model, tmp_path):
    """Archs bitnet (SiLU) and llama: mean KL at most 0.004 nats, and the same token where the engine is sure."""
    export_gguf(reference_checkpoint(name), tmp_path / "model.gguf", kind=kind, exact_scales=exact)
    ids = greedy(native, reference_model(name), np.random.default_rng(3).integers(3, 250, 96).tolist(), 64)
    wanted = engine_logits(native, reference_model(name), ids)
    found = llama_logits(tmp_path / "model.gguf", ids)
    best = np.sort(wanted, axis=1)
    sure = best[:, -1] - best[:, -2] >= 0.25
    same = (wanted.argmax(axis=1) == found.argmax(axis=1)).mean()
    print(f"\n{name} {kind} exact={exact}: KL {kl(wanted, found).mean():.5f}, same {same:.3f}, sure {sure.mean():.2f}")
    assert kl(wanted, found).mean() <= 0.004
    assert sure.sum() >= 100
    assert np.array_equal(wanted.argmax(axis=1)[sure], found.argmax(axis=1)[sure])


@pytest.mark.parametrize("factor", [None, 1.0], ids=["own-attention-factor", "attention-factor-1"])
def test_llama_cpp_computes_yarn(factor, native, reference_checkpoint, tmp_path):
    """Positions beyond the original context, with rows of q and k of arch llama."""
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    rope |= {} if factor is None else {"attention_factor": factor}
    folder = with_rope(reference_checkpoint("llama-master"), rope, tmp_path / "source")
    export_gguf(folder, tmp_path / "model.gguf", exact_scales=True)
    convert(folder, tmp_path / "model.ebm", probes=False)
    ids = np.random.default_rng(3).integers(3, 96, N).tolist()
    wanted = engine_logits(native, tmp_path / "model.ebm", ids)
    found = llama_logits(tmp_path / "model.gguf", ids)
    print(f"\nYaRN, factor {factor}: KL {kl(wanted, found).mean():.5f}")
    assert kl(wanted, found).mean() <= 0.004


@pytest.mark.parametrize("kind", ["tq2_0", "tq1_0"])
def test_a_free_greedy_answer_is_the_same(kind, native, tmp_path):
    """64 tokens, each program going on from its own: of a model that knows its text by heart, and the text itself."""
    export_gguf(MEMORISED, tmp_path / "model.gguf", kind=kind)
    convert(MEMORISED, tmp_path / "model.ebm", probes=False)
    text = [ord(char) - 32 for char in (MEMORISED / "text.txt").read_text(encoding="ascii").strip()]
    for first in (0, 64, 128, 192):
        ours = greedy(native, tmp_path / "model.ebm", text[first : first + 32], 64)
        theirs = llama_greedy(tmp_path / "model.gguf", text[first : first + 32], 64)
        assert theirs == ours == text[first : first + 96]
