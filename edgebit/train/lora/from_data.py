"""An adapter from files of data: a frozen base, the training of the pairs beside it, and peft's folder."""

from dataclasses import replace
from pathlib import Path

import torch

from edgebit.checkpoint.hugging_face.lora_config import LoraConfig
from edgebit.errors import TrainError
from edgebit.progress import Progress, unwatched
from edgebit.train.batch import evaluate
from edgebit.train.from_data import Plan, Retention, Trained, check_fits, check_out, learnt_rows, settings_of
from edgebit.train.lora.adapter import adapter_of, add_lora, save_adapter
from edgebit.train.lora.base import open_base
from edgebit.train.loss_curve import curve_kept, drawn
from edgebit.train.records import Listener
from edgebit.train.trainer import train
from edgebit.train.training_state import FOLDER


def train_adapter(
    plan: Plan,
    config: LoraConfig,
    out: Path,
    *,
    resume: bool = False,
    listener: Listener | None = None,
    progress: Progress = unwatched,
) -> Trained:
    """Train an adapter of the model at `plan.start`, and write peft's files, loss.jsonl and loss.svg into `out`.

    Raises TrainError, and CheckpointError where the base cannot be read.
    """
    if plan.start is None:
        raise TrainError("an adapter needs a base. Give --from CHECKPOINT")
    check_out(out, resume=resume)
    decoder, sums = open_base(plan.start, progress)
    config = replace(config, base_model=str(plan.start))
    torch.manual_seed(plan.seed)  # of the pairs, and of dropout
    add_lora(decoder, config)
    data = replace(plan.data, tokenizer=out if resume else plan.start)
    with learnt_rows(plan, out, data, progress) as (rows, rehearsed):
        check_fits(decoder.shape, plan, rows)
        settings = settings_of(plan, rows)
        before = evaluate(decoder, rehearsed.old_held_out) if rehearsed.old_held_out else None
        facts = {
            "base": ",".join(sums), "rank": config.rank, "alpha": config.alpha, "dropout": config.dropout,
            "targets": ",".join(config.target_modules), "rslora": config.use_rslora, "row_length": plan.row_length,
            "seed": plan.seed, "data": rehearsed.fingerprint,
        }  # fmt: skip
        outcome = train(
            decoder, rehearsed.source, settings, held_out=rows.held_out, state_folder=out / FOLDER, facts=facts,
            listener=curve_kept(listener or Listener(), f"Training of {out.name}", out),
        )  # fmt: skip
        adapter = adapter_of(decoder, config, sums)
        trained = Trained(outcome, settings, sum(pair.a.size + pair.b.size for pair in adapter.pairs.values()))
        if outcome.finished:
            save_adapter(out, adapter)
            trained = replace(
                trained,
                held_out=outcome.held_out,
                old=Retention(before, evaluate(decoder, rehearsed.old_held_out, device=settings.device))
                if before
                else None,
                pictures=drawn(out),
            )
        return trained
