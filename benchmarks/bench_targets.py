"""How fast the value of success reaches the start of a demonstration: targets of one step, of five, and with a bound.

    python -m benchmarks.bench_targets [--updates 4000] [--episodes 24]

Records expert demonstrations and failures in a toy kitchen, with the places of object and container in the state, and
trains the product's learner on the states alone (discount 0.96, tau 0.005, ``cql_alpha`` 1), one core, a minute or two.
The failures bear the name of a task of their own, so that the critic can tell them apart from the first step on: what
is measured is how far the value has come, not what can be seen. A row holds, every 500 updates, the averaged critic's
value at the first steps of the demonstrations minus that of the failures, beside what
:mod:`ptr_fast.value_reach` predicts for demonstrations of their median length (without the bound).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.harness import environment, record
from ptr_fast.config import CqlConfig, EncoderConfig, PolicySpec, RewardConfig, TaskTable
from ptr_fast.data.loader import Loader
from ptr_fast.data.rewards import observed_returns
from ptr_fast.data.sampler import MixtureSampler
from ptr_fast.data.store import Episode, EpisodeStore, StoreMeta, StoreWriter
from ptr_fast.data.transitions import Transitions
from ptr_fast.learners import CqlLearner
from ptr_fast.learners.registry import traits_of
from ptr_fast.types import StateSpec
from ptr_fast.value_reach import learned_gap, success_gap

TASK, FAILURES = "put block on plate", "put block on plate: failures"
BATCH_SIZE, LOOK_EVERY = 64, 500
CONFIG = CqlConfig(
    encoder=EncoderConfig(name="none"),
    critic_head="reinject_action",
    hidden_dims=(128, 128),
    cql_alpha=1.0,
    target_entropy=-8.0,
    actor_lr=1e-3,
    critic_lr=1e-3,
)
VARIANTS = {
    "1 step": RewardConfig(),
    "5 steps": RewardConfig(num_steps=5),
    "1 step, bound": RewardConfig(lower_bound_returns=True),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=4_000)
    parser.add_argument("--episodes", type=int, default=24, help="demonstrations, and as many failures")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = collect(Path(folder) / "store", args.episodes, args.seed)
        for name, rewards in VARIANTS.items():
            record(train(name, rewards, store, args.updates, args.seed))
    return 0


def collect(path: Path, num_episodes: int, seed: int) -> EpisodeStore:
    """Demonstrations and as many failures, with states of the hand, the object and the container."""
    from ptr_robot.sim.environment import STATE_SPEC, make_environment

    env = make_environment(TASK, "A", image_size=16)
    places = ("item_x", "item_y", "item_z", "container_x", "container_y")
    state = StateSpec(names=(*STATE_SPEC.names, *places), units=(*STATE_SPEC.units, *("m" for _ in places)))
    meta = StoreMeta(cameras=(env.camera_spec,), action=env.action_spec, state=state, control_hz=20.0)
    try:
        with StoreWriter.create(path, meta) as writer:
            for kind in ("expert-clean", "failed"):
                for episode in _episodes(env, kind, num_episodes, seed):
                    writer.add(episode)
    finally:
        env.close()
    return EpisodeStore.open(path)


def _episodes(env: Any, kind: Literal["expert-clean", "failed"], count: int, seed: int) -> Iterator[Episode]:
    """Episodes that end as their kind promises; attempts that do not are left out."""
    from ptr_robot.sim.demonstrators import make_demonstrator

    wanted, number = {"expert-clean": True, "failed": False}[kind], 0
    while count:
        number += 1
        image, _ = env.reset(seed=seed + number)
        demonstrator = make_demonstrator(kind, env.world, np.random.default_rng((seed, number)))
        frames, states, actions, ended, info = [image["image"]], [_state(env)], [], False, {"success": False}
        while not ended:
            move = demonstrator.move()
            observation, _, terminated, truncated, info = env.step(move.executed)
            frames.append(observation["image"])
            states.append(_state(env))
            actions.append(move.stored)
            ended = terminated or truncated or move.is_last
        if info["success"] == wanted:
            count -= 1
            yield Episode(
                episode_id=f"{kind} {number}",
                task=TASK if wanted else FAILURES,
                states=np.stack(states),
                actions=np.stack(actions).astype(np.float32),
                frames={env.camera_spec.name: np.stack(frames)},
                outcome="success" if wanted else "failure",
                kind=kind,
            )


def _state(env: Any) -> np.ndarray:
    world = env.world
    places = [*world.item_position(), *world.container_position()[:2]]
    return np.concatenate([world.state(), np.asarray(places, np.float32)])


def train(name: str, rewards: RewardConfig, store: EpisodeStore, num_updates: int, seed: int) -> dict[str, Any]:
    """One run; its row."""
    meta, tasks = store.meta, TaskTable(names=(TASK, FAILURES), num_slots=2)
    spec = PolicySpec(
        cameras=meta.cameras, state=meta.state, action=meta.action, tasks=tasks, control_hz=meta.control_hz
    )
    table = Transitions(store, task_table=tasks, action=meta.action, rewards=rewards, discount=CONFIG.discount)
    learner = CqlLearner(CONFIG, spec, seed)
    columns = traits_of(CONFIG).columns | ({"returns"} if rewards.lower_bound_returns else set())
    num_steps = store.episodes.num_steps
    begins = np.cumsum(num_steps) - num_steps
    is_success = np.array([outcome == "success" for outcome in store.episodes.outcome])
    median = int(np.quantile(num_steps[is_success], 0.5, method="inverted_cdf"))
    curves: dict[str, list[float]] = {"step": [], "gap": [], "predicted gap": [], "value of success": []}
    begun = time.perf_counter()
    sampler = MixtureSampler([[len(table)]], 1.0, BATCH_SIZE, seed)
    with Loader([table], [{}], sampler, columns=columns) as loader:
        for step in range(num_updates):
            learner.update(loader.batch(step), step)
            done = step + 1
            if done % LOOK_EVERY == 0 or done == num_updates:
                success, failure = (_value(learner, table, begins[mask]) for mask in (is_success, ~is_success))
                predicted = learned_gap(done, median, rewards, CONFIG.discount, CONFIG.tau)
                for key, number in zip(curves, (done, success - failure, predicted, success), strict=True):
                    curves[key].append(round(number, 3))
    lengths = num_steps[is_success].astype(np.int64)
    returns = observed_returns(lengths, rewards, CONFIG.discount)[np.cumsum(lengths) - lengths]
    return {
        "name": "targets",
        "case": name,
        "updates": num_updates,
        "median length": median,
        "final gap": round(success_gap(median, rewards, CONFIG.discount)[0], 2),
        "gap at the start": curves["gap"][-1],
        **({} if rewards.lower_bound_returns else {"predicted": curves["predicted gap"][-1]}),
        "value of success": curves["value of success"][-1],
        "return of success": round(float(returns.mean()), 2),
        "seconds": round(time.perf_counter() - begun, 1),
        "curves": curves,
        "environment": environment(),
    }


@torch.no_grad()
def _value(learner: CqlLearner, table: Transitions, rows: np.ndarray) -> float:
    """Mean over recorded steps of the smallest averaged critic at the recorded action."""
    state, task_id = torch.from_numpy(table.state[table.record[rows]]), torch.from_numpy(table.task_id[rows])
    actions = torch.from_numpy(table.actions[rows])[:, None]
    critic = learner.target_critic
    hoisted = critic.head.hoist(critic.encoder({}, len(rows)), state, task_id)
    return float(critic.head.q(hoisted, actions).amin(dim=0).mean())


if __name__ == "__main__":
    raise SystemExit(main())
