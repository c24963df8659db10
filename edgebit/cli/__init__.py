"""The `edgebit` command: one file a subcommand, loaded when it is called, and the one place that catches errors."""

import difflib
import errno
import importlib
import os
import sys
from collections.abc import Sequence

import click

from edgebit import __version__
from edgebit.cli.terminal import printable
from edgebit.errors import EdgebitError

COMMANDS = {
    "plan": "Predict memory, speed and energy of a model on a device.",
    "train": "Train a model of your own, from text or conversations.",
    "build": "Convert a checkpoint, cross-build the engine, and write a bundle.",
    "convert": "Convert a checkpoint to a model file, and check all of it.",
    "distill": "Train an ordinary float model towards ternary, with its own logits as the teacher.",
    "merge": "Fold a LoRA adapter into a master checkpoint, and say what is left of it.",
    "export": "Write a model as GGUF, as a Hugging Face folder or for ONNX Runtime.",
    "inspect": "Show what a bundle or model file holds.",
    "diff": "Compare two models, and say where they differ first.",
    "verify": "Check every byte, artifact and golden probe of a bundle.",
    "parity": "Run a bundle beside its reference, and say where they depart.",
    "adapter": "Convert and show LoRA adapters, which go beside a model.",
    "run": "Answer one prompt on this machine.",
    "chat": "Talk with a model on this machine.",
    "compare": "Run several engines on the same prompts, side by side.",
    "eval": "Score a model: perplexity, multiple choice, divergence from another.",
    "bench": "Measure a model on this machine, beside its limits and other engines.",
    "deploy": "Put a bundle on a device, or on many, and switch its daemon over.",
    "fleet": "List the devices of an inventory, and ask how they all are.",
    "status": "Show what runs on a device.",
    "rollback": "Return a device to the bundle before.",
    "restart": "Have a device's daemon read its settings anew.",
    "logs": "Show the daemon's log of a device.",
    "sensors": "Show what a device's sensors say, or why they do not.",
    "uninstall": "Remove edgebit from a device.",
    "doctor": "Look for what could be wrong on this machine and on a device.",
    "ask": "Ask a device over MQTT.",
    "monitor": "Watch devices over MQTT, live.",
    "metrics": "Show, sum up and export the figures of a device.",
    "simulate": "Try the daemon's governor on a simulated device.",
    "demo": "The whole way on one machine, with the model that ships.",
    "tune": "Find the best engine settings on this machine, and write them.",
    "cross": "Build and enter the images that compile for other machines.",
    "keys": "Make and list the keys that sign bundles.",
    "targets": "List the devices that bundles can be built for.",
    "tokenize": "Text on standard input, token ids on standard output.",
    "logits": "Write the logits of given token ids to a file.",
    "synthesize": "Write a checkpoint of a known shape with random weights.",
    "completion": "Print the tab completion script of a shell.",
}


class LazyGroup(click.Group):
    """Loads edgebit/cli/<name>.py when <name> is called, so that --help and completion stay quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"edgebit.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and args[0] not in COMMANDS:  # click would look among the commands it has loaded
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if near:
                ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgebit")
def cli() -> None:
    """Ternary language models on small devices: convert, cross-compile, deploy, answer over MQTT.

    \b
    edgebit build ./bitnet-b1.58-2B-4T --target rpi --out chat.bundle
    edgebit deploy chat.bundle --to ssh://pi@raspberrypi.local --mqtt mqtt://broker.local
    edgebit ask --broker mqtt://broker.local --device raspberrypi "Why is the sky blue?"
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, an EdgebitError's own code, 2 for usage, 130 after Ctrl-C."""
    colour = False if os.environ.get("NO_COLOR") else None  # None: on a terminal (https://no-color.org)
    try:
        cli.main(args=args, prog_name="edgebit", standalone_mode=False, color=colour)
        sys.stdout.flush()  # so that a fault of the output is met here
    except EdgebitError as error:
        click.secho("Error: ", fg="red", bold=True, nl=False, err=True, color=colour)
        click.echo(printable(str(error)), err=True)  # it may quote a device, a file, a broker
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away (`edgebit inspect | head`). click and rich end with 1 too if they see it.
        _give_up_output()
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _give_up_output()
        click.echo(f"Error: {error.filename or 'the output'}: the disk is full. Make room, and call it again", err=True)
        sys.exit(EdgebitError.exit_code)


def _give_up_output() -> None:
    """What is still in standard output's buffer goes nowhere, so that Python does not fail on it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
