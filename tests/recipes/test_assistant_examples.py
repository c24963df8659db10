"""The assistant's data: what is held out stays out of training, answers follow the schema, all hangs on seeds alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if not (ROOT / "recipes" / "assistant").is_dir():
    pytest.skip("the recipes are not part of the installed package", allow_module_level=True)
sys.path.append(str(ROOT))

from edgebit.daemon.assistant.said_numbers import misheard  # noqa: E402
from recipes.assistant import examples, intents, wordings  # noqa: E402
from recipes.assistant.slots import FILLERS, NAME_FILLERS, is_held_out_name  # noqa: E402

TRAINED = 2000  # examples that a test looks at


def test_no_trained_wording_equals_a_held_out_one():
    """Nor does one that differs in case, marks, contractions, articles or politeness alone."""
    trained = {
        wordings.key(wording)
        for group in wordings.training_templates().values()
        for template in group
        for wording in template.wordings
    }

    assert trained and not trained & wordings.held_out_keys()


def test_no_trained_public_line_is_a_held_out_wording():
    """A line of a public data set that is a filled held-out wording is not trained on."""
    lines = [example for group in examples.training_lines().values() for example in group]

    assert lines
    assert not [line.text for line in lines if wordings.held_out_pattern().fullmatch(wordings.key(line.text))]


def test_no_line_of_a_test_set_is_trained():
    """Not in one of the first examples of the stream, however it is written."""
    trained = {wordings.key(examples.training_example(1, number).text) for number in range(TRAINED)}

    for split in ("templates", "wordings"):
        assert not trained & {wordings.key(example.text) for example in examples.examples(split)}


def test_every_intent_has_wordings_to_learn_and_to_measure():
    """Two templates at least are held out of each, and more are left than held out."""
    assert set(wordings.templates()) == set(intents.intents())
    for intent, group in wordings.templates().items():
        held_out = sum(template.held_out for template in group)
        assert held_out >= 2 and held_out >= 0.12 * len(group), intent
        assert len(wordings.training_templates()[intent]) > 2 * held_out, intent


def test_every_slot_of_a_wording_can_be_filled():
    """A slip of the pen in a template would only show when it is drawn."""
    known = {*FILLERS, *NAME_FILLERS, "is"}
    for intent, group in wordings.templates().items():
        for template in group:
            for wording in template.wordings:
                assert not set("()[]|<>") & set(wording), f"{intent}: {template.text}"
                assert set(wordings.slots_of(wording)) <= known, f"{intent}: {template.text}"


def test_held_out_names_are_met_in_tests_alone():
    """The set `names` has only names that training never draws."""
    trained = [examples.training_example(1, number) for number in range(TRAINED)]
    of_wordings = [example for example in trained if "name" in example.call and ":" not in example.origin]

    assert all(is_held_out_name(str(example.call["name"])) for example in examples.examples("names"))
    drawn = [example for example in of_wordings if set(wordings.slots_of(example.origin)) & set(NAME_FILLERS)]
    assert drawn and not [example for example in drawn if is_held_out_name(str(example.call["name"]))]


def test_no_right_call_is_taken_for_misheard():
    """In no test set, nor in the first training examples: the daemon would refuse it."""
    every = [example for split in examples.SPLITS for example in examples.examples(split)]
    every += [examples.training_example(1, number) for number in range(TRAINED)]

    refused = [example.text for example in every if misheard(example.text, example.call)]
    assert len(every) > 8000 and refused == []


def test_answers_follow_the_schema():
    """Those of all test sets and of the first training examples, by another implementation of JSON Schema."""
    jsonschema = pytest.importorskip("jsonschema")
    every = [example for split in examples.SPLITS for example in examples.examples(split)]
    every += [examples.training_example(1, number) for number in range(500)]
    one_each = {(example.intent, *map(type, example.call.values())): example for example in every}
    longest = {example.intent: example for example in sorted(every, key=lambda example: len(example.answer))}
    validator = jsonschema.Draft202012Validator(intents.response_schema())

    for example in (*one_each.values(), *longest.values()):
        validator.validate(json.loads(example.answer))
    assert not validator.is_valid({"intent": "turn_on", "say": "Turning on."})


def test_examples_hang_on_the_seed_alone():
    """Another process with another hash seed draws the same."""
    program = (
        "from recipes.assistant.examples import *; import hashlib; "
        "texts = [training_example(1, n) for n in range(200)] + examples('wordings')[:200]; "
        "print(hashlib.sha256(repr(texts).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip

    assert len(digests) == 1
