"""How the assistant is measured: metrics from small tables, the baseline without a model, the card and its pictures."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
if not (ROOT / "recipes" / "assistant").is_dir():
    pytest.skip("the recipes are not part of the installed package", allow_module_level=True)
sys.path.append(str(ROOT))

from recipes.assistant.intents import answer, response_schema  # noqa: E402
from recipes.assistant.measuring import card, nearest_neighbour, pictures, scores  # noqa: E402
from recipes.assistant.measuring.replies import read_reply, reply_of  # noqa: E402
from recipes.assistant.new_device import sentences  # noqa: E402
from recipes.assistant.wordings import Template, key  # noqa: E402

LAMP = {"intent": "set_brightness", "name": "bedroom lamp", "percent": 40}
NO_CALLS = [
    ("", False),
    ("[1]", False),
    ('{"intent":"set_brightness","name":"lamp","percent":40}', True),
    ('{"intent":"set_brightness","name":"lamp","percent":101,"say":"x"}', True),
    ('{"intent":"set_brightness","name":"lamp","percent":true,"say":"x"}', True),
    ('{"intent":"set_brightness","name":"","percent":40,"say":"x"}', True),
    ('{"intent":"mute","name":"lamp","say":"x"}', True),
    ('{"intent":["mute"],"say":"x"}', True),
    ('{"intent":"get_state","name":"lamp","state":"blue","say":"x"}', True),
    ('{"intent":"brew","say":"x"}', True),
]


@pytest.mark.parametrize(("text", "is_json"), NO_CALLS)
def test_an_answer_off_the_schema_is_no_call(text, is_json):
    """The independent validator agrees that the schema forbids it."""
    reply = read_reply(text)

    assert (reply.call, reply.is_json, reply.intent) == (None, is_json, "(no call)")
    if is_json:
        jsonschema = pytest.importorskip("jsonschema")
        assert not jsonschema.Draft202012Validator(response_schema()).is_valid(json.loads(text))


def test_a_reply_says_whether_its_sentence_belongs_to_its_call():
    assert read_reply(answer(LAMP)).call == LAMP
    assert read_reply(answer(LAMP)).says_its_call
    assert not read_reply(answer(LAMP).replace("to 40", "to 41")).says_its_call


def test_metrics_of_a_small_table():
    """Right, a wrong slot, a wrong intent with a right slot, a refusal, and no JSON at all."""
    wanted = [LAMP, LAMP, {"intent": "turn_on", "name": "fan"}, {"intent": "none"}, {"intent": "mute"}]
    replies = [read_reply(text) for text in (
        answer(LAMP), answer({**LAMP, "percent": 4}), answer({"intent": "turn_off", "name": "fan"}),
        answer({"intent": "none"}), "mute",
    )]  # fmt: skip

    found = scores.score(wanted, replies)

    assert [found.exact.hits, found.intent.hits, found.json.hits, found.schema.hits, found.say.of] == [2, 3, 4, 4, 4]
    assert (found.refused.hits, found.exact.of) == (1, 5)
    assert found.slots == scores.SlotCounts(right=4, wrong=1, missed=1)
    assert found.slots.f1 == pytest.approx(0.8)
    assert scores.confusions(wanted, replies)["turn_on", "turn_off"] == 1
    assert scores.by_intent(wanted, replies)["set_brightness"] == scores.Share(1, 2)


def test_calls_that_the_daemon_refuses():
    """A wrong number, a right call that looks like one, a right one, and no call."""
    lines = ["lamp to 250", "lamp to 40 or 41", "lamp to 40", "lamp to 250"]
    replies = [read_reply(answer({**LAMP, "percent": percent})) for percent in (25, 4, 40)] + [read_reply("")]

    found = scores.rightly_refused(lines, [{"intent": "none"}, {**LAMP, "percent": 4}, LAMP, LAMP], replies)

    assert found == scores.Share(1, 2)


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662), (10, 10, 0.7225, 1.0)],
)
def test_wilson_intervals(hits, of, low, high):
    """81 of 263 is the example of Newcombe 1998, Statistics in Medicine 17, table I; the others by hand."""
    assert scores.Share(hits, of).interval() == pytest.approx((low, high), abs=5e-5)


@pytest.fixture
def neighbour(monkeypatch):
    """The baseline over four wordings and no public lines."""
    texts = [("set_brightness", "set {light} to {percent}"), ("dim", "dim {light}"), ("turn_on", "turn on {switch}"),
             ("none", "sing a song")]  # fmt: skip
    known = {intent: [Template(intent, text, (text,), False)] for intent, text in texts}
    monkeypatch.setattr(nearest_neighbour, "training_templates", lambda: known)
    monkeypatch.setattr(nearest_neighbour, "training_lines", dict)
    return nearest_neighbour.NearestNeighbour()


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("Please set the bedroom lamp to forty percent.", LAMP),
        ("dim the lamp in the hall", {"intent": "dim", "name": "hall lamp"}),
        ("turn on my fan", {"intent": "turn_on", "name": "fan"}),
        ("sing a song!", {"intent": "none"}),
        ("get turn the tv on", {"intent": "turn_on", "name": "get tv"}),
        ("zyx", {"intent": "none"}),
    ],
)
def test_the_nearest_wording_gives_call_and_slots(neighbour, line, call):
    assert neighbour.call(line) == call


def measured() -> dict:
    replies = [reply_of(LAMP), reply_of({"intent": "none"})]
    found = scores.score([LAMP, LAMP], replies).as_json()
    splits = dict.fromkeys(card.SPLITS, found)
    systems = ("ternary", "ternary_free", "float", "nearest")
    return {
        "most": 2, "seed": 8, "steps": 10,
        "systems": dict.fromkeys(systems, splits), "all": dict.fromkeys(systems, found),
        "reference": {"answers": 16, "transformers": "5.0", "f32": {"different": 0, "greatest_gap": 0.0},
                      "f16": {"different": 1, "greatest_gap": 0.0123}},
        "hassil": {"skipped": "hassil is not installed"}, "by_intent": {"mute": found["exact"]},
        "confusions": [["set_brightness", "none", 1]],
    }  # fmt: skip


def test_the_card_is_renewed_between_its_marks_alone(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"# Before\n{card.BEGIN}\nold\n{card.END}\nafter\n")

    for _ in range(2):
        card.refresh(path, card.generated(measured(), "pictures/"))

    text = path.read_text()
    assert text.startswith(f"# Before\n{card.BEGIN}\n### By test set") and text.endswith(f"\n{card.END}\nafter\n")
    assert "50.0 (9.4 to 90.5)" in text and "15 of 16 are equal" in text and "at most 0.012 below" in text
    assert "missed by 40.0 points" in text and "| 0.0 | reached |" in text
    assert "| `set_brightness` | `none` | 1 |" in text and "hassil is not installed" in text and "old" not in text


def test_a_card_without_marks_is_refused(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("# A card")

    with pytest.raises(ValueError, match="are missing"):
        card.refresh(path, "new")


def test_pictures_show_what_they_were_given():
    """Well-formed, a bar a share, a cell a pair that was seen, a line a training in both panels."""
    bars = ElementTree.fromstring(pictures.bars("t", "s", {"a": {"x": (0.5, 0.4, 0.6), "y": (1, 0.9, 1)}}))
    cells = pictures.confusion_matrix("t", "s", {("mute", "mute"): 3, ("mute", "none"): 1})
    losses = [(step, 5 / step) for step in range(1, 900)]
    curves = ElementTree.fromstring(pictures.loss_curves("t", {"ternary": losses, "float": losses[:800]}))
    svg = "{http://www.w3.org/2000/svg}"

    assert [rect.get("height") for rect in bars.iter(f"{svg}rect")][-2:] == ["110.0", "220.0"]
    assert ["mute as none: 1" in title.text for title in ElementTree.fromstring(cells).iter(f"{svg}title")] == [
        False,
        True,
    ]
    assert len(list(curves.iter(f"{svg}polyline"))) == 4


def test_the_new_class_has_50_sentences_to_learn_and_50_others():
    """None of them alike but for politeness and articles, and every answer follows the extended schema."""
    learnt, measured_on = (sentences.new_examples(part) for part in ("train", "test"))

    assert (len(learnt), len(measured_on)) == (50, 50)
    patterns = [{key(example.text.replace(str(example.call["name"]), "{name}")) for example in part}
                for part in (learnt, measured_on)]  # fmt: skip
    assert not patterns[0] & patterns[1]
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(response_schema(sentences.all_intents()))
    for example in (*learnt, *measured_on):
        validator.validate(json.loads(answer(example.call, sentences.all_intents())))
