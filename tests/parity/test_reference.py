"""The engine computes what transformers computes, for every checkpoint of tests/reference (README: how close).

The same criteria hold at every ISA level and thread count, since the logits are the same bits there. The KV cache is
float32 where it is not said: what other types cost is measured on its own.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgebit.bundle.model_format import ActivationQuantisation, Conf, Role
from edgebit.bundle.model_reader import ModelFile
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model

MODELS = (
    "bitnet-packed", "bitnet-bf16", "bitnet-packed-odd-untied", "legacy-1bitllm-f32", "legacy-1bitllm-f16-head100",
    "llama-bitlinear-packed", "falcon3-packed", "llama-master", "qwen2-zero-bias-packed", "trilm-f16", "bonsai-f16",
    "llama-bitlinear-rmsnorm-packed", "qwen3-rmsnorm-packed",
)  # fmt: skip


@pytest.fixture(params=MODELS)
def case(request, native, reference_checkpoint, reference_model):
    """One reference model, opened, with transformers' results."""
    folder = reference_checkpoint(request.param)
    with ModelFile(reference_model(request.param)) as file, Model.open(native, file.path) as model:
        yield Case(model, folder, file.conf)


class Case:
    def __init__(self, model: Model, folder: Path, conf: Conf) -> None:
        self.model, self.conf = model, conf
        self.tensors = load_file(folder / "reference.safetensors")
        self.facts = json.loads((folder / "reference.json").read_text())

    def logits(self, ids: list[int], kv: str = "f32") -> np.ndarray:
        """Logits of all positions, float32 [tokens, vocabulary]."""
        return all_logits(self.model, ids, kv)


def all_logits(model: Model, ids: list[int], kv: str = "f32", threads: int = 1) -> np.ndarray:
    with Engine(model, ctx_len=len(ids), threads=threads, logits_rows=len(ids), kv=kv) as engine:
        engine.eval_batch(ids, [0] * len(ids), [True] * len(ids))
        return np.stack([np.frombuffer(engine.logits(row), np.float32) for row in range(len(ids))])


def test_layer_by_layer(case):
    """Fed with the reference's own input, each layer gives its output: 1e-4 at 30 of 32 positions, 5 % at the rest.

    Where the reference rounds no activations, the 15 bits of ours cost up to half a step of 2^-14 a product: 3e-4.
    """
    hidden = case.tensors["hidden_f32"]
    close = 3e-4 if case.conf.activation_quantisation == ActivationQuantisation.INT15 else 1e-4
    with Engine(case.model, ctx_len=64, kv="f32") as engine:
        for layer in range(len(hidden) - 1):
            memory = bytearray(hidden[layer].tobytes())
            engine.eval_layer(layer, memory)
            ours, wanted = np.frombuffer(memory, np.float32).reshape(hidden[layer].shape), hidden[layer + 1]
            error = np.abs(ours - wanted).max(axis=1) / np.abs(wanted).max(axis=1)
            assert (error <= close).sum() >= 30, f"layer {layer}: {np.sort(error)[-4:]}"
            assert error.max() <= 0.05, f"layer {layer}: {error.max()}"


def test_the_embedding_is_exact(case):
    """Nothing is lost on the way in: the first row of the reference's hidden states is the stored embedding."""
    hidden, ids = case.tensors["hidden_f32"][0], case.tensors["input_ids"].tolist()
    checkpoint_rows = dict(zip(ids, hidden, strict=True))
    with Engine(case.model, ctx_len=8) as engine:
        for token, row in checkpoint_rows.items():
            engine.truncate()
            probe = engine.run_probe([token], 0)
            assert probe.layer_crc[0] == crc32_of(row)


def crc32_of(row: np.ndarray) -> int:
    return zlib.crc32(row.astype("<f4").tobytes())


def test_end_to_end(case):
    """Mean difference at most 0.03 of the logits' standard deviation, the same argmax at 95 % of the positions."""
    wanted = case.tensors["logits_f32"]
    ours = case.logits(case.tensors["input_ids"].tolist())
    assert np.abs(ours - wanted).mean() <= 0.03 * wanted.std()
    assert (ours.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.95


def test_long_text(case):
    """200 tokens: the same argmax at 95 % of the positions, the loss within 0.02, the last logits within 0.03."""
    ids = case.tensors["long_ids"].tolist()
    ours = case.logits(ids)
    assert (ours.argmax(axis=1) == case.tensors["long_argmax_f32"]).mean() >= 0.95
    shifted = (ours[:-1] - ours[:-1].max(axis=1, keepdims=True)).astype(np.float64)
    loss = float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(ids) - 1), ids[1:]]).mean())
    assert abs(loss - case.facts["long_nll_f32"]) <= 0.02
    wanted = case.tensors["long_last_logits_f32"]
    assert np.abs(ours[-1] - wanted).mean() <= 0.03 * wanted.std()


# KV type: mean difference in the logits' standard deviation, the same argmax of 32 and of 200 positions, at worst. A
# rounding in the cache makes int8 activations fall to the other side here and there (docs/decisions/kv-cache.md).
KV_ERRORS = [("f16", 0.035, 0.9, 0.92), ("int8", 0.05, 0.8, 0.9)]


@pytest.mark.parametrize(("kv", "most", "same_argmax", "same_long_argmax"), KV_ERRORS)
def test_what_a_smaller_kv_cache_costs(kv, most, same_argmax, same_long_argmax, case):
    """The logits move away from the reference by no more than was measured and written down."""
    wanted = case.tensors["logits_f32"]
    ours = case.logits(case.tensors["input_ids"].tolist(), kv)
    assert np.abs(ours - wanted).mean() <= most * wanted.std()
    assert (ours.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= same_argmax
    ours = case.logits(case.tensors["long_ids"].tolist(), kv)
    assert (ours.argmax(axis=1) == case.tensors["long_argmax_f32"]).mean() >= same_long_argmax


def test_greedy_where_the_reference_is_sure(case):
    """Fed with the reference's own tokens: the same token wherever its distance to the second is 0.25 or more."""
    prompt, greedy, gaps = (case.facts[key] for key in ("prompt", "greedy_f32", "greedy_top2_gap"))
    ours = case.logits(prompt + greedy[:-1]).argmax(axis=1)[len(prompt) - 1 :]
    sure = [step for step, gap in enumerate(gaps) if gap >= 0.25]
    assert len(sure) >= 40
    assert [int(ours[step]) for step in sure] == [greedy[step] for step in sure]


def test_decode_gives_the_bits_of_prefill(case):
    """One token at a time or all at once: the same logits."""
    ids = case.tensors["input_ids"].tolist()
    together = case.logits(ids, "f16")
    with Engine(case.model, ctx_len=len(ids)) as engine:
        for position, token in enumerate(ids):
            engine.eval([token])
            assert bytes(engine.logits()) == together[position].tobytes(), f"position {position}"


@pytest.mark.parametrize("kv", ["f16", "int8"])
def test_the_same_bits_at_every_isa_level_and_thread_count(kv, case, native, isa_levels):
    """Scalar with one thread is the measure of all others."""
    ids = case.tensors["long_ids"].tolist()
    bits = None
    for isa in isa_levels:
        with Model.open(Library.load(native.path, isa=isa), Path(case.model.source)) as model:
            for threads in (1, 2, 3):
                found = all_logits(model, ids, kv, threads).tobytes()
                bits = bits or found
                assert found == bits, f"{isa}, {threads} threads"


def test_packed_and_master_form_have_the_same_codes(reference_checkpoint):
    """absmean gives the very codes that the packed form of the same model stores, all of them."""
    packed = open_checkpoint(reference_checkpoint("bitnet-packed"))
    masters = open_checkpoint(reference_checkpoint("bitnet-bf16"))
    for role, layer in packed.config.conf.roles():
        if role.is_projection:
            stored, quantised = packed.projection(role, layer), masters.projection(role, layer)
            assert np.array_equal(stored.weights, quantised.weights), f"{Role(role).name} of layer {layer}"
            difference = abs(quantised.scales - stored.scales)
            assert (difference <= stored.scales / 256).all(), "the packed form keeps the scale as bf16"
    packed.close()
    masters.close()


@pytest.mark.parametrize("name", MODELS)
def test_golden_probes_hold_at_every_isa_level(name, native, isa_levels, reference_model):
    """What convert wrote into the file is what each level of this machine computes."""
    for isa in isa_levels:
        with (
            Model.open(Library.load(native.path, isa=isa), reference_model(name)) as model,
            Engine(model, ctx_len=128) as engine,
        ):
            assert engine.check_probes() == 3
