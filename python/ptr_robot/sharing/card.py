"""The model card: what is known of a checkpoint from its own files, and what is not.

Nothing is added that no file says; what no file says is said to be unknown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptr_fast.checkpoint import CheckpointInfo, weights_digest
from ptr_fast.errors import DataError
from ptr_fast.json_files import read_json
from ptr_fast.learners.registry import traits_of
from ptr_fast.run_folder import Choice
from ptr_robot.evaluation.metrics import METRICS, format_number
from ptr_robot.report.runs import told_conditions, told_plan, told_search
from ptr_robot.sharing.folder import place_names

__all__ = ["model_card", "read_trials"]

UNKNOWN = "unknown"
SIMULATED = ("simulated", "replay")
"""Robots of ``rollout --robot`` that are none."""


def model_card(
    info: CheckpointInfo,
    choice: Choice,
    trials: Sequence[Mapping[str, Any]],
    *,
    name: str,
    license_name: str,
    notes: str,
) -> str:
    """The card as Markdown, with the front matter that hubs read.

    Args:
        choice: how the checkpoint was chosen. trials: of :func:`read_trials`.
        name: title. license_name: as the owner states it; empty: unknown. notes: of the owner, Markdown.
    """
    traits = traits_of(info.config)
    parts = [
        _front_matter(info, license_name),
        f"# {name}",
        f"A policy of a robot, trained by ptr-fast: {traits.name}, step {info.step}. "
        f"Chosen: {choice.why}" + (f", **but it {choice.unfit}**" if choice.unfit else "") + ".",
        f"Licence: {license_name or f'{UNKNOWN}, none was stated'}.",
        notes,
        "## What it sees and commands",
        _interface(info),
        "## Trained on",
        _data(info),
        "## Held-out metrics",
        _metrics(info),
        "## Trials",
        _trials(trials),
        "## Safety",
        _safety(info, choice, trials),
        "## Use",
        _use(info),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(info: CheckpointInfo, license_name: str) -> str:
    tags = ["robotics", "offline-reinforcement-learning" if "values" in traits_of(info.config).capabilities else ""]
    lines = ["---", "library_name: ptr-fast", "pipeline_tag: robotics"]
    lines += [f"license: {json.dumps(license_name)}"] if license_name else []
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in tags if tag), "---"])


def _interface(info: CheckpointInfo) -> str:
    spec, window = info.spec, traits_of(info.config).window
    acting = info.act.mode + told_search(info.act.told()) if traits_of(info.config).modes else "it does not act"
    cameras = ", ".join(f"{c.name} ({c.height} x {c.width} pixels, RGB)" for c in spec.cameras) or "none"
    rows = [
        ("cameras", cameras),
        ("state", ", ".join(f"{n} ({u})" for n, u in zip(spec.state.names, spec.state.units, strict=True)) or "none"),
        ("tasks", ", ".join(spec.tasks.names) or "none"),
        ("decisions per second", f"{spec.control_hz:g}"),
        ("observations, actions per answer", f"{window.num_observations}, {window.num_actions}"),
        ("acts by", acting),
        ("bounds of the actions come from", spec.action.bounds_source),
        ("weights, SHA-256", f"`{weights_digest(info)}`"),
    ]
    space = spec.action
    axes = zip(space.names, space.units, space.low, space.high, strict=True)
    actions = _table(("action", "unit", "low", "high"), [(n, u, f"{a:g}", f"{b:g}") for n, u, a, b in axes])
    return _table(("what", ""), rows) + "\n\n" + actions


def _data(info: CheckpointInfo) -> str:
    run = info.run
    sources = run.get("split", {}).get("sources") or []
    if not sources:
        return f"The data are {UNKNOWN}: the checkpoint's record names no store."
    names = place_names({source["store"] for source in sources})
    rows = []
    for source in sources:
        episodes, train = source.get("episodes", {}), source["train"]
        tasks = sorted({episodes[episode]["task"] for episode in train if "task" in episodes.get(episode, {})})
        told = ", ".join(tasks) if tasks else UNKNOWN
        digest = f"`{source['fingerprint'][:16]}`" if source.get("fingerprint") else UNKNOWN
        rows.append(
            (names[source["store"]], source["role"], str(len(train)), str(len(source["validation"])), told, digest)
        )
    header = ("store", "role", "episodes", "held out", "tasks trained on", "fingerprint")
    parts = [_table(header, rows)]
    mix = run.get("split", {}).get("mix")
    if len(rows) > 1 and mix is not None:
        critic = run.get("config", {}).get("critic_mix")
        of_critic = "" if critic is None else f"; in the critic's loss: {critic:g}"
        parts.append(f"Share of the prior data in a batch: {mix:g}{of_critic}.")
    parent = run.get("parent")
    if parent:
        parts.append("It began from another checkpoint; its record is in `pretrained_model/train_config.json`.")
    parts.append(f"Who collected the data, under which licence, and on which robot: {UNKNOWN} to this record.")
    return "\n\n".join(parts)


def _metrics(info: CheckpointInfo) -> str:
    file = info.path.parent.parent / "evaluation" / f"{info.path.name}.json"
    if not file.is_file():
        return "None: `ptr-fast evaluate` was not run on this checkpoint."
    evaluation = read_json(file)
    if evaluation.get("weights") not in (None, weights_digest(info)):
        return "None: what `ptr-fast evaluate` wrote is of other weights."
    rows = [
        (told, format_number(evaluation["metrics"][key]), unit, meaning)
        for key, (told, unit, _, meaning) in METRICS.items()
        if key in evaluation["metrics"]
    ]
    parts = [_table(("metric", "value", "unit", "what it is"), rows)] if rows else []
    for key, told in (("diverged", "Diverged"), ("misestimated", "Misestimated")):
        parts += [f"{told}: {evaluation[key]}."] if evaluation.get(key) else []
    return "\n\n".join([*parts, "Held-out data do not tell how a robot will fare."])


def _trials(trials: Sequence[Mapping[str, Any]]) -> str:
    if not trials:
        return f"None are known: how often it succeeds is {UNKNOWN}."
    rows = []
    for trial in trials:
        low, high = trial["interval95"]
        told = f"{trial['successes']}/{trial['num_trials']}"
        rows.append((trial["where"], trial["task"], trial["mode"], told, f"{low:.0%} to {high:.0%}"))
    return _table(("where", "task", "acted by", "succeeded", "95 % interval (Wilson)"), rows)


def _safety(info: CheckpointInfo, choice: Choice, trials: Sequence[Mapping[str, Any]]) -> str:
    on_robots = sorted({str(trial["robot"]) for trial in trials if trial.get("robot")})
    told = [
        f"It was tried on: {', '.join(on_robots)}." if on_robots else "Trials on a real robot: none are known.",
        "The weights know no limits of force, speed or workspace: within the bounds above it may command anything. "
        "`ptr-fast rollout --robot` and the control loop put limits between it and an arm; other programs must do so.",
        "Nothing here says what it does with other cameras, lighting, objects, tasks or robots than those of its data.",
    ]
    if choice.unfit:
        told.insert(0, f"**Not fit to move an arm by its own record: it {choice.unfit}.**")
    if info.spec.action.bounds_source in ("data", "unfinished"):
        told.append(f"Nobody stated the bounds of its actions (they come from: {info.spec.action.bounds_source}).")
    return "\n".join(f"- {line}" for line in told)


def _use(info: CheckpointInfo) -> str:
    digest = weights_digest(info)
    return (
        f"```\nptr-fast pull OWNER/NAME --out model --weights {digest}\n"
        "ptr-fast act --checkpoint model --store STORE\n```\n\n"
        "The files are JSON and safetensors; nothing in them is run."
    )


def read_trials(files: Sequence[Path], info: CheckpointInfo, *, must_match: bool) -> list[dict[str, Any]]:
    """Results of ``rollout`` of this very checkpoint: files in a kitchen, or folders of trials on a robot.

    Args:
        must_match: one of another checkpoint is an error; else it is left out.

    Raises:
        DataError: a file is no result of rollout, or is of another checkpoint.
    """
    found = []
    for file in files:
        if file.is_dir():
            results = _on_robot(file, info)
        else:
            results = _in_a_kitchen(file, info)
        if not results and must_match:
            raise DataError(f"{file}: no trials of {info.path}")
        found += results
    return found


def _in_a_kitchen(file: Path, info: CheckpointInfo) -> list[dict[str, Any]]:
    result = read_json(file)
    try:
        own = bool(result.get("weights")) and result["weights"] == _files_digest(info)
        if not own or "steered" in result:
            return []
        return [
            {
                "where": f"toy kitchen {result['kitchen']} (simulated){told_conditions(result)}",
                "mode": result["mode"] + told_search(result) + told_plan(result),
                **{key: result[key] for key in ("task", "successes", "num_trials", "interval95")},
            }
        ]
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}: not a result of ptr-fast rollout ({error!r})") from error


def _on_robot(folder: Path, info: CheckpointInfo) -> list[dict[str, Any]]:
    """Of the folder's ``plan.json``, which knows the checkpoints, and ``result.json``, which counts."""
    about, result = read_json(folder / "plan.json").get("about", {}), read_json(folder / "result.json")
    try:
        found: list[dict[str, Any]] = []
        for policy in about["policies"]:
            if "steered" in policy or Path(policy.get("checkpoint", "/")).resolve() != info.path.resolve():
                continue
            counted = result["policies"][policy["label"]]
            if not counted["judged"]:
                continue
            told = {
                "task": about["task"],
                "mode": policy["mode"] + told_search(policy),
                "interval95": counted["interval95"],
            }
            told |= {"successes": counted["successes"], "num_trials": counted["judged"]}
            real = about["robot"] not in SIMULATED and not about["dry_run"]
            found.append({"where": f"robot {about['robot']}", **told, "robot": about["robot"] if real else None})
        return found
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder}: not a result of ptr-fast rollout --robot ({error!r})") from error


def _files_digest(info: CheckpointInfo) -> str:
    return hashlib.sha256((info.path / "files.json").read_bytes()).hexdigest()[:16]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)
