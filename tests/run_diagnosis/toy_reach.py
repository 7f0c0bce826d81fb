"""A hand on a table that goes to a goal, as people do (several ways, pauses, failures) or a machine; and tiny runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ptr_fast.data.store import Episode, EpisodeStore, StoreMeta, StoreWriter
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec
from ptr_robot.cli import main as cli

STEP = 0.1
"""Largest move of a step; the table is 1 wide."""


def write(path: Path, episodes: list[Episode]) -> Path:
    """A store of them, with one camera of a few dark pixels that nobody looks at."""
    meta = StoreMeta(
        cameras=(CameraSpec(name="camera", height=8, width=8, encoding="raw"),),
        action=ActionSpec(names=("dx", "dy"), units=("m", "m"), low=(-STEP, -STEP), high=(STEP, STEP)),
        state=StateSpec(names=("x", "y", "goal_x", "goal_y"), units=("m",) * 4),
        control_hz=5.0,
    )
    with StoreWriter.create(path, meta) as writer:
        for episode in episodes:
            writer.add(episode)
    assert EpisodeStore.open(path).num_episodes == len(episodes)
    return path


def people(count: int, seed: int = 0, speed: tuple[float, float] = (0.35, 1.0), fails: float = 0.2) -> list[Episode]:
    """Episodes at different speeds, with a detour to either side, pauses and tremor; some of them miss the goal."""
    return [_person(f"{seed}_{i:03d}", np.random.default_rng((seed, i)), speed, fails) for i in range(count)]


def machine(count: int, seed: int = 0, speed: float = 0.8) -> list[Episode]:
    """Straight and at one speed, from the left to the right."""
    rngs = [np.random.default_rng((seed, i)) for i in range(count)]
    return [_episode(f"{seed}_{i:03d}", rng, speed, 0.0, False, False) for i, rng in enumerate(rngs)]


def away(count: int, seed: int = 0) -> list[Episode]:
    """The other way: from the goal back to where the hand was, which no critic of :func:`people` has seen."""
    forth = people(count, seed, fails=0.0)
    return [replace(e, task="go away", states=e.states[::-1], actions=-e.actions[::-1]) for e in forth]


def _person(name: str, rng: np.random.Generator, speed: tuple[float, float], fails: float) -> Episode:
    return _episode(name, rng, rng.uniform(*speed), rng.choice([-0.25, 0.25]), True, rng.random() < fails)


def _episode(
    name: str, rng: np.random.Generator, speed: float, detour: float, is_human: bool, is_failure: bool
) -> Episode:
    hand, goal = np.array([0.1, rng.uniform(0.4, 0.6) if is_human else 0.5]), np.array([0.9, rng.uniform(0.3, 0.7)])
    aim = goal + rng.choice([-0.25, 0.25], 2) if is_failure else goal
    states, actions, via = [np.concatenate([hand, goal])], [], np.array([0.5, 0.5 + detour])
    while len(actions) < 80 and np.linalg.norm(hand - aim) > 0.5 * STEP:
        towards = via if detour and hand[0] < 0.45 else aim
        gap = towards - hand
        move = gap / max(np.linalg.norm(gap), 1e-9) * min(speed * STEP, np.linalg.norm(gap))
        if is_human:
            move = np.zeros(2) if rng.random() < 0.15 else move + rng.normal(scale=0.05 * STEP, size=2)
        move = np.clip(move, -STEP, STEP)
        hand = hand + move
        actions.append(move)
        states.append(np.concatenate([hand, goal]))
    frames = np.zeros((len(states), 8, 8, 3), np.uint8)
    return Episode(
        episode_id=name,
        task="reach",
        states=np.array(states, np.float32),
        actions=np.array(actions, np.float32),
        frames={"camera": frames},
        outcome="failure" if is_failure else "success",
        split="",
        kind="human" if is_human else "expert",
    )


LOOP = ["--batch-size", "32", "--log-every", "10", "--checkpoint-every", "10000", "--evaluate-every", "25"]
LOOP += ["--num-threads", "1", "--data.validation-share", "0.2", "--keep-best", "0"]
NETS = ["--learner.encoder.name", "none", "--learner.hidden-dims", "32", "32"]
CRITIC = ["--learner.critic-head", "plain", "--learner.critic-lr", "3e-3", "--learner.actor-lr", "3e-3"]
CRITIC += ["--learner.temperature-lr", "3e-3", "--learner.lr-schedule", "cosine", "--learner.num-action-samples", "2"]


def train(store: Path, out: Path, num_steps: int, *more: str, recipe: str = "smoke") -> Path:
    """A run of a few seconds."""
    words = ["pretrain", recipe, "--data.stores", store, "--out", out, "--num-steps", num_steps, *LOOP, *NETS]
    words += [*(CRITIC if recipe == "smoke" else []), *more]
    code = cli([str(word) for word in words])
    assert code == 0, code
    return out
