"""Policy and Q heads against the published code."""

import torch
from golden import Golden

from ptr_fast.nets.critic import EnsembleHead
from ptr_fast.nets.policy import TanhGaussianPolicy
from ptr_robot.published.parameter_names import head_state, policy_state

BOUND, GRADIENT_BOUND = 2e-5, 5e-4
FORMS = {"critic": "reinject_all", "critic_actionsep": "reinject_action", "critic_plain": "plain"}


def test_policy_and_heads_match_the_published_ones(golden_dir):
    golden = Golden(golden_dir, "heads.npz")
    inputs = [golden.tensor(key) for key in ("embedding", "state", "task_id")]
    onehot, actions = golden.tensor("task_onehot"), golden.tensor("actions")
    assert torch.equal(onehot.argmax(dim=1), inputs[2])
    sizes = inputs[0].shape[1], inputs[1].shape[1], onehot.shape[1]

    parameters = policy_state(golden.group("policy/params"), prefix="")
    hidden_dims = tuple(parameters[f"trunk.layers.{i}.bias"].shape[0] for i in range(3))
    policy = TanhGaussianPolicy(*sizes, actions.shape[1], hidden_dims)
    policy.load_state_dict(parameters, strict=True)
    with torch.no_grad():
        law = policy(*inputs)
        sampled, log_prob = law.sample_with_log_prob(golden.tensor("policy/sample_eps"))
        ours = {
            "mean": law.mean_BA,
            "log_std_preclip": policy.log_std(policy.trunk(*inputs)),
            "log_std": law.log_std_BA,
            "std": law.std_BA,
            "mode": law.mode(),
            "log_prob": law.log_prob(actions),
            "sample_action": sampled,
            "sample_log_prob": log_prob,
        }
    for key, value in ours.items():
        golden.compare("policy", f"policy/{key}", value, BOUND)

    for name, form in FORMS.items():
        parameters = head_state(golden.group(f"{name}/params"))
        num_critics, _, width = parameters["kernels.0"].shape
        head = EnsembleHead(
            form,
            num_critics,
            embedding_dim=sizes[0],
            state_dim=sizes[1],
            num_task_slots=sizes[2],
            action_dim=actions.shape[1],
            hidden_dims=(width,) * (len(parameters) // 2 - 1),
        )
        head.load_state_dict(parameters, strict=True)
        leaf = actions.clone().requires_grad_(True)
        q = head.q(head.hoist(*inputs), leaf[:, None]).squeeze(2)
        q.amin(dim=0).sum().backward()
        golden.compare("q heads", f"{name}/q", q, BOUND)
        golden.compare("q heads, gradient", f"{name}/dminq_daction", leaf.grad, GRADIENT_BOUND)
    golden.assert_all_used()
