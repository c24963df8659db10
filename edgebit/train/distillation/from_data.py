"""A ternary student from files of data: its teacher, the training towards it, and the master in a folder."""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edgebit.checkpoint.checkpoint import RESPONSE_SCHEMA
from edgebit.checkpoint.hugging_face.json_file import read_json
from edgebit.checkpoint.hugging_face.tensor_folder import TensorFolder
from edgebit.progress import Progress, unwatched
from edgebit.train.batch import Evaluation, evaluate
from edgebit.train.decoder import Decoder
from edgebit.train.distillation.objective import Distillation
from edgebit.train.distillation.teacher import Form, has_sub_norms, read_teacher, student_of
from edgebit.train.from_data import Plan, check_fits, check_out, learnt_rows, settings_of
from edgebit.train.loss_curve import curve_kept, drawn
from edgebit.train.master import Rounding, master_config, write_master
from edgebit.train.model_card import model_card
from edgebit.train.origin import response_schema_of, weight_sums
from edgebit.train.prepared_rows import end_tokens
from edgebit.train.records import Listener
from edgebit.train.rows import Row
from edgebit.train.trainer import Outcome, Settings, train
from edgebit.train.training_state import FOLDER


@dataclass(frozen=True, kw_only=True, slots=True)
class Distilled:
    """What came of it. Losses are those of the text itself, in nats a token, on rows that were held out."""

    outcome: Outcome
    parameters: int
    teacher: Evaluation | None = None  # None: nothing was held out
    rounded: Evaluation | None = None  # the teacher's weights rounded as --from-float does, without training
    student: Evaluation | None = None
    rounding: Rounding | None = None  # None: stopped before the end
    response_schema: Path | None = None  # the teacher's, taken over
    pictures: tuple[Path, ...] = ()


def distill(
    plan: Plan,
    teacher_folder: Path,
    out: Path,
    *,
    form: Form = "bitnet",
    temperature: float = 2.0,
    share: float = 0.9,
    resume: bool = False,
    listener: Listener | None = None,
    progress: Progress = unwatched,
) -> Distilled:
    """Train the student on the plan's data, and write it as a master, with its curve and a model card, into `out`.

    form: of the student: "bitnet" has sub-norms, "llama" none, as the teacher
    temperature, share: of the teacher's part in the loss (Distillation)
    Raises TrainError, and CheckpointError where the teacher cannot be read.
    """
    check_out(out, resume=resume)
    teacher = read_teacher(teacher_folder)
    with closing(TensorFolder(teacher_folder)) as tensors:
        sums = weight_sums(tensors.files(), progress)
    adopted = response_schema_of(teacher_folder)
    objective = Distillation(teacher, temperature, share)
    data = replace(plan.data, tokenizer=out if resume else teacher_folder)
    torch.manual_seed(plan.seed)
    with learnt_rows(plan, out, data, progress) as (rows, rehearsed):
        check_fits(teacher.shape, plan, rows)
        settings = settings_of(plan, rows)
        student = student_of(teacher, form, _first_rows(rehearsed.source))
        teacher.to(settings.device)
        measured = _measure(teacher, rows.held_out, settings)
        facts = {
            **asdict(teacher.shape), "form": form, "temperature": temperature, "share": share, "seed": plan.seed,
            "row_length": plan.row_length, "data": rehearsed.fingerprint, "teacher": ",".join(sums),
        }  # fmt: skip
        outcome = train(
            student, rehearsed.source, settings, objective=objective, held_out=rows.held_out,
            state_folder=out / FOLDER, facts=facts,
            listener=curve_kept(listener or Listener(), f"Distillation of {out.name}", out),
        )  # fmt: skip
        parameters = sum(parameter.numel() for parameter in student.parameters())
        if not outcome.finished:
            return Distilled(outcome=outcome, parameters=parameters)
        origin = (
            f"A student ({form}) of {teacher_folder.resolve().name}, with whose weights it was begun: {share:g} of the "
            f"loss were that model's predictions at a temperature of {temperature:g}."
        )
        card = model_card(out.name, plan.paths, student, settings, outcome, plan.seed, origin=origin)
        rounding = _write(out, student, teacher_folder, {**adopted, "README.md": card.encode()})
        return Distilled(
            outcome=outcome, parameters=parameters, rounding=rounding, pictures=tuple(drawn(out)),
            student=outcome.held_out, response_schema=out / RESPONSE_SCHEMA if adopted else None, **measured,
        )  # fmt: skip


def _first_rows(source: Any) -> list[Row]:
    """A few rows, which come again when they are learnt."""
    place = source.state()
    rows: list[Row] = source.take(16)
    source.restore(place)
    return rows


def _measure(teacher: Decoder, held_out: list[Row], settings: Settings) -> dict[str, Evaluation]:
    """The teacher, and what is left of it when it is rounded as it is."""
    if not held_out:
        return {}
    rounded = student_of(teacher, "llama" if not has_sub_norms(teacher) else "bitnet", ())
    rounded.to(settings.device)
    return {
        "teacher": evaluate(teacher, held_out, device=settings.device),
        "rounded": evaluate(rounded, held_out, device=settings.device),
    }


def _write(out: Path, student: Decoder, teacher_folder: Path, others: Mapping[str, bytes]) -> Rounding:
    ends = end_tokens(out)
    files = dict(others)
    if (teacher_folder / "generation_config.json").is_file():
        files["generation_config.json"] = (teacher_folder / "generation_config.json").read_bytes()
    if not has_sub_norms(student):
        files["config.json"] = (json.dumps(_llama_config(student, teacher_folder), indent=2) + "\n").encode()
    return write_master(out, student, files, bos=ends.bos, eos=ends.eos, stop=ends.stop)


def _llama_config(student: Decoder, teacher_folder: Path) -> dict[str, Any]:
    """Of a student without sub-norms: transformers' LlamaForCausalLM, quantised when it computes."""
    teacher = read_json(teacher_folder / "config.json")
    config = master_config(student, teacher.get("bos_token_id"), teacher.get("eos_token_id"))
    return {**config, "architectures": ["LlamaForCausalLM"], "model_type": "llama"}
