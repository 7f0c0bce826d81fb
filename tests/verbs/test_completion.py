"""The script of ``ptr-fast completion`` in a real bash, and its names beside those of ``--help``."""

import contextlib
import io
import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest

from ptr_robot.cli import VERBS
from ptr_robot.cli import main as cli
from ptr_robot.recipes import all_recipes
from ptr_robot.verbs.completion import options_of, script

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed here")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "ptr-fast.bash"
    path.write_text(script("bash"))
    return path


def completed(file, *words: str, cwd=None) -> list[str]:
    """What bash offers for the last of the words after ``ptr-fast``."""
    line = " ".join(f"'{word}'" for word in ("ptr-fast", *words))
    program = f"source '{file}'; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _ptr_fast; "
    program += "printf '%s\\n' \"${COMPREPLY[@]}\""
    done = subprocess.run(["bash", "--norc", "-c", program], capture_output=True, text=True, cwd=cwd, timeout=30)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.split("\n") if line]


@needs_bash
def test_verbs_options_and_values_are_completed(file, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "a run").mkdir()
    assert completed(file, "") == list(VERBS)
    assert completed(file, "ro") == ["rollout"]
    assert completed(file, "rollout", "--vid") == ["--video", "--videos", "--videos-of", "--video-size"]
    assert completed(file, "rollout", "--video", "m") == ["mp4"]
    assert completed(file, "rollout", "--run", "runs", "--video", "") == ["gif", "mp4", "none"]
    assert completed(file, "evaluate", "--checkpoint", "r", cwd=tmp_path) == ["runs"]
    assert completed(file, "watch", "a", cwd=tmp_path) == ["a run"]
    assert completed(file, "pretrain", "smoke-cql") == ["smoke-cql", "smoke-cql-n", "smoke-cql-clone"]
    assert completed(file, "pretrain", "smoke", "--learner.cql-a") == ["--learner.cql-alpha"]
    assert completed(file, "pretrain", "smoke", "--data.outcomes", "success", "f") == ["failure"]
    assert completed(file, "finetune", "--fr") == ["--frames", "--freeze-encoder", "--from"]
    assert "states" in completed(file, "compare", "s")
    assert completed(file, "completion", "") == ["bash", "zsh", "fish"]
    assert completed(file, "nothing", "--x") == []


@needs_bash
def test_a_tab_completes_in_an_interactive_bash(file):
    leader, follower = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], stdin=follower, stdout=follower, stderr=follower, close_fds=True,
        env={**os.environ, "PS1": "$ ", "TERM": "dumb"}, start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    told = ""

    def ask(keys: str, wanted: str) -> None:
        nonlocal told
        os.write(leader, keys.encode())
        deadline = time.monotonic() + 30
        while wanted not in told:
            assert time.monotonic() < deadline, told
            if select.select([leader], [], [], 1)[0]:
                told += os.read(leader, 65536).decode(errors="replace").replace("\a", "")
        told = ""

    try:
        ask(f"source '{file}'; echo is_$((1 + 1))_here\n", "is_2_here")
        ask("ptr-fast conv\t", "ptr-fast convert")
        ask("\x15ptr-fast rollout --ensem\t", "--ensemble-decay ")
        ask(" \x15ptr-fast pretrain bridge-b\tc\t", "bridge-bc")
    finally:
        shell.kill()
        shell.wait()
        os.close(leader)


@pytest.mark.parametrize("words", ["rollout", "convert", "watch", "compare", "pretrain smoke-mae", "finetune"])
def test_the_options_are_those_of_help(words):
    told = io.StringIO()
    with contextlib.redirect_stdout(told), pytest.raises(SystemExit):
        cli([*words.split(), "--help"])
    shown = set(re.findall(r"^\W*(?:-h, )?(--[a-z][\w.-]+)", told.getvalue(), re.M))
    shown |= set(re.findall(r"^\W*--[\w.-]+, (--[\w.-]+)", told.getvalue(), re.M))
    offered = {"--" + option.name for option in options_of(words.split()[0])}
    assert len(shown) > 3
    assert shown <= offered, shown - offered
    if " " not in words and words != "finetune":  # those two have other options with other learners, and to branch
        assert offered == shown


def test_the_scripts_of_the_other_shells_name_the_same(file):
    fish, zsh = script("fish"), script("zsh")
    assert zsh.split("\n", 2)[2] == file.read_text().split("\n", 1)[1]
    assert "bashcompinit" in zsh.split("\n")[1]
    for verb in VERBS:
        assert f"-a {verb} -d '" in fish
    assert "-n '__fish_seen_subcommand_from rollout' -l video -x -a 'gif mp4 none'\n" in fish
    assert " ".join(all_recipes()) in fish


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_the_other_shells_parse(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")
    (tmp_path / "script").write_text(script(shell))
    done = subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
