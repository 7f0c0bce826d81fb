"""Pastes the commands of README.md and of every page of the docs, in the order of the contents, and keeps what came::

    python -m benchmarks.newcomer_docs --log newcomer_docs.log

To be started in a clean clone, where ``ptr-fast`` and ``python`` are on PATH. Trainings make few updates, data sets
have few episodes, and trials are two, so that all of it ends within an hour on two cores; every command stands in the
log as it was run. What cannot be run on one machine without a GPU and without an arm is named with the reason. Unlike
``benchmarks.newcomer`` it goes on after a command that fails.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.newcomer import FENCE, VERSIONS, run, told

__all__ = ["main", "pages_in_order", "reason_to_skip", "shortened"]

SKIPPED = {
    r"^make ": "takes from minutes to hours, of both cores",
    r"^pip install": "done before, by make setup",
    r"^torchrun|--cluster": "needs several GPUs or a cluster",
    r"--robot (widowx|lerobot)": "needs an arm",
    r"--steer lerobot": "needs LeRobot's packages and a policy of theirs",
    r"convert-checkpoint": "needs a checkpoint of the published code",
    r"frozen_resnet50": "needs R3M's file",
    r"OWNER/NAME": "needs a repository and a token of the Hugging Face Hub",
    r"bridge_rlds|three_tasks|runs/carrot|(inspect|doctor) +bridge": "run by tests/verbs/test_real_input.py",
    r"compare (states|deck)(?!.*--dry)|outputs/compare|benchmarks\.tables": "takes hours",
    r"^python -m benchmarks": "measures, on a machine that does nothing else",
    r"--preset|k120|k70|--out mine": "collects for half an hour",
    r"HOST|--remote|openssl|PTR_FAST_TOKEN|0\.0\.0\.0": "needs a second machine",
    r"correlate": "needs several different runs with trials; copies of one are told from them and refused",
    r"policy_int8": "needs the quantisation of a trained policy, minutes",
}
"""Pattern of a command -> why it is not run here."""

ELSEWHERE = {"extend.md": "tests/test_extend.py", "lerobot.md": "benchmarks/results/newcomer_lerobot.log"}
"""Pages whose commands were run in another place."""

FEW = {
    "collect": {"--episodes": "5", "--workers": "1"},
    "pretrain": {"--num-steps": "20", "--batch-size": "8", "--checkpoint-every": "10"},
    "finetune": {"--num-demos": "2", "--num-steps": "20", "--batch-size": "8", "--checkpoint-every": "10"},
    "resume": {"--num-steps": "30"},
    "rollout": {"--trials": "2", "--max-steps": "15"},
}
"""Verb -> options that are set to less."""

GIVEN = {
    "diagnose.md": "for s in seed0 seed1 seed2 a b c clone; do cp -r runs/finetune runs/$s; done",
    "steer.md": "cp -r runs/pretrain runs/critic; rm -rf runs/clone policy.onnx; ptr-fast pretrain sim-mixture "
    "--data.stores kitchens --num-steps 20 --batch-size 8 --checkpoint-every 10 --out runs/clone; "
    "ptr-fast export --checkpoint runs/clone --out policy.onnx",
    "your_data.md": "cp -r tests/datasets/files/* . && xz -dk robomimic_lift.hdf5.xz",
    "representations.md": "cp -r kitchens prior; cp -r unseen demos",
}
"""Page -> what a reader has by then: recordings, and runs of other names."""

FINDERS = ("ptr-fast diagnose", "ptr-fast doctor")
"""Their exit code is 1 where they find an error."""

ENDLESS = re.compile(r"^ptr-fast (watch|serve) ")


def pages_in_order(contents: str) -> list[str]:
    """The pages of ``mkdocs.yml`` in their order."""
    return re.findall(r"[\w/]+\.md$", contents.split("\nnav:")[1], re.M)


def reason_to_skip(command: str) -> str:
    """Why a command is not run here; empty where it is."""
    return next((reason for pattern, reason in SKIPPED.items() if re.search(pattern, command)), "")


def shortened(command: str) -> str:
    """The command with few updates, episodes or trials, and with an end where it has none."""
    if ENDLESS.match(command):
        return f"timeout -s INT 60 {command}"
    verb = (command.split() + ["", ""])[1]
    options = FEW.get(verb, {}) if command.startswith("ptr-fast") else {}
    for name, value in options.items():
        if re.search(rf"{name} ", command):
            command = re.sub(rf"{name} +\S+", partial(_smaller, value), command)
        elif not (verb == "resume" and name not in command):
            command += f" {name} {value}"
    command = command.replace("checkpoints/003000", "checkpoints/000010")
    return re.sub(r"--evaluate-every \d+", "--evaluate-every 10", re.sub(r"--num-demos 10", "--num-demos 2", command))


def failures(log: list[str]) -> list[str]:
    """The commands that failed by a log, in order."""
    command, found = "", []
    for line in log:
        if line.startswith("$ "):
            command = line.removeprefix("$ ")
        elif re.search(r", FAILED with \d+\]$", line):
            found.append(command)
    return found


def _smaller(most: str, found: re.Match[str]) -> str:
    name, number = found[0].split()
    return f"{name} {min(int(number), int(most))}"


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--pages", nargs="*", default=[], help="only these; default: all, in order")
    parser.add_argument("--again", action="store_true", help="only what failed by the log, which is written on")
    args = parser.parse_args(words)
    order = ["README.md", *(f"docs/{page}" for page in pages_in_order(Path("mkdocs.yml").read_text(encoding="utf-8")))]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    packages = "torch numpy mujoco metaworld h5py zarr av onnxruntime"
    log, counts = [f"every page in order, at commit {commit}"], {"ran": 0, "failed": 0, "skipped": 0}
    if args.again:
        log = args.log.read_text(encoding="utf-8").splitlines()

    def say(*lines: str) -> None:
        print("\n".join(lines), flush=True)
        log.extend(lines)
        args.log.write_text("\n".join(log) + "\n", encoding="utf-8")

    def paste(command: str) -> bool:
        if reason := reason_to_skip(command):
            say(f"$ {command}", f"  [skipped: {reason}]")
            counts["skipped"] += 1
            return True
        ((_, output, status, seconds),) = run([command], Path.cwd())
        ended = ENDLESS.match(command.removeprefix("timeout -s INT 60 ")) and status in (0, 124, 130)
        found = status == 1 and command.startswith(FINDERS)
        good = status == 0 or bool(ended) or found
        lines = told(output, str(Path.cwd()))
        say(f"$ {command}", *(f"  {line}" for line in lines[-3 if good else -12 :]))
        end = ", ended by Ctrl-C" if ended else ", errors found in the run: 1, as told" if found else ""
        say(f"  [{seconds:.0f} s{end if good else f', FAILED with {status}'}]")
        return good

    if args.again:
        failed = failures(log)
        say("", f"== what failed, again, at commit {commit}")
        return int(not all([paste(shortened(command)) for command in failed]))
    paste(f'python -c "{VERSIONS % packages}"')
    for page in order:
        if args.pages and page not in args.pages:
            continue
        name, text = Path(page).name, Path(page).read_text(encoding="utf-8")
        blocks = [block.replace("\\\n", " ") for block in FENCE.findall(text)]
        if not blocks:
            continue
        say("", f"== {page}")
        if name in ELSEWHERE:
            say(f"  (its commands: {ELSEWHERE[name]})")
            continue
        if name in GIVEN:
            paste(GIVEN[name])
        for block in blocks:
            for line in block.splitlines():
                command = re.sub(r" +", " ", line).strip()
                if not command or command.startswith("#"):
                    continue
                if reason_to_skip(command):
                    paste(command)
                else:
                    counts["ran" if paste(shortened(command)) else "failed"] += 1
    say("", ", ".join(f"{count} {what}" for what, count in counts.items()))
    return int(counts["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
