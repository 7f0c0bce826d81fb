"""From a checkpoint's nets and one recorded episode to its curves: Q, V, advantage, Bellman error, action error.

Every frame is encoded once per network, however many actions are asked about.

Shapes: F frames and T steps of one episode, E critics, K sampled actions, C candidate actions, A action, S state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import nn

from ptr_fast.config import ActConfig, LearnerConfig, PolicySpec
from ptr_fast.diagnostics import AT_BOUNDS, EpisodeValues, monte_carlo_returns
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.registry import acts_of, encodes_of, traits_of, values_of
from ptr_fast.losses import bellman_errors, td_target
from ptr_fast.nets.init import keyed_generator
from ptr_fast.runtime.preprocess import to_unit

__all__ = ["RecordedEpisode", "actions_on_episode", "embedded_episode", "value_episode"]

CHUNK = 128
"""Frames encoded at once; bounds the memory of a long episode."""


@dataclass(frozen=True, kw_only=True)
class RecordedEpisode:
    """One episode as the learner sees it.

    Attributes:
        name: keys the sampled actions, together with the seed.
        outcome: ``success``, ``failure`` or ``unknown``.
        frames: by camera name uint8 ``[F, H, W, 3]`` at the camera size of the nets.
        states: float32 ``[F, S]``, raw units.
        task_id: slot in the task table.
        index, next_index: int64 ``[T]``, the frames of s_t and s_{t+1}.
        actions: float32 ``[T, A]``, scaled.
        rewards, masks: float32 ``[T]``.
    """

    name: str
    outcome: str
    frames: Mapping[str, np.ndarray]
    states: np.ndarray
    task_id: int
    index: np.ndarray
    next_index: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    masks: np.ndarray


@torch.inference_mode()
def value_episode(
    config: LearnerConfig,
    networks: Mapping[str, nn.Module],
    episode: RecordedEpisode,
    spec: PolicySpec,
    *,
    averaged: bool = False,
    seed: int = 0,
) -> EpisodeValues:
    """The curves of one episode.

    Args:
        config: of a learner that acts; its traits say whether there are Q curves, their discount, and K, the number of
            policy and, as many, uniform actions per state.
        networks: those that act and those that value (a :class:`~ptr_fast.runtime.policy.Policy` and a learner both
            have them). Not changed.
        spec: of the policy.
        averaged: value, advantage, action error and log-probability come from the averaged networks (those that act
            in the modes ``ema_mean`` and ``search``) instead of the online ones. The Bellman error is always the
            learner's: online critics against the averaged ones, next actions from the online actor.
        seed: of the sampled actions, with the episode's name; the numbers do not depend on the device.
    """
    chunks = [
        _value_frames(config, networks, episode, spec, slice(i, i + CHUNK), averaged, seed)
        for i in range(0, len(episode.states), CHUNK)
    ]
    curves = {key: torch.cat([chunk[key] for chunk in chunks], dim=-1) for key in chunks[0]}
    index, next_index = torch.as_tensor(episode.index), torch.as_tensor(episode.next_index)
    values: dict[str, np.ndarray] = {
        "rewards": episode.rewards,
        "masks": episode.masks,
        **{name: curves[name][index].numpy() for name in ("action_error", "at_bounds", "recorded_at_bounds")},
    }
    if "log_prob" in curves:
        values["log_prob"] = curves["log_prob"][index].numpy()
    discount = traits_of(config).discount
    if discount is not None:
        q_ET, q_averaged_ET = curves["q"][:, index], curves["q_averaged"][:, index]
        value_T, q_T, q_averaged_T = curves["value"][index], q_ET.amin(dim=0), q_averaged_ET.amin(dim=0)
        next_q_ETK = curves["next_q"][:, :, next_index].transpose(1, 2)
        target_T = td_target(next_q_ETK, torch.as_tensor(episode.rewards), torch.as_tensor(episode.masks), discount)
        values |= {
            "returns": monte_carlo_returns(episode.rewards, episode.masks, discount).astype(np.float32),
            "q": q_T.numpy(),
            "q_averaged": q_averaged_T.numpy(),
            "value": value_T.numpy(),
            "advantage": ((q_averaged_T if averaged else q_T) - value_T).numpy(),
            "q_policy": curves["q_policy"][index].numpy(),
            "q_random": curves["q_random"][index].numpy(),
            "preference": curves["preference"][index].numpy(),
            "td_target": target_T.numpy(),
            "bellman_error": bellman_errors(q_ET, target_T).mean(dim=0).numpy(),
        }
    missing = {field.name for field in fields(EpisodeValues)} - {"outcome", *values}
    return EpisodeValues(outcome=episode.outcome, **values, **dict.fromkeys(missing, np.empty(0, np.float32)))


def _value_frames(
    config: LearnerConfig,
    networks: Mapping[str, nn.Module],
    episode: RecordedEpisode,
    spec: PolicySpec,
    frames: slice,
    averaged: bool,
    seed: int,
) -> dict[str, torch.Tensor]:
    """Per-frame results on the CPU: ``[F]``; ``q`` and ``q_averaged`` ``[E, F]``; ``next_q`` ``[E, K, F]``."""
    traits, acts = traits_of(config), acts_of(config)
    device = next(parameter.device for network in networks.values() for parameter in network.parameters())
    inputs = _inputs(episode, frames, traits.window.num_observations, device)
    num_frames = len(inputs.state)
    # The recorded action of every frame; frames without one get zeros and are never read.
    recorded = np.zeros((len(episode.states), episode.actions.shape[1]), np.float32)
    recorded[episode.index] = episode.actions
    action_FA = torch.as_tensor(recorded[frames]).to(device)

    online = acts.distribution(networks, inputs)
    acting = acts.distribution(networks, inputs, averaged=True) if averaged else online
    generator = keyed_generator(seed, "valuation", episode.name, frames.start)
    if acting is None:
        mean_FA = _acted(config, networks, inputs, spec, averaged, generator)
    else:
        mean_FA = acting.mode()
    out = {
        "action_error": (mean_FA - action_FA).square().mean(dim=1),
        "at_bounds": (mean_FA.abs() > AT_BOUNDS).float().mean(dim=1),
        "recorded_at_bounds": (action_FA.abs() > AT_BOUNDS).float().mean(dim=1),
    }
    if acting is not None:
        out["log_prob"] = acting.log_prob(action_FA)
    if "values" in traits.capabilities:
        if online is None:
            raise ValueError(f"{traits.name} values actions and has no law to sample them from")
        values, num_samples = values_of(config), traits.num_value_samples
        shape = (num_frames, num_samples, action_FA.shape[1])
        noise_shape = (num_frames, num_samples, online.noise_dim)
        policy_FKA = online.sample(torch.randn(noise_shape, generator=generator).to(device))
        random_FKA = torch.rand(shape, generator=generator).mul_(2.0).sub_(1.0).to(device)
        candidates_FCA = torch.cat([action_FA[:, None], mean_FA[:, None], policy_FKA, random_FKA], dim=1)
        q_EFC = values.q(networks, inputs, candidates_FCA)
        target_EFC = values.q(networks, inputs, candidates_FCA, averaged=True)
        least_FC, target_FC = q_EFC.amin(dim=0), target_EFC.amin(dim=0)
        policy, random = slice(2, 2 + num_samples), slice(2 + num_samples, None)
        acting_FC = target_FC if averaged else least_FC
        out |= {
            "q": q_EFC[..., 0],
            "q_averaged": target_EFC[..., 0],
            "value": acting_FC[:, 1],
            "q_policy": least_FC[:, policy].mean(dim=1),
            "q_random": least_FC[:, random].mean(dim=1),
            "preference": (acting_FC[:, :1] > acting_FC[:, random]).float().mean(dim=1),
            "next_q": target_EFC[..., policy].transpose(1, 2),
        }
    return {key: value.float().cpu() for key, value in out.items()}


def _inputs(episode: RecordedEpisode, frames: slice, num_observations: int, device: torch.device) -> Inputs:
    """What a policy sees at some frames of an episode."""
    numbers = np.arange(len(episode.states))[frames]
    past = np.arange(1 - num_observations, 1)
    seen_FT = np.maximum(numbers[:, None] + past, 0)  # before its first step an episode repeats the first observation
    return Inputs(
        {camera: to_unit(torch.as_tensor(all_[seen_FT.ravel()]).to(device)) for camera, all_ in episode.frames.items()},
        torch.as_tensor(episode.states[seen_FT]).to(device),
        torch.full((len(numbers),), episode.task_id, dtype=torch.int64, device=device),
    )


@torch.inference_mode()
def actions_on_episode(
    config: LearnerConfig,
    networks: Mapping[str, nn.Module],
    episode: RecordedEpisode,
    spec: PolicySpec,
    act: ActConfig,
    seed: int = 0,
) -> np.ndarray:
    """What a policy would do at every frame of an episode: scaled, the first of a chunk, float32 ``[F, A]``.

    Args:
        act: how it acts.
        seed: of the noise that this takes, with the episode's name.
    """
    acts, num_observations = acts_of(config), traits_of(config).window.num_observations
    module, shape = acts.acting_module(networks, act, spec), acts.noise_shape(act, spec)
    device = next(parameter.device for network in networks.values() for parameter in network.parameters())
    parts = []
    for first in range(0, len(episode.states), CHUNK):
        inputs = _inputs(episode, slice(first, first + CHUNK), num_observations, device)
        noise = []
        if shape is not None:
            generator = keyed_generator(seed, "actions", episode.name, first)
            noise = [torch.randn((len(inputs.state), *shape), generator=generator).to(device)]
        parts.append(module(*inputs, *noise)[:, 0])
    return torch.cat(parts).float().cpu().numpy()


@torch.inference_mode()
def embedded_episode(config: LearnerConfig, networks: Mapping[str, nn.Module], episode: RecordedEpisode) -> np.ndarray:
    """The embedding of every frame of an episode, float32 ``[F, D]``; D is 0 where the learner embeds no images."""
    if "encodes" not in traits_of(config).capabilities:
        return np.zeros((len(episode.states), 0), np.float32)
    encodes, parts = encodes_of(config), []
    device = next(encodes.encoder_of(networks).parameters()).device
    for first in range(0, len(episode.states), CHUNK):
        frames = {name: torch.as_tensor(all_[first : first + CHUNK]) for name, all_ in episode.frames.items()}
        parts.append(encodes.embed(networks, {name: to_unit(chunk.to(device)) for name, chunk in frames.items()}))
    return torch.cat(parts).float().cpu().numpy()


def _acted(
    config: LearnerConfig,
    networks: Mapping[str, nn.Module],
    inputs: Inputs,
    spec: PolicySpec,
    averaged: bool,
    generator: torch.Generator,
) -> torch.Tensor:
    """The present action ``[F, A]`` of a policy that has no law: what it does in its first mode of that kind."""
    traits, acts = traits_of(config), acts_of(config)
    mode = next((mode for mode in traits.modes if (mode != "mean") == averaged), traits.modes[0])
    act = ActConfig(mode=mode)
    shape = acts.noise_shape(act, spec)
    noise = [] if shape is None else [torch.randn((len(inputs.state), *shape), generator=generator)]
    noise = [each.to(inputs.state.device) for each in noise]
    return acts.acting_module(networks, act, spec)(*inputs, *noise)[:, 0]
