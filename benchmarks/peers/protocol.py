"""A peer in a process of its own, asked for one step at a time by lines of JSON, so that rounds can be interleaved.

The worker answers every line on its standard output with one line; it is idle in between. Times are taken inside the
worker, so that nothing of the exchange counts. A worker imports no torch unless its peer does.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["serve"]


def serve(commands: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answers ``{"do": NAME, ...}`` by ``commands[NAME](...)`` until standard input ends; errors are answers too."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = commands[request.pop("do")](**request)
        except Exception as error:  # noqa: BLE001 - the asking process decides; it sees what happened
            answer = {"error": f"{type(error).__name__}: {error}"[:2000]}
        print(json.dumps(answer), file=answers, flush=True)
