"""``ptr-fast`` verbs in the tests' own process: a new one imports torch, which takes longer than most verbs do."""

import contextlib
import io
import signal
import subprocess

from ptr_robot.cli import main

__all__ = ["run_here"]


def run_here(*words: object) -> subprocess.CompletedProcess[str]:
    """``ptr-fast WORDS`` as its exit status and what it printed; handlers of signals are as before afterwards."""
    verb, stdout, stderr = [str(word) for word in words], io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            status = main(verb)
    except SystemExit as end:
        status = end.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(verb, status, stdout.getvalue(), stderr.getvalue())
