"""The model `edgebit` in lm-evaluation-harness, beside our own evaluation of the same questions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgebit.errors import EdgebitError
from edgebit.evaluate.choices import Answered, measure_choices
from edgebit.evaluate.harness import register
from edgebit.evaluate.questions import read_questions, with_shots
from edgebit.evaluate.text_model import TextModel
from edgebit.runtime.model import Model

pytestmark = pytest.mark.reference
WORDS = ["Hello", "world", "größe", "a", "日本語", "of", "x y z", "and more of it", "é", "the end"]


def task(name: str, folder: Path, body: str, data: str = "questions.jsonl") -> None:
    """A task's YAML file over local data."""
    (folder / f"{name}.yaml").write_text(
        f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {folder / data}\n"
        f"    train: {folder / 'shots.jsonl'}\ntest_split: test\nfewshot_split: train\n"
        f"fewshot_config:\n  sampler: first_n\n{body}"
    )


CHOICES = """output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices.label.index(answerKey)}}"
doc_to_choice: "{{choices.text}}"
metric_list:
  - metric: acc
  - metric: acc_norm
  - metric: acc_bytes
"""
ROLLING = """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list:
  - metric: bits_per_byte
"""
GENERATING = """output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answerKey}}"
generation_kwargs:
  until: ["e"]
  max_gen_toks: 12
metric_list:
  - metric: exact_match
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Tasks, 20 questions and 3 examples in the form of ARC."""
    folder = tmp_path_factory.mktemp("harness")
    rng = np.random.default_rng(11)
    rows = [
        {
            "question": f"{rng.choice(WORDS)} {n} {rng.choice(WORDS)}?",
            "choices": {"text": rng.choice(WORDS, 4, replace=False).tolist(), "label": list("ABCD")},
            "answerKey": str(rng.choice(list("ABCD"))),
        }
        for n in range(23)
    ]
    for name, some in (("questions", rows[:20]), ("shots", rows[20:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    for name, body in (("own_choices", CHOICES), ("own_rolling", ROLLING), ("own_generating", GENERATING)):
        task(name, folder, body)
    return folder


@pytest.fixture(scope="module")
def evaluated(folder, native, reference_model):
    """Gives lm_eval's results of a task, called as a program does."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HOME", str(folder / "home"))
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setenv("HF_DATASETS_OFFLINE", "1")
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed (pip install 'edgebit[lm-eval]')")
    from lm_eval.tasks import TaskManager

    register()
    tasks = TaskManager(include_path=str(folder), include_defaults=False)

    def evaluate(name: str, **options):
        return lm_eval.simple_evaluate(
            model="edgebit", model_args=f"bundle={reference_model('bitnet-packed')},threads=1", tasks=[name],
            task_manager=tasks, bootstrap_iters=1, log_samples=True, **options,
        )  # fmt: skip

    yield evaluate
    patch.undo()


@pytest.mark.parametrize("shots", [0, 2])
def test_the_same_likelihoods_and_accuracies_as_ours(shots, evaluated, folder, native, reference_model):
    """Of every choice of every question, and by all three metrics."""
    results = evaluated("own_choices", num_fewshot=shots)
    with (folder / "questions.jsonl").open("rb") as data, (folder / "shots.jsonl").open("rb") as examples:
        questions = with_shots(read_questions(data, "q"), read_questions(examples, "s"), shots)
    answers: list[Answered] = []
    with Model.open(native, reference_model("bitnet-packed")) as model:
        ours = measure_choices(model, questions, threads=1, kv="f16", each=answers.append)
    samples = sorted(results["samples"]["own_choices"], key=lambda sample: sample["doc_id"])
    for answered, sample in zip(answers, samples, strict=True):
        theirs = [float(response[0][0]) for response in sample["resps"]]
        assert answered.log_probs == pytest.approx(theirs, abs=1e-9)
        assert answered.gold == int(sample["target"])
    for metric in ("acc", "acc_norm", "acc_bytes"):
        assert results["results"]["own_choices"][f"{metric},none"] == pytest.approx(ours.accuracy[metric])
        assert results["results"]["own_choices"][f"{metric}_stderr,none"] == pytest.approx(ours.error[metric])


def test_whole_texts_and_answers(evaluated, folder, native, reference_model):
    """Are those of the text model, called alone."""
    rolled = evaluated("own_rolling")["samples"]["own_rolling"]
    answered = evaluated("own_generating")["samples"]["own_generating"]
    with Model.open(native, reference_model("bitnet-packed")) as model:
        text_model = TextModel(model, max_length=None, threads=1, kv="f16", seed=0)
        for sample in rolled:
            assert float(sample["resps"][0][0]) == pytest.approx(text_model.rolling(sample["doc"]["question"]))
        for sample in answered:
            wanted = text_model.generate(sample["doc"]["question"], {"until": ["e"], "max_gen_toks": 12})
            assert sample["resps"][0][0] == wanted and "e" not in wanted
        text_model.close()


def test_chat_templates(evaluated, native, reference_model):
    """The context is the conversation by the model's own template, and is scored with its special tokens."""
    results = evaluated("own_choices", num_fewshot=2, apply_chat_template=True, fewshot_as_multiturn=True)
    with Model.open(native, reference_model("bitnet-packed")) as model:
        text_model = TextModel(model, max_length=None, threads=1, kv="f16", seed=0)
        sample = results["samples"]["own_choices"][0]
        context, continuation = sample["arguments"][0]
        plain = dict(text_model.likelihoods([(context, continuation)]))[0].log_prob
        scored = float(sample["resps"][0][0][0])
        assert scored != pytest.approx(plain, abs=1e-3), "special tokens were read as text"
        turns = [part.partition(": ") for part in context.removesuffix("Assistant: ").split("<|eot_id|>")[:-1]]
        history = [{"role": role.lower(), "content": content} for role, _, content in turns]
        assert [message["role"] for message in history] == ["user", "assistant"] * 2 + ["user"]
        assert text_model.chat(history, answer_next=True) == context
        assert scored == pytest.approx(dict(text_model.likelihoods([(context, continuation)]))[0].log_prob)
        text_model.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "there is no bundle"),
        ("bundle=a.ebm,pretrained=b", "there is no pretrained. Give some of bundle, threads"),
        ("bundle=a.ebm,threads=many", "threads is 'many', and must be a whole number"),
        ("bundle=a.ebm,kv=f64", "kv=f64: it must be one of"),
        ("bundle=no/such.ebm", "no/such.ebm"),
    ],
)
def test_arguments_that_are_wrong_are_named(arguments, words):
    """By an error that is ours, which the command line shows as one line."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (pip install 'edgebit[lm-eval]')")
    with pytest.raises(EdgebitError, match=words):
        register().create_from_arg_string(arguments)


@pytest.mark.parametrize("text", [" a [header] b", "A [title] B  c", "[substeps] x [title]y", "plain"])
def test_hellaswag_s_texts_are_the_task_s(text):
    """Marks and spaces go as there."""
    reason = "lm-eval is not installed (pip install 'edgebit[lm-eval]')"
    theirs = pytest.importorskip("lm_eval.tasks.hellaswag.utils", reason=reason)
    row = {"activity_label": text, "ctx_a": text, "ctx_b": text, "endings": [text, "b"], "label": "0"}
    (question,) = read_questions([json.dumps(row).encode()], "q.jsonl")
    assert question.context == theirs.preprocess(f"{text}: {text} {text.capitalize()}")
    assert question.choices[0] == theirs.preprocess(text)


def test_the_command_line(evaluated, folder, reference_model):
    """python -m edgebit.evaluate.harness is lm_eval with one model more."""
    command = [sys.executable, "-m", "edgebit.evaluate.harness", "--model", "edgebit", "--model_args",
               f"bundle={reference_model('bitnet-packed')}", "--include_path", str(folder), "--tasks", "own_choices",
               "--limit", "3"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "own_choices" in done.stdout and "acc_norm" in done.stdout
