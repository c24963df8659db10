"""edgebit completion: the script that makes a shell complete edgebit's commands and options."""

import click
from click.shell_completion import get_completion_class

from edgebit.errors import EdgebitError

_INSTALL = {
    "bash": 'eval "$(edgebit completion bash)"    in ~/.bashrc',
    "zsh": 'eval "$(edgebit completion zsh)"    in ~/.zshrc',
    "fish": "edgebit completion fish > ~/.config/fish/completions/edgebit.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(_INSTALL)))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the tab completion script of SHELL.

    \b
    edgebit completion bash

    Where it goes:

    \b
    bash:  eval "$(edgebit completion bash)"    in ~/.bashrc
    zsh:   eval "$(edgebit completion zsh)"     in ~/.zshrc
    fish:  edgebit completion fish > ~/.config/fish/completions/edgebit.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise EdgebitError(f"the installed click has no completion for {shell}: pip install --upgrade click")
    script = found(context.find_root().command, {}, "edgebit", "_EDGEBIT_COMPLETE").source()
    click.echo(script.rstrip())
    click.echo(f"# install: {_INSTALL[shell]}")
