"""Adapters in the engine: against numpy, bit for bit everywhere, and of no effect on tokens that have none."""

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgebit.adapters import low_rank_pair
from edgebit.bundle.model_format import NO_LAYER, ActivationQuantisation, Encoding, Norms, Role
from edgebit.errors import BundleError, EngineError
from edgebit.runtime.adapter import Adapter
from edgebit.runtime.engine import KV_TYPES, Engine
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from tests.kernels.conftest import CheckBuild
from tests.kernels.numpy_model import layer_of
from tests.kernels.random_adapter import random_adapter
from tests.kernels.test_engine import SHAPES, _ids, _model, check_here_and_on_aarch64
from tests.kernels.tiny_model import TinyModel, tiny_conf

ENCODINGS = (Encoding.F16, Encoding.I8)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_layers_with_an_adapter_compute_what_numpy_does(shape: str, encoding: Encoding, native: Library):
    """Each layer alone, given numpy's input, as test_engine has it without: side paths read what is not yet rounded.

    Where a projection has a norm of its own, they read what stands before it.
    """
    tiny = _model(shape)
    is_int15 = tiny.conf.activation_quantisation == ActivationQuantisation.INT15
    unflipped, worst = (0.2, 1e-3) if is_int15 else (0.9, 0.2)
    x = tiny.weights[Role.TOKEN_EMBEDDING, NO_LAYER][_ids(tiny.conf, 24)].astype(np.float64)

    with Model.from_bytes(native, tiny.to_bytes()) as model:
        file = random_adapter(model, tiny.conf, encoding=encoding)
        pairs = {(pair.layer, pair.role): low_rank_pair(pair) for pair in file.pairs}
        with Adapter.open(native, model, file.pack()) as adapter, Engine(model, batch_len=7, kv="f32") as engine:
            engine.set_adapter(0, adapter)
            for layer in range(tiny.conf.n_layers):
                wanted, without = layer_of(tiny, layer, x, pairs), layer_of(tiny, layer, x)
                hidden = bytearray(x.astype("<f4").tobytes())
                engine.eval_layer(layer, hidden)
                got = np.frombuffer(hidden, "<f4").reshape(wanted.shape)
                off = np.abs(got - wanted).max(-1) / np.abs(wanted).max(-1)
                assert np.abs(without - wanted).max() > 0.1 * np.abs(wanted).max(), (
                    "the adapter changes next to nothing"
                )
                assert (off < 1e-5).mean() >= unflipped
                assert off.max() < worst
                x = np.array(got, dtype=np.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_the_same_at_every_isa_level_thread_count_and_batch_form(
    shape: str, native: Library, isa_levels: list[str]
):
    """Prefill in one go, in chunks, token by token: of sequences with an adapter in f16, without, with one in int8, and
    with one for some projections, all in one batch.
    """
    tiny = _model(shape)
    file, ids = tiny.to_bytes(), _ids(tiny.conf, 20)
    wanted = _prefill_mixed(Library.load(isa="scalar"), tiny, file, ids)

    assert np.isfinite(wanted).all()
    for one, other in itertools.combinations(range(4), 2):
        assert not np.array_equal(wanted[one], wanted[other])
    assert np.array_equal(wanted[1], _prefill_plain(native, file, ids)), "tokens without are changed by those with one"
    for isa, (threads, batch_len) in itertools.product(isa_levels, ((1, 1), (2, 7), (3, 0))):
        got = _prefill_mixed(Library.load(isa=isa), tiny, file, ids, threads=threads, batch_len=batch_len)
        assert got.tobytes() == wanted.tobytes(), f"{isa}, {threads} threads, batch_len {batch_len}"
    assert _decode_alone(native, tiny, file, ids).tobytes() == wanted[0].tobytes()


def _prefill_mixed(library: Library, tiny: TinyModel, file: bytes, ids: list[int], **options: int) -> np.ndarray:
    """Logits of one batch of four sequences that hold the same, [4, tokens, vocab]."""
    with Model.from_bytes(library, file) as model, contextlib.ExitStack() as opened:
        files = {
            0: random_adapter(model, tiny.conf, seed=1),
            2: random_adapter(model, tiny.conf, seed=2, encoding=Encoding.I8),
            3: random_adapter(model, tiny.conf, seed=3, roles=(Role.Q_PROJ, Role.UP_PROJ)),
        }
        adapters = {
            sequence: opened.enter_context(Adapter.open(library, model, content.pack()))
            for sequence, content in files.items()
        }
        engine = opened.enter_context(Engine(model, sequences=4, logits_rows=4 * len(ids), **options))
        for sequence, adapter in adapters.items():
            engine.set_adapter(sequence, adapter)
        sequences = [0, 1, 2, 3] * len(ids)
        engine.eval_batch([token for token in ids for _ in range(4)], sequences, [True] * len(sequences))
        rows = [np.array(engine.logits(row)) for row in range(len(sequences))]
    return np.stack([rows[sequence::4] for sequence in range(4)])


def _prefill_plain(library: Library, file: bytes, ids: list[int]) -> np.ndarray:
    with Model.from_bytes(library, file) as model, Engine(model, logits_rows=len(ids)) as engine:
        engine.eval_batch(ids, [0] * len(ids), [True] * len(ids))
        return np.stack([np.array(engine.logits(row)) for row in range(len(ids))])


def _decode_alone(library: Library, tiny: TinyModel, file: bytes, ids: list[int]) -> np.ndarray:
    with Model.from_bytes(library, file) as model:
        content = random_adapter(model, tiny.conf, seed=1).pack()
        with Adapter.open(library, model, content) as adapter, Engine(model, threads=2) as engine:
            engine.set_adapter(0, adapter)
            rows = []
            for token in ids:
                engine.eval([token])
                rows.append(np.array(engine.logits()))
    return np.stack(rows)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.name)
@pytest.mark.parametrize("shape", ["odd", "everything"])
def test_logits_with_an_adapter_are_the_same_on_aarch64(
    shape: str,
    encoding: Encoding,
    native: Library,
    isa_levels: list[str],
    check_build: Callable[[str], CheckBuild],
    tmp_path: Path,
):
    """edgebit-run with it at each ISA level, here and under qemu: logits of 70 positions and ten greedy tokens."""
    tiny, path, file = _model(shape), tmp_path / "tiny.ebm", tmp_path / "tiny.adapter"
    path.write_bytes(tiny.to_bytes())
    with Model.open(native, path) as model:
        file.write_bytes(random_adapter(model, tiny.conf, encoding=encoding).pack())
    check_here_and_on_aarch64(native, isa_levels, check_build, path, "f16", tmp_path / "logits", "--adapter", str(file))


@pytest.fixture
def tiny() -> TinyModel:
    return TinyModel(tiny_conf())


@pytest.fixture
def model(tiny, native):
    with Model.from_bytes(native, tiny.to_bytes()) as model:
        yield model


@pytest.fixture
def adapter(tiny, model, native):
    with Adapter.open(native, model, random_adapter(model, tiny.conf).pack()) as adapter:
        yield adapter


def test_the_weights_fingerprint_is_that_of_the_weights_in_any_layout(native: Library):
    """t1 and t2, an embedding of another type: the same. Another seed: another."""
    forms = [{}, {"layout": Encoding.T1}, {"embedding": Encoding.BF16}, {"seed": 1}]
    files = [TinyModel(tiny_conf(hidden_size=390, ffn_size=800), **form).to_bytes() for form in forms]
    models = [Model.from_bytes(native, file) for file in files]
    prints = [model.weights_fingerprint() for model in models]
    for model in models:
        model.close()

    assert prints[0] == prints[1] == prints[2] != prints[3]


def test_an_adapter_is_for_its_own_weights(tiny: TinyModel, model: Model, native: Library):
    """Other weights of the same shape are refused; the same in another layout are taken."""
    content = random_adapter(model, tiny.conf).pack()
    with Model.from_bytes(native, TinyModel(tiny_conf(), layout=Encoding.T1).to_bytes()) as same:
        Adapter.open(native, same, content).close()
    with (
        Model.from_bytes(native, TinyModel(tiny_conf(), seed=5).to_bytes()) as other,
        pytest.raises(BundleError, match="made for other weights"),
    ):
        Adapter.open(native, other, content)


def test_an_adapter_is_set_on_an_empty_sequence_of_its_model(tiny: TinyModel, model: Model, adapter: Adapter, native):
    """A refusal says which rule was broken, and changes nothing."""
    with Engine(model, sequences=2) as engine:
        engine.eval([1, 2])
        with pytest.raises(EngineError, match="sequence 0 has 2 tokens"):
            engine.set_adapter(0, adapter)
        with pytest.raises(EngineError, match="sequence 2 is not there"):
            engine.set_adapter(2, adapter)
        with (
            Model.from_bytes(native, tiny.to_bytes()) as twin,
            Engine(twin) as others,
            pytest.raises(EngineError, match="opened for another model"),
        ):
            others.set_adapter(0, adapter)
    adapter.close()


def test_an_adapter_in_use_is_not_closed(model: Model, adapter: Adapter):
    """Until the sequence has another, or the engine is closed; a copied sequence counts."""
    with Engine(model, sequences=2) as engine:
        engine.set_adapter(0, adapter)
        engine.copy_sequence(0, 1, 0)
        with pytest.raises(EngineError, match="in use: 2 sequences"):
            adapter.close()
        engine.set_adapter(0, None)
        with pytest.raises(EngineError, match="in use: 1 sequences"):
            adapter.close()
    adapter.close()


@pytest.mark.parametrize("kv", KV_TYPES)
def test_a_state_is_of_its_adapter(kv: str, tiny: TinyModel, model: Model, adapter: Adapter, native: Library):
    """Saved with one it is refused without, with another, and the other way round; with the same it goes on alike."""
    ids = _ids(tiny.conf, 30)
    other_file = random_adapter(model, tiny.conf, seed=9).pack()
    with Adapter.open(native, model, other_file) as other, Engine(model, sequences=3, kv=kv) as engine:
        engine.set_adapter(0, adapter)
        engine.eval(ids, 0)
        with_one = engine.save(0, 0, 29)
        wanted = bytes(engine.logits())
        engine.eval(ids, 1)
        without = engine.save(1, 0, 29)
        kinds = [engine.state_kind(sequence) for sequence in (0, 1)]
        for sequence, state in ((2, with_one), (2, without)):
            engine.set_adapter(2, other)
            with pytest.raises(BundleError, match="another adapter"):
                engine.load(sequence, state, 29)
        kinds.append(engine.state_kind(2))
        engine.set_adapter(2, None)
        with pytest.raises(BundleError, match="another adapter"):
            engine.load(2, with_one, 29)
        engine.set_adapter(2, adapter)
        with pytest.raises(BundleError, match="another adapter"):
            engine.load(2, without, 29)
        engine.load(2, with_one, 29)
        engine.eval(ids[29:], 2)

        assert bytes(engine.logits()) == wanted
        assert len(set(kinds)) == 3


def test_a_copied_sequence_goes_on_with_the_adapter(tiny: TinyModel, model: Model, adapter: Adapter):
    """Copied after some tokens, both go on to the same bits; and the first tokens without it give others."""
    ids = _ids(tiny.conf, 20)
    with Engine(model, sequences=3) as engine:
        engine.set_adapter(0, adapter)
        engine.eval(ids[:10], 0)
        engine.copy_sequence(0, 1, 10)
        rows = []
        for sequence in (0, 1):
            engine.eval(ids[10:], sequence)
            rows.append(bytes(engine.logits()))
        engine.eval(ids, 2)

        assert rows[0] == rows[1] != bytes(engine.logits())


def test_golden_probes_run_without_the_adapter(tiny: TinyModel, model: Model, adapter: Adapter):
    """The model's own numbers, whatever sequence 0 has; and it has it afterwards still."""
    with Engine(model) as engine:
        wanted = engine.run_probe([1, 2, 3], 4)
        engine.set_adapter(0, adapter)
        assert engine.run_probe([1, 2, 3], 4) == wanted
        engine.eval([1, 2, 3])
        with_it = bytes(engine.logits())
        engine.truncate()
        engine.set_adapter(0, None)
        engine.eval([1, 2, 3])
        assert with_it != bytes(engine.logits())


def test_an_engine_without_an_adapter_has_no_buffers_for_one(tiny: TinyModel, model: Model, adapter: Adapter):
    """They are taken when the first is set, and said."""
    with Engine(model) as engine:
        before = engine.stats().arena_bytes
        engine.set_adapter(0, adapter)
        after = engine.stats().arena_bytes
        engine.set_adapter(0, adapter)

        assert after > before
        assert engine.stats().arena_bytes == after


def test_an_adapter_of_the_projections_norm_reads_what_stands_before_it(native: Library):
    """Scaling the projection's own norm changes W x alone: with W x silenced, the layer does not change with it."""
    norms = Norms.PROJECTION_NORM
    tiny = TinyModel(tiny_conf(norms=norms, projection_norm_eps=1e-5, n_layers=1))
    roles = (Role.O_PROJ,)
    outputs = []
    for weight in (1.0, 3.0):
        tiny.weights[Role.O_PROJ.norm_of, 0][:] = weight
        tiny._set_floats(Role.O_PROJ.norm_of, 0, np.full((1, tiny.conf.n_heads * 10), weight, "<f4"))
        tiny.set_projection(Role.O_PROJ, 0, np.zeros(tiny.conf.shape_of(Role.O_PROJ), np.int8), np.ones(1, "<f4"))
        tiny.set_projection(Role.DOWN_PROJ, 0, np.zeros(tiny.conf.shape_of(Role.DOWN_PROJ), np.int8), np.ones(1, "<f4"))
        with Model.from_bytes(native, tiny.to_bytes()) as model:
            content = random_adapter(model, tiny.conf, roles=roles).pack()
            with Adapter.open(native, model, content) as adapter, Engine(model) as engine:
                engine.set_adapter(0, adapter)
                hidden = bytearray(np.linspace(-1, 1, 70 * 2, dtype="<f4").tobytes())
                before = bytes(hidden)
                engine.eval_layer(0, hidden)
                assert bytes(hidden) != before
                outputs.append(bytes(hidden))
    assert outputs[0] == outputs[1]
