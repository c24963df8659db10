"""KL divergence side by side and against a saved reference, and the file that is saved."""

import json
import struct

import numpy as np
import pytest

from edgebit.convert import convert
from edgebit.errors import EdgebitError
from edgebit.evaluate.divergence import check_vocabularies, measure_divergence, side_by_side
from edgebit.evaluate.reference_file import open_reference, write_reference
from edgebit.evaluate.text import ScoredText, take_ids
from edgebit.evaluate.windows import Windows, open_engine
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model

WINDOWS = Windows(64, 24)


@pytest.fixture(scope="module")
def int8_model(native, reference_checkpoint, tmp_path_factory):
    """bitnet-packed with the lossy embedding."""
    path = tmp_path_factory.mktemp("int8") / "int8.ebm"
    convert(reference_checkpoint("bitnet-packed"), path, embedding="int8", probes=False)
    return path


@pytest.fixture
def lossy(native, int8_model):
    with Model.open(native, int8_model) as model:
        yield model


@pytest.fixture
def text(packed) -> ScoredText:
    return take_ids(packed, np.random.default_rng(8).integers(0, 512, 200).tolist(), name="ids")


def opened(model: Model) -> Engine:
    return open_engine(model, WINDOWS, threads=1, kv="f16")


def distributions(model: Model, ids: list[int]) -> np.ndarray:
    """Log-probabilities before each token but the first, its window computed alone; by another formula."""
    rows = []
    for window in WINDOWS.cut(len(ids)):
        with Engine(model, ctx_len=64, logits_rows=64) as engine:
            read = ids[window.begin : window.end - 1]
            engine.eval_batch(read, [0] * len(read), [True] * len(read))
            rows += [np.array(engine.logits(place - 1 - window.begin)) for place in range(window.first, window.end)]
    wide = np.stack(rows).astype(np.longdouble)
    return (wide - np.logaddexp.reduce(wide, axis=1, keepdims=True)).astype(np.float64)


def test_a_model_is_0_from_itself(packed, text):
    """Exactly, and alike in all else."""
    with opened(packed) as one, opened(packed) as other:
        result = measure_divergence(side_by_side(one, other, text.ids, WINDOWS), text)
    assert (result.kl_mean, result.kl_max, result.delta_p) == (0, 0, 0)
    assert (result.same_best, result.nll, result.worst) == (1, result.reference_nll, [])


def test_two_models_side_by_side(packed, lossy, text):
    """All figures are numpy's, from the distributions of each model computed on its own."""
    with opened(lossy) as engine, opened(packed) as reference:
        result = measure_divergence(side_by_side(engine, reference, text.ids, WINDOWS), text)
    p, q = distributions(packed, text.ids), distributions(lossy, text.ids)
    kl = (np.exp(p) * (p - q)).sum(axis=1)
    rows, targets = np.arange(199), text.ids[1:]
    assert np.allclose(result.compared.kl, kl, rtol=0, atol=1e-12) and kl.mean() > 1e-3
    assert result.kl_mean == pytest.approx(kl.mean()) and result.kl_max == pytest.approx(kl.max())
    assert result.kl_median == pytest.approx(np.median(kl))
    assert result.kl_99 == pytest.approx(np.sort(kl)[int(np.ceil(0.99 * 199)) - 1])
    assert result.same_best == (p.argmax(axis=1) == q.argmax(axis=1)).mean()
    assert result.delta_p == pytest.approx(np.abs(np.exp(p[rows, targets]) - np.exp(q[rows, targets])).mean())
    assert result.nll == pytest.approx(-q[rows, targets].mean())
    assert result.reference_nll == pytest.approx(-p[rows, targets].mean())
    assert result.worst == (1 + np.argsort(-kl)[:5]).tolist()


def saved(model, text, path, top=None):
    with opened(model) as engine:
        assert write_reference(engine, text, WINDOWS, path, top=top)
    return path


def beside(model, path, text):
    with open_reference(path) as reference, opened(model) as engine:
        reference.check(model)
        assert reference.ids == text.ids
        return measure_divergence(reference.beside(engine), text)


def test_a_whole_reference_says_what_the_model_would(packed, lossy, text, tmp_path):
    """To the rounding of float16; against itself it is nearly nothing."""
    path = saved(packed, text, tmp_path / "exact.ref")
    with opened(lossy) as engine, opened(packed) as reference:
        wanted = measure_divergence(side_by_side(engine, reference, text.ids, WINDOWS), text)
    result = beside(lossy, path, text)
    assert result.kl_mean == pytest.approx(wanted.kl_mean, rel=0.01)
    assert (result.same_best, result.nll) == (wanted.same_best, wanted.nll)
    assert result.reference_nll == pytest.approx(wanted.reference_nll, abs=1e-6)
    assert beside(packed, path, text).kl_max < 1e-4


@pytest.mark.parametrize("top", [1, 20, 511])
def test_a_reference_of_the_likeliest_tokens_is_a_lower_bound(top, packed, lossy, text, tmp_path):
    """What numpy gives where all other tokens count as one; never more than the whole."""
    result = beside(lossy, saved(packed, text, tmp_path / "exact.ref", top), text)
    p, q = distributions(packed, text.ids), distributions(lossy, text.ids)
    order = np.argsort(-p, axis=1)
    p, q = np.take_along_axis(p, order, axis=1), np.take_along_axis(q, order, axis=1)
    tails = [np.log(np.exp(each[:, top:]).sum(axis=1, keepdims=True)) for each in (p, q)]
    p_few, q_few = (np.concatenate([each[:, :top], tail], axis=1) for each, tail in zip((p, q), tails, strict=True))
    wanted = (np.exp(p_few) * (p_few - q_few)).sum(axis=1)
    assert np.allclose(result.compared.kl, wanted, rtol=0, atol=1e-6)
    assert (result.compared.kl <= (np.exp(p) * (p - q)).sum(axis=1) + 1e-6).all()
    assert beside(packed, tmp_path / "exact.ref", text).kl_max < 1e-6


def test_a_reference_ended_early_is_not_written(packed, text, tmp_path):
    """Nor is what was there before it touched."""
    out = tmp_path / "exact.ref"
    out.write_bytes(b"before")
    with opened(packed) as engine:
        assert not write_reference(engine, text, WINDOWS, out, report=lambda done, total, value: False)
    assert [path.name for path in tmp_path.iterdir()] == ["exact.ref"] and out.read_bytes() == b"before"


def test_other_vocabularies_are_refused(packed, text, native, reference_model, tmp_path):
    """Side by side and of a file."""
    path = saved(packed, text, tmp_path / "exact.ref")
    with Model.open(native, reference_model("bitnet-packed-odd-untied")) as odd:
        with pytest.raises(EdgebitError, match=r"300 tokens and .* 512"):
            check_vocabularies(odd, packed)
        with open_reference(path) as reference, pytest.raises(EdgebitError, match="only models of one vocabulary"):
            reference.check(odd)


def test_the_same_size_is_not_the_same_vocabulary(packed, native, reference_checkpoint, text, tmp_path):
    """Two tokens of the tokenizer changed places: the first of them is named."""
    folder = tmp_path / "swapped"
    folder.mkdir()
    for file in reference_checkpoint("bitnet-packed").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    one, other = (piece for piece, token in vocabulary.items() if token in (40, 41))
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    convert(folder, tmp_path / "swapped.ebm", probes=False)
    path = saved(packed, text, tmp_path / "exact.ref")
    with Model.open(native, tmp_path / "swapped.ebm") as swapped:
        with pytest.raises(EdgebitError, match="token 40 is"):
            check_vocabularies(packed, swapped)
        with open_reference(path) as reference, pytest.raises(EdgebitError, match="only models of one vocabulary"):
            reference.check(swapped)


def test_references_that_are_none(packed, text, tmp_path):
    """Each kind of damage has words of its own."""
    whole = saved(packed, text, tmp_path / "exact.ref").read_bytes()
    size = struct.unpack_from("<I", whole, 12)[0]
    head = json.loads(whole[16 : 16 + size])

    def with_head(**changed) -> bytes:
        described = json.dumps(head | changed).encode()
        return whole[:12] + struct.pack("<I", len(described)) + described + whole[16 + size :]

    ids_at = (16 + size + 63) // 64 * 64
    cases = [
        (b"", "is no reference"),
        (b"GGUF" + whole[4:], "is no reference"),
        (whole[:8] + struct.pack("<I", 2) + whole[12:], "of version 2"),
        (whole[:16] + b"!" + whole[17:], "its head is damaged"),
        (with_head(tokens=0), "its head is damaged"),
        (with_head(stride=64), "its head is damaged"),
        (with_head(more=1), "its head is damaged"),
        (with_head(has_bos="yes"), "its head is damaged"),
        (with_head(top=512), "its head is damaged"),
        (with_head(vocab_size=1 << 60), "its head is damaged"),
        (with_head(tokens=1 << 40), "a copy cut short"),
        (whole[:-1], "a copy cut short"),
        (whole + b"x", "a copy cut short"),
        (whole[:ids_at] + b"\xff\xff\xff\xff" + whole[ids_at + 4 :], "outside the vocabulary"),
    ]
    for content, words in cases:
        path = tmp_path / "damaged.ref"
        path.write_bytes(content)
        with pytest.raises(EdgebitError, match=words), open_reference(path):
            pass


@pytest.mark.parametrize(
    ("top", "name", "value"),
    [
        (None, "best", 512), (None, "log_prob", np.nan), (None, "values", 1), (None, "values", -np.inf),
        (20, "best", -1), (20, "ids", 512), (20, "ids", -1), (20, "tail", np.nan), (20, "values", np.nan),
    ],
)  # fmt: skip
def test_numbers_that_no_model_gave_are_refused(top, name, value, packed, text, tmp_path):
    """A token outside the vocabulary, or a logarithm of no probability, in any record."""
    path = saved(packed, text, tmp_path / "exact.ref", top=top)
    with open_reference(path) as reference:
        record = reference.head.record
    records = np.memmap(path, record, "r+", offset=path.stat().st_size - text.scored * record.itemsize)
    records[name][-3] = value
    records.flush()
    with pytest.raises(EdgebitError, match="is damaged: a number in it"):
        beside(packed, path, text)


def test_a_reference_needs_a_context_as_long(packed, text, native, reference_checkpoint, tmp_path):
    """Its windows must fit into the model."""
    with open_engine(packed, Windows(300, 150), threads=1, kv="f16") as engine:
        write_reference(engine, text, Windows(300, 150), tmp_path / "long.ref")
    folder = tmp_path / "short"
    folder.mkdir()
    for file in reference_checkpoint("bitnet-packed").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 128}
    (folder / "config.json").write_text(json.dumps(config))
    convert(folder, tmp_path / "short.ebm", probes=False)
    with (
        Model.open(native, tmp_path / "short.ebm") as short,
        open_reference(tmp_path / "long.ref") as reference,
        pytest.raises(EdgebitError, match="save it again with --window 128"),
    ):
        reference.check(short)
