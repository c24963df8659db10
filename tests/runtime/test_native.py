"""The classes over the C interface: what they give, what they refuse, and that a refusal changes nothing."""

import ctypes
import subprocess

import pytest

from edgebit.errors import BundleError, EngineError
from edgebit.runtime import abi
from edgebit.runtime.engine import Engine
from edgebit.runtime.eval_errors import Cancelled, ContextFullError
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from edgebit.runtime.sampler import Sampler, SamplingParams
from edgebit.runtime.text_stream import TextStream
from edgebit.runtime.tokenizer import Tokenizer

VOCAB = 512


@pytest.fixture
def model(native, reference_model):
    with Model.open(native, reference_model("bitnet-packed")) as model:
        yield model


@pytest.fixture
def engine(model):
    with Engine(model, ctx_len=64) as engine:
        yield engine


def test_structures_have_the_sizes_the_compiler_gives_them(require_tool, tmp_path):
    """The ctypes structures are those of edgebit.h, byte for byte."""
    structures = {
        "eb_error": abi.Error,
        "eb_host": abi.Host,
        "eb_model_info": abi.ModelInfoStruct,
        "eb_engine_options": abi.EngineOptions,
        "eb_batch": abi.Batch,
        "eb_range": abi.Range,
        "eb_stats": abi.StatsStruct,
        "eb_sampling": abi.SamplingStruct,
    }
    from edgebit import resources

    prints = "\n".join(f'printf("%zu\\n", sizeof({name}));' for name in structures)
    source = tmp_path / "sizes.c"
    source.write_text(f'#include <stdio.h>\n#include "edgebit.h"\nint main(void) {{ {prints} return 0; }}\n')
    program = tmp_path / "sizes"
    include = resources.kernels_dir() / "include"
    subprocess.run([require_tool("cc"), f"-I{include}", str(source), "-o", str(program)], check=True)
    sizes = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.split()
    assert [int(size) for size in sizes] == [ctypes.sizeof(structure) for structure in structures.values()]


def test_model_info_is_that_of_the_checkpoint(model):
    """CONF holds what config.json said."""
    info = model.info
    assert (info.hidden_size, info.ffn_size, info.n_layers, info.vocab_size) == (256, 512, 3, VOCAB)
    assert info.bos_token == 500
    assert set(info.stop_tokens) >= {501, 509}


def test_a_library_that_is_none_is_refused(tmp_path):
    """A file of another kind is an error that names it, not a crash."""
    wrong = tmp_path / "libedgebit.so"
    wrong.write_bytes(b"not a library")
    with pytest.raises(EngineError, match="cannot be loaded on this machine"):
        Library.load(wrong)


def test_an_isa_level_the_machine_lacks_is_refused():
    """EDGEBIT_ISA masks; it cannot wish for what is not there."""
    with pytest.raises(EngineError, match="EDGEBIT_ISA"):
        Library.load(isa="quantum")


def test_a_missing_model_file_is_named(native, tmp_path):
    with pytest.raises(BundleError, match=r"nowhere\.ebm"):
        Model.open(native, tmp_path / "nowhere.ebm")


def test_a_model_in_memory_is_the_model_of_the_file(native, reference_model):
    """from_bytes copies and aligns; the logits are the same bits."""
    path = reference_model("bitnet-packed")
    rows = []
    with Model.open(native, path) as mapped, Model.from_bytes(native, path.read_bytes()) as copied:
        for model in (mapped, copied):
            with Engine(model, ctx_len=8) as engine:
                engine.eval([500, 1, 2])
                rows.append(bytes(engine.logits()))
    assert rows[0] == rows[1]


def test_a_full_context_changes_nothing(engine):
    """What does not fit is refused whole: the sequence is as before."""
    engine.eval([500] * 60)
    with pytest.raises(ContextFullError, match="64"):
        engine.eval([1] * 5)
    assert engine.length() == 60
    engine.eval([1] * 4)
    assert engine.length() == 64


@pytest.mark.parametrize("tokens", [[VOCAB], [-1], [2**31 - 1]])
def test_a_token_outside_the_vocabulary_is_refused(engine, tokens):
    with pytest.raises(EngineError, match="vocabulary"):
        engine.eval(tokens)
    assert engine.length() == 0


def test_a_cancelled_eval_leaves_the_sequence(engine):
    """cancel() before an eval ends that eval; the next one runs."""
    engine.eval([500])
    engine.cancel()
    with pytest.raises(Cancelled):
        engine.eval([1, 2, 3])
    assert engine.length() == 1
    engine.eval([1, 2, 3])
    assert engine.length() == 4


def test_rows_of_logits_come_in_the_order_of_their_tokens(model):
    """A batch of two sequences gives the rows that each alone would."""
    with Engine(model, ctx_len=16, sequences=2, logits_rows=3) as engine:
        engine.eval_batch([500, 500, 7, 9], [0, 1, 0, 1], [False, True, True, True])
        rows = [bytes(engine.logits(row)) for row in range(3)]
        alone = []
        for tokens in ([500], [500, 7], [500, 9]):
            engine.truncate(0)
            engine.eval(tokens)
            alone.append(bytes(engine.logits()))
        with pytest.raises(EngineError, match="no row 3"):
            engine.logits(3)
    assert rows == alone


def test_sets_of_allowed_tokens_have_their_number_and_size(engine):
    """Else C would read beyond them; the sequence is as before."""
    every, short = ((ctypes.c_uint32 * words)(*[0xFFFFFFFF] * words) for words in (VOCAB // 32, VOCAB // 32 - 1))
    for allowed in ([], [every], [every, short], [every, None, None]):
        with pytest.raises(EngineError, match=r"2 sets of allowed tokens.* 16 words"):
            engine.eval_batch([500, 7, 9], [0] * 3, [False, True, True], allowed=allowed)
    assert engine.length() == 0
    engine.eval_batch([500, 7], [0, 0], allowed=[every])
    assert engine.length() == 2


def test_a_closed_engine_says_so(model):
    engine = Engine(model, ctx_len=8)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.eval([1])


def test_probes_of_the_file_hold(model):
    """Every model file carries probes, and this machine computes them."""
    with Engine(model) as engine:
        assert engine.check_probes() >= 1


def test_token_bytes_refuse_what_is_no_token(model):
    with Tokenizer.from_model(model) as tokenizer:
        assert tokenizer.is_special(509)
        assert tokenizer.decode([*tokenizer.encode("a b"), 509]) == b"a b"
        with pytest.raises(EngineError, match="outside the vocabulary"):
            tokenizer.token_bytes(VOCAB)


def test_greedy_takes_the_largest_and_the_lowest_of_equals(native):
    """Ties go to the lowest id, so greedy has one result everywhere."""
    logits = memoryview((ctypes.c_float * 4)(0.0, 2.0, 2.0, 1.0)).cast("B").cast("f")
    with Sampler(native, 4, SamplingParams()) as sampler:
        assert sampler.sample(logits) == 1


def test_the_same_seed_draws_the_same_tokens(native):
    logits = memoryview((ctypes.c_float * 50)(*[i % 7 / 3 for i in range(50)])).cast("B").cast("f")

    def draw(seed):
        with Sampler(native, 50, SamplingParams(temperature=1.0, seed=seed)) as sampler:
            return [sampler.sample(logits) for _ in range(40)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert len(set(draw(7))) > 5


def test_impossible_sampling_is_refused(native):
    """A parameter without meaning is an error, never a silent default."""
    with pytest.raises(EngineError):
        Sampler(native, 4, SamplingParams(temperature=float("nan")))


def test_a_text_stream_never_shows_half_a_character(model):
    """Bytes of a character that came in several tokens are shown together."""
    with Tokenizer.from_model(model) as tokenizer, TextStream(tokenizer) as stream:
        assert len(tokenizer.encode("𓀀")) > 1
        pieces = [stream.push(token)[0] for token in tokenizer.encode("a𓀀!")]
        assert "".join(pieces) + stream.finish() == "a𓀀!"
        assert "𓀀" in pieces


@pytest.mark.parametrize("threads", [1, 2])
def test_limits_of_the_machine_are_measured_at_each_isa_level(isa_levels, threads):
    """Reading and multiplying each come to some rate; the memory read is what was written."""
    for isa in isa_levels:
        library = Library.load(isa=isa)
        assert library.measure_read(threads, 4 << 20) > 0
        assert library.measure_int8(threads) > 0


@pytest.mark.parametrize(
    ("threads", "n_bytes", "words"),
    [
        (0, 1 << 20, "0 threads"),
        (257, 1 << 20, "257 threads"),
        (1, 1000, "1000 bytes"),
        (1, 1 << 62, "cannot|no memory"),
    ],
)
def test_limits_that_cannot_be_measured_are_refused(native, threads, n_bytes, words):
    """With the reason, and nothing is left allocated."""
    with pytest.raises(EngineError, match=words):
        native.measure_read(threads, n_bytes)
