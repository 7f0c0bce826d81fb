"""Training that runs away: how it is noticed, and what to change, by what was seen.

Note "Why Q leaves the range". The target is r + discount * Q(s', best of the actor's samples). The conservative term
makes the recorded actions a ridge of Q that grows steeper with every update. An actor that is held at a fixed entropy
keeps its spread on that ridge, by a temperature that grows with the steepness; its samples lie two to four temperatures
below the recorded action, and even the best of them about one: that is lost on every step back along an episode, and
Q sinks below any possible return. Where nothing presses (``cql_alpha`` 0) the actor finds actions that the critic errs
about, and Q climbs. The numbers of one update tell these apart: Q of the policy's actions beside Q of the recorded
ones, and the temperature.

What is advised is what helped where it was measured (benchmarks/NOTES.md, "Why the recipe of the toy kitchens left the
range of returns"): a tenth of ``cql_alpha`` and twice the entropy target together kept Q in the range, and each alone
put the alarm off; a fifth of the critic's rate put it off, a tenth of the actor's brought it forward.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ptr_fast.checkpoint import list_checkpoints
from ptr_fast.config import CqlConfig, LearnerConfig, RewardConfig
from ptr_fast.diagnostics import value_range
from ptr_fast.learners.base import scheduled_lr

__all__ = ["Divergence", "Remedy", "find_divergence", "last_sound_checkpoint", "remedies"]

SLACK = 0.5
"""How far the mean Q of recorded actions may leave the range of possible returns, in widths of that range."""
LARGE_RETURN = 500.0
"""Returns beyond this make squared errors that learning rates of 1e-4 to 1e-3 do not stand."""
HELD_ALPHA = 1.0
"""Weight of the conservative term at which Q left the range on neither side, with an entropy target that does not drive
the temperature up."""
RISEN = 1.5
"""A temperature so many times its initial value has been driven up."""
SPENT = 1e-3
"""Share of its beginning below which a decayed learning rate changes nothing any more."""


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """What was seen of a run that has diverged.

    Attributes:
        kind: a number of the update is ``not_finite``, or the mean Q of recorded actions is ``too_low`` or
            ``too_high``.
        name: the number that says so, as in ``metrics.jsonl``; empty: it was seen by another process of the run.
        reason: in words.
    """

    kind: Literal["not_finite", "too_low", "too_high"]
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """Something to change, and what was seen that speaks for it.

    Attributes:
        seen: a sentence without its full stop.
        settings: (dotted name in the run's configuration, new value); empty where there is nothing to set.
        action: what to do beside or instead of settings; may be empty.
    """

    seen: str
    settings: tuple[tuple[str, float | str], ...] = ()
    action: str = ""

    def options(self) -> list[str]:
        """The settings as words of a command."""
        return [word for name, value in self.settings for word in (f"--{name.replace('_', '-')}", _text(value))]

    def __str__(self) -> str:
        words = self.options()
        options = [f"{name} {value}" for name, value in zip(words[::2], words[1::2], strict=True)]
        todo = ", ".join([*options, *([self.action] if self.action else [])])
        return f"{self.seen}: {todo}" if todo else self.seen


def find_divergence(numbers: Mapping[str, float], rewards: RewardConfig, config: LearnerConfig) -> Divergence | None:
    """Whether a run has diverged, by the numbers of one update.

    The value of recorded actions lies between the smallest and the largest return there can be; half of that width is
    slack. Values of random actions may be far lower: the regulariser pushes them down.
    """
    for name, value in numbers.items():
        if not math.isfinite(value):
            return Divergence(kind="not_finite", name=name, reason=f"{name} is {value}")
    if not isinstance(config, CqlConfig):
        return None
    value, (low, high) = numbers["q/data"], value_range(rewards, config.discount)
    slack = SLACK * (high - low)
    if low - slack <= value <= high + slack:
        return None
    reason = f"mean Q of recorded actions {value:.3g} is outside [{low:.3g}, {high:.3g}] by more than {slack:.3g}"
    return Divergence(kind="too_low" if value < low else "too_high", name="q/data", reason=reason)


def remedies(
    found: Divergence,
    numbers: Mapping[str, float],
    step: int,
    rewards: RewardConfig,
    config: LearnerConfig,
    action_dim: int,
    precision: str,
) -> list[Remedy]:
    """What to change, the most likely first.

    Args:
        found: what the alarm saw.
        numbers: of the update after which it rang.
        step: updates done then.
        rewards, config, action_dim, precision: of the run.
    """
    rate = float(scheduled_lr(1.0, config.lr_schedule, config.lr_schedule_steps, step))
    if found.kind == "not_finite":
        return [*_of_broken_numbers(found, rate, config, precision), *_of_rewards(numbers, rewards, config)]
    assert isinstance(config, CqlConfig)
    target_entropy = -float(action_dim) if config.target_entropy is None else config.target_entropy
    low = found.kind == "too_low"
    cause = _of_sunken_q(numbers, config, target_entropy, action_dim) if low else _of_risen_q(numbers, config)
    others, rates = list(_of_rewards(numbers, rewards, config)), list(_of_rates(rate, config))
    if rate > SPENT and _outran_its_bias(numbers, rewards, config):
        return [*rates, *cause, *others]
    return [*cause, *others, *rates]


def _outran_its_bias(numbers: Mapping[str, float], rewards: RewardConfig, config: CqlConfig) -> bool:
    """Whether Q is further out than what the target loses or gains, on every step back, can ever take it: that is
    1 / (1 - discount) times how far the policy's actions lie from the recorded ones. Then updates overshoot."""
    low, high = value_range(rewards, config.discount)
    outside = max(low - numbers["q/data"], numbers["q/data"] - high)
    return outside * (1 - config.discount) > abs(numbers["q/policy"] - numbers["q/data"])


def _of_sunken_q(
    numbers: Mapping[str, float], config: CqlConfig, target_entropy: float, action_dim: int
) -> Iterator[Remedy]:
    below, temperature = numbers["q/data"] - numbers["q/policy"], numbers["temperature/value"]
    is_driven = temperature > RISEN * config.init_temperature
    seen, settings = [], []
    if config.cql_alpha == 0:
        seen.append("Q sank with cql_alpha 0: there is no conservative term that could be lowered")
    elif below > 0:
        seen.append(
            f"Q sank, and the policy's own actions, which the target is made of, lie {below:.3g} below the recorded "
            f"ones: the conservative term (cql_alpha {config.cql_alpha:g}) presses them down"
        )
        if config.cql_alpha > HELD_ALPHA or not is_driven:
            settings.append(("learner.cql_alpha", config.cql_alpha / 10))
    if is_driven:
        seen.append(
            f"the temperature rose from {config.init_temperature:g} to {temperature:.3g} to widen the policy (entropy "
            f"{numbers['actor/entropy']:.3g}, target {target_entropy:g}), and a wide policy's actions are valued lower"
        )
        settings.append(("learner.target_entropy", target_entropy - action_dim))
    if seen:
        yield Remedy(seen="; ".join(seen), settings=tuple(settings))


def _of_risen_q(numbers: Mapping[str, float], config: CqlConfig) -> Iterator[Remedy]:
    above = numbers["q/policy"] - numbers["q/data"]
    if config.cql_alpha == 0:
        seen = "Q rose, and with cql_alpha 0 nothing holds down the actions that the critic errs about"
        yield Remedy(seen=seen, settings=(("learner.cql_alpha", HELD_ALPHA),))
    elif above > 0:
        seen = (
            f"Q rose, and the policy's actions are valued {above:.3g} above the recorded ones: the conservative term "
            f"(cql_alpha {config.cql_alpha:g}) is too weak"
        )
        yield Remedy(seen=seen, settings=(("learner.cql_alpha", config.cql_alpha * 5),))


def _of_broken_numbers(found: Divergence, rate: float, config: LearnerConfig, precision: str) -> Iterator[Remedy]:
    what = found.name or "a number of another process"
    if found.name.startswith("data/"):
        yield Remedy(seen=f"{what} comes from the data, not from the nets", action="look at it with ptr-fast doctor")
        return
    if rate <= SPENT:
        yield Remedy(seen=f"{what} broke although the learning rates have decayed to zero", action=_EARLIER)
    elif not isinstance(config, CqlConfig):
        yield Remedy(seen=f"{what} broke", settings=(("learner.lr", config.lr / 10),))
    else:
        own = [name for name in ("actor", "temperature") if found.name.startswith(f"{name}/")]
        names = [f"{name}_lr" for name in own or ["actor", "critic"]]
        settings = tuple((f"learner.{name}", getattr(config, name) / 10) for name in names)
        yield Remedy(seen=f"{what} broke", settings=settings)
    if precision == "bf16":
        yield Remedy(seen="the encoders compute in bfloat16", settings=(("precision", "fp32"),))


def _of_rewards(numbers: Mapping[str, float], rewards: RewardConfig, config: LearnerConfig) -> Iterator[Remedy]:
    if not isinstance(config, CqlConfig):
        return
    largest = max(map(abs, value_range(rewards, config.discount)))
    if largest > LARGE_RETURN:
        factor = 10.0 ** math.ceil(math.log10(largest / 50.0))
        settings = (("rewards.positive", rewards.positive / factor), ("rewards.negative", rewards.negative / factor))
        yield Remedy(seen=f"returns reach {largest:.4g}, and errors are squared", settings=settings)
    if numbers.get("data/mask") == 1.0 and numbers.get("data/reward") == rewards.negative:
        seen = f"no step of the last batch was rewarded (all {rewards.negative:g}) and none ends an episode"
        yield Remedy(seen=seen, action="look at the outcomes of the episodes with ptr-fast inspect")


def _of_rates(rate: float, config: CqlConfig) -> Iterator[Remedy]:
    if rate <= SPENT:
        yield Remedy(seen="the learning rates have decayed to zero, so it went wrong before", action=_EARLIER)
        return
    seen = f"critic_lr is {rate * config.critic_lr:.3g} at this step"
    yield Remedy(seen=seen, settings=(("learner.critic_lr", config.critic_lr / 5),))


_EARLIER = "lower rates would change nothing; begin at an earlier checkpoint"


def last_sound_checkpoint(run: Path, rewards: RewardConfig, config: LearnerConfig) -> Path | None:
    """The newest checkpoint from before Q of the data left the range of possible returns for good, by the run's log.

    It leaves long before the alarm rings, so the newest checkpoint of all is often no place to begin at. The row of
    step n was computed with the weights from before update n, so only a later row vouches for checkpoint n. None:
    there is none so early, or the run keeps no log.
    """
    limits = value_range(rewards, config.discount) if isinstance(config, CqlConfig) else None
    sound = 0
    for row in _log(run / "metrics.jsonl"):
        is_sound = all(isinstance(value, int | float) and math.isfinite(value) for value in row.values())
        if limits is not None:
            is_sound = is_sound and limits[0] <= row.get("q/data", math.nan) <= limits[1]
        sound = row["step"] if is_sound else sound
    found = [path for path in list_checkpoints(run) if int(path.name) < sound]
    return found[-1] if found else None


def _log(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return  # cut short by a kill


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
