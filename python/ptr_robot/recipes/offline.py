"""Other methods of offline RL that are compared with PTR, each for state-only kitchens and kitchens of 64 px, and as a
smoke test: with the targets, discount and rates at which CQL was found to learn.

The advantage temperature of ``awbc`` follows the rule of its configuration, a 0.9-quantile of the weights of about five
times their median: at 1.0 the two were 2.2 and 0.7 with the critic of ``states-cql-n``, 2.0 and 0.8 with that of
``states-iql``, on teleoperated demonstrations.
"""

from typing import Any

from ptr_fast.config import ActConfig, RewardConfig
from ptr_fast.learners.awbc import AwbcConfig
from ptr_fast.learners.cal_ql import CalQlConfig
from ptr_fast.learners.iql import IqlConfig
from ptr_robot.recipes.conservative import AS_FOUND, CRITIC, RATES, SEARCH, STATE_SEEN
from ptr_robot.recipes.kinds import of_every_kind

TARGETS: dict[str, Any] = {name: value for name, value in CRITIC.items() if name != "cql_alpha"} | STATE_SEEN
IQL_RATES = {kind: {**rates, "value_lr": rates["critic_lr"]} for kind, rates in RATES.items()}
IMPLICIT = "implicit Q-learning, search by its Q among samples of its actor"

CALIBRATED = "Cal-QL, five-step targets"
AHEAD = RewardConfig(num_steps=5)  # its bound by the return is another one than that of the targets
WEIGHTED = "cloning weighted by the critic of another run, --learner.critic.path RUN"

RECIPES = {
    **of_every_kind(
        "iql",
        IMPLICIT,
        IqlConfig,
        SEARCH,
        rewards=AS_FOUND,
        rates=IQL_RATES,
        **TARGETS,
        expectile=0.9,
        advantage_temperature=1.0,
    ),
    **of_every_kind("cal-ql", CALIBRATED, CalQlConfig, ActConfig(), rewards=AHEAD, rates=RATES, **CRITIC, **STATE_SEEN),
    **of_every_kind("awbc", WEIGHTED, AwbcConfig, ActConfig(), advantage_temperature=0.6),
}
