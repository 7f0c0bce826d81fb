"""The ``ptr-fast`` command: verbs only; each is a module of ``ptr_robot.verbs``, imported when it is called."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
import threading

from ptr_robot.verbs import VERBS

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
