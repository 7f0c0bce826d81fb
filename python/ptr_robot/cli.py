"""The ``ptr-fast`` command: verbs only; each is a module of ``ptr_robot.verbs``, imported when it is called."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
import threading

VERBS = {
    "convert": "robot data of other formats -> a store",
    "edit": "merge, split, drop, rename and relabel episodes of stores, without rewriting frames",
    "repack": "a store of JPEG frames -> one whose frames a GPU decodes inside its step",
    "inspect": "what is in a store: tables and a contact sheet",
    "doctor": "traps in a store, and what to do about them",
    "collect": "demonstrations in simulated toy kitchens -> a store",
    "pretrain": "train a policy on broad data",
    "finetune": "train it on with a few demonstrations of a new task, mixed with the old data",
    "resume": "go on with a run that was stopped or killed",
    "evaluate": "offline metrics of a checkpoint on held-out demonstrations",
    "select": "rank the checkpoints of a run and pick one",
    "correlate": "which offline metrics tell the success of trials, over many runs",
    "act": "actions of a checkpoint on the frames of a stored episode",
    "rollout": "try a policy in a simulated kitchen, or on a robot in real time",
    "export-dataset": "a store -> a LeRobot data set",
    "export": "a checkpoint -> one ONNX file, from camera frame to the robot's units",
    "serve": "a checkpoint's actions over a websocket, in openpi's protocol",
    "push": "a checkpoint as a folder with a model card, and to the Hugging Face Hub where a token is given",
    "pull": "such a folder from the Hub or a disk, every file of it checked",
    "diagnose": "what went wrong in a training run, and what to do about it",
    "watch": "a local page that follows a run while it trains",
    "report": "one HTML page about runs, checkpoints and trials",
    "compare": "a grid of methods, data sets and seeds on the same trials, with intervals and a page",
    "demo": "the whole way in toy kitchens, from data to a table of success rates",
    "convert-checkpoint": "a checkpoint of the published JAX code -> one of ours",
    "completion": "a script with which bash, zsh or fish completes verbs, options and values",
    "info": "what was built, what runs where and why not; for bug reports",
}
INTERRUPTED, TERMINATED = 130, 143
USERS = (ValueError, RuntimeError, OSError, ImportError, MemoryError)  # their mistakes, and a broken environment


def usage() -> str:
    width = max(map(len, VERBS))
    lines = ["usage: ptr-fast VERB [options]      (ptr-fast VERB --help lists its options)", ""]
    lines += [f"  {verb:<{width}}  {what}" for verb, what in VERBS.items()]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs one verb.

    Returns:
        0 on success, 1 where a check found errors, 2 for a user's mistake or a broken environment (one line on standard
        error; ``PTR_FAST_TRACEBACK=1`` shows where), 130 after Ctrl-C, 143 after a polite kill (SIGTERM).
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    verb = argv[0]
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        print(f"ptr-fast: unknown verb {verb!r}{hint}\n\n{usage()}", file=sys.stderr)
        return 2
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        module = importlib.import_module(f"ptr_robot.verbs.{verb.replace('-', '_')}")
        return module.run(argv[1:]) if hasattr(module, "run") else _run_typed(verb, module, argv[1:])
    except KeyboardInterrupt as stop:
        print("ptr-fast: interrupted", file=sys.stderr)
        return _left(TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("PTR_FAST_TRACEBACK") == "1" or not (isinstance(error, USERS) or _is_a_librarys(error)):
            raise
        rank = f"rank {os.environ.get('RANK', '?')}: " if os.environ.get("WORLD_SIZE", "1") != "1" else ""
        # One write: torchrun's processes share an unbuffered standard error.
        sys.stderr.write(f"ptr-fast {verb}: {rank}error: {_words(error)}\n")
        return _left(2)


def _left(code: int) -> int:
    """The exit code of a verb that failed; does not return where it has joined other processes."""
    if launch := sys.modules.get("ptr_robot.training.processes"):
        launch.leave(code)
    return code


def _is_a_librarys(error: Exception) -> bool:
    """Whether another package defines this exception: a device or driver that fails, not an error of our own."""
    return type(error).__module__.split(".")[0] not in ("builtins", "ptr_fast", "ptr_robot")


def _words(error: BaseException) -> str:
    """The message as one line, without a bare error number."""
    if not isinstance(error, USERS):
        return " ".join(f"{type(error).__module__}.{type(error).__name__}: {error}".split())
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    words = f"not enough memory: {error}" if isinstance(error, MemoryError) else str(error)
    return " ".join(words.split("\n"))


class _Terminated(KeyboardInterrupt):
    """A polite kill ends a verb as Ctrl-C does: what was finished is kept."""


def _terminate(*_: object) -> None:
    raise _Terminated


def _run_typed(verb: str, module, argv: list[str]) -> int:
    import tyro

    from ptr_robot.console.help_text import described

    # An option that may be left away shows what it takes, not "{None}|PATH".
    args = tyro.cli(
        module.Args,
        prog=f"ptr-fast {verb}",
        args=argv,
        description=described(module.__doc__),
        config=(tyro.conf.DisallowNone,),
    )
    return module.main(args) or 0


if __name__ == "__main__":
    sys.exit(main())
