"""All systems on all test sets: the figures of measured.json."""

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from edgebit.runtime.json_schema import compile_schema
from recipes.assistant.examples import SPLITS, Example, examples
from recipes.assistant.intents import response_schema
from recipes.assistant.measuring.engine_answers import LONGEST, Written, engine_answers, engine_of, prompts_of
from recipes.assistant.measuring.hassil_baseline import HassilBaseline, is_known
from recipes.assistant.measuring.nearest_neighbour import NearestNeighbour
from recipes.assistant.measuring.replies import Reply, read_reply, reply_of
from recipes.assistant.measuring.scores import by_intent, confusions, rightly_refused, score

SEED = 8
CONFUSED = ("wordings", "templates", "people", "outside", "near")
HASSIL = ("home_assistant", "templates", "wordings", "people")
HASSIL_LINES = 100

Sets = dict[str, list[Example]]
Replies = dict[str, list[Reply]]


def test_sets(most: int) -> Sets:
    """Of each split at most so many examples, the same ones each time."""
    found = {}
    for split in SPLITS:
        every = examples(split)
        found[split] = random.Random(SEED).sample(every, most) if len(every) > most else list(every)
    return found


def by_split(sets: Sets, replies: Sequence[Reply]) -> Replies:
    """Replies to all sets, one after the other, as replies to each."""
    rest = iter(replies)
    return {split: [next(rest) for _ in lines] for split, lines in sets.items()}


def answer_all(run: Path, sets: Sets, note: Callable[[str], None]) -> tuple[dict[str, Replies], dict[str, Any]]:
    """The replies of the engine, held and free, of the float twin and the neighbour; what others gave beside them."""
    lines = [example for group in sets.values() for example in group]
    with engine_of(run / "packed") as session:
        prompts = prompts_of(session, [example.text for example in lines])
        drafts = [session.tokenizer.encode(example.answer) for example in lines]
        stop, decode = session.model.info.stop_tokens, session.tokenizer.decode
        free = engine_answers(session, prompts)
        note("the engine has answered")
        held = engine_answers(session, prompts, schema=compile_schema(response_schema()))
        note("the engine has answered under the schema")
        with engine_of(run / "packed", kv="f32") as precise:
            own = {"f16": free, "f32": engine_answers(precise, prompts)}
        ternary = by_split(sets, [read_reply(written.text) for written in held])
        with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
            twin = pool.submit(twin_answers, run / "float", prompts, drafts, stop)
            reference = pool.submit(compare_with_transformers, run / "packed", prompts, own, stop)
            hassil = pool.submit(measure_hassil, {split: sets[split] for split in HASSIL}, ternary)
            nearest = NearestNeighbour()
            replies = {
                "ternary_free": [read_reply(written.text) for written in free],
                "nearest": [reply_of(nearest.call(example.text)) for example in lines],
                "float": [read_reply(decode(ids).decode(errors="replace")) for ids in twin.result()],
            }
            note("the float twin has answered")
            beside = {"reference": reference.result(), "hassil": hassil.result()}
    return {"ternary": ternary, **{name: by_split(sets, found) for name, found in replies.items()}}, beside


def twin_answers(
    folder: Path, prompts: list[list[int]], drafts: list[list[int]], stop: tuple[int, ...]
) -> list[list[int]]:
    """The float twin's greedy answers."""
    from recipes.assistant.measuring.reference_answers import float_twin, greedy_answers

    return greedy_answers(float_twin(folder), prompts, drafts, stop=stop, limit=LONGEST)


def compare_with_transformers(
    folder: Path, prompts: list[list[int]], own: dict[str, list[Written]], stop: tuple[int, ...]
) -> dict[str, Any]:
    """How many of the engine's answers transformers gives as well, token for token; own: by type of KV cache."""
    import transformers

    from recipes.assistant.measuring import reference_answers as reference

    logits = reference.transformers_logits(reference.transformers_model(folder))
    tokens = {kv: [list(written.tokens) for written in answers] for kv, answers in own.items()}
    greedy = reference.greedy_answers(logits, prompts, tokens["f32"], stop=stop, limit=LONGEST)
    found: dict[str, Any] = {"answers": len(prompts), "transformers": transformers.__version__}
    for kv, answers in tokens.items():
        others = reference.differences(logits, prompts, greedy, answers, stop[0])
        gaps = [other.gap for other in others]
        found[kv] = {"different": len(others), "greatest_gap": max(gaps, default=0.0)}
    return found


def measure_hassil(sets: Sets, ternary: Replies) -> dict[str, Any]:
    """hassil on template sentences and on free phrasing, beside the model on the very same lines."""
    chosen = {
        split: [(example, reply) for example, reply in zip(sets[split], ternary[split], strict=True)
                if is_known(example)][:HASSIL_LINES]
        for split in HASSIL
    }  # fmt: skip
    try:
        found: dict[str, Any] = {}
        for split, pairs in chosen.items():
            grammar = HassilBaseline([] if split == "home_assistant" else [example for example, _ in pairs])
            wanted = [example.call for example, _ in pairs]
            found[split] = score(wanted, [reply_of(grammar.call(example.text)) for example, _ in pairs]).as_json()
            found[f"{split}_ternary"] = score(wanted, [reply for _, reply in pairs]).as_json()
            found["version"] = grammar.version
    except ImportError as error:
        return {"skipped": f"{error.name} is not installed (pip install hassil home-assistant-intents)"}
    found["words"] = (
        "The house is that of Home Assistant's tests and, for our sets, has also the devices and rooms that their "
        "lines speak of, so the grammar knows every name; the model is told none. Lines whose call Home Assistant has "
        "no intent for are left out of this table. Lines that need the house's state or the speaker's room are not: "
        "the grammar was told neither."
    )
    return found


def measure(run: Path, most: int, note: Callable[[str], None]) -> dict[str, Any]:
    """All figures of the models in a folder that make.py has filled."""
    started = time.monotonic()
    sets = test_sets(most)
    calls = {split: [example.call for example in group] for split, group in sets.items()}
    replies, beside = answer_all(run, sets, note)
    wanted = [call for split in CONFUSED for call in calls[split]]
    found = [reply for split in CONFUSED for reply in replies["ternary"][split]]
    counts = confusions(wanted, found)
    everything = [call for group in calls.values() for call in group]
    lines = [example.text for group in sets.values() for example in group]
    answered = [reply for split in sets for reply in replies["ternary"][split]]
    return {
        "most": most, "seed": SEED,
        "systems": {
            name: {split: score(calls[split], group[split]).as_json() for split in sets}
            for name, group in replies.items()
        },
        "all": {
            name: score(everything, [reply for split in sets for reply in group[split]]).as_json()
            for name, group in replies.items()
        },
        **beside,
        "rightly_refused": rightly_refused(lines, everything, answered).as_json(),
        "by_intent": {intent: share.as_json() for intent, share in by_intent(wanted, found).items()},
        "confusions": [[*pair, count] for pair, count in counts.most_common() if pair[0] != pair[1]],
        "matrix": [[*pair, count] for pair, count in sorted(counts.items())],
        "seconds": round(time.monotonic() - started),
    }  # fmt: skip
