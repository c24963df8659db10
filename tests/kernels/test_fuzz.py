"""Damaged files and odd texts by the thousand, under sanitizers, each for FUZZ_SECONDS of the environment (20).

The inputs follow from FUZZ_SEED (1), as in tests/fuzz/test_readers.py.
"""

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgebit.bundle.model_format import (
    PER_ROW,
    PER_TENSOR,
    Activation,
    ActivationQuantisation,
    Encoding,
    Granularity,
    Norms,
    Scaling,
)
from edgebit.checkpoint.tokenizer import (
    ADDED,
    BYTE,
    SPECIAL,
    UNUSED,
    CheckpointTokenizer,
    Kind,
    Normalizer,
    PreTokenizer,
    SpacePrefix,
    read_tokenizer,
)
from edgebit.runtime.engine import Engine
from edgebit.runtime.json_schema import any_object, compile_schema
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from tests.kernels.conftest import CheckBuild
from tests.kernels.random_adapter import random_adapter
from tests.kernels.tiny_model import TinyModel, tiny_conf

SHAPE = {
    "hidden_size": 8, "ffn_size": 12, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "head_dim": 4, "vocab_size": 9,
    "stop_tokens": (2,),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_model_file_makes_the_engine_fault(
    native: Library, check_build: Callable[[str], CheckBuild], tmp_path: Path
):
    """Whatever a file holds, with its sums set right: refused, or two tokens computed; never a fault."""
    seeds, found = tmp_path / "seeds", tmp_path / "found"
    seeds.mkdir()
    found.mkdir()
    for number, encoding in enumerate((Encoding.F32, Encoding.BF16, Encoding.I8)):
        conf = tiny_conf(**SHAPE, activation=Activation.RELU2 if number else Activation.SILU)
        layout = Encoding.T1 if number == 2 else Encoding.T2
        tiny = TinyModel(conf, scaling=PER_ROW if number == 1 else PER_TENSOR, embedding=encoding, layout=layout)
        with Model.from_bytes(native, tiny.to_bytes()) as model, Engine(model) as engine:
            probe = engine.run_probe([1, 2, 3], 2)
        (seeds / f"{number}.ebm").write_bytes(tiny.to_bytes((probe,)))
    conf = tiny_conf(
        hidden_size=64, ffn_size=64, n_layers=1, n_heads=16, n_kv_heads=1, head_dim=4, vocab_size=5, bos_token=1,
        stop_tokens=(2,), norms=Norms(15), projection_norm_eps=1e-4, rope_attention_factor=1.5,
        activation_quantisation=ActivationQuantisation.INT15,
    )  # fmt: skip
    grouped = TinyModel(conf, scaling=Scaling(Granularity.GROUP, 64), embedding=Encoding.F16)
    (seeds / "grouped.ebm").write_bytes(grouped.to_bytes())

    fuzz(check_build("fuzz"), "fuzz_model_file", found, seeds, max_len=32768)

    assert len(list(found.iterdir())) > 3  # else no damage got past the sums


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fuzzed", ["section", "text", "text-fallback", "text-nfc"])
def test_no_section_and_no_text_makes_the_tokenizer_fault(
    fuzzed: str,
    reference_checkpoint: Callable[[str], Path],
    check_build: Callable[[str], CheckBuild],
    tmp_path: Path,
):
    """A hostile section of any form is refused or works; any text comes back from its ids."""
    seeds, found = tmp_path / "seeds", tmp_path / "found"
    seeds.mkdir()
    found.mkdir()
    sections = tokenizer_sections(read_tokenizer(reference_checkpoint("bitnet-packed")))
    texts = (
        b"it's 12345 o'clock",
        "schöner Tag 你好 🙂\n".encode(),
        b"<|eot_id|>\xff\xf0\x9f",
        "e\u0301\u0323 각".encode(),
    )
    for name, section in sections.items() if fuzzed == "section" else [(fuzzed, b"")]:
        for number, text in enumerate(texts):
            options = bytes([number]) + len(text).to_bytes(2, "little")
            (seeds / f"{name}-{number}").write_bytes(options + text + section)
    section = sections[fuzzed.removeprefix("text-")] if "-" in fuzzed else sections["llama3"]
    (tmp_path / "tiny.tokn").write_bytes(section)
    environment = {"EB_FUZZ_SECTION": str(tmp_path / "tiny.tokn")} if fuzzed != "section" else {}

    fuzz(check_build("fuzz"), "fuzz_tokenizer", found, seeds, max_len=2 * len(section), environment=environment)

    assert len(list(found.iterdir())) > 3


def tokenizer_sections(tiny: CheckpointTokenizer) -> dict[str, bytes]:
    """One of each form: version 1, each pre-tokenizer of version 2, NFC, and characters with bytes to fall back on."""
    pre_tokenizers = {pre.name.lower(): replace(tiny, pre_tokenizer=pre) for pre in PreTokenizer}
    pieces = [b"", *(bytes([byte]) for byte in range(256)), *b" |a|b|t|h|e| t|he| the|\xc3\xb6".split(b"|")]
    pieces.insert(1, b"<|eot_id|>")
    ids = {piece: token for token, piece in enumerate(pieces) if token > 257}
    fallback = replace(
        tiny,
        kind=Kind.BYTE_FALLBACK,
        pre_tokenizer=PreTokenizer.NONE,
        space_prefix=SpacePrefix.SEGMENT,
        strip_leading_space=True,
        tokens=tuple(pieces),
        flags=bytes([UNUSED, ADDED | SPECIAL, *[BYTE] * 256, *[0] * len(ids)]),
        merges=tuple((ids[a], ids[b], ids[a + b]) for a, b in ((b" ", b"t"), (b"h", b"e"), (b" t", b"he"))),
        merged_ids=frozenset(ids.values()),
        ignore_merges=False,
    )
    forms = {**pre_tokenizers, "nfc": replace(tiny, normalizer=Normalizer.NFC), "fallback": fallback}
    return {name: tokenizer.section(512) for name, tokenizer in forms.items()}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_state_of_a_sequence_makes_the_engine_fault(
    native: Library, check_build: Callable[[str], CheckBuild], tmp_path: Path
):
    """Whatever a state holds, with its sums set right: refused and nothing changed, or computed on with."""
    seeds, found, file = tmp_path / "seeds", tmp_path / "found", tmp_path / "tiny.ebm"
    seeds.mkdir()
    found.mkdir()
    file.write_bytes(TinyModel(tiny_conf(**SHAPE)).to_bytes())
    with Model.open(native, file) as model:
        for kind, kv in enumerate(("f16", "int8")):
            with Engine(model, ctx_len=48, kv=kv) as engine:
                engine.eval([number * 5 % 9 for number in range(47)])
                for begin, end in ((0, 47), (0, 16), (5, 40), (16, 17)):
                    options = bytes([kind, begin, end - begin])
                    (seeds / f"{kv}-{begin}-{end}").write_bytes(options + engine.save(0, begin, end))

    fuzz(check_build("fuzz"), "fuzz_sequence", found, seeds, max_len=8192, environment={"EB_FUZZ_MODEL": str(file)})

    assert len(list(found.iterdir())) > 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_adapter_file_makes_the_engine_fault(
    native: Library, check_build: Callable[[str], CheckBuild], tmp_path: Path
):
    """Whatever a file holds, with its sums set right: refused, or tokens computed with it; never a fault."""
    seeds, found, file = tmp_path / "seeds", tmp_path / "found", tmp_path / "tiny.ebm"
    seeds.mkdir()
    found.mkdir()
    conf = tiny_conf(**SHAPE)
    file.write_bytes(TinyModel(conf).to_bytes())
    with Model.open(native, file) as model:
        for encoding in (Encoding.F16, Encoding.I8):
            for rank in (1, 5):
                adapter = random_adapter(model, conf, encoding=encoding, rank=rank)
                (seeds / f"{encoding.name}-{rank}").write_bytes(adapter.pack())

    fuzz(check_build("fuzz"), "fuzz_adapter", found, seeds, max_len=8192, environment={"EB_FUZZ_MODEL": str(file)})

    assert len(list(found.iterdir())) > 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_program_makes_a_constraint_fault(
    check_build: Callable[[str], CheckBuild], reference_checkpoint: Callable[[str], Path], tmp_path: Path
):
    """Refused, or a constraint that accepts exactly what its mask leaves."""
    seeds, found = tmp_path / "seeds", tmp_path / "found"
    seeds.mkdir()
    found.mkdir()
    counted = {"type": "string", "minLength": 1, "maxLength": 4}
    item = {"type": "object", "properties": {"a": counted, "b": {"type": "integer", "maximum": 77}}, "required": ["b"]}
    again = {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}}]}
    for number, program in enumerate((compile_schema(item), compile_schema(again), any_object())):
        (seeds / str(number)).write_bytes(bytes(range(8)) + program)
    (tmp_path / "tiny.tokn").write_bytes(read_tokenizer(reference_checkpoint("bitnet-packed")).section())

    environment = {"EB_FUZZ_SECTION": str(tmp_path / "tiny.tokn")}
    fuzz(check_build("fuzz"), "fuzz_constraint", found, seeds, max_len=32768, environment=environment)

    assert len(list(found.iterdir())) > 3


def fuzz(
    build: CheckBuild, name: str, found: Path, seeds: Path, *, max_len: int, environment: dict[str, str] | None = None
) -> None:
    """Run a fuzzer from `seeds`; what it finds interesting goes into `found`, and a fault fails the test."""
    seconds = int(os.environ.get("FUZZ_SECONDS", "20"))
    done = subprocess.run(
        [str(build.folder / "checks" / name), f"-max_total_time={seconds}",
         f"-seed={os.environ.get('FUZZ_SEED', '1')}", "-timeout=20", f"-max_len={max_len}",
         str(found), str(seeds)],
        capture_output=True, text=True, errors="replace", check=False, cwd=found.parent,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    print(done.stderr.splitlines()[-1])
