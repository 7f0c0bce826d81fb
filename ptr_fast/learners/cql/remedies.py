"""What to change where conservative Q-learning ran away, by what was seen.

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

from collections.abc import Iterator, Mapping

from ptr_fast.config import RewardConfig
from ptr_fast.diagnostics import value_range
from ptr_fast.learners.cql.config import CqlConfig
from ptr_fast.learners.divergence import EARLIER, SPENT, Divergence, Remedy, of_broken_numbers, of_rewards

__all__ = ["remedies"]

HELD_ALPHA = 1.0
"""Weight of the conservative term at which Q left the range on neither side, with an entropy target that does not drive
the temperature up."""
RISEN = 1.5
"""A temperature so many times its initial value has been driven up."""


def remedies(
    found: Divergence,
    numbers: Mapping[str, float],
    rate: float,
    rewards: RewardConfig,
    config: CqlConfig,
    action_dim: int,
) -> list[Remedy]:
    """What to change, the most likely first; see :attr:`ptr_fast.learners.registry.LearnerKind.remedies`."""
    others = list(of_rewards(numbers, rewards, config.discount))
    if found.kind == "not_finite":
        own = [name for name in ("actor", "temperature") if found.name.startswith(f"{name}/")]
        names = [f"{name}_lr" for name in own or ["actor", "critic"]]
        return [of_broken_numbers(found, rate, config, names), *others]
    target_entropy = -float(action_dim) if config.target_entropy is None else config.target_entropy
    low = found.kind == "too_low"
    cause = _of_sunken_q(numbers, config, target_entropy, action_dim) if low else _of_risen_q(numbers, config)
    rates = list(_of_rates(rate, config))
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


def _of_rates(rate: float, config: CqlConfig) -> Iterator[Remedy]:
    if rate <= SPENT:
        yield Remedy(seen="the learning rates have decayed to zero, so it went wrong before", action=EARLIER)
        return
    seen = f"critic_lr is {rate * config.critic_lr:.3g} at this step"
    yield Remedy(seen=seen, settings=(("learner.critic_lr", config.critic_lr / 5),))
