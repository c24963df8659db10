"""The daemon's model over ONNX Runtime: the same answers, and a start that fails where they would not be."""

import json
import shutil
import sys

import pytest

from edgebit.bundle.archive import hash_file, open_bundle, write_archive
from edgebit.bundle.manifest import BuildInfo, Manifest, ModelInfo, TargetInfo
from edgebit.bundle.prompt_program import Message
from edgebit.convert import convert
from edgebit.daemon.config.sections import EngineConfig
from edgebit.daemon.contract.messages import GenerateRequest, Refusal, ResponseSchema
from edgebit.daemon.serving.engine import LoadedModel
from edgebit.daemon.serving.onnx_opening import check_onnx
from edgebit.errors import BundleError, EdgebitError, OnnxError
from edgebit.resources import assistant_model_dir, ort_library
from edgebit.runtime.generation import Answer
from edgebit.runtime.json_schema import compile_schema

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from edgebit.export.to_onnx import OnnxForm, export_onnx


@pytest.fixture(scope="module")
def model_file(native, tmp_path_factory):
    """The model that ships: its answers are no noise."""
    path = tmp_path_factory.mktemp("model") / "demo.ebm"
    convert(assistant_model_dir(), path)
    return path


@pytest.fixture(scope="module")
def exported(native, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "exported"
    export_onnx(assistant_model_dir(), folder, library=ort_library())
    return folder


@pytest.fixture
def copied(exported, tmp_path):
    """A folder that a test may damage."""
    return shutil.copytree(exported, tmp_path / "copied")


@pytest.fixture
def opened(model_file):
    """Opens the model with [engine] as given; closes it in the end."""
    models = []

    def open_model(folder=None, path=model_file, **config):
        which = {"engine": "onnx", "onnx_folder": str(folder)} if folder else {}
        models.append(LoadedModel.open(path, EngineConfig(**{"threads": 1, **which, **config})))
        return models[-1]

    yield open_model
    for model in models:
        model.close()


def answer_of(model, prompt, **named):
    request = GenerateRequest(
        **{
            "prompt": prompt,
            "messages": (Message("user", prompt),),
            "sampling": {"temperature": 0.0},
            "seed": 1,
            "max_tokens": 24,
            "stop": (),
            "stream": False,
            "format": "json",
            **named,
        }
    )
    ids = model.request_ids(request)
    generation = model.begin(request, ids, Answer(prompt_tokens=len(ids)), "")
    while not generation.done:
        model.step([generation])
    model.end(generation)
    return generation.answer.text


def test_it_answers_as_our_own_engine(opened, exported):
    """Greedy, drawn, and up to a stop string."""
    native, onnx = opened(kv="f32"), opened(exported)
    for asked in (
        {"prompt": "Turn on the light in the kitchen."},
        {"prompt": "What time is it?", "sampling": {"temperature": 1.0}, "seed": 7},
        {"prompt": "Why is the sky blue?", "stop": ("home",)},
    ):
        assert answer_of(onnx, **asked) == answer_of(native, **asked) != ""


def test_schemas_hold_and_adapters_are_refused(opened, exported):
    """What is drawn from is masked whoever computes it; a graph has no place for side paths."""
    schema = {"type": "object", "properties": {"on": {"type": "boolean"}, "room": {"enum": ["hall", "attic"]}}}
    schema |= {"required": ["on", "room"], "additionalProperties": False}
    asked = {"prompt": "Turn on the light.", "response_schema": ResponseSchema(compile_schema(schema))}
    native, onnx = opened(kv="f32"), opened(exported)
    answer = answer_of(onnx, **asked)
    assert answer == answer_of(native, **asked) and json.loads(answer).keys() == {"on", "room"}
    with pytest.raises(Refusal, match="takes no adapters"):
        onnx.open_adapter(b"")


def test_info_says_what_computes(opened, exported):
    """The engine and its version, whose kernels run, of what the folder was made, and the KV cache as it is."""
    found = opened(exported, ctx_len=64, sequences=2).describe()
    engine = found["engine"]
    assert (engine["name"], engine["kernel"], engine["ctx_len"], engine["sequences"]) == ("onnx", "bound", 64, 2)
    assert engine["onnxruntime"] == sys.modules["onnxruntime"].__version__ and "arena_bytes" not in engine
    assert engine["graph"] == {
        "source": "assistant_model",
        "source_sha256": {"model.safetensors": hash_file(assistant_model_dir() / "model.safetensors").sha256},
        "ops": "contrib",
        "fallback": "compact",
    }
    assert found["model"]["chat_template"] is True
    native = opened(ctx_len=64, sequences=2, kv="f32").describe()["engine"]
    assert native["name"] == "native" and native["kv_bytes"] == engine["kv_bytes"]


def test_what_is_left_out_is_said(opened, exported, copied, caplog):
    """Not with a word less than the configuration's defaults mean; and that a fallback runs, where it does."""
    caplog.set_level("INFO")
    opened(exported)
    assert "a KV cache of f32, no drafts of next tokens, no prefix cache, and threads that stay" in caplog.text
    assert "it passes all 3 golden probes" in caplog.text and "fallback" not in caplog.text
    (copied / "libedgebit_ort.so").unlink()
    assert opened(copied).describe()["engine"]["kernel"] == "fallback"
    assert "the fallback 'compact' runs, not the fast kernel" in caplog.text


def test_fixed_threads_may_be_asked_for(opened, exported):
    """Whatever number the scheduler hands on, an engine that keeps its own is not asked, and answers as before."""
    model = opened(exported, threads=2)
    before = answer_of(model, "hello")
    assert before
    for threads in (0, 1, 4):
        model.set_threads(threads)
        assert answer_of(model, "hello") == before


def test_a_folder_of_another_model_is_refused(opened, reference_checkpoint, tmp_path):
    """By the sums of what both were made from, and with the names of both."""
    export_onnx(reference_checkpoint("bitnet-packed"), tmp_path / "other")
    with pytest.raises(OnnxError, match=r"other was made of another model \(bitnet-packed\) than .*demo\.ebm"):
        opened(tmp_path / "other")


def test_a_folder_of_the_model_file_itself_is_known(opened, model_file, tmp_path):
    """Whether the file is by itself, or in a bundle whose manifest has its sum."""
    export_onnx(model_file, tmp_path / "of-file", library=ort_library())
    assert opened(tmp_path / "of-file").names == {"assistant_model"}
    manifest = Manifest(
        name="tiny",
        edgebit="0.1.0",
        abi=1,
        target=TargetInfo(name="host", triple="x86_64-linux-gnu"),
        model=ModelInfo(name="tiny"),
        build=BuildInfo(),
        files={"model.ebm": hash_file(model_file)},
    )
    write_archive(tmp_path / "tiny.bundle", manifest, {"model.ebm": model_file})
    model = opened(tmp_path / "of-file", path=tmp_path / "tiny.bundle")
    assert model.describe()["bundle"] == open_bundle(tmp_path / "tiny.bundle").id


def overwrite(path, content, begin, size):
    """Put that part of `content` into the file where others have it mapped."""
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(content[begin : begin + size])


def test_damaged_weights_fail_the_start_and_a_probe(opened, copied):
    """The file has its length, and the graph loads; what it computes is another thing. Well again, all passes again."""
    data = copied / "model.onnx.data"
    whole = data.read_bytes()
    middle, size = len(whole) // 2, 200_000
    model = opened(copied)
    overwrite(data, bytes(len(whole)), middle, size)
    for check in (model.probes.check, lambda: opened(copied)):
        with pytest.raises(BundleError, match=r"ONNX Runtime .* with .*copied computes something else than the model"):
            check()
    overwrite(data, whole, middle, size)
    assert model.probes.check() == 3


def test_weights_cut_short_are_named(opened, copied):
    data = copied / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(OnnxError, match="a copy cut short"):
        opened(copied)


def test_without_onnxruntime_the_start_says_how_to_get_it(opened, exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OnnxError, match=r"(?s)onnxruntime.*pip install 'edgebit\[onnx\]'"):
        opened(exported)


def test_a_folder_that_is_none(opened, tmp_path):
    with pytest.raises(OnnxError, match=r"holds no model\.onnx"):
        opened(tmp_path)


def test_a_model_without_probes_is_not_called_proved(opened, exported, tmp_path, native, caplog):
    convert(assistant_model_dir(), tmp_path / "bare.ebm", probes=False)
    opened(exported, path=tmp_path / "bare.ebm")
    assert "nothing shows that its answers are the model's" in caplog.text


def test_probes_run_beside_answers(opened, exported):
    """On KV caches of their own, again and again; a request may end a run."""
    model = opened(exported)
    before = answer_of(model, "hello")
    assert model.probes.check() == 3 == model.probes.check()
    model.probes.cancel()
    assert answer_of(model, "hello") == before


def test_a_context_longer_than_the_folders_is_refused(opened, exported):
    with pytest.raises(EdgebitError, match="a context of 4096 tokens was asked for"):
        opened(exported, ctx_len=4096)


def test_a_shorter_graph_has_a_shorter_context(opened, tmp_path):
    """Unless a context was asked for, the folder's own is the limit."""
    export_onnx(assistant_model_dir(), tmp_path / "short", form=OnnxForm(context=128), library=ort_library())
    assert json.loads(json.dumps(opened(tmp_path / "short").describe()))["engine"]["ctx_len"] == 128


# ---- looked at before a start ----


def checked(folder, path=None, **config):
    check_onnx(EngineConfig(engine="onnx", onnx_folder=str(folder), **config), path)


def test_a_sound_folder_passes_the_check(exported, model_file):
    """With the model file beside it, and where none is known yet."""
    checked(exported)
    checked(exported, model_file)


def test_a_context_beyond_the_model_s_is_seen_by_the_check(exported):
    with pytest.raises(OnnxError, match=r"ctx_len = 99999 in \[engine\]: the model of .* has a context of \d+ tokens"):
        checked(exported, ctx_len=99_999)


def test_a_folder_of_another_model_is_seen_by_the_check(model_file, reference_checkpoint, tmp_path):
    export_onnx(reference_checkpoint("bitnet-packed"), tmp_path / "other")
    with pytest.raises(OnnxError, match=r"was made of another model \(bitnet-packed\) than .*demo\.ebm"):
        checked(tmp_path / "other", model_file)


def test_a_library_of_another_machine_is_seen_by_the_check(exported, tmp_path, monkeypatch):
    """With what a service can do about it: it has an environment, and no options."""
    data = bytearray((exported / "libedgebit_ort.so").read_bytes())
    data[18:20] = b"\xf3\x00"  # e_machine: RISC-V
    (tmp_path / "foreign.so").write_bytes(data)
    monkeypatch.setenv("EDGEBIT_ORT_LIBRARY", str(tmp_path / "foreign.so"))
    with pytest.raises(OnnxError, match=r"foreign\.so is for .*--target.*EDGEBIT_ORT_LIBRARY=none") as refused:
        checked(exported)
    assert "--library" not in str(refused.value)


def test_a_folder_with_neither_library_nor_fallback_is_seen_by_the_check(native, tmp_path, monkeypatch):
    monkeypatch.delenv("EDGEBIT_ORT_LIBRARY", raising=False)
    export_onnx(assistant_model_dir(), tmp_path / "bare", form=OnnxForm(fallback="none"))
    with pytest.raises(OnnxError, match=r"has no fallback for all\. .*--target.*EDGEBIT_ORT_LIBRARY") as refused:
        checked(tmp_path / "bare")
    assert "--library" not in str(refused.value)


def test_an_old_runtime_is_seen_by_the_check(exported, monkeypatch):
    monkeypatch.setattr(sys.modules["onnxruntime"], "__version__", "1.18.1")
    with pytest.raises(OnnxError, match=r"ONNX Runtime 1\.18\.1 is too old for"):
        checked(exported)
