"""The engine on models of many shapes: against numpy, and bit for bit at every ISA level, thread count and batching."""

import dataclasses
import itertools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebit.bundle.model_format import (
    NO_LAYER,
    PER_ROW,
    PER_TENSOR,
    Activation,
    ActivationQuantisation,
    Conf,
    Encoding,
    Granularity,
    Norms,
    Role,
    Scaling,
)
from edgebit.errors import BundleError, EdgebitError, EngineError
from edgebit.runtime.engine import KV_TYPES, Engine
from edgebit.runtime.eval_errors import Cancelled, ContextFullError
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from tests.kernels.conftest import CheckBuild
from tests.kernels.numpy_model import layer_of, normed
from tests.kernels.test_ukernels import AARCH64_LEVELS
from tests.kernels.tiny_model import TinyModel, tiny_conf

_GROUPS_OF_64 = Scaling(Granularity.GROUP, 64)
_MIXED = {
    Role.Q_PROJ: Scaling(Granularity.GROUP, 192), Role.K_PROJ: PER_ROW, Role.V_PROJ: PER_TENSOR,
    Role.O_PROJ: _GROUPS_OF_64, Role.GATE_PROJ: _GROUPS_OF_64, Role.UP_PROJ: PER_TENSOR,
    Role.DOWN_PROJ: Scaling(Granularity.GROUP, 320),
}  # fmt: skip

SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "odd": ({}, {}),
    "silu-no-norms": ({"activation": Activation.SILU, "norms": Norms(0)}, {"scaling": PER_ROW}),
    "one-kv-head": ({"n_kv_heads": 1, "head_dim": 6, "hidden_size": 65}, {"embedding": Encoding.BF16}),
    "smallest": (
        {"hidden_size": 1, "ffn_size": 1, "n_heads": 1, "n_kv_heads": 1, "head_dim": 2, "vocab_size": 6},
        {"embedding": Encoding.I8},
    ),
    "wide": ({"hidden_size": 700, "ffn_size": 1300, "head_dim": 34, "vocab_size": 400}, {"scaling": PER_ROW}),
    "odd-t1": ({}, {"layout": Encoding.T1}),
    "wide-t1": ({"hidden_size": 384, "ffn_size": 1217, "head_dim": 34, "vocab_size": 401}, {"layout": Encoding.T1}),
    "llama-rows-int15": (
        {"activation": Activation.SILU, "norms": Norms(0), "activation_quantisation": ActivationQuantisation.INT15},
        {"scaling": PER_ROW, "embedding": Encoding.F16},
    ),
    "llama-int15-t1": (
        {
            "hidden_size": 384, "ffn_size": 401, "norms": Norms(0),
            "activation_quantisation": ActivationQuantisation.INT15,
        },
        {"layout": Encoding.T1},
    ),
    "qwen3-groups-int15": (
        {
            "hidden_size": 256, "ffn_size": 384, "n_heads": 8, "n_kv_heads": 2, "head_dim": 32, "vocab_size": 101,
            "activation": Activation.SILU, "norms": Norms.QK_NORM, "rope_attention_factor": 1.25,
            "activation_quantisation": ActivationQuantisation.INT15,
        },
        {"scaling": Scaling(Granularity.GROUP, 128), "embedding": Encoding.F16},
    ),
    "groups-mixed": (
        {"hidden_size": 192, "ffn_size": 320, "n_heads": 32, "n_kv_heads": 1, "head_dim": 6},
        {"scaling": lambda role, layer: _MIXED[role] if layer else _GROUPS_OF_64, "layout": Encoding.T1},
    ),
    "projection-norm": (
        {"norms": Norms.PROJECTION_NORM | Norms.QK_NORM, "projection_norm_eps": 0.03}, {"scaling": PER_ROW},
    ),
    "everything": (
        {
            "hidden_size": 192, "ffn_size": 320, "n_heads": 32, "n_kv_heads": 1, "head_dim": 6, "norms": Norms(15),
            "projection_norm_eps": 1e-3, "activation_quantisation": ActivationQuantisation.INT15,
            "rope_attention_factor": 0.7,
        },
        {"scaling": lambda role, layer: _MIXED[role], "embedding": Encoding.I8},
    ),
}  # fmt: skip


def _model(shape: str) -> TinyModel:
    changes, options = SHAPES[shape]
    return TinyModel(tiny_conf(**changes), seed=len(shape), **options)


def _ids(conf: Conf, n: int) -> list[int]:
    return np.random.default_rng(7).integers(0, conf.vocab_size, n).tolist()


def _prefill(
    library: Library, file: bytes, ids: list[int], *, threads: int = 1, batch_len: int = 0, kv: str = "f16"
) -> np.ndarray:
    """Logits of all positions, [tokens, vocab], from one eval."""
    with Model.from_bytes(library, file) as model:
        engine = Engine(model, threads=threads, batch_len=batch_len, logits_rows=len(ids), kv=kv)
        with engine:
            engine.eval_batch(ids, [0] * len(ids), [True] * len(ids))
            return np.stack([np.array(engine.logits(row)) for row in range(len(ids))])


@pytest.mark.parametrize("shape", SHAPES)
def test_layers_and_head_compute_what_numpy_does(shape: str, native: Library):
    """Each layer alone, given numpy's input: within 1e-5 of the row's largest value, but where one rounding flips.

    Of 15 bits roundings flip more often, in keys and values for all positions after them, and each by so little that no
    position is off by more than 1e-3. The KV cache is float32: what the other types round off is in tests/parity.
    """
    tiny = _model(shape)
    conf = tiny.conf
    is_int15 = conf.activation_quantisation == ActivationQuantisation.INT15
    unflipped, worst, worst_logits = (0.2, 1e-3, 0.001) if is_int15 else (0.9, 0.2, 0.03)
    ids = _ids(conf, 40)
    x = tiny.weights[Role.TOKEN_EMBEDDING, NO_LAYER][ids].astype(np.float64)

    with Model.from_bytes(native, tiny.to_bytes()) as model, Engine(model, batch_len=7, kv="f32") as engine:
        for layer in range(conf.n_layers):
            wanted = layer_of(tiny, layer, x)
            hidden = bytearray(x.astype("<f4").tobytes())
            engine.eval_layer(layer, hidden)
            got = np.frombuffer(hidden, "<f4").reshape(wanted.shape)
            off = np.abs(got - wanted).max(-1) / np.abs(wanted).max(-1)
            assert (off < 1e-5).mean() >= unflipped
            assert off.max() < worst
            x = np.array(got, dtype=np.float64)
    got_logits = _prefill(native, tiny.to_bytes(), ids, kv="f32")
    final = normed(x, tiny.weights[Role.FINAL_NORM, NO_LAYER], conf.rms_norm_eps)
    wanted = final @ tiny.weights[Role.HEAD, NO_LAYER].T
    mean_off = np.abs(got_logits - wanted).mean()
    assert mean_off < worst_logits * wanted.std()


def test_int15_products_are_exact_where_32_bits_do_not_hold_them(native: Library):
    """All weights +1 and all inputs at their most: 200,000 x 16,256 is more than 2^31."""
    conf = tiny_conf(
        hidden_size=2, ffn_size=200_000, n_layers=1, n_heads=1, n_kv_heads=1, head_dim=2, norms=Norms(0),
        activation=Activation.SILU, activation_quantisation=ActivationQuantisation.INT15,
    )  # fmt: skip
    tiny = TinyModel(conf)
    for role in (Role.GATE_PROJ, Role.UP_PROJ, Role.DOWN_PROJ):
        tiny.set_projection(role, 0, np.ones(conf.shape_of(role), np.int8), np.ones(1, "<f4"))
    for n_tokens in (1, 9):  # packed weights, and unpacked ones
        x = np.random.default_rng(1).uniform(1, 2, (n_tokens, 2))
        hidden = bytearray(x.astype("<f4").tobytes())
        with Model.from_bytes(native, tiny.to_bytes()) as model, Engine(model, kv="f32") as engine:
            engine.eval_layer(0, hidden)
        wanted = layer_of(tiny, 0, x.astype("<f4").astype(np.float64))
        assert np.abs(wanted).min() > 100, "else down_proj adds next to nothing"
        assert np.allclose(np.frombuffer(hidden, "<f4").reshape(wanted.shape), wanted, rtol=1e-4, atol=0)


def test_every_half_is_the_float_that_numpy_makes_of_it(native: Library):
    """The embedding as f16: subnormals, zeros and the largest among them, by the sum of the first hidden state."""
    halves = np.arange(0x10000, dtype="<u2")
    halves = halves[(halves & 0x7C00) != 0x7C00].reshape(-1, 62)  # 1,023 rows of finite ones
    tiny = TinyModel(tiny_conf(hidden_size=62, vocab_size=len(halves), n_layers=1), embedding=Encoding.F16)
    tiny.set_embedding(halves.view("<f2").astype("<f4"))
    with Model.from_bytes(native, tiny.to_bytes()) as model, Engine(model) as engine:
        model.verify()
        for token in range(0, len(halves), 7):
            row = tiny.weights[Role.TOKEN_EMBEDDING, NO_LAYER][token]
            assert engine.run_probe([token], 0).layer_crc[0] == zlib.crc32(row.tobytes())


@pytest.mark.parametrize("shape", [*SHAPES])
def test_golden_probes_of_every_form_hold_at_every_isa_level(shape: str, isa_levels: list[str]):
    """Written from one level, checked at all."""
    tiny = _model(shape)
    with Model.from_bytes(Library.load(isa="scalar"), tiny.to_bytes()) as model, Engine(model) as engine:
        probe = engine.run_probe([1, 2, 3, 4, 5], 6)
    file = tiny.to_bytes((probe,))
    for isa in isa_levels:
        with Model.from_bytes(Library.load(isa=isa), file) as model, Engine(model, threads=2) as engine:
            assert engine.check_probes() == 1


# ---- bit for bit ----


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_the_same_at_every_isa_level_thread_count_and_batch_length(shape: str, isa_levels: list[str]):
    """Prefill in one go, in chunks, on 1 to 3 threads, at each ISA level of this machine: equal bytes."""
    tiny = _model(shape)
    file, ids = tiny.to_bytes(), _ids(tiny.conf, 70)
    wanted = _prefill(Library.load(isa="scalar"), file, ids)

    assert np.isfinite(wanted).all()
    for isa, threads, batch_len in itertools.product(isa_levels, (1, 2, 3), (1, 7, 0)):
        got = _prefill(Library.load(isa=isa), file, ids, threads=threads, batch_len=batch_len)
        assert got.tobytes() == wanted.tobytes(), f"{isa}, {threads} threads, batch_len {batch_len}"


@pytest.mark.parametrize("shape", SHAPES)
def test_decode_and_mixed_batches_equal_prefill(shape: str, native: Library):
    """Token by token, and three sequences interleaved in random portions: each gets the logits it has alone."""
    tiny = _model(shape)
    file, random = tiny.to_bytes(), np.random.default_rng(3)
    texts = [_ids(tiny.conf, n) for n in (30, 17, 41)]
    wanted = [_prefill(native, file, ids) for ids in texts]

    with Model.from_bytes(native, file) as model:
        with Engine(model, threads=2) as engine:
            for position, token in enumerate(texts[0]):
                engine.eval([token])
                assert bytes(engine.logits()) == wanted[0][position].tobytes()
        with Engine(model, threads=2, sequences=3, batch_len=5, logits_rows=100) as engine:
            done = [0, 0, 0]
            while any(n < len(ids) for n, ids in zip(done, texts, strict=True)):
                batch = []
                for sequence in random.integers(0, 3, random.integers(1, 12)).tolist():
                    if done[sequence] < len(texts[sequence]):
                        batch.append((sequence, done[sequence]))
                        done[sequence] += 1
                if not batch:
                    continue
                engine.eval_batch([texts[s][p] for s, p in batch], [s for s, _ in batch], [True] * len(batch))
                for row, (sequence, position) in enumerate(batch):
                    assert bytes(engine.logits(row)) == wanted[sequence][position].tobytes()


@pytest.mark.parametrize("kv", ["f16", "int8", "f32"])
@pytest.mark.parametrize("heads", [{}, {"n_heads": 3, "n_kv_heads": 3}, {"n_heads": 34, "n_kv_heads": 1}])
def test_attention_over_several_segments_is_the_same_however_it_is_split(
    kv: str, heads: dict[str, int], native: Library, isa_levels: list[str]
):
    """Prefill in chunks and decode, one thread and several (which share a long context), each ISA level: equal bytes.

    A segment is 256 positions; groups of 1, 3 and 34 query heads are fewer and more than go together.
    """
    tiny = TinyModel(tiny_conf(context_max=600, **heads))
    file, ids = tiny.to_bytes(), _ids(tiny.conf, 540)
    wanted = _prefill(Library.load(isa="scalar"), file, ids, kv=kv)

    for isa in isa_levels:
        for threads, batch_len in ((1, 100), (3, 37)):
            got = _prefill(Library.load(isa=isa), file, ids, threads=threads, batch_len=batch_len, kv=kv)
            assert got.tobytes() == wanted.tobytes(), f"{isa}, {threads} threads, batch_len {batch_len}"
    with Model.from_bytes(native, file) as model:
        for threads in (1, 2):
            with Engine(model, threads=threads, kv=kv) as engine:
                decoded = [*range(250, 260), *range(505, 520)]
                spans = [(0, 250), (250, 251), (260, 505), (520, 526), (526, 540), *((at, at + 1) for at in decoded)]
                for begin, end in sorted(set(spans)):
                    engine.eval(ids[begin:end])
                    assert bytes(engine.logits()) == wanted[end - 1].tobytes(), f"position {end - 1}"


@pytest.mark.parametrize(("kv", "element"), [("f16", 2), ("int8", 1), ("f32", 4)])
def test_the_kv_cache_takes_what_its_type_says(kv: str, element: int, native: Library):
    """Keys and values of all layers and positions, groups of 16 positions whole; int8 has two scales a position."""
    tiny = TinyModel(tiny_conf(head_dim=32))
    with Model.from_bytes(native, tiny.to_bytes()) as model, Engine(model, ctx_len=100, sequences=3, kv=kv) as engine:
        position = 2 * 32 * element + (2 * 4 if kv == "int8" else 0)
        rows = 3 * tiny.conf.n_layers * tiny.conf.n_kv_heads * 112
        assert engine.stats().kv_bytes == rows * position


def test_probes_want_an_f16_kv_cache(native: Library):
    """Another type has other logits: a refusal that says so, and no mismatch."""
    tiny = _model("odd")
    with (
        Model.from_bytes(native, tiny.to_bytes()) as model,
        Engine(model, kv="int8") as engine,
        pytest.raises(EngineError, match="defined for a KV cache of f16"),
    ):
        engine.run_probe([1, 2, 3], 0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kv"), [("bitnet-packed", "f16"), ("legacy-1bitllm-f32", "int8")])
def test_logits_are_the_same_on_this_machine_and_on_aarch64(
    name: str,
    kv: str,
    native: Library,
    isa_levels: list[str],
    reference_model: Callable[[str], Path],
    check_build: Callable[[str], CheckBuild],
    tmp_path: Path,
):
    """edgebit-run at each ISA level, here and under qemu: logits of 70 positions and ten greedy tokens are equal."""
    check_here_and_on_aarch64(native, isa_levels, check_build, reference_model(name), kv, tmp_path / "logits")


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", ["llama-int15-t1", "qwen3-groups-int15", "groups-mixed", "projection-norm", "everything"]
)
def test_logits_of_other_forms_are_the_same_on_aarch64(
    shape: str, native: Library, isa_levels: list[str], check_build: Callable[[str], CheckBuild], tmp_path: Path
):
    """15 bits, groups and norms of projections too."""
    path = tmp_path / "tiny.ebm"
    path.write_bytes(_model(shape).to_bytes())
    check_here_and_on_aarch64(native, isa_levels, check_build, path, "f16", tmp_path / "logits")


def check_here_and_on_aarch64(
    native: Library,
    isa_levels: list[str],
    check_build: Callable[[str], CheckBuild],
    path: Path,
    kv: str,
    out: Path,
    *more: str,
) -> None:
    """`more`: options of edgebit-run."""
    with Model.open(native, path) as model:
        ids = np.random.default_rng(5).integers(0, model.info.vocab_size, 70).tolist()
    arguments = [str(path), "--ids", ",".join(map(str, ids)), "-n", "10", "--ignore-stop", "--kv", kv, *more]
    runs = [("host", isa, "", threads) for isa in isa_levels for threads in (1, 3)]
    runs += [("aarch64", isa, cpu, 1 + row % 3) for row, (isa, cpu) in enumerate(AARCH64_LEVELS)]

    results = set()
    for kind, isa, cpu, threads in runs:
        greedy = check_build(kind).run(
            "edgebit-run", *arguments, "--threads", str(threads), "--logits-out", str(out), isa=isa, cpu=cpu
        )
        results.add((greedy, out.read_bytes()))

    assert len(results) == 1
    greedy, logits = results.pop()
    assert len(greedy.split()) == 10
    assert len(logits) == 70 * 4 * model.info.vocab_size


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_runs_are_clean_under_sanitizers(shape: str, check_build: Callable[[str], CheckBuild], tmp_path: Path):
    """Verifying, prefill, decode, drafts and sampling on two threads: no access outside, nothing undefined."""
    tiny = _model(shape)
    path = tmp_path / "model.ebm"
    path.write_bytes(tiny.to_bytes())
    ids = ",".join(map(str, _ids(tiny.conf, 40)))

    found = check_build("sanitized").run(
        "edgebit-run", str(path), "--verify", "--ids", ids, "-n", "8", "--ignore-stop", "--temp", "0.8", "--top-k", "4",
        "--top-p", "0.9", "--repeat-penalty", "1.1", "--threads", "2", "--batch", "7",
    )  # fmt: skip

    assert len(found.split()) == 8
    drafted = check_build("sanitized").run(
        "edgebit-run", str(path), "--ids", ",".join(["1", "2", "3", "4", "5"] * 6), "-n", "60", "--ignore-stop",
        "--speculate", "8", "--threads", "2",
    )  # fmt: skip
    assert len(drafted.split()) == 60


def test_threads_change_between_calls_and_results_do_not(native: Library):
    """Fewer and more again, in the middle of a sequence; never more than the engine was opened with."""
    tiny = _model("wide")
    file, ids = tiny.to_bytes(), _ids(tiny.conf, 60)
    wanted = _prefill(native, file, ids)

    with Model.from_bytes(native, file) as model, Engine(model, threads=3) as engine:
        for position, token in enumerate(ids):
            engine.set_threads(1 + position // 2 % 3)
            engine.eval([token])
            assert bytes(engine.logits()) == wanted[position].tobytes()
        assert engine.stats().n_threads == 3
        for threads in (0, 4):
            with pytest.raises(EngineError, match=f"{threads} threads: the engine was opened with 3"):
                engine.set_threads(threads)


# ---- sequences ----


def test_a_call_that_fails_leaves_every_sequence_as_it_was(native: Library):
    """Context full, a wrong token, too many logits, a cancel: lengths stay, and the same call gives the same after."""
    tiny = _model("odd")
    file, ids = tiny.to_bytes(), _ids(tiny.conf, 12)
    wanted = _prefill(native, file, ids)

    with Model.from_bytes(native, file) as model, Engine(model, ctx_len=12, sequences=2) as engine:
        engine.eval(ids[:4])
        with pytest.raises(ContextFullError):
            engine.eval_batch([*ids, *ids], [0] * 12 + [1] * 12)
        with pytest.raises(EngineError, match="outside the vocabulary of 77"):
            engine.eval([*ids[4:6], 77])
        with pytest.raises(EngineError, match="sequence 2"):
            engine.eval(ids[4:6], sequence=2)
        with pytest.raises(EngineError, match="logits"):
            engine.eval_batch(ids[4:7], [0] * 3, [True] * 3)
        engine.cancel()
        with pytest.raises(Cancelled):
            engine.eval(ids[4:])
        assert (engine.length(0), engine.length(1)) == (4, 0)
        engine.eval(ids[4:])
        assert bytes(engine.logits()) == wanted[11].tobytes()


def test_truncate_takes_a_sequence_back(native: Library):
    """After a truncation other tokens can follow; forward it cannot go."""
    tiny = _model("odd")
    file, ids = tiny.to_bytes(), _ids(tiny.conf, 20)
    wanted = _prefill(native, file, ids)

    with Model.from_bytes(native, file) as model, Engine(model) as engine:
        engine.eval([*ids[:10], 3, 1, 4, 1, 5])
        engine.truncate(0, 10)
        engine.eval(ids[10:])
        assert bytes(engine.logits()) == wanted[19].tobytes()
        with pytest.raises(EngineError, match="cannot be cut to 21"):
            engine.truncate(0, 21)


@pytest.mark.parametrize("kv", KV_TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_copied_prefix_goes_on_as_if_it_had_been_computed(shape: str, kv: str, native: Library):
    """Sequences that begin alike share the work; each then gets the logits it has alone, and the source stays."""
    tiny = _model(shape)
    file, ids = tiny.to_bytes(), _ids(tiny.conf, 60)
    texts = [ids[:37] + ids[n : n + 9] for n in (40, 45, 51)]
    wanted = [_prefill(native, file, text, kv=kv)[-1] for text in texts]

    with Model.from_bytes(native, file) as model, Engine(model, sequences=3, ctx_len=64, kv=kv) as engine:
        engine.eval(ids[:40])
        engine.eval(ids[:7], sequence=2)  # what is there is replaced
        for target in (1, 2):
            engine.copy_sequence(0, target, 37)
        assert [engine.length(s) for s in range(3)] == [40, 37, 37]
        engine.truncate(0, 37)
        engine.eval_batch(
            [token for text in texts for token in text[37:]],
            [sequence for sequence in range(3) for _ in range(9)],
            [position == 8 for _ in range(3) for position in range(9)],
        )
        for row in range(3):
            assert bytes(engine.logits(row)) == wanted[row].tobytes()
        for source, target, length in [(0, 0, 5), (0, 3, 5), (3, 0, 5), (0, 1, 47)]:
            with pytest.raises(EngineError, match="copied"):
                engine.copy_sequence(source, target, length)


@pytest.mark.parametrize("kv", KV_TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_saved_states_go_on_in_another_engine(shape: str, kv: str, native: Library):
    """In pieces of odd lengths, the last one cut: the logits after them are those of a prefill."""
    tiny = _model(shape)
    file, ids = tiny.to_bytes(), _ids(tiny.conf, 60)
    wanted = _prefill(native, file, ids, kv=kv)

    with Model.from_bytes(native, file) as model:
        with Engine(model, ctx_len=100, kv=kv) as engine:
            engine.eval(ids)
            states = [engine.save(0, begin, end) for begin, end in ((0, 17), (17, 33), (33, 60))]
            engine.truncate(0, 0)
            engine.eval(ids[::-1])
            engine.truncate(0, 0)
            engine.eval(ids[:17])
            assert engine.save(0, 0, 17) == states[0]  # with nothing of the other text
        with Engine(model, sequences=2, ctx_len=61, threads=2, kv=kv) as engine:
            engine.load(1, states[0], 17)
            engine.load(1, states[1], 16)
            engine.load(1, states[2], 20)
            assert (engine.length(0), engine.length(1)) == (0, 53)
            engine.eval(ids[53:], sequence=1)
            assert bytes(engine.logits()) == wanted[59].tobytes()


def test_a_state_that_does_not_fit_is_refused(native: Library):
    """Of other tokens' places, too long, of another model, cut short, or with any byte changed: nothing happens."""
    tiny = _model("odd")
    ids = _ids(tiny.conf, 30)
    with Model.from_bytes(native, tiny.to_bytes()) as model, Engine(model, ctx_len=20) as engine:
        engine.eval(ids[:8])
        whole, later = engine.save(0, 0, 8), engine.save(0, 4, 8)
        with pytest.raises(EngineError, match="cannot be saved"):
            engine.save(0, 4, 9)
        with pytest.raises(EngineError, match="begins with token 0, sequence 0 has 8"):
            engine.load(0, whole, 8)
        engine.truncate(0, 4)
        for tokens in (0, 5):
            with pytest.raises(EngineError, match=f"{tokens} tokens are wanted of a state that has 4"):
                engine.load(0, later, tokens)
        random = np.random.default_rng(1)
        for place in [*range(64), *random.integers(64, len(later), 200).tolist()]:
            damaged = bytearray(later)
            damaged[place] ^= 1 << random.integers(8)
            with pytest.raises(BundleError, match="state"):
                engine.load(0, bytes(damaged), 4)
        for size in (0, 10, 63, 64, len(later) - 1):
            with pytest.raises(BundleError, match=r"not the state|cut short"):
                engine.load(0, later[:size], 4)
        assert engine.length() == 4
        engine.load(0, later, 4)
        engine.eval(ids[8:20])
        long = engine.save(0, 0, 20)

        other = TinyModel(tiny.conf, seed=99)
        with Model.from_bytes(native, other.to_bytes()) as another:
            assert another.fingerprint() != model.fingerprint()
            with Engine(another) as foreign, pytest.raises(BundleError, match="another model"):
                foreign.load(0, whole, 8)
        with Engine(model, kv="int8") as smaller, pytest.raises(BundleError, match="of KV type 1, the engine has 2"):
            smaller.load(0, whole, 8)
        with Engine(model, ctx_len=12) as short:
            with pytest.raises(ContextFullError):
                short.load(0, long, 13)
            short.load(0, long, 12)


def test_sequences_that_join_and_leave_get_the_tokens_they_get_alone(native: Library):
    """Five greedy answers decoded together, each beginning when a place is free: the same tokens as one by one."""
    tiny = _model("wide")
    file, random = tiny.to_bytes(), np.random.default_rng(11)
    prompts = [random.integers(0, tiny.conf.vocab_size, n).tolist() for n in (9, 1, 30, 4, 17)]
    lengths = [12, 25, 3, 18, 9]

    def best(engine: Engine, row: int = 0) -> int:
        return int(np.argmax(np.array(engine.logits(row))))

    with Model.from_bytes(native, file) as model:
        alone = []
        for prompt, length in zip(prompts, lengths, strict=True):
            with Engine(model) as engine:
                engine.eval(prompt)
                tokens = [best(engine)]
                while len(tokens) < length:
                    engine.eval(tokens[-1:])
                    tokens.append(best(engine))
                alone.append(tokens)

        together: list[list[int]] = [[] for _ in prompts]
        waiting, places = list(range(len(prompts))), [-1, -1, -1]
        with Engine(model, sequences=3, threads=2, batch_len=8) as engine:
            while waiting or any(answer >= 0 for answer in places):
                tokens, sequences, wanted = [], [], []
                for place, answer in enumerate(places):
                    if answer >= 0 and len(together[answer]) == lengths[answer]:
                        engine.truncate(place, 0)
                        places[place] = answer = -1
                    new = together[answer][-1:]
                    if answer < 0 and waiting:
                        places[place] = waiting.pop(0)
                        new = prompts[places[place]]
                    if places[place] >= 0:
                        tokens += new
                        sequences += [place] * len(new)
                        wanted += [False] * (len(new) - 1) + [True]
                if not tokens:
                    break
                engine.eval_batch(tokens, sequences, wanted)
                for row, place in enumerate(sequences[i] for i in range(len(wanted)) if wanted[i]):
                    together[places[place]].append(best(engine, row))
        assert together == alone


def test_options_outside_their_limits_are_refused(native: Library):
    """A context beyond the model's, too many threads, no memory: errors, not a silent limit."""
    with Model.from_bytes(native, _model("odd").to_bytes()) as model:
        for options, words in [
            ({"ctx_len": 301}, "301 tokens is longer than the model was made for, 300"),
            ({"threads": 257}, "257 threads"),
            ({"batch_len": 4097}, "batch_len is 4097"),
            ({"sequences": 4097}, "4097 sequences"),
        ]:
            with pytest.raises(EngineError, match=words):
                Engine(model, **options)


def test_figures_count_prefill_and_decode_apart(native: Library):
    """Tokens and time of calls with several tokens a sequence, and of calls with one."""
    with Model.from_bytes(native, _model("odd").to_bytes()) as model, Engine(model, sequences=2) as engine:
        engine.eval([1, 2, 3])
        engine.eval_batch([4, 5], [0, 1])
        engine.eval([6])
        stats = engine.stats()
        assert (stats.prefill_tokens, stats.decode_tokens) == (3, 3)
        assert stats.prefill_ns > 0
        assert stats.decode_ns > 0
        assert stats.weight_bytes == model.info.weight_bytes


# ---- golden probes ----


def test_golden_probes_hold_and_a_wrong_one_names_the_first_difference(native: Library):
    """Layer, logits, or token: the message says which, and with which ISA level."""
    tiny = _model("odd")
    with Model.from_bytes(native, tiny.to_bytes()) as model, Engine(model) as engine:
        probe = engine.run_probe(_ids(tiny.conf, 9), 4)
        assert engine.length() == 0

    def check(file: bytes) -> int:
        with Model.from_bytes(native, file) as model, Engine(model, threads=2) as engine:
            return engine.check_probes()

    assert check(tiny.to_bytes((probe, probe))) == 2
    assert check(tiny.to_bytes()) == 0
    wrong_layer = list(probe.layer_crc)
    wrong_layer[2] ^= 1
    for wrong, words in [
        ({"layer_crc": (probe.layer_crc[0] ^ 1, *probe.layer_crc[1:])}, "probe 1: the embedding differs"),
        ({"layer_crc": tuple(wrong_layer)}, "probe 1: layer 1 differs"),
        ({"logits_crc": probe.logits_crc ^ 1}, "probe 1: the logits differ"),
        ({"greedy": (*probe.greedy[:3], (probe.greedy[3] + 1) % 77)}, "probe 1: greedy token 3"),
    ]:
        with pytest.raises(EdgebitError, match=words):
            check(tiny.to_bytes((probe, dataclasses.replace(probe, **wrong))))
