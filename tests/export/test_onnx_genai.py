"""What `edgebit export onnx` writes for onnxruntime-genai; and genai itself, which answers as our engine does."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jinja2
import numpy as np
import pytest
from export.onnx_run import NativeRun
from tokenizer_folders import FORMS, write_tokenizer

from edgebit.bundle.prompt_program import Message, PromptProgram
from edgebit.checkpoint.chat_template.choice import BUILT_IN, read_choice
from edgebit.checkpoint.chat_template.compiler import compile_chat_template
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.checkpoint.tokenizer import read_tokenizer
from edgebit.export.onnx_model.genai_config import KV_MOST, genai_config
from edgebit.export.onnx_model.genai_tokenizer import fit_tokenizer_config
from edgebit.export.onnx_model.plain_template import plain_template
from edgebit.export.to_onnx import OnnxForm, export_onnx
from edgebit.export.tokenizer_files import write_tokenizer_files

pytest.importorskip("onnx")

PROMPT = [5, 7, 11, 13, 17]
BEGIN = "<|begin_of_text|>"
CONVERSATIONS = [
    [("user", " hi \n")],
    [("system", " be {{ x }} "), ("user", "a"), ("assistant", " b "), ("user", 'ünï "q" {% %} \\n')],
]
ODD = PromptProgram(
    system=("<S>\n'\"\\{{", "\t\n"),
    user=("{% u ", "é🙂\n\n"),
    assistant=("\n\n a", "</s>"),
    generation="\nA:",
    default_system="Be {{ good }}\n",
    strip=("user",),
    add_bos=True,
)


def rendered(program: PromptProgram, turns: list[tuple[str, str]]) -> str:
    prompt = "".join(text for text, _ in program.render([Message(*turn) for turn in turns]))
    return (BEGIN if program.add_bos else "") + prompt


def as_messages(turns: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


@pytest.fixture(scope="module")
def programs(reference_checkpoint) -> dict[str, PromptProgram]:
    """The reference model's own, an odd one, and two of edgebit's own templates that its tokens suffice for."""
    tokenizer = read_tokenizer(reference_checkpoint("bitnet-packed"))
    own = compile_chat_template(tokenizer.chat_template, tokenizer)
    ours = [name for name in BUILT_IN if name in ("alpaca", "zephyr")]
    made = {name: compile_chat_template(read_choice(name, tokenizer) or "", tokenizer) for name in ours}
    return {"own": own, "odd": ODD, **made}


@pytest.mark.parametrize("turns", CONVERSATIONS)
def test_the_plain_template_renders_what_the_program_does(turns, programs):
    for name, program in programs.items():
        template = plain_template(program, BEGIN)
        assert template is not None and "capitalize" not in template, name
        jinja = jinja2.Environment().from_string(template)
        assert jinja.render(messages=as_messages(turns), add_generation_prompt=True) == rendered(program, turns), name


def test_what_plain_jinja_cannot_say_stays_as_it_is():
    assert plain_template(replace(ODD, system_place="first user"), BEGIN) is None
    assert plain_template(replace(ODD, thought_end="</think>"), BEGIN) is None


def test_a_system_message_without_a_place_is_an_error():
    template = plain_template(replace(ODD, allow_system=False), BEGIN) or ""

    def refuse(why: str) -> None:
        raise ValueError(why)

    environment = jinja2.Environment()
    environment.globals["raise_exception"] = refuse
    with pytest.raises(ValueError, match="no place for a system message"):
        environment.from_string(template).render(messages=as_messages([("system", "x")]))


def test_the_configuration_says_what_the_graph_is(exported):
    """Names and sizes as in the graph's interface, and what the makers advise."""
    folder = exported("bitnet-packed", fallback="exact")
    said = json.loads((folder / "genai_config.json").read_text())
    decoder, model = said["model"]["decoder"], said["model"]
    assert (model["type"], model["bos_token_id"], model["eos_token_id"]) == ("decoder", 500, [501, 509])
    assert (decoder["num_hidden_layers"], decoder["num_key_value_heads"], decoder["head_size"]) == (3, 2, 64)
    assert "custom_ops_library" not in decoder["session_options"]
    advised = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
    assert said["search"] == {"max_length": KV_MOST, "past_present_share_buffer": True, **advised}


def test_advice_becomes_the_search_s_defaults(reference_checkpoint):
    """What genai has no word for (min_p) is left out: it refuses a configuration with unknown words."""
    advice = {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1}
    with closing(open_checkpoint(reference_checkpoint("bonsai-f16"))) as checkpoint:
        conf = replace(checkpoint.config.conf, context_max=64, stop_tokens=(), bos_token=-1)
    made = genai_config(conf, advice, model="m", library="lib.so", shares_cache=False)
    assert made["search"]["do_sample"] is True and "min_p" not in made["search"]
    assert (made["search"]["top_k"], made["search"]["past_present_share_buffer"]) == (40, False)
    assert made["model"]["decoder"]["session_options"]["custom_ops_library"] == "lib.so"
    assert made["search"]["max_length"] == 64 and not {"bos_token_id", "eos_token_id"} & made["model"].keys()
    unadvised = genai_config(conf, {}, model="m", library=None, shares_cache=True)
    assert unadvised["search"] == {"max_length": 64, "past_present_share_buffer": True, "do_sample": False}


@pytest.mark.parametrize(
    ("form", "noted"),
    [("llama3", None), ("gpt2", None), ("qwen2-nfc", "NFC"), ("falcon", "Falcon"), ("sentencepiece", "SentencePiece")],
)
def test_tokenizers_that_genai_does_not_have_are_noted(form, noted, tmp_path):
    tokenizer = read_tokenizer(write_tokenizer(tmp_path, form))
    notes = fit_tokenizer_config(tmp_path, tokenizer, None)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert len(notes) == (noted is not None) and all(noted in note for note in notes)


def test_a_tokenizer_that_edgebit_does_not_know_goes_along_as_it_is(reference_checkpoint, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(reference_checkpoint("bitnet-packed"), folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    report = export_onnx(folder, tmp_path / "out", form=OnnxForm(fallback="none"))
    assert any("Lowercase" in note for note in report.notes)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "out" / "genai_config.json").is_file()


@pytest.mark.parametrize("config", [b'{"bos_token":', b"[1]", b"\xff"])
def test_a_broken_tokenizer_config_is_noted(config, reference_checkpoint, tmp_path):
    """In words, and the graph is written all the same."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(reference_checkpoint("bitnet-packed"), folder)
    (folder / "tokenizer_config.json").write_bytes(config)
    report = export_onnx(folder, tmp_path / "out", form=OnnxForm(fallback="none"))
    (note,) = report.notes
    assert f"{folder / 'tokenizer_config.json'}: " in note and "JSON" in note and "give it token ids" in note
    assert (tmp_path / "out" / "tokenizer_config.json").read_bytes() == config


# ---- genai itself ----


@pytest.fixture(scope="module")
def genai():
    return pytest.importorskip("onnxruntime_genai", reason="genai is an extra: pip install 'edgebit[genai]'")


def generator(genai, folder: Path, length: int, **search: object):
    model = genai.Model(str(folder))
    params = genai.GeneratorParams(model)
    params.set_search_options(do_sample=False, max_length=length, **search)
    return genai.Generator(model, params)


def finish(generator, count: int) -> None:
    for _ in range(count):
        if generator.is_done():
            break
        generator.generate_next_token()


def greedy(native, path: Path, prompt: list[int], count: int) -> list[int]:
    with NativeRun(native, path, ctx_len=200) as engine:
        logits, found = engine.step(prompt)[-1], []
        for _ in range(count):
            found.append(int(logits.argmax()))
            if found[-1] in engine.model.info.stop_tokens:
                break
            logits = engine.step(found[-1:])[-1]
    return found


@pytest.mark.reference
@pytest.mark.parametrize("ops", ["contrib", "standard"])
@pytest.mark.parametrize("computes", ["library", "exact body"])
@pytest.mark.parametrize("logits", ["last", "all"])
@pytest.mark.parametrize("name", ["bitnet-packed", "legacy-1bitllm-f16-head100", "bonsai-f16"])
def test_genai_gives_the_same_greedy_tokens(
    name, ops, computes, logits, request, genai, native, quick_model, reference_checkpoint, tmp_path
):
    """64, or those up to a stop token; by GroupQueryAttention, plain operators and ONNX's own; prompt in two parts."""
    library = request.getfixturevalue("ort_library") if computes == "library" else None
    fallback = "exact" if library is None else "none"
    form = OnnxForm(ops=ops, logits=logits, fallback=fallback)
    export_onnx(reference_checkpoint(name), tmp_path / "out", form=form, library=library)
    wanted = greedy(native, quick_model(name), PROMPT, 64)
    for parts in ([PROMPT], [PROMPT[:2], PROMPT[2:]]):
        made = generator(genai, tmp_path / "out", len(PROMPT) + 64)
        for part in parts:
            made.append_tokens(np.array(part, np.int32))
        finish(made, 64)
        found = [int(token) for token in made.get_sequence(0)][len(PROMPT) :]
        stops = json.loads((tmp_path / "out" / "genai_config.json").read_text())["model"].get("eos_token_id", [])
        kept = wanted[:-1] if wanted[-1] in stops else wanted  # genai keeps no stop token
        assert found[: len(kept)] == kept and len(found) - len(kept) in (0, 1)


@pytest.mark.reference
@pytest.mark.parametrize("ops", ["contrib", "standard"])
def test_genai_goes_on_after_a_stop_token(ops, genai, native, quick_model, exported, tmp_path):
    """Continuous decoding: what follows an answer that ended is answered as the whole conversation would be."""
    first = greedy(native, quick_model("bitnet-packed"), PROMPT, 6)
    folder = tmp_path / "out"
    folder.mkdir()
    for path in exported("bitnet-packed", ops=ops, fallback="exact").iterdir():
        (folder / path.name).symlink_to(path)
    said = json.loads((folder / "genai_config.json").read_text())
    said["model"]["eos_token_id"] = [first[5]]
    (folder / "genai_config.json").unlink()
    (folder / "genai_config.json").write_text(json.dumps(said))
    made = generator(genai, folder, 100)
    made.append_tokens(np.array(PROMPT, np.int32))
    finish(made, 20)
    assert made.is_done()
    made.append_tokens(np.array([9, 8, 7], np.int32))
    so_far = [int(token) for token in made.get_sequence(0)]
    finish(made, 8)
    found = [int(token) for token in made.get_sequence(0)][len(so_far) :]
    wanted = greedy(native, quick_model("bitnet-packed"), so_far, 8)
    assert so_far[-3:] == [9, 8, 7] and found == wanted[: len(found)] and found


@pytest.mark.reference
@pytest.mark.parametrize("ops", ["contrib", "standard"])
def test_genai_answers_prompts_of_other_lengths_at_once(ops, genai, native, quick_model, exported):
    """Filled up at the right with the padding token: at the left, genai takes it for text."""
    folder = exported("bitnet-packed", ops=ops, fallback="exact")
    prompts, padding = [PROMPT, PROMPT[:2]], 501
    made = generator(genai, folder, 60, batch_size=2)
    made.append_tokens(np.array([prompt + [padding] * (5 - len(prompt)) for prompt in prompts], np.int32))
    finish(made, 8)
    for row, prompt in enumerate(prompts):
        found = [int(token) for token in made.get_sequence(row)][5:]
        assert found == greedy(native, quick_model("bitnet-packed"), prompt, 8), row


@pytest.mark.reference
def test_genai_loads_the_tokenizer_and_renders_the_template(genai, exported, programs):
    folder = exported("bitnet-packed", fallback="exact")
    tokenizer = genai.Tokenizer(genai.Model(str(folder)))
    assert [int(token) for token in tokenizer.encode("Hello")] == [39, 68, 270, 78]
    for name, program in programs.items():
        for turns in CONVERSATIONS:
            found = tokenizer.apply_chat_template(
                json.dumps(as_messages(turns)),
                template_str="" if name == "own" else plain_template(program, BEGIN),
                add_generation_prompt=True,
            )
            assert found == rendered(program, turns), name


@pytest.mark.reference
@pytest.mark.parametrize("form", [form for form in FORMS if form.startswith(("llama3", "gpt2", "qwen2"))])
def test_genai_cuts_text_as_the_tokenizer_does(form, genai, exported, tmp_path):
    """For vocabularies that no note is made of; with NFC, text that has nothing to compose."""
    texts = [
        "Hello, world! 1234567 12½3456",
        "naïve — 東京\n\n\tx  y   z    ",
        "<s>a</s> b<tool>  c <|mark|>d",
        "I'LL it's",
    ]
    source = write_tokenizer(tmp_path, form, size=400)
    kept = read_tokenizer(source)
    folder = tmp_path / "out"
    folder.mkdir()
    for path in exported("bitnet-packed", fallback="exact").iterdir():
        if not path.name.startswith("tokenizer"):
            (folder / path.name).symlink_to(path)
    write_tokenizer_files(folder, kept, 64)
    fit_tokenizer_config(folder, kept, None)
    tokenizers = pytest.importorskip("tokenizers")
    hf = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer = genai.Tokenizer(genai.Model(str(folder)))
    for text in texts:
        assert [int(token) for token in tokenizer.encode(text)] == hf.encode(text, add_special_tokens=False).ids, text
