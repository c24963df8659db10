"""`edgebit eval`: how good a model is."""

import click

from edgebit.cli import eval_choices, eval_kl, eval_perplexity


@click.group()
def command() -> None:
    """Score a model on this machine: perplexity, multiple choice, divergence from another.

    Ctrl-C ends with what is known so far, and says that it is a part.

    \b
    edgebit eval perplexity chat.bundle
    edgebit eval choices chat.bundle --data arc_easy.jsonl
    edgebit eval kl int8.bundle --against exact.bundle
    """


command.add_command(eval_perplexity.command, "perplexity")
command.add_command(eval_choices.command, "choices")
command.add_command(eval_kl.command, "kl")
command.add_command(eval_kl.reference_command, "reference")
