"""d3rlpy's CQL as its users run it: ``algo._impl.update`` on a batch that already is a tensor; see ``protocol.py``.

Pixels go through the same convolutions as ours (its encoder factory takes any module); every one of its Q functions has
an encoder of its own, and it repeats observations before the encoder.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import d3rlpy
import numpy as np
import torch
from d3rlpy.models.encoders import EncoderFactory, VectorEncoderFactory
from d3rlpy.models.torch import Encoder, EncoderWithAction
from d3rlpy.torch_utility import TorchMiniBatch
from torch import nn

from benchmarks.peers.protocol import serve


class Conv3(nn.Module):
    """Three 3x3 convolutions with group norm, learned spatial embedding, bottleneck: our ``conv3`` in plain PyTorch."""

    def __init__(self, image_size: int, num_filters: int, embedding_dim: int) -> None:
        super().__init__()
        widths = (3, num_filters, 2 * num_filters, 2 * num_filters)
        layers: list[nn.Module] = []
        for before, after, stride in zip(widths, widths[1:], (2, 2, 1), strict=False):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.GroupNorm(4, after), nn.ReLU()]
        self.trunk = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.kernel = nn.Parameter(torch.randn(widths[-1], (image_size // 4) ** 2, 8) * 0.01)
        self.dense, self.norm = nn.Linear(widths[-1] * 8, embedding_dim), nn.LayerNorm(embedding_dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.trunk(images.contiguous(memory_format=torch.channels_last))
        pooled = torch.einsum("bcp,cpf->bcf", x.flatten(2), self.kernel).flatten(1)
        return torch.tanh(self.norm(self.dense(pooled)))


def mlp(num_inputs: int, hidden_dims: list[int]) -> nn.Sequential:
    """Linear and ReLU layers."""
    widths = [num_inputs, *hidden_dims]
    pairs = zip(widths, widths[1:], strict=False)
    return nn.Sequential(*(layer for a, b in pairs for layer in (nn.Linear(a, b), nn.ReLU())))


class PixelEncoder(Encoder):
    def __init__(self, image_size: int, sizes: Any) -> None:
        super().__init__()
        self.conv = Conv3(image_size, sizes.num_filters, sizes.embedding_dim)
        self.mlp = mlp(sizes.embedding_dim, sizes.hidden_dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.conv(x))


class PixelEncoderWithAction(EncoderWithAction):
    def __init__(self, image_size: int, action_size: int, sizes: Any) -> None:
        super().__init__()
        self.conv = Conv3(image_size, sizes.num_filters, sizes.embedding_dim)
        self.mlp = mlp(sizes.embedding_dim + action_size, sizes.hidden_dims)

    def forward(self, x: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return self.mlp(torch.cat([self.conv(x), action], dim=1))


@dataclass()
class Conv3Factory(EncoderFactory):
    num_filters: int
    embedding_dim: int
    hidden_dims: list[int]

    def create(self, observation_shape: Any) -> PixelEncoder:
        return PixelEncoder(observation_shape[-1], self)

    def create_with_action(
        self, observation_shape: Any, action_size: int, discrete_action: bool = False
    ) -> PixelEncoderWithAction:
        return PixelEncoderWithAction(observation_shape[-1], action_size, self)

    @staticmethod
    def get_type() -> str:
        return "conv3"


class Worker:
    """One configuration, stepped on request."""

    def setup(self, sizes: dict[str, Any]) -> dict[str, Any]:
        """Make the algorithm and its batch; one step that must be finite."""
        device = sizes["device"]
        shape, num_batch = tuple(sizes["observation_shape"]), sizes["num_batch"]
        if len(shape) == 3:
            factory: EncoderFactory = Conv3Factory(sizes["num_filters"], sizes["embedding_dim"], sizes["hidden_dims"])
        else:
            factory = VectorEncoderFactory(hidden_units=sizes["hidden_dims"])
        config = d3rlpy.algos.CQLConfig(
            batch_size=num_batch,
            gamma=sizes["discount"],
            actor_learning_rate=sizes["actor_lr"],
            critic_learning_rate=sizes["critic_lr"],
            temp_learning_rate=sizes["temperature_lr"],
            alpha_learning_rate=0.0,  # a fixed weight of the conservative term, as ours
            initial_alpha=1.0,
            alpha_threshold=0.0,
            conservative_weight=sizes["cql_alpha"],
            n_action_samples=sizes["num_action_samples"],
            max_q_backup=True,
            tau=sizes["tau"],
            n_critics=sizes["num_critics"],
            actor_encoder_factory=factory,
            critic_encoder_factory=factory,
            compile_graph=device != "cpu",
        )
        self.algo = config.create(device="cuda:0" if device != "cpu" else False)
        self.algo.create_impl(shape, sizes["action_dim"])
        rng = np.random.default_rng(0)

        def normal(*size: int) -> torch.Tensor:
            return torch.from_numpy(rng.normal(size=size).astype(np.float32)).to(device)

        zeros, ones = torch.zeros(num_batch, 1, device=device), torch.ones(num_batch, 1, device=device)
        self.batch = TorchMiniBatch(
            observations=normal(num_batch, *shape),
            actions=normal(num_batch, sizes["action_dim"]).clamp(-0.99, 0.99),
            rewards=-ones,
            next_observations=normal(num_batch, *shape),
            next_actions=zeros.expand(-1, sizes["action_dim"]),
            returns_to_go=zeros,
            terminals=zeros,
            intervals=ones,
            device=device,
        )
        impl = self.algo.impl
        losses = impl.update(self.batch, 0)
        assert all(np.isfinite(value) for value in losses.values()), losses
        parameters = sum(p.numel() for net in (impl.policy, impl.q_function) for p in net.parameters())
        return {"losses": losses, "parameters": parameters, "versions": {"d3rlpy": d3rlpy.__version__}}

    def step(self, number: int, count: int) -> dict[str, Any]:
        """``count`` updates; milliseconds per update."""
        begin = time.perf_counter()
        for i in range(count):
            losses = self.algo.impl.update(self.batch, number + i)
        assert np.isfinite(losses["critic_loss"])  # reading it has waited for the device
        return {"ms": (time.perf_counter() - begin) * 1e3 / count}


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("PTR_FAST_BENCH_THREADS", "1")))
    worker = Worker()
    serve({"setup": worker.setup, "step": worker.step})
