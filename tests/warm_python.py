"""Python processes that have imported torch already: a new one takes two seconds for that, most verbs take less.

:class:`Popen` and :func:`run` are those of :mod:`subprocess`, for ``python`` with ``-m MODULE``, ``-c CODE`` or a
program's path. Each test process has one server (this file, run as a program) that has imported what nearly all verbs
need, and forks twice: what comes out is a child of the test process, so signals, exit codes and orphans are as
everywhere. What an interpreter reads once when it begins (``PYTHONHASHSEED``, ``TRITON_INTERPRET``) is as in the test
process, and OpenMP has one thread.
"""

import ctypes
import inspect
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import types
from functools import cache
from importlib import import_module

__all__ = ["Popen", "run"]

IMPORTED = (
    *("torch", "ptr_robot.cli", "ptr_robot.training.loop", "ptr_robot.verbs.pretrain", "ptr_robot.verbs.rollout"),
    *("ptr_robot.trials.run", "ptr_fast.runtime.policy"),
)
PR_SET_CHILD_SUBREAPER = 36
SIGNATURE = inspect.signature(subprocess.Popen._execute_child)


class Popen(subprocess.Popen):
    """A process as of :class:`subprocess.Popen`; ``args`` begin with ``sys.executable``."""

    def _execute_child(self, *given) -> None:
        told = SIGNATURE.bind(self, *given).arguments
        program, *words = told["args"]
        assert program == sys.executable
        assert told["preexec_fn"] is None
        ends = [told["p2cread"], told["c2pwrite"], told["errwrite"]]
        about = {
            "words": list(map(str, words)),
            "cwd": str(told["cwd"] or os.getcwd()),
            "env": dict(os.environ if told["env"] is None else told["env"]),
            "start_new_session": bool(told["start_new_session"]),
        }
        text, server = json.dumps(about).encode(), _server()
        _adopt_orphans(True)
        try:
            files = [own if end == -1 else end for own, end in enumerate(ends)]
            socket.send_fds(server, [len(text).to_bytes(4, "big")], files)
            server.sendall(text)
            self.pid = int.from_bytes(_received(server, 4), "big")
        finally:
            _adopt_orphans(False)
        self._child_created = True
        names = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(told[name] for name in names))


def run(args, *, timeout=None, capture_output=False, **options) -> subprocess.CompletedProcess:
    """As :func:`subprocess.run`."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(args, **options) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(args, process.returncode, stdout, stderr)


@cache
def _server() -> socket.socket:
    """The socket to this test process's server, which ends with it."""
    ours, theirs = socket.socketpair()
    subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    theirs.close()
    return ours


def _adopt_orphans(on: bool) -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


def _received(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise RuntimeError("the server of warm interpreters has ended")
        data += part
    return data


def _serve(connection: socket.socket) -> dict:
    """Forks for each request; returns in the fork, with what it is to run."""
    while True:
        head, files, _, _ = socket.recv_fds(connection, 4, 3)
        if not head:
            sys.exit(0)
        about = json.loads(_received(connection, int.from_bytes(head, "big")))
        read, write = os.pipe()
        between = os.fork()
        if between == 0:
            between = os.getpid()
            child = os.fork()
            if child:
                os.write(write, child.to_bytes(4, "big"))
                os._exit(0)
            while os.getppid() == between:  # then the test process is the parent
                time.sleep(0.0005)
            os.close(read)
            os.close(write)
            connection.close()
            for own, file in enumerate(files):
                os.dup2(file, own)
            for file in files:
                os.close(file)
            return about
        os.close(write)
        child = os.read(read, 4)
        os.close(read)
        for file in files:
            os.close(file)
        os.waitpid(between, 0)
        connection.sendall(child)


def _become(words: list[str], cwd: str, env: dict[str, str], start_new_session: bool) -> None:
    """Runs ``python WORDS`` in this process."""
    if start_new_session:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through="PYTHONUNBUFFERED" in env)
    kind, *rest = words
    given = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:1] = [cwd if kind == "-m" else "", *given]
    if kind == "-m":
        program, *sys.argv[1:] = rest
        runpy._run_module_as_main(program)
    elif kind == "-c":
        program, *rest = rest
        sys.argv = ["-c", *rest]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(program, "<string>", "exec"), main.__dict__)
    else:
        sys.path[0] = os.path.dirname(kind)
        sys.argv = words
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in IMPORTED:
        import_module(name)
    _become(**_serve(socket.socket(fileno=int(sys.argv[1]))))
