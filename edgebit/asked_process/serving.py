"""The inner side of asked_process: answers the questions that come on standard input. Standard library only."""

import json
import os
import sys
from collections.abc import Callable, Collection
from typing import Any

from edgebit.errors import EdgebitError


def serve(open_worker: Callable[[], Any], requests: Collection[str]) -> None:
    """Open a worker, then answer line by line, by its methods named in `requests`, until there are no more lines.

    An EdgebitError becomes {"error": ...}; where the worker cannot be opened that is the only answer. What libraries
    print to standard output goes to standard error.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        out.write(json.dumps(content) + "\n")
        out.flush()

    try:
        worker = open_worker()
    except EdgebitError as error:
        answer({"error": str(error)})
        return
    for line in sys.stdin:
        request = json.loads(line)
        name = request.pop("do")
        assert name in requests, name
        try:
            answer(getattr(worker, name)(**request))
        except EdgebitError as error:
            answer({"error": str(error)})
