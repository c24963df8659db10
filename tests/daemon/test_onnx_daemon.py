"""A daemon that answers with ONNX Runtime, over a real broker: what a caller sees is what our own engine would say."""

import json
import re
import subprocess
import sys

import pytest

from edgebit.bundle.model_reader import ModelFile
from edgebit.daemon.__main__ import main
from edgebit.daemon.config.sections import EngineConfig
from edgebit.daemon.contract.messages import GenerateRequest
from edgebit.daemon.serving.engine import LoadedModel
from edgebit.errors import OnnxError
from edgebit.pyz import build_pyz
from edgebit.resources import ort_library
from edgebit.runtime.generation import Answer

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from edgebit.export.to_onnx import OnnxForm, export_onnx

IN, OUT = "edgebit/v1/pi/in/alice", "edgebit/v1/pi/out/alice"
LONG = "tell me all"  # of which this model, whose weights are random, finds no end
WORDS = {"raw": True, "options": {"temperature": 0, "num_predict": 24}}


@pytest.fixture(scope="module")
def exported(native, reference_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "exported"
    export_onnx(reference_checkpoint("bitnet-packed"), folder, library=ort_library())
    return folder


@pytest.fixture
def device(ready, ears, broker, reference_model, exported):
    """An ear on a device with a context of 2,048 tokens, as our own engine would have."""
    engine = f'[engine]\nengine = "onnx"\nonnx_folder = "{exported}"\nthreads = 1\nctx_len = 2048\n'
    ready(bundle=reference_model("bitnet-packed"), toml=engine)
    return ears(broker.port, f"{OUT}/#")


@pytest.fixture(scope="module")
def native_text(native, reference_model):
    """Gives what our own engine answers, greedy, with the KV cache that a graph has."""
    model = LoadedModel.open(reference_model("bitnet-packed"), EngineConfig(threads=1, ctx_len=2048, kv="f32"))

    def answer(prompt, tokens=24):
        request = GenerateRequest(
            prompt=prompt,
            messages=(),
            sampling={"temperature": 0.0},
            seed=1,
            max_tokens=tokens,
            stop=(),
            stream=False,
            format="json",
        )
        ids = model.request_ids(request)
        generation = model.begin(request, ids, Answer(prompt_tokens=len(ids)), "")
        while not generation.done:
            model.step([generation])
        model.end(generation)
        return generation.answer.text

    yield answer
    model.close()


def of(ear, job):
    """The frames of one job, up to its last; those of others wait for nobody."""
    frames = []
    while not frames or not frames[-1].get("done"):
        message = ear.until(lambda message: message.topic == f"{OUT}/{job}")
        frames.append(json.loads(message.payload))
    return frames


def test_it_answers_as_our_own_engine_would(device, native_text, ears, broker):
    """Streamed and whole, up to a stop string, and with a prompt that is too long for it; and says what it is."""
    info = ears(broker.port, "edgebit/v1/pi/info").until(lambda message: b'"graph"' in message.payload)
    engine = json.loads(info.payload)["engine"]
    assert (engine["name"], engine["kernel"], engine["graph"]["source"]) == ("onnx", "bound", "bitnet-packed")
    for number, prompt in enumerate(("hello there", "a")):
        device.say(f"{IN}/generate", {"id": f"s{number}", "prompt": prompt, "stream": True, **WORDS})
        frames = of(device, f"s{number}")
        text = "".join(frame["d"] for frame in frames if frame["t"] == "delta")
        assert text == native_text(prompt) != "" and len(frames) > 3
    stop = native_text("a")[5:8]
    asked = {**WORDS, "options": {**WORDS["options"], "stop": [stop]}}
    device.say(f"{IN}/generate", {"id": "stop", "prompt": "a", "stream": False, **asked})
    (whole,) = of(device, "stop")
    assert whole["text"] == native_text("a").partition(stop)[0] and whole["done_reason"] == "stop"
    device.say(f"{IN}/generate", {"id": "long", "prompt": "x y " * 2000, "stream": False, **WORDS})
    (refused,) = of(device, "long")
    assert (refused["error"]["status"], refused["error"]["code"]) == (422, "context_overflow")


def test_two_at_once_and_one_is_cancelled(device, native_text):
    """A short answer comes while a long one is made; that one ends once nobody wants it, and frees its place."""
    options = {"temperature": 0, "num_predict": 1900}
    device.say(f"{IN}/generate", {"id": "long", "prompt": LONG, "stream": True, "raw": True, "options": options})
    device.until(lambda message: message.topic == f"{OUT}/long" and b'"delta"' in message.payload)
    device.say(f"{IN}/generate", {"id": "short", "prompt": "a", "stream": False, **WORDS})
    device.say(f"{IN}/cancel", "long")
    ended = {}
    while not {"long", "short"} <= set(ended):
        message = device.next()
        body = json.loads(message.payload)
        if body.get("done"):
            ended[message.topic.rpartition("/")[2]] = body
    assert ended["short"]["text"] == native_text("a")
    assert ended["long"]["error"]["code"] == "cancelled"
    device.say(f"{IN}/generate", {"id": "next", "prompt": "hello there", "stream": False, **WORDS})
    assert of(device, "next")[-1]["text"] == native_text("hello there")


def test_a_start_that_fails_is_a_fault_as_any_other(broker, daemons, ears, reference_model, exported):
    """The device says which folder is of which model, and refuses: what a health gate hears, and goes back on."""
    toml = f'[engine]\nengine = "onnx"\nonnx_folder = "{exported}"\n'
    daemon = daemons(broker.url, bundle=reference_model("bonsai-f16"), toml=toml)
    ear = ears(broker.port, "edgebit/v1/pi/status", f"{OUT}/#")
    status = json.loads(ear.until(lambda message: b'"fault"' in message.payload).payload)
    assert "was made of another model (bitnet-packed)" in status["last_error"]
    ear.say(f"{IN}/generate", {"prompt": "a"})
    reply = json.loads(ear.until(lambda message: message.topic.startswith(OUT)).payload)
    assert (reply["error"]["code"], reply["error"]["retryable"]) == ("fault", False)
    assert daemon.stop() == 9


def test_the_check_of_a_configuration_looks_at_the_bundle_too(exported, reference_model, tmp_path, capsys):
    """What answers there must be the model that the folder was made of."""
    config = tmp_path / "edgebitd.toml"
    config.write_text(f'[device]\nname = "pi"\n[engine]\nengine = "onnx"\nonnx_folder = "{exported}"\n')
    for model, code in (("bitnet-packed", 0), ("bonsai-f16", OnnxError.exit_code)):
        argv = ["run", "--bundle", str(reference_model(model)), "--config", str(config), "--check-config"]
        assert main(argv) == code
    assert "was made of another model (bitnet-packed)" in capsys.readouterr().err


def test_a_context_too_short_for_the_golden_probes(reference_checkpoint, reference_model, tmp_path, capsys):
    """Nothing could show that such a folder computes right: the check and the start say so."""
    folder, model, config = tmp_path / "short", reference_model("bitnet-packed"), tmp_path / "edgebitd.toml"
    with ModelFile(model) as file:
        need = file.probe_context
    export_onnx(reference_checkpoint("bitnet-packed"), folder, form=OnnxForm(context=need - 1), library=ort_library())
    config.write_text(f'[device]\nname = "pi"\n[engine]\nengine = "onnx"\nonnx_folder = "{folder}"\n')
    words = f"golden probes ({model}) need {need}"
    argv = ["run", "--bundle", str(model), "--config", str(config), "--check-config"]
    assert main(argv) == OnnxError.exit_code
    said = capsys.readouterr().err
    assert words in said and f"context of {need - 1} tokens" in said and f"longer --ctx, {need} or more" in said
    with pytest.raises(OnnxError, match=re.escape(words)):
        LoadedModel.open(model, EngineConfig(engine="onnx", onnx_folder=str(folder)))


def test_the_one_file_has_what_it_takes(exported, tmp_path):
    """Beside a python3 with onnxruntime it is ready to start; without, it says what is missing and how to get it."""
    build_pyz(tmp_path / "edgebitd.pyz")
    (tmp_path / "edgebitd.toml").write_text(f'[engine]\nengine = "onnx"\nonnx_folder = "{exported}"\n')
    for options, code, words in (
        ((), 0, "broker mqtt://"),
        (("-S",), OnnxError.exit_code, "pip install 'edgebit[onnx]'"),
    ):
        argv = [sys.executable, "-I", *options, str(tmp_path / "edgebitd.pyz"), "run", "--root", str(tmp_path)]
        done = subprocess.run([*argv, "--check-config"], capture_output=True, text=True, check=False)
        assert done.returncode == code and words in done.stdout + done.stderr
