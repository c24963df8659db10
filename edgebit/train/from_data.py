"""A model from files of data: rows, a decoder that is new or a master's, the training, and the master in a folder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from edgebit.checkpoint.checkpoint import RESPONSE_SCHEMA
from edgebit.checkpoint.hugging_face.lora_config import CONFIG_NAME as ADAPTER_CONFIG
from edgebit.errors import TrainError
from edgebit.progress import Progress, unwatched
from edgebit.train.batch import Evaluation, evaluate
from edgebit.train.data.preparation import DataSettings
from edgebit.train.data.tokenizer_files import TOKENIZER_FILES
from edgebit.train.decoder import Decoder
from edgebit.train.loss_curve import RECORDS, curve_kept, drawn
from edgebit.train.master import WEIGHTS, Rounding, read_master, write_master
from edgebit.train.model_card import model_card
from edgebit.train.origin import response_schema_of, weight_sums
from edgebit.train.prepared_rows import PreparedRows, end_tokens, left_out, prepared_rows
from edgebit.train.records import Listener
from edgebit.train.replay import Rehearsal, rehearsal
from edgebit.train.shape import ModelShape
from edgebit.train.trainer import Outcome, Settings, train
from edgebit.train.training_state import FOLDER, states


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is trained on what, and how."""

    paths: Sequence[Path]
    data: DataSettings
    evaluate_on: Sequence[Path] = ()
    shape: ModelShape  # of a new model; its vocab_size comes from the tokenizer
    start: Path | None = None  # the master that is gone on from, instead of a new model
    ternary: bool = True  # False: the float twin
    replay: Sequence[Path] = ()  # old data that are rehearsed
    replay_share: float = 0.5
    row_length: int = 256
    settings: Settings
    epochs: float | None = None  # instead of the settings' steps
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Retention:
    """How well held-out rows of old data are predicted before a training and after it."""

    before: Evaluation
    after: Evaluation


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it."""

    outcome: Outcome
    settings: Settings
    parameters: int
    rounding: Rounding | None = None  # None: stopped before the end
    held_out: Evaluation | None = None  # of the master as it was written
    old: Retention | None = None  # of the data that were rehearsed
    response_schema: Path | None = None  # that of the master that was gone on from, taken over
    pictures: Sequence[Path] = ()


def check_out(out: Path, *, resume: bool) -> None:
    """Raise TrainError where `out` has what a new training would replace, or nothing to go on from.

    What a training that ended before its first save has left is no obstacle.
    """
    begun, trained = states(out / FOLDER), any((out / made).exists() for made in ("config.json", ADAPTER_CONFIG))
    if resume and not begun:
        raise TrainError(f"{out / FOLDER}: no training state to go on from. Leave --resume out to begin")
    if not resume and (begun or trained):
        what = "a training was begun there" if begun else "a checkpoint is there already"
        way = "--resume to go on, or " if begun else ""
        raise TrainError(f"{out}: {what}. Give {way}another --out")
    if out.exists() and not out.is_dir():
        raise TrainError(f"{out} is no folder. Give another --out")
    if not resume:
        _check_no_others(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{out}: cannot be made: {error.strerror}. Give another --out") from error


def _check_no_others(out: Path) -> None:
    ours = {*TOKENIZER_FILES, FOLDER, RECORDS}
    others = sorted(path.name for path in out.glob("*") if path.name not in ours and not path.name.startswith("."))
    if others:
        raise TrainError(f"{out}: a folder with files of another kind ({others[0]}). Give a new one as --out")


def train_from_data(
    plan: Plan, out: Path, *, resume: bool = False, listener: Listener | None = None, progress: Progress = unwatched
) -> Trained:
    """Train, and write the master, loss.jsonl, loss.svg and a model card into `out`. Raises TrainError."""
    listener = listener or Listener()
    check_out(out, resume=resume)
    decoder = None if plan.start is None else read_master(plan.start)
    sums = () if plan.start is None else weight_sums([plan.start / WEIGHTS], progress)
    adopted = {} if plan.start is None else response_schema_of(plan.start)
    tokenizer = out if resume else plan.start or plan.data.tokenizer
    data = replace(plan.data, tokenizer=tokenizer)
    with learnt_rows(plan, out, data, progress) as (rows, rehearsed):
        if decoder is None:
            torch.manual_seed(plan.seed)
            decoder = Decoder(replace(plan.shape, vocab_size=rows.encoder.vocab_size), ternary=plan.ternary)
        check_fits(decoder.shape, plan, rows)
        for words in left_out(rows.dataset):
            listener.noted(words)
        settings = settings_of(plan, rows)
        before = evaluate(decoder, rehearsed.old_held_out) if rehearsed.old_held_out else None
        facts = {
            **asdict(decoder.shape), "row_length": plan.row_length, "seed": plan.seed, "data": rehearsed.fingerprint,
            "from": ",".join(sums) or None, "ternary": decoder.ternary,
        }  # fmt: skip
        outcome = train(
            decoder, rehearsed.source, settings, held_out=rows.held_out, state_folder=out / FOLDER, facts=facts,
            listener=curve_kept(listener, f"Training of {out.name}", out),
        )  # fmt: skip
        trained = Trained(outcome, settings, sum(parameter.numel() for parameter in decoder.parameters()))
        if not outcome.finished:
            return trained
        written = _written(decoder, out, plan, rows, trained, adopted)
        old = Retention(before, evaluate(read_master(out), rehearsed.old_held_out)) if before else None
        return replace(written, old=old)


@contextmanager
def learnt_rows(
    plan: Plan, folder: Path, data: DataSettings, progress: Progress
) -> Iterator[tuple[PreparedRows, Rehearsal]]:
    """The rows of a plan's data, and these with what is rehearsed among them."""
    with (
        prepared_rows(
            plan.paths, folder, data, row_length=plan.row_length, seed=plan.seed, evaluate_on=plan.evaluate_on,
            progress=progress,
        ) as rows,
        rehearsal(
            plan.replay, plan.replay_share, rows, folder, data, row_length=plan.row_length, seed=plan.seed,
            progress=progress,
        ) as rehearsed,
    ):  # fmt: skip
        yield rows, rehearsed


def _written(
    decoder: Decoder, out: Path, plan: Plan, rows: PreparedRows, trained: Trained, adopted: Mapping[str, bytes]
) -> Trained:
    """The master in `out`, with the files that were `adopted` from the one before, evaluated as it was written."""
    ends = end_tokens(out)
    origin = "" if plan.start is None else f"It was begun with the weights of the master {plan.start.resolve().name}."
    card = model_card(out.name, plan.paths, decoder, trained.settings, trained.outcome, plan.seed, origin=origin)
    files = {**adopted, "README.md": card.encode()}
    generation = out / "generation_config.json"
    if generation.is_file():
        files[generation.name] = generation.read_bytes()
    return replace(
        trained,
        rounding=write_master(out, decoder, files, bos=ends.bos, eos=ends.eos, stop=ends.stop),
        held_out=evaluate(read_master(out), rows.held_out) if rows.held_out else None,
        response_schema=out / RESPONSE_SCHEMA if adopted else None,
        pictures=drawn(out),
    )


def settings_of(plan: Plan, rows: PreparedRows) -> Settings:
    """The settings, with as many steps as the epochs take."""
    if plan.epochs is None:
        return plan.settings
    steps = rows.steps_of(plan.epochs, plan.settings.batch_rows * plan.row_length)
    return replace(plan.settings, schedule=replace(plan.settings.schedule, steps=steps))


def check_fits(shape: ModelShape, plan: Plan, rows: PreparedRows) -> None:
    """Raise TrainError where rows are longer than the context, or the tokenizer has more tokens than the model."""
    if plan.row_length > shape.max_position_embeddings:
        raise TrainError(
            f"rows of {plan.row_length} tokens do not fit the context of {shape.max_position_embeddings}. "
            f"Give --row-length {shape.max_position_embeddings}, or a longer --context"
        )
    if rows.encoder.vocab_size > shape.vocab_size:
        raise TrainError(
            f"the tokenizer has {rows.encoder.vocab_size} tokens, the model {shape.vocab_size}. Take its own tokenizer"
        )
