"""Token ids in a file: a JSON list."""

import json
from typing import BinaryIO

from edgebit.errors import EdgebitError


def read_token_ids(file: BinaryIO) -> list[int]:
    """The ids in an opened file. Raises EdgebitError where it holds something else, or none."""
    try:
        ids = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise EdgebitError(f"{file.name}: is no JSON: {error}") from error
    if not isinstance(ids, list) or not ids or not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        raise EdgebitError(f"{file.name}: a JSON list of one or more token ids is needed, such as [1, 2, 3]")
    return ids
