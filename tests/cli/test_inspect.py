"""`edgebit inspect` shows what is inside, for people and for programs."""

import json
import subprocess
import sys

import numpy as np
import pytest

from edgebit.bundle.archive import hash_file, write_archive
from edgebit.bundle.manifest import BuildInfo, Manifest, ModelInfo, TargetInfo
from edgebit.bundle.model_reader import ModelFile
from edgebit.ternary.layouts import unpack_t2


def edgebit(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgebit", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(params=["file", "bundle", "folder"])
def place(request, reference_model, tmp_path):
    """A model file, a bundle of it, a folder of it."""
    model = reference_model("bitnet-packed")
    if request.param == "file":
        return model
    manifest = Manifest(
        name="chat", edgebit="0.1.0", abi=1, target=TargetInfo(name="rpi", triple="aarch64-linux-gnu"),
        model=ModelInfo(name="tiny"), build=BuildInfo(), files={"model.ebm": hash_file(model)},
    )  # fmt: skip
    bundle = tmp_path / "chat.bundle"
    if request.param == "bundle":
        write_archive(bundle, manifest, {"model.ebm": model})
    else:
        bundle.mkdir()
        (bundle / "manifest.json").write_bytes(manifest.to_bytes())
        (bundle / "model.ebm").write_bytes(model.read_bytes())
    return bundle


def test_json_holds_all_facts(place):
    """The same of a file, a bundle and a folder."""
    done = edgebit("inspect", place, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["family"] == "bitnet-packed"
    assert facts["parameters"] == 1_904_640
    assert facts["config"]["norms"] == ["attn_sub_norm", "ffn_sub_norm"]
    assert facts["bos_token"] == {"id": 500, "text": "<|begin_of_text|>"}
    assert facts["stop_tokens"][1] == {"id": 509, "text": "<|eot_id|>"}
    assert (facts["config"]["activation_quantisation"], facts["config"]["rope_attention_factor"]) == ("int8", 1)
    assert facts["tokenizer"] == {
        "kind": "byte_level", "pre_tokenizer": "llama3", "normalizer": "none", "space_prefix": "none",
        "tokens": 512, "merges": 244, "added_tokens": 12,
    }  # fmt: skip
    assert facts["prompt_program_version"] == 1
    assert facts["prompt_program"]["user"] == ["User: ", "<|eot_id|>"]
    assert [section["tag"] for section in facts["sections"]] == ["CONF", "TENS", "TOKN", "PRMT", "DATA", "META", "PROB"]
    by_role = {tensor["tensor"]: tensor for tensor in facts["tensors"]}
    assert by_role["down_proj"] == {
        "tensor": "down_proj", "count": 3, "rows": 256, "columns": 512, "encoding": "t2",
        "scales": "tensor", "bytes": 3 * (256 * 128 + 4), "bits_per_weight": 2.0,
    }  # fmt: skip
    assert [probe["prompt_tokens"] for probe in facts["probes"]] == [1, 8, 72]
    assert len(facts["source"]["files"][0]["sha256"]) == 64
    assert (facts["bundle"] is None) == (place.suffix == ".ebm")


def test_tensors_lists_each(reference_model):
    """With place and size in the file."""
    facts = json.loads(edgebit("inspect", reference_model("bitnet-packed"), "--tensors", "--json").stdout)
    names = [tensor["tensor"] for tensor in facts["tensors"]]
    assert names[0] == "token_embedding"
    assert "q_proj[2]" in names
    assert len(names) == 4 + 3 * 11
    assert all(tensor["offset"] % 64 == 0 for tensor in facts["tensors"])


def test_the_table_says_the_same_in_words(reference_model):
    """Every line that a person looks for is there, template marks taken as text."""
    done = edgebit("inspect", reference_model("bitnet-packed"))
    assert done.returncode == 0, done.stderr
    for words in (
        "1,904,640 parameters",
        "509 <|eot_id|>",
        "User: ...<|eot_id|>Assistant: ",
        "temperature 0.6",
        "PROB",
    ):
        assert words in done.stdout


def test_codes_are_counted(reference_model):
    """Shares of a tensor and of a role; what has no codes has none."""
    facts = json.loads(edgebit("inspect", reference_model("bitnet-packed"), "--tensors", "--codes", "--json").stdout)
    shares = {tensor["tensor"]: [tensor[code] for code in ("-1", "0", "+1")] for tensor in facts["tensors"]}
    with ModelFile(reference_model("bitnet-packed")) as model:
        up = next(tensor for tensor in model.tensors if tensor.name == "up_proj[1]")
        codes = unpack_t2(np.frombuffer(bytes(model.values(up)), np.uint8), up.rows, up.columns)
    wanted = [float((codes == code).mean()) for code in (-1, 0, 1)]
    assert shares["up_proj[1]"] == pytest.approx(wanted, abs=5e-5)
    assert shares["final_norm"] == [None, None, None]

    done = edgebit("inspect", reference_model("bitnet-packed"), "--codes")
    (line,) = (line for line in done.stdout.splitlines() if line.strip().startswith("up_proj"))
    assert [float(share) for share in line.split()[-3:]] == pytest.approx([1 / 3] * 3, abs=0.01)


def test_what_is_no_model_is_refused(tmp_path):
    """Exit code 3, one line, no traceback."""
    path = tmp_path / "x.ebm"
    path.write_text("hello")
    done = edgebit("inspect", path)
    assert done.returncode == 3
    assert f"{path}: 5 bytes are no model file" in done.stderr
    assert "Traceback" not in done.stderr
