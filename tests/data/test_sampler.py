import numpy as np
import pytest
import torch

from ptr_fast.data.sampler import MixtureSampler
from ptr_fast.kernels.dispatch import use_backend


@pytest.mark.parametrize("mix", [0.9, 0.875, 1 / 3, 0.0, 1.0])
def test_mix_is_exact_over_any_prefix(mix):
    sampler = MixtureSampler([[600, 400], [10]], mix, batch_size=7, seed=3)
    taken = 0
    for step in range(300):
        store, _ = sampler.indices(step)
        taken += int((store < 2).sum())
        assert abs(taken - mix * 7 * (step + 1)) < 1.0


def test_ranks_share_one_global_batch():
    whole = MixtureSampler([[500], [20]], 0.9, batch_size=12, seed=1)
    parts = [MixtureSampler([[500], [20]], 0.9, batch_size=12, seed=1, rank=r, world_size=3) for r in range(3)]
    for step in range(5):
        source, index = whole.indices(step)
        for rank, part in enumerate(parts):
            np.testing.assert_array_equal(part.indices(step)[0], source[rank::3])
            np.testing.assert_array_equal(part.indices(step)[1], index[rank::3])


def test_a_step_is_a_function_of_seed_and_step():
    one, two = (MixtureSampler([[100]], 1.0, batch_size=8, seed=5) for _ in range(2))
    one.indices(0)
    np.testing.assert_array_equal(one.indices(7)[1], two.indices(7)[1])
    assert not np.array_equal(one.indices(7)[1], one.indices(8)[1])
    other = MixtureSampler([[100]], 1.0, batch_size=8, seed=6)
    assert not np.array_equal(one.indices(7)[1], other.indices(7)[1])


def test_sampling_is_uniform_and_reaches_both_ends():
    sampler = MixtureSampler([[10]], 1.0, batch_size=100, seed=0)
    counts = np.bincount(np.concatenate([sampler.indices(t)[1] for t in range(200)]), minlength=10)
    assert counts.shape == (10,)
    assert counts.min() > 1800
    assert counts.max() < 2200


def test_stores_of_a_group_are_drawn_by_their_size():
    sampler = MixtureSampler([[30, 0, 10], [5]], 0.5, batch_size=100, seed=0)
    store, index = (np.concatenate(x) for x in zip(*[sampler.indices(t) for t in range(100)], strict=True))
    counts = np.bincount(store, minlength=4)
    assert counts[1] == 0
    assert counts[3] == 5000
    assert abs(counts[0] - 3750) < 150
    assert all(index[store == s].max() == n - 1 and index[store == s].min() == 0 for s, n in ((0, 30), (2, 10), (3, 5)))


@pytest.mark.parametrize("mix", [0.9, 0.5, 1 / 3, 0.02])
@pytest.mark.parametrize("world_size", [2, 3, 8, 48])
def test_every_rank_gets_its_share_of_both_groups(mix, world_size):
    taken = np.zeros(world_size)
    whole = MixtureSampler([[500], [20]], mix, batch_size=48, seed=1)
    for step in range(96):
        parts = (whole.indices(step)[0] == 0).reshape(-1, world_size)  # column r: the samples of rank r
        assert np.ptp(parts.sum(0)) <= 1
        taken += parts.sum(0)
    assert np.ptp(taken) <= 96 // world_size


@pytest.mark.parametrize("mix", [0.9, 1 / 3, 1.0])
def test_a_step_in_a_tensor_draws_the_same(mix):
    sampler = MixtureSampler([[2**30, 7], [2**31 - 1]], mix, batch_size=32, seed=4)
    for step in (0, 1, 17, 159_999, 2**32 - 1):
        with use_backend("counter_random=reference"):
            from_tensor = sampler.rows(torch.tensor(step))
        assert torch.equal(sampler.rows(step), from_tensor)
        assert int(from_tensor.min()) >= 0
        assert int(from_tensor.max()) < sum((2**30, 7, 2**31 - 1))


@pytest.mark.cuda
def test_the_device_draws_the_same():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    sampler = MixtureSampler([[1000, 7], [333]], 0.7, batch_size=64, seed=4)
    for step in range(20):
        on_device = sampler.rows(torch.tensor(step, device="cuda"), "cuda")
        assert torch.equal(on_device.cpu(), sampler.rows(step))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(groups=[[0]], mix=1.0, batch_size=4, seed=0), "at least one transition"),
        (dict(groups=[[2**31]], mix=1.0, batch_size=4, seed=0), "at most"),
        (dict(groups=[[5], [5]], mix=1.5, batch_size=4, seed=0), "mix"),
        (dict(groups=[[5]], mix=1.0, batch_size=5, seed=0, world_size=2), "multiple"),
        (dict(groups=[[5]], mix=1.0, batch_size=4, seed=0, rank=2, world_size=2), "rank"),
        (dict(groups=[[5], [5], [5]], mix=1.0, batch_size=4, seed=0), "one or two"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MixtureSampler(**arguments)
