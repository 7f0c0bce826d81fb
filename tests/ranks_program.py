"""A program for torchrun: every rank trains learners on its share and compares with one process on the whole batch."""

import os

import pytest
import torch
import torch.distributed as dist
from learner_cases import make_spec
from learner_kinds import KINDS, asked_for, small

from ptr_fast.config import BcConfig, CqlConfig, EncoderConfig
from ptr_fast.learners import Ranks, make_learner
from ptr_fast.learners.preparation import prepare
from ptr_fast.types import Batch

ENCODER = EncoderConfig(name="conv3", num_filters=8, embedding_dim=16)
CASES = {
    **{tag: small(tag) for tag in KINDS},
    "cql that shares the encoder": CqlConfig(encoder=ENCODER, hidden_dims=(16, 16), actor_encoder="critic"),
    "cql on the state alone": CqlConfig(encoder=EncoderConfig(name="none"), hidden_dims=(16, 16), critic_head="plain"),
    "bc with decay and clipping": BcConfig(encoder=ENCODER, hidden_dims=(16, 16), weight_decay=1.0, max_grad_norm=0.01),
}


def share_of(batch: Batch, ranks: Ranks) -> Batch:
    mine = slice(ranks.rank, None, ranks.world_size)
    return batch.map(lambda value: value[mine].contiguous())


def check_learner(name: str, ranks: Ranks) -> None:
    spec, num_steps = make_spec(), 5
    together = make_learner(CASES[name], spec, seed=1, ranks=ranks)
    alone = make_learner(CASES[name], spec, seed=1)
    for step in range(num_steps):
        batch = asked_for(CASES[name], spec, num_batch=12, seed=step)
        info = ranks.whole_batch(together.update(share_of(batch, ranks), step))
        expected = alone.update(batch, step)
        assert info.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.isclose(info[key].float(), value, rtol=2e-5, atol=2e-6), (name, step, key, info[key], value)
    ranks.check_equal(together.networks())
    for network, reference in zip(together.networks().values(), alone.networks().values(), strict=True):
        for (key, weight), other in zip(network.named_parameters(), reference.parameters(), strict=True):
            difference = with_influence(key, weight - other)
            assert difference.abs().max() < 2e-6, (name, key)


def with_influence(key: str, weight: torch.Tensor) -> torch.Tensor:
    """Without the bias of an attention's keys: it moves all scores of a query alike, which the softmax takes away, so
    its gradient is rounding alone, and Adam makes steps of full size of that."""
    if not key.endswith("attn.qkv.bias"):
        return weight
    query, _, value = weight.chunk(3)
    return torch.cat([query, value])


def check_numbers(ranks: Ranks) -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 9.0, -3.0, 7.0])
    share = values[ranks.rank :: ranks.world_size]
    statistics = {"x": torch.mean, "x_max": torch.amax, "x_min": torch.amin, "x_std": lambda x: x.std(correction=0)}
    whole = ranks.whole_batch({key: f(share) for key, f in statistics.items()})
    for key, f in statistics.items():
        assert torch.isclose(whole[key].float(), f(values)), key
    assert ranks.largest(ranks.rank) == ranks.world_size - 1
    heard = [ranks.largest_until_now(15 if (ranks.rank, call) == (1, 2) else 0) for call in range(5)]
    assert heard == [0, 0, 0, 15, 0], heard
    broken = ranks.whole_batch({"y": torch.tensor(float("nan") if ranks.rank == 1 else 1.0)})
    assert broken["y"].isnan()


def check_different_weights(ranks: Ranks) -> None:
    net = torch.nn.Linear(2, 2)
    torch.nn.init.ones_(net.weight)
    torch.nn.init.zeros_(net.bias)
    ranks.check_equal({"net": net})
    if ranks.rank == 1:
        net.weight.data[0, 0] = torch.nextafter(net.weight.data[0, 0], torch.tensor(2.0))
    with pytest.raises(RuntimeError, match="weights of net on rank 1 differ"):
        ranks.check_equal({"same": torch.nn.LayerNorm(3), "net": net})


def check_prepared(ranks: Ranks) -> None:
    """What a learner fits before its first update is fitted by the first rank, and is the same bits on every one."""

    class Learner:
        net = torch.nn.Linear(2, 2)

        def networks(self) -> dict[str, torch.nn.Module]:
            return {"net": self.net}

        def prepare(self, data: object) -> None:
            fitted_by.append(ranks.rank)
            torch.nn.init.constant_(self.net.weight, 7.0 + ranks.rank)
            self.net.centre.copy_(torch.arange(3.0))

    fitted_by: list[int] = []
    learner = Learner()
    learner.net.register_buffer("centre", torch.zeros(3))
    torch.nn.init.constant_(learner.net.bias, float(ranks.rank))
    prepare(learner, lambda: None, ranks)
    assert fitted_by == ([0] if ranks.is_first else [])
    ranks.check_equal(learner.networks())
    assert learner.net.centre.tolist() == [0.0, 1.0, 2.0]
    assert (learner.net.weight == 7.0).all()


def main() -> None:
    dist.init_process_group("gloo")
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    check_numbers(ranks)
    check_different_weights(ranks)
    check_prepared(ranks)
    for name in CASES:
        check_learner(name, ranks)
    dist.barrier()
    dist.destroy_process_group()
    if ranks.is_first:
        print(f"all equal over {ranks.world_size} ranks")


if __name__ == "__main__":
    main()
