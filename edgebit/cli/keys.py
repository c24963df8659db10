"""`edgebit keys`: make and list the keys that sign bundles."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
from rich.table import Column, Table

from edgebit.cli.terminal import print_table
from edgebit.errors import KeyFileError
from edgebit.keys import KnownKey, find_public_key, keys_dir, list_keys, new_key, public_key_file

PASSWORD_VARIABLE = "EDGEBIT_KEY_PASSWORD"


def key_password(file: Path | None, what: str, *, confirm: bool = False) -> str:
    """The password of a key from its file, the environment, or a prompt on a terminal; `what` names the key.

    Raises KeyFileError where none of them has it.
    """
    if file is not None:
        try:
            password = (file.read_text(encoding="utf-8").splitlines() or [""])[0]
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(f"{file} cannot be read: {error}") from error
    elif PASSWORD_VARIABLE in os.environ:
        password = os.environ[PASSWORD_VARIABLE]
    elif sys.stdin.isatty():
        password = str(click.prompt(f"Password of {what}", hide_input=True, confirmation_prompt=confirm, err=True))
    else:
        raise KeyFileError(f"{what} needs a password: a terminal to ask for it, its file, or {PASSWORD_VARIABLE}")
    if not password:
        raise KeyFileError(f"the password of {what} is empty")
    return password


@click.group()
def command() -> None:
    """Make and list the keys that sign bundles; their files are minisign's.

    \b
    edgebit keys new home
    edgebit build ./bitnet-b1.58-2B-4T --target rpi --out chat.bundle --sign home
    """


@command.command()
@click.argument("name")
@click.option("--no-password", is_flag=True, help="Leave the secret key unlocked: for a machine that builds by itself.")
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file whose first line is the password.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def new(name: str, no_password: bool, password_file: Path | None, as_json: bool) -> None:
    """Make the key NAME.

    The password comes from --password-file, the environment's EDGEBIT_KEY_PASSWORD, or a prompt.

    \b
    edgebit keys new home
    """
    if no_password and password_file is not None:
        raise KeyFileError("--no-password and --password-file exclude each other")
    password = None if no_password else key_password(password_file, f"key {name}", confirm=True)
    key = new_key(name, password)
    if as_json:
        click.echo(json.dumps(_as_dict(key), indent=1))
        return
    click.echo(f"key {key.public.id} ({name}): {key.public}")
    click.echo(
        f"It is in {key.secret}. Keep a copy elsewhere: without it, no device that trusts it takes a new bundle."
    )


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """List the keys that this machine knows.

    \b
    edgebit keys list
    """
    keys = list_keys()
    if as_json:
        click.echo(json.dumps([_as_dict(key) for key in keys], indent=1))
        return
    if not keys:
        click.echo(f"There is no key in {keys_dir()}. Make one: edgebit keys new NAME")
        return
    key_id, public_key = Column("key", no_wrap=True), Column("public key", no_wrap=True)  # people copy them
    table = Table("name", key_id, "signs here", public_key, box=None, header_style="bold")
    for key in keys:
        signs = "no" if key.secret is None else "with a password" if key.has_password else "without a password"
        table.add_row(key.name, key.public.id, signs, str(key.public))
    print_table(table)


@command.command(short_help="Print a public key as a file.")
@click.argument("name")
def show(name: str) -> None:
    """Print the public key NAME as a file: for minisign, for `--trust`, for others who should know it.

    \b
    edgebit keys show home > home.pub
    """
    click.echo(public_key_file(find_public_key(name)), nl=False)


def _as_dict(key: KnownKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "id": key.public.id,
        "public_key": str(key.public),
        "secret_file": str(key.secret) if key.secret else None,
        "has_password": key.has_password,
    }
