"""A warm interpreter is as a new one, but for the time that torch takes."""

import os
import signal
import subprocess
import sys

import pytest
import warm_python

REPORT = """
import multiprocessing, os, sys
print(sys.argv[1:], os.getcwd(), os.environ.get("MARK"), __name__, os.getppid(), os.getsid(0) == os.getpid())
print(sys.path[:2], sys.stdin.read(), multiprocessing.active_children())
print("told", file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize("new_session", [False, True])
def test_it_has_the_arguments_the_place_and_the_files_that_a_new_one_has(tmp_path, new_session):
    options = {
        "capture_output": True, "text": True, "cwd": tmp_path, "start_new_session": new_session,
        "env": {**os.environ, "MARK": "x", "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        "stdin": subprocess.DEVNULL,
    }  # fmt: skip
    command = [sys.executable, "-c", REPORT, "a", "b c"]
    warm, new = warm_python.run(command, **options), subprocess.run(command, **options)
    assert (warm.returncode, warm.stdout, warm.stderr) == (new.returncode, new.stdout, new.stderr)
    assert str(os.getpid()) in warm.stdout


def test_a_module_runs_as_main_and_signals_and_exit_codes_are_its_own(tmp_path):
    (tmp_path / "sleeper.py").write_text(
        "import sys, time\nassert __name__ == '__main__'\n"
        "try:\n    print('ready', __spec__.name, flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    sys.exit(130)\n"
    )
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, -15)):
        process = warm_python.Popen([sys.executable, "-m", "sleeper"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready sleeper\n"
        assert process.poll() is None
        process.send_signal(number)
        process.communicate(timeout=10)
        assert process.returncode == code


def test_a_verb_of_the_program_ends_with_its_code():
    command = [sys.executable, "-m", "ptr_robot", "pretrian"]
    warm = warm_python.run(command, capture_output=True, text=True)
    new = subprocess.run(command, capture_output=True, text=True)
    assert (warm.returncode, warm.stdout, warm.stderr) == (new.returncode, new.stdout, new.stderr)
    assert warm.returncode == 2
