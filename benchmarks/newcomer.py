"""Pastes the commands of a section of the docs into a shell, as a newcomer does, and keeps what they say as a log::

    python3.12 -m benchmarks.newcomer docs/lerobot.md "From a folder" --log newcomer.log --packages lerobot torch

To be started in a clean clone; it needs the standard library alone, as the first commands install the rest. It ends at
the first command that fails, and the next call goes on there, where the log has the commands before. The log is cut: of
each command the first and the last lines, without progress, times of the day and folders of the machine.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["commands_of", "main", "told"]

FENCE = re.compile(r"^```(?:sh|bash)\n(.*?)^```$", re.M | re.S)
END = "@@ end of a command, status"
KEPT = (4, 14)
"""So many of the first and of the last lines of a command are kept."""
PROGRESS = r"it/s\]|s/it\]|\?it/s|[━█▏▎▍▌▋▊▉]|^\s*$"
NOISE = re.compile(rf"{PROGRESS}|^WARNING: Location|^Svt\[|^\[notice\]|FutureWarning|UserWarning")
TIMES = re.compile(r"\b20\d\d-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)? ?")
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
VERSIONS = "import importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in '%s'.split()))"


def commands_of(page: str, section: str) -> list[str]:
    """The commands of a page's section, in order; comments and blank lines are none.

    Raises:
        ValueError: the page has no such section, or it has no commands.
    """
    parts = re.split(r"^## ", page, flags=re.M)
    texts = [FENCE.findall(part) for part in parts if part.startswith(section)]
    if len(texts) != 1 or not texts[0]:
        raise ValueError(f"expected one section that begins with {section!r} and has commands, got {len(texts)}")
    lines = "\n".join(texts[0]).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def told(output: str, folder: str) -> list[str]:
    """What is kept of a command's output."""
    lines = [ANSI.sub("", line.rsplit("\r", 1)[-1]).rstrip() for line in output.splitlines()]
    lines = [TIMES.sub("", line).replace(folder, ".").replace(str(Path.home()), "~") for line in lines]
    lines = [re.sub(r"/\S*/site-packages/", "", line)[:300] for line in lines if not NOISE.search(line)]
    first, last = KEPT
    if len(lines) <= first + last + 1:
        return lines
    return [*lines[:first], f"[{len(lines) - first - last} lines more]", *lines[-last:]]


def run(commands: list[str], folder: Path) -> Iterator[tuple[str, str, int, float]]:
    """Each command, what it wrote, its status and its seconds; in one shell, so that an environment stays active."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "120", "TQDM_DISABLE": "1"}
    with subprocess.Popen(
        ["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder, env=environment
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        for command in commands:
            begin, output = time.monotonic(), ""
            shell.stdin.write(f"{command} </dev/null\nstatus=$?; echo; echo '{END}' $status\n".encode())
            shell.stdin.flush()
            for line in shell.stdout:
                text = line.decode("utf-8", "replace")
                if text.startswith(END):
                    status = int(text.removeprefix(END))
                    break
                output += text
            else:
                status = 255
            yield command, output, status, time.monotonic() - begin
            if status:
                return


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("section", help="how its title begins")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--packages", nargs="*", default=[], help="whose versions the log ends with")
    args = parser.parse_args(words)
    commands = commands_of(args.page.read_text(encoding="utf-8"), args.section)
    folder = Path.cwd()
    if args.packages:
        commands.append(f'python -c "{VERSIONS % " ".join(args.packages)}"')
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    native = ", without the native module" if os.environ.get("PTR_FAST_NATIVE") == "0" else ""
    head = f"{args.page}, {args.section!r}, pasted at commit {commit}, on {os.cpu_count()} cores{native}"
    first, *done = args.log.read_text(encoding="utf-8").split("\n\n") if args.log.is_file() else [head]
    log = [first, ""]
    for command in list(commands):
        if not done or done[0].split("\n")[0] != f"$ {command}" or "failed: " in done[0].split("\n")[-1]:
            break
        log += [done.pop(0).rstrip("\n"), ""]
        if not command.startswith(". "):  # an environment is activated in each shell
            commands.remove(command)
    if len(log) > 2:
        log += [f"gone on at commit {commit}", ""]
    status = 1
    for command, output, status, seconds in run(commands, folder):
        end = f"[{seconds:.0f} s, failed: {status}]" if status else f"[{seconds:.0f} s]"
        part = [f"$ {command}", *told(output, str(folder)), end, ""]
        print("\n".join(part), flush=True)
        log += part
        args.log.write_text("\n".join(log).rstrip() + "\n", encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
