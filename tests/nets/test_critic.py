"""Q heads: what is hoisted out of the sampled actions adds up to the plain concatenation."""

import pytest
import torch
from torch.nn import functional as F

from ptr_fast.nets.critic import EnsembleHead
from ptr_fast.nets.init import keyed_generator

NUM_STATES, STATE, SLOTS, ACTION, EMBEDDING = 5, 3, 4, 2, 6
FORMS = {
    "reinject_all": (("task", "action", "embedding"), ("hidden", "action", "embedding")),
    "reinject_action": (("embedding", "state", "task", "action"), ("hidden", "action")),
    "plain": (("action", "embedding", "state", "task"), ("hidden",)),
}


def make_head(form: str, num_critics: int = 2, hidden_dims: tuple[int, ...] = (8, 7, 6)) -> EnsembleHead:
    head = EnsembleHead(
        form,
        num_critics,
        embedding_dim=EMBEDDING,
        state_dim=STATE,
        num_task_slots=SLOTS,
        action_dim=ACTION,
        hidden_dims=hidden_dims,
    )
    generator = keyed_generator(0, form)
    head.initialise(generator)
    with torch.no_grad():
        for bias in head.biases:
            bias.normal_(generator=generator)
    return head.double()


def make_inputs(num_actions: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    embedding = torch.randn(NUM_STATES, EMBEDDING, generator=generator, dtype=torch.float64).requires_grad_()
    state = torch.randn(NUM_STATES, STATE, generator=generator, dtype=torch.float64)
    task = torch.randint(0, SLOTS, (NUM_STATES,), generator=generator)
    actions = torch.randn(NUM_STATES, num_actions, ACTION, generator=generator, dtype=torch.float64).requires_grad_()
    return embedding, state, task, actions


def by_concatenation(head: EnsembleHead, form, embedding, state, task, actions) -> torch.Tensor:
    """Every sampled action with its own copy of the state, every layer with its own concatenation."""
    num_actions = actions.shape[1]
    rows = {
        "embedding": embedding.repeat_interleave(num_actions, 0),
        "state": state.repeat_interleave(num_actions, 0),
        "task": F.one_hot(task, SLOTS).to(state).repeat_interleave(num_actions, 0),
        "action": actions.flatten(0, 1),
    }
    values = []
    for e in range(head.num_critics):
        for i, (kernel, bias) in enumerate(zip(head.kernels, head.biases, strict=True)):
            inputs = torch.cat([rows[name] for name in FORMS[form][min(i, 1)]], dim=1)
            out = inputs @ kernel[e] + bias[e]
            rows["hidden"] = out.relu()
        values.append(out.view(-1, num_actions))
    return torch.stack(values)


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize(
    ("num_critics", "num_actions", "hidden_dims"),
    [(2, 9, (8, 7, 6)), (1, 1, (8,)), (3, 2, (5, 5))],
    ids=["the paper's shape", "one head, one action, one layer", "three heads"],
)
def test_hoisted_heads_equal_concatenation_with_all_gradients(form, num_critics, num_actions, hidden_dims):
    head = make_head(form, num_critics, hidden_dims)
    inputs = make_inputs(num_actions)
    leaves = [inputs[0], inputs[3], *head.parameters()]
    weights = torch.randn(num_critics, NUM_STATES, num_actions, dtype=torch.float64, generator=keyed_generator(2))

    expected = by_concatenation(head, form, *inputs)
    ours = head.q(head.hoist(*inputs[:3]), inputs[3])
    assert ours.shape == (num_critics, NUM_STATES, num_actions)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), leaves)
    gradients = torch.autograd.grad((ours * weights).sum(), leaves)
    for a, b in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_hoisted_without_gradients_only_the_actions_get_one():
    head = make_head("reinject_all")
    embedding, state, task, actions = make_inputs(3)
    with torch.no_grad():
        hoisted = head.hoist(embedding, state, task)
    parts = (hoisted.state_terms, hoisted.action_weights, hoisted.hidden_weights)
    assert not any(tensor.requires_grad for part in parts for tensor in part)
    head.q(hoisted, actions).sum().backward()
    assert float(actions.grad.abs().sum()) > 0.0
    assert embedding.grad is None
    assert all(p.grad is None for p in head.parameters())


def test_the_papers_head_does_not_look_at_the_state():
    embedding, state, task, actions = make_inputs(2)
    for form, looks in (("reinject_all", False), ("reinject_action", True), ("plain", True)):
        head = make_head(form)
        with torch.no_grad():
            one, two = (head.q(head.hoist(embedding, s, task), actions) for s in (state, state + 1.0))
        assert torch.equal(one, two) != looks


def test_initial_kernels_are_orthogonal_with_the_reference_gains():
    for form, gains in (("reinject_all", (2**0.5, 2**0.5, 2**0.5, 1e-2)), ("plain", (1.0, 1.0, 1.0, 1.0))):
        head = make_head(form)
        for kernel, gain in zip(head.kernels, gains, strict=True):
            for matrix in kernel.detach():
                scaled = matrix.double() / gain
                gram = scaled.t() @ scaled if matrix.shape[0] >= matrix.shape[1] else scaled @ scaled.t()
                torch.testing.assert_close(gram, torch.eye(len(gram), dtype=gram.dtype), atol=1e-5, rtol=0.0)
            assert not torch.equal(kernel[0], kernel[1])


def test_wrong_shapes_are_named():
    head = make_head("reinject_action")
    embedding, state, task, actions = make_inputs(2)
    with pytest.raises(ValueError, match=r"state \[B, 3\], got \(5, 2\)"):
        head.hoist(embedding, state[:, :2], task)
    with pytest.raises(ValueError, match=r"embedding \[B, 6\], got \(5, 5\)"):
        head.hoist(embedding[:, :5], state, task)
    with pytest.raises(ValueError, match=r"actions \[B, K, 2\]"):
        head.q(head.hoist(embedding, state, task), actions[..., :1])
    with pytest.raises(ValueError, match="reinject_all"):
        make_head("concat")
