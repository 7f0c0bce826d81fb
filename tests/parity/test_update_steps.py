"""Steps 2, 3 and 4 after the golden update, with Adam's moments, targets and temperature carried on.

Drift accumulates, so the bound is loose: 1e-3 of the largest magnitude (of the summarised values for means).
"""

import torch
from golden import Golden
from reference_names import REFERENCE_NAMES
from update_case import golden_values, load_case, make_batch, make_draws, scalar_scale

from ptr_fast.learners.cql.terms import cql_info

BOUND = 1e-3


def test_three_more_steps_follow_the_published_ones(golden_dir):
    first = Golden(golden_dir, "update.npz")
    golden = Golden(golden_dir, "update_steps.npz")
    case = load_case(first)
    learner = case.learner
    learner.update(make_batch(first), 1, make_draws(first))

    for step in range(2, 2 + int(golden.array("n_steps"))):
        prefix = f"step{step}"
        batch = make_batch(golden, f"{prefix}/batch")
        terms = learner.update_with_terms(batch, step, make_draws(golden, f"{prefix}/draw"))
        values, info = golden_values(terms), cql_info(batch, terms)
        for key in [key for key in golden.arrays if key.startswith(f"{prefix}/")]:
            kind, _, name = key.removeprefix(f"{prefix}/").partition("/")
            if kind in ("value", "draw") and f"{kind}/{name}" in values:
                golden.compare(f"step {step}", key, values[f"{kind}/{name}"], BOUND)
            elif kind == "scalar":
                scale = scalar_scale(name, values, golden.arrays[key])
                golden.compare(f"step {step}", key, info[REFERENCE_NAMES[name]], BOUND, scale)
            elif kind == "after_norm":
                golden.compare(f"step {step}", key, _norm(learner, name), BOUND)
        after = learner.temperature.log_temperature
        golden.compare(f"step {step}", f"{prefix}/after/temp/log_temp", after, BOUND)
    golden.assert_all_used()


def _norm(learner, group: str) -> torch.Tensor:
    parts = {
        "actor": learner.actor,
        "critic_encoder": learner.critic.encoder,
        "critic_head": learner.critic.head,
        "target_encoder": learner.target_critic.encoder,
        "target_head": learner.target_critic.head,
    }
    squares = [p.detach().double().square().sum() for p in parts[group].parameters()]
    return torch.stack(squares).sum().sqrt()
