"""Every command of README.md and docs/ is one that the programs take, and those that need nothing are run.

A block of commands begins with ``# needs: ...`` (a GPU, a run, an hour), with ``# run by tests/...``, or is run here.
Two pages have a test of their own, which runs them.
"""

import contextlib
import importlib
import io
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tyro

from ptr_fast.data.store import Episode, StoreMeta, StoreWriter
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec
from ptr_robot import cli
from ptr_robot.training import processes

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(?:sh|console|bash)\n(.*?)^```$", re.M | re.S)
RUN_ELSEWHERE = {"extend.md": "tests/test_extend.py", "your_data.md": "tests/test_your_data.py"}


@dataclass(frozen=True)
class Block:
    """Commands that stand together: the page, its first line where that is a comment, and the words of each."""

    page: str
    mark: str
    commands: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.commands[0])}"


def words_of(line: str) -> tuple[str, ...]:
    """The words of a command, without a shell's prompt, comments and variables before it."""
    words = shlex.split(line.removeprefix("$ "), comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return tuple(words)


def blocks_of(page: Path) -> list[Block]:
    found = []
    for text in FENCE.findall(page.read_text(encoding="utf-8")):
        lines = text.replace("\\\n", " ").splitlines()
        mark = lines[0].removeprefix("# ") if lines[0].startswith("# ") else ""
        commands = tuple(filter(None, map(words_of, lines)))
        found.append(Block(page.name, mark or RUN_ELSEWHERE.get(page.name, ""), commands))
    return found


BLOCKS = [block for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] for block in blocks_of(page)]


class _ParsedError(Exception):
    """Raised in place of the first thing that a training does after it has read its options."""


def check_verb(verb: str, argv: list[str], monkeypatch, run: Path) -> None:
    """Reads the options by the verb's own parser; SystemExit or an error where it does not take them."""
    module = importlib.import_module(f"ptr_robot.verbs.{verb.replace('-', '_')}")
    if not hasattr(module, "run"):
        tyro.cli(module.Args, args=argv, config=(tyro.conf.DisallowNone,))
        return

    def stop(*_: object) -> None:
        raise _ParsedError

    monkeypatch.setattr(processes, "joined", stop)
    if "--from" in argv:  # its defaults are those of the run that is left
        argv[argv.index("--from") + 1] = str(run)
    with pytest.raises(_ParsedError):
        module.run(argv)


def check_torchrun(words: list[str], monkeypatch, run: Path) -> None:
    from torch.distributed.run import get_args_parser

    told = get_args_parser().parse_args(words)
    assert (told.module, told.training_script) == (True, "ptr_robot")
    verb, *argv = told.training_script_args
    if not verb.startswith("$"):
        check_verb(verb, argv, monkeypatch, run)


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name = word.partition("=")[0]
        pattern = rf"^{name} *\?=|\$\({name}\)" if "=" in word else rf"^{name}:"
        assert re.search(pattern, makefile, re.M), f"Makefile has no {name}"


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    ours = [word for word in words if not word.startswith("lerobot[")]  # whose extras are its own
    for names in re.findall(r"\[([\w,-]+)\]", " ".join(ours)):
        assert set(names.split(",")) <= set(extras), names


def check_python(words: list[str], page: str) -> None:
    if words[0] == "-m":
        name = words[1].replace(".", "/")
        places = [ROOT / f"{name}.py", *(ROOT / "python").glob(f"**/{name}/__main__.py")]
        assert any(place.is_file() for place in places), words[1]
    elif page not in RUN_ELSEWHERE:
        assert (ROOT / words[0]).is_file(), words[0]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder as ``make demo`` leaves it, as far as README's Python looks, with a run of two updates."""
    folder = tmp_path_factory.mktemp("demo") / "outputs" / "demo"
    meta = StoreMeta(
        cameras=(CameraSpec(name="image_0", height=32, width=32, encoding="raw"),),
        state=StateSpec(names=("x", "y"), units=("m", "m")),
        action=ActionSpec(names=("dx", "dy"), units=("m", "m"), low=(-1.0, -1.0), high=(1.0, 1.0)),
        control_hz=10.0,
    )
    rng = np.random.default_rng(0)
    with StoreWriter.create(folder / "unseen_kitchen", meta) as writer:
        for number in range(6):
            frames = {"image_0": rng.integers(0, 255, (9, 32, 32, 3), np.uint8)}
            numbers = rng.uniform(-1, 1, (9, 2)).astype(np.float32)
            episode = Episode(
                episode_id=str(number),
                task="go",
                states=numbers,
                actions=numbers[1:],
                frames=frames,
                outcome="success",
            )
            writer.add(episode)
    store, run = str(folder / "unseen_kitchen"), str(folder / "runs" / "ours-finetune")
    options = ["--num-steps", "2", "--batch-size", "4", "--data.validation-share", "0.3", "--out", run]
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(["pretrain", "smoke", "--data.stores", store, *options]) == 0
    return folder


def test_every_block_says_what_it_needs_or_is_run():
    assert len(BLOCKS) > 15
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        others = re.findall(
            r"^```\n[^`]*?^(?:ptr-fast|torchrun|make) .*?^```$", page.read_text(encoding="utf-8"), re.M | re.S
        )
        assert not others, f"{page.name}: begin a block of commands with ```sh: {others[0]}"
    for block in BLOCKS:
        if block.mark.startswith(("run by tests/", "tests/")):
            test = block.mark.removeprefix("run by ").partition(",")[0]
            assert (ROOT / test).is_file(), f"{block}: {test}"
        elif block.mark:
            assert block.mark.startswith("needs: "), f"{block}: begin with '# needs: ' or '# run by tests/', or nothing"


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS}))
def test_every_command_is_taken_by_its_program(page, monkeypatch, demo, capsys):
    run = demo / "runs" / "ours-finetune"
    for block in BLOCKS:
        for program, *words in block.commands if block.page == page else ():
            told = f"{page}: {program} {' '.join(words)}"
            try:
                if program == "ptr-fast":
                    assert words[0] in cli.VERBS
                    if page not in RUN_ELSEWHERE:
                        check_verb(words[0], words[1:], monkeypatch, run)
                elif program == "torchrun":
                    check_torchrun(words, monkeypatch, run)
                elif program == "make":
                    check_make(words)
                elif program == "pip":
                    check_pip(words)
                elif program in ("python", "python3.12") and words[:2] != ["-m", "venv"]:
                    check_python(words, page)
                else:
                    others = ("export", "openssl", ".", "python3.12")
                    assert program in others or program.startswith("lerobot-"), "a program that nothing here knows"
            except (SystemExit, AssertionError, ValueError) as error:
                pytest.fail(f"{told}\n{error}\n{capsys.readouterr().out}")


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.mark], ids=str)
def test_what_needs_nothing_is_run(block, tmp_path, monkeypatch, capsys):
    pytest.importorskip("metaworld", reason="the toy kitchens need the extra 'sim' (metaworld, mujoco)")
    monkeypatch.chdir(tmp_path)
    for program, *words in block.commands:
        assert program == "ptr-fast", f"{block}: only verbs are run here, mark others with '# needs: '"
        code = cli.main(words)
        assert code == 0, f"{block.page}: {' '.join(words)}\n{capsys.readouterr().err}"


def test_python_of_the_front_page_runs(demo, monkeypatch, capsys):
    (text,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 10
    monkeypatch.chdir(demo.parents[1])
    exec(compile(text, "README.md", "exec"), names := {})
    out = capsys.readouterr().out
    assert "dx" in out
    assert names["q"].shape == (2, 1)
