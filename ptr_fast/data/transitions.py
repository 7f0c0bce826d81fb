"""The training steps of a store as flat columns: which record, which next record, action, reward, mask, task."""

from __future__ import annotations

import numpy as np

from ptr_fast.config import RewardConfig, TaskTable
from ptr_fast.data.rewards import look_ahead, observed_returns, steps_to_end
from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_fast.types import ActionSpec

__all__ = ["Transitions"]


class Transitions:
    """All training steps of the chosen episodes, episode by episode, in time order.

    With ``rewards.num_steps`` above 1 rewards, masks and next records are those of several steps (note "Targets further
    ahead" in :mod:`ptr_fast.data.rewards`).

    A last step whose next frame was not recorded names its own record as the next one; its mask is 0. In a failed
    episode such a step would bootstrap from itself, so it is left out.

    Args:
        store: open store.
        task_table: slot of every task name.
        action: scaling of the actions (a checkpoint's own one when fine-tuning).
        rewards: reward values, and how far ahead targets look.
        discount: of the learner's Q values; None: it has none.
        episodes: int ``[n]``, distinct episode numbers; None means all.

    Attributes:
        record, next_record: int64 ``[N]``, records in the store.
        first_record, last_record: int64 ``[N]``, of the first and of the last action of the same episode.
        rewards, masks: float32 ``[N]``.
        returns: float32 ``[N]``, observed from the transition on, or -inf; None without a discount.
        critic_weight: float32 ``[N]`` of the batch's column, from whoever mixes several tables; None: nobody said.
        task_id, episode: int64 ``[N]``.
        state: float32 ``[num_records, S]``, the whole column of the store (raw units, not copied): index it by record.
        action: float32 ``[num_records, A]``, scaled to [-clip, clip]: index it by record.

    Raises:
        DataError: no episode or no step, or an action or state that is not finite; names episode and step.
        ValueError: unknown task or episode number, an action space of another kind than the store's, or rewards that
            need a discount and get none.
    """

    def __init__(
        self,
        store: EpisodeStore,
        *,
        task_table: TaskTable,
        action: ActionSpec,
        rewards: RewardConfig,
        discount: float | None = None,
        episodes: np.ndarray | None = None,
    ) -> None:
        self.store = store
        if discount is None and (rewards.num_steps > 1 or rewards.lower_bound_returns):
            raise ValueError("rewards.num_steps above 1 and rewards.lower_bound_returns need the discount of a learner")
        if (action.names, action.units) != (store.meta.action.names, store.meta.action.units):
            raise ValueError(
                f"{store.path}: the action space differs: the store has {store.meta.action.names} in "
                f"{store.meta.action.units}, expected {action.names} in {action.units}"
            )
        chosen = _chosen(store, episodes)
        table = store.episodes
        num_steps, num_frames = table.num_steps[chosen].astype(np.int64), table.num_frames[chosen].astype(np.int64)
        outcome = np.asarray(table.outcome, dtype=object)[chosen]
        is_failure = np.asarray(outcome == "failure", bool)

        left = steps_to_end(num_steps)
        step = np.repeat(num_steps, num_steps) - 1 - left
        first = np.repeat(table.first[chosen], num_steps)
        record, last_observation = first + step, first + np.repeat(num_frames, num_steps) - 1
        is_blind = num_frames == num_steps
        keep = ~((left == 0) & np.repeat(is_blind & is_failure, num_steps))
        gamma = 1.0 if discount is None else discount  # of one step nothing depends on it
        rewards_ahead, masks_ahead, ahead = look_ahead(num_steps, rewards, gamma, is_failure, is_blind)

        self.state = store.state
        self.record = record[keep]
        self.next_record = np.minimum(record + ahead, last_observation)[keep]
        self.returns: np.ndarray | None = None
        self.critic_weight: np.ndarray | None = None
        if discount is not None:
            self.returns = observed_returns(num_steps, rewards, gamma, is_failure)[keep]
        self.first_record, self.last_record = (record - step)[keep], (record + left)[keep]
        self.rewards, self.masks = rewards_ahead[keep], masks_ahead[keep]
        self.episode = np.repeat(chosen, num_steps)[keep]
        slots = {task: task_table.slot(task) for task in dict.fromkeys(table.task[e] for e in chosen)}
        self.task_id = np.repeat(np.asarray([slots[table.task[e]] for e in chosen], np.int64), num_steps)[keep]
        if len(self.record) == 0:
            raise DataError(f"{store.path}: {len(chosen)} episodes chosen, but they hold no usable step")
        self._require_finite(store.action[self.record], self.record, "action")
        self._require_finite(self.state[self.record], self.record, "state")
        self._require_finite(self.state[self.next_record], self.next_record, "state")
        self.action = action.scale(store.action)

    def __len__(self) -> int:
        return len(self.record)

    @property
    def actions(self) -> np.ndarray:
        """float32 ``[N, A]``, scaled: the action of every transition."""
        return self.action[self.record]

    def _require_finite(self, values: np.ndarray, records: np.ndarray, what: str) -> None:
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            row = int(np.argmax(bad))
            episode = int(self.episode[row])
            step = int(records[row] - self.store.episodes.first[episode])
            raise DataError(
                f"{self.store.path}: episode {self.store.episodes.episode_id[episode]!r}, step {step}, {what}: "
                f"expected finite numbers, got {values[row].tolist()}"
            )


def _chosen(store: EpisodeStore, episodes: np.ndarray | None) -> np.ndarray:
    chosen = np.arange(store.num_episodes) if episodes is None else np.asarray(episodes, np.int64).reshape(-1)
    if len(chosen) == 0:
        raise DataError(f"{store.path}: no episode to train on (the store has {store.num_episodes})")
    if chosen.min() < 0 or chosen.max() >= store.num_episodes:
        raise ValueError(f"{store.path}: episodes must lie in 0..{store.num_episodes - 1}, got {chosen.tolist()}")
    if len(np.unique(chosen)) != len(chosen):
        raise ValueError(f"{store.path}: an episode is named twice in {chosen.tolist()}")
    return chosen
