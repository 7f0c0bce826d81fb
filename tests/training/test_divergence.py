"""The divergence alarm: what it sees, and advice that follows from that."""

import json
import math
from dataclasses import replace

import pytest

from ptr_fast.config import BcConfig, CqlConfig, RewardConfig
from ptr_fast.diagnostics import ALARM_SLACK
from ptr_fast.learners.divergence import Divergence, reported_divergence
from ptr_robot.training.divergence import last_sound_checkpoint, remedies

CQL = CqlConfig(lr_schedule="cosine", lr_schedule_steps=12_000)
SUNK = {  # recipe `sim`, seed 1, update 7300
    "q/data": -44.0,
    "q/policy": -52.0,
    "q/target": -47.0,
    "temperature/value": 3.8,
    "actor/entropy": -4.6,
    "data/mask": 0.9,
    "data/reward": 0.1,
}
RISEN = SUNK | {"q/data": 40.0, "q/policy": 41.0, "q/target": 40.5, "temperature/value": 0.2}


def advice(numbers, config=CQL, step=7300, rewards=RewardConfig(), precision="fp32", found=None):
    found = found or reported_divergence(numbers, rewards, config, ALARM_SLACK)
    return remedies(found, numbers, step, rewards, config, 4, precision)


def settings(*args, **kwargs) -> dict[str, float]:
    return {name: value for remedy in advice(*args, **kwargs) for name, value in remedy.settings}


@pytest.mark.parametrize(("value", "kind"), [(-42.0, None), (-44.0, "too_low"), (28.0, "too_high"), (27.0, None)])
def test_the_side_that_q_left_is_seen(value, kind):
    found = reported_divergence({"q/data": value, "q/random": -500.0}, RewardConfig(), CQL, ALARM_SLACK)
    assert (found and found.kind) == kind
    assert found is None or f"{value:g} is outside [-25, 10]" in found.reason


def test_a_number_that_is_not_finite_is_named_whatever_the_learner():
    for config in (CQL, BcConfig()):
        found = reported_divergence({"train/loss": math.nan, "q/data": 0.0}, RewardConfig(), config, ALARM_SLACK)
        assert found == Divergence(kind="not_finite", name="train/loss", reason="train/loss is nan")
    assert reported_divergence({"train/bc_loss": 3.0}, RewardConfig(), BcConfig(), ALARM_SLACK) is None


def test_sunken_q_with_a_conservative_term_and_a_risen_temperature():
    first, second = advice(SUNK)
    assert "lie 8 below the recorded ones: the conservative term (cql_alpha 10) presses them down" in first.seen
    assert "rose from 1 to 3.8" in first.seen
    # Both, because each alone only puts the alarm off; and they are one command.
    assert first.settings == (("learner.cql_alpha", 1.0), ("learner.target_entropy", -8.0))
    assert str(second) == "critic_lr is 9.99e-05 at this step: --learner.critic-lr 6e-05"
    calm = settings(SUNK | {"temperature/value": 0.7})
    assert "learner.target_entropy" not in calm
    assert calm["learner.cql_alpha"] == 1.0


def test_a_risen_temperature_at_a_low_conservative_term_is_what_is_changed():
    first = advice(SUNK, replace(CQL, cql_alpha=1.0))[0]
    assert first.settings == (("learner.target_entropy", -8.0),)
    assert "cql_alpha 1" in first.seen


def test_sunken_q_without_a_conservative_term_is_not_blamed_on_it():
    got = advice(SUNK | {"temperature/value": 1.0}, replace(CQL, cql_alpha=0.0))
    assert "learner.cql_alpha" not in dict(pair for remedy in got for pair in remedy.settings)
    assert "cql_alpha 0" in str(got[0])
    assert "--learner.cql-alpha" not in " ".join(map(str, got))
    assert got[-1].settings


def test_sunken_q_of_a_policy_valued_above_the_data_is_not_blamed_on_the_conservative_term():
    got = settings(SUNK | {"q/policy": -40.0, "temperature/value": 1.0})
    assert set(got) == {"learner.critic_lr"}


@pytest.mark.parametrize(("alpha", "policy", "wanted"), [(0.0, 41.0, 1.0), (0.5, 41.0, 2.5), (10.0, 30.0, None)])
def test_risen_q_asks_for_more_of_the_conservative_term_where_that_is_too_weak(alpha, policy, wanted):
    got = settings(RISEN | {"q/policy": policy}, replace(CQL, cql_alpha=alpha))
    assert got.get("learner.cql_alpha") == wanted
    assert "learner.target_entropy" not in got


@pytest.mark.parametrize(("data", "policy"), [(-5790.0, -5825.0), (9000.0, 9030.0)])
def test_q_that_left_further_than_its_bias_can_take_it_asks_for_a_lower_rate_first(data, policy):
    """A critic's rate of 3, after one update: the policy's actions are valued 35 away, 25 such steps make 875."""
    config = replace(CQL, critic_lr=3.0)
    numbers = SUNK | {"q/data": data, "q/policy": policy, "temperature/value": 1.0}
    first, *others = advice(numbers, config, step=2)
    assert first.settings == (("learner.critic_lr", 0.6),)
    assert all("critic_lr" not in name for remedy in others for name, _ in remedy.settings)
    decayed = advice(numbers, config, step=12_000)
    assert not decayed[-1].settings


def test_the_actors_rate_is_not_lowered_where_q_left_the_range():
    """A tenth of it brought the alarm forward."""
    assert not any("learner.actor_lr" in settings(numbers) for numbers in (SUNK, RISEN))


@pytest.mark.parametrize("numbers", [SUNK, RISEN])
def test_a_rate_that_has_decayed_to_zero_is_not_to_be_lowered(numbers):
    got = advice(numbers, step=12_000)
    assert "learner.critic_lr" not in {name for r in got for name, _ in r.settings}
    assert "begin at an earlier checkpoint" in str(got[-1])


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("train/critic_loss", {"learner.actor_lr", "learner.critic_lr"}),
        ("actor/loss", {"learner.actor_lr"}),
        ("temperature/loss", {"learner.temperature_lr"}),
        ("data/action", set()),
    ],
)
def test_a_broken_number_asks_for_the_rates_of_its_net_or_for_a_look_at_the_data(name, names):
    found = Divergence(kind="not_finite", name=name, reason="")
    assert set(settings({}, found=found)) == names
    assert "--precision fp32" in " ".join(map(str, advice({}, found=found, precision="bf16"))) or not names
    assert "lower rates would change nothing" in str(advice({}, found=found, step=12_000)[0]) or not names


def test_a_broken_number_of_cloning_or_of_another_process():
    broken = Divergence(kind="not_finite", name="train/bc_loss", reason="")
    assert settings({}, BcConfig(lr=1e-3), found=broken) == {"learner.lr": pytest.approx(1e-4)}
    assert "another process" in str(advice({}, found=replace(broken, name=""))[0])


def test_rewards_are_named_where_they_say_something():
    large = RewardConfig(positive=10_000.0, negative=-1_000.0)
    got = settings({"q/data": -1e9, **{k: v for k, v in SUNK.items() if k != "q/data"}}, rewards=large)
    assert got["rewards.positive"] < 50
    assert got["rewards.positive"] / got["rewards.negative"] == pytest.approx(-10.0)
    unrewarded = advice(SUNK | {"data/mask": 1.0, "data/reward": -1.0})
    assert any("no step of the last batch was rewarded" in str(remedy) for remedy in unrewarded)
    assert not any("reward" in str(remedy) for remedy in advice(SUNK))


def test_the_checkpoint_to_begin_at_is_from_before_q_left_the_range(tmp_path):
    q = {1000: 3.0, 2000: -26.0, 3000: -20.0, 4000: -24.9, 5000: -26.0, 6000: -44.0}
    lines = [json.dumps({"step": step, "q/data": value}) for step, value in q.items()]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 70')
    assert last_sound_checkpoint(tmp_path, RewardConfig(), CQL) is None
    for step in (2000, 3500, 4000, 5000):
        (tmp_path / "checkpoints" / f"{step:06d}").mkdir(parents=True)
    # The row of step 4000 was computed with the weights from before update 4000; those after it have no sound row.
    assert last_sound_checkpoint(tmp_path, RewardConfig(), CQL).name == "003500"
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 2000, "train/bc_loss": math.nan}) + "\n")
    assert last_sound_checkpoint(tmp_path, RewardConfig(), BcConfig()) is None
