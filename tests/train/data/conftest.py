"""Tokenizers that are learnt here, and a model of each, converted as any other."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgebit.bundle.prompt_program import Message
from edgebit.convert import convert
from edgebit.runtime.model import Model
from edgebit.runtime.session import Session
from edgebit.train.data.examples import Conversation, Example, Text
from edgebit.train.data.rendering import Encoder
from edgebit.train.data.tokenizer_training import train_tokenizer

SCRIPTS = Path(__file__).parents[2] / "data" / "tokenizers" / "scripts.txt"
VOCAB = 512  # as many as bitnet-bf16 has, whose weights are borrowed


def lessons() -> list[Example]:
    """Texts in many scripts, and a conversation."""
    turns = (Message("user", "Turn the light off."), Message("assistant", "The light is off."))
    return [*map(Text, SCRIPTS.read_text().split("\n")), Conversation(turns)]


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of a tokenizer that was learnt for a chat template, made once a run."""
    pytest.importorskip("tokenizers")
    made: dict[str, Path] = {}

    def folder(template: str) -> Path:
        if template not in made:
            made[template] = tmp_path_factory.mktemp("learnt")
            train_tokenizer(lessons(), made[template], vocab_size=VOCAB, template=template)
        return made[template]

    return folder


@pytest.fixture(scope="session")
def encoder(native: object, learnt: Callable[[str], Path]) -> Iterator[Callable[[str], Encoder]]:
    """Gives the encoder of a tokenizer that was learnt for a chat template."""
    made: dict[str, Encoder] = {}

    def open_encoder(template: str) -> Encoder:
        if template not in made:
            made[template] = Encoder(learnt(template))
        return made[template]

    yield open_encoder
    for each in made.values():
        each.close()


@pytest.fixture(scope="session")
def session(
    native: object,
    learnt: Callable[[str], Path],
    reference_checkpoint: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Session]]:
    """Gives the session of a model that `edgebit convert` made with the tokenizer learnt for a chat template."""
    made: dict[str, tuple[Model, Session]] = {}

    def open_session(template: str) -> Session:
        if template not in made:
            folder = tmp_path_factory.mktemp("checkpoint")
            shutil.copy(reference_checkpoint("bitnet-bf16") / "model.safetensors", folder)
            config = json.loads((reference_checkpoint("bitnet-bf16") / "config.json").read_text())
            del config["bos_token_id"], config["eos_token_id"]
            (folder / "config.json").write_text(json.dumps(config))
            shutil.copytree(learnt(template), folder, dirs_exist_ok=True)
            convert(folder, folder / "model.ebm", probes=False)
            model = Model.open(native, folder / "model.ebm")
            made[template] = (model, Session(model, ctx_len=64))
        return made[template][1]

    yield open_session
    for model, opened in made.values():
        opened.close()
        model.close()
