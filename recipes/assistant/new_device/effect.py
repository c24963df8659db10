"""What an adapter changes: calls of the new class and of all test sets before and after, and peft's own arithmetic."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgebit.runtime.adapter import Adapter
from edgebit.runtime.json_schema import compile_schema
from recipes.assistant.examples import Example
from recipes.assistant.intents import response_schema
from recipes.assistant.measuring import reference_answers as reference
from recipes.assistant.measuring.engine_answers import LONGEST, Written, engine_answers, engine_of, prompts_of
from recipes.assistant.measuring.measurement import test_sets
from recipes.assistant.measuring.replies import read_reply
from recipes.assistant.measuring.scores import Scores, score
from recipes.assistant.new_device.sentences import all_intents, new_examples


def scores_of(examples: Sequence[Example], written: Sequence[Written]) -> Scores:
    """The metrics of answers."""
    return score([example.call for example in examples], [read_reply(each.text, all_intents()) for each in written])


def measure_effect(base: Path, peft_folder: Path, adapter_file: Path, most: int) -> dict[str, Any]:
    """All sets with the model as it ships, under its own schema, and with the adapter, under the extended one."""
    sets = {"new": new_examples("test"), **test_sets(most)}
    own, extended = (compile_schema(response_schema(known)) for known in (None, all_intents()))
    found: dict[str, Any] = {"sets": {}}
    with engine_of(base) as session:
        adapter = Adapter.open(session.model.library, session.model, adapter_file.read_bytes())
        for name, examples in sets.items():
            prompts = prompts_of(session, [example.text for example in examples])
            before = engine_answers(session, prompts, schema=extended if name == "new" else own)
            after = engine_answers(session, prompts, schema=extended, adapter=adapter)
            found["sets"][name] = {
                "before": scores_of(examples, before).as_json(), "after": scores_of(examples, after).as_json(),
            }  # fmt: skip
        session.drop_adapter(adapter)
        adapter.close()
    with engine_of(base, kv="f32") as session:  # as the reference keeps them
        adapter = Adapter.open(session.model.library, session.model, adapter_file.read_bytes())
        prompts = prompts_of(session, [example.text for name in ("new", "wordings") for example in sets[name]])
        free = engine_answers(session, prompts, adapter=adapter)
        stop = session.model.info.stop_tokens
        session.drop_adapter(adapter)
        adapter.close()
    found["peft"] = compare_with_peft(base, peft_folder, prompts, [list(each.tokens) for each in free], stop)
    return found


def compare_with_peft(
    base: Path, folder: Path, prompts: Sequence[Sequence[int]], answers: Sequence[list[int]], stop: Sequence[int]
) -> dict[str, Any]:
    """How many of the engine's answers transformers with peft gives as well, token for token."""
    import peft

    model = peft.PeftModel.from_pretrained(reference.transformers_model(base), folder).eval()
    logits = reference.transformers_logits(model)
    greedy = reference.greedy_answers(logits, prompts, answers, stop=stop, limit=LONGEST)
    others = reference.differences(logits, prompts, greedy, answers, stop[0])
    return {
        "answers": len(answers), "different": len(others), "peft": peft.__version__,
        "greatest_gap": max((other.gap for other in others), default=0.0),
    }  # fmt: skip


def write_schema(folder: Path) -> None:
    """Put the schema that allows the new calls beside the adapter: what requests give as `response_format`."""
    content = json.dumps(response_schema(all_intents()), indent=1, ensure_ascii=False)
    (folder / "response_schema.json").write_text(content + "\n")
