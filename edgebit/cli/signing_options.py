"""The options by which requests are signed, for devices whose auth is `signed`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from edgebit.cli.keys import key_password
from edgebit.keys import find_secret_key, load_secret_key

sign_key_option = click.option(
    "--sign-key",
    metavar="KEY",
    help="Sign the request, for a device whose auth is `signed`: a key's name (edgebit keys), or its .key file.",
)
key_password_file_option = click.option(
    "--key-password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="First line: the key's password. Else EDGEBIT_KEY_PASSWORD, else a prompt.",
)


def signer(name: str | None, password_file: Path | None) -> Callable[[bytes], bytes] | None:
    """Makes signatures with the key of that name; None without one."""
    if name is None:
        return None
    path = find_secret_key(name)
    return load_secret_key(path, partial(key_password, password_file, f"key {path}")).private.sign
