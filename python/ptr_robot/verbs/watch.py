"""A page that follows a run: ``ptr-fast watch RUN``, then open the address that it prints.

Updates and time left, metrics on held-out episodes, the frames of a demonstration with Q of every checkpoint, losses.
New checkpoints are evaluated beside the training, with low priority. Only this machine is answered; from another one:
``ssh -L 8080:127.0.0.1:8080 THIS_MACHINE``.
"""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["Args", "main"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        run: Run folder.
        port: TCP port on this machine; 0 takes a free one.
        evaluate: Evaluate new checkpoints, on the CPU in one thread; without it only what was evaluated is shown.
        store: OLD=NEW for a store of the run that has moved; repeat for several.
    """

    run: Annotated[Path, tyro.conf.Positional]
    port: int = 8080
    evaluate: bool = True
    store: tyro.conf.UseAppendAction[tuple[str, ...]] = ()


def main(args: Args) -> int:
    """Serves the page until Ctrl-C.

    Raises:
        DataError: no run there.
        ValueError: the port is taken or no port.
    """
    from ptr_robot.report.runs import read_run
    from ptr_robot.training.store_places import StorePlaces
    from ptr_robot.watching.evaluating import Evaluating
    from ptr_robot.watching.server import PageServer

    if not 0 <= args.port < 65536:
        raise ValueError(f"port: expected 0 to 65535, got {args.port}")
    places = StorePlaces.parse(args.store)
    read_run(args.run)
    try:
        server = PageServer(args.run, args.port, places)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise ValueError(f"port {args.port}: {error.strerror}; name another --port, or 0 for a free one") from error
    options = [word for pair in args.store for word in ("--store", pair)]
    beside = Evaluating(args.run, options) if args.evaluate else contextlib.nullcontext()
    with server, beside:
        print(f"{server.url} follows {args.run}; Ctrl-C ends it, the run goes on", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0
