"""torchrl's CQLLoss on states, in the loop of its own example (three fused Adam, SoftUpdate); see ``protocol.py``.

The loss module's parts are called one by one, without the behaviour-cloning part that its ``forward`` always adds.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import torch
import torchrl
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential
from torchrl.data import Bounded
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import SoftUpdate
from torchrl.objectives.cql import CQLLoss

from benchmarks.peers.protocol import serve


class Worker:
    """One configuration, stepped on request."""

    def setup(self, sizes: dict[str, Any]) -> dict[str, Any]:
        """Make the loss, the optimisers and the batch; one step that must be finite."""
        (state_dim,), action_dim, num_batch = sizes["observation_shape"], sizes["action_dim"], sizes["num_batch"]
        device, hidden = sizes["device"], sizes["hidden_dims"]

        def mlp(num_inputs: int, num_outputs: int) -> MLP:
            return MLP(num_inputs, num_outputs, num_cells=hidden, activation_class=torch.nn.ReLU, device=device)

        net = torch.nn.Sequential(mlp(state_dim, 2 * action_dim), NormalParamExtractor(scale_lb=1e-3))
        spec = Bounded(-1.0, 1.0, (action_dim,), device=device)
        actor = ProbabilisticActor(
            TensorDictSequential(TensorDictModule(net, ["observation"], ["loc", "scale"])),
            in_keys=["loc", "scale"],
            spec=spec,
            distribution_class=TanhNormal,
            return_log_prob=False,
        )
        critic = ValueOperator(mlp(state_dim + action_dim, 1), in_keys=["observation", "action"])
        self.loss = CQLLoss(
            actor,
            critic,
            loss_function="l2",
            action_spec=spec,
            target_entropy=-float(action_dim),
            min_q_weight=sizes["cql_alpha"],
            max_q_backup=True,
            num_random=sizes["num_action_samples"],
            with_lagrange=False,
        )
        self.loss.make_value_estimator(gamma=sizes["discount"])
        self.target = SoftUpdate(self.loss, tau=sizes["tau"])

        def adam(parameters: Any, lr: float) -> torch.optim.Adam:
            return torch.optim.Adam(list(parameters), lr=lr, fused=True)

        values = self.loss.actor_network_params.flatten_keys().values()
        critics = self.loss.qvalue_network_params.flatten_keys().values()
        self.adam = (
            adam(critics, sizes["critic_lr"]),
            adam(values, sizes["actor_lr"]),
            adam([self.loss.log_alpha], sizes["temperature_lr"]),
        )
        rng = np.random.default_rng(0)

        def normal(*size: int) -> torch.Tensor:
            return torch.from_numpy(rng.normal(size=size).astype(np.float32)).to(device)

        no = torch.zeros(num_batch, 1, dtype=torch.bool, device=device)
        following = {"observation": normal(num_batch, state_dim), "reward": -torch.ones(num_batch, 1, device=device)}
        self.batch = TensorDict(
            {
                "observation": normal(num_batch, state_dim),
                "action": normal(num_batch, action_dim).clamp(-0.99, 0.99),
                "next": following | {"done": no, "terminated": no},
            },
            batch_size=num_batch,
            device=device,
        )
        losses = {name: float(value) for name, value in self.update().items()}
        assert all(np.isfinite(value) for value in losses.values()), losses
        parameters = sum(p.numel() for group in (values, critics) for p in group)
        return {"losses": losses, "parameters": parameters, "versions": {"torchrl": torchrl.__version__}}

    def update(self) -> dict[str, torch.Tensor]:
        """One gradient step of critics, actor and temperature."""
        loss, batch = self.loss, self.batch.copy()
        q_loss, _ = loss.q_loss(batch)
        cql_loss, _ = loss.cql_loss(batch)
        self._minimise(0, q_loss + cql_loss)
        actor_loss, metadata = loss.actor_loss(batch)
        self._minimise(1, actor_loss)
        alpha_loss, _ = loss.alpha_loss(metadata)
        self._minimise(2, alpha_loss)
        self.target.step()
        return {"critic_loss": (q_loss + cql_loss).detach(), "actor_loss": actor_loss.detach()}

    def _minimise(self, number: int, loss: torch.Tensor) -> None:
        self.adam[number].zero_grad(set_to_none=True)
        loss.backward()
        self.adam[number].step()

    def step(self, number: int, count: int) -> dict[str, Any]:
        """``count`` updates; milliseconds per update."""
        begin = time.perf_counter()
        for _ in range(count):
            losses = self.update()
        assert np.isfinite(float(losses["critic_loss"]))  # reading it has waited for the device
        return {"ms": (time.perf_counter() - begin) * 1e3 / count}


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("PTR_FAST_BENCH_THREADS", "1")))
    worker = Worker()
    serve({"setup": worker.setup, "step": worker.step})
