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
    for weights in (None, np.repeat([1.0, 5.0, 0.3], [900, 107, 333])):
        sampler = MixtureSampler([[1000, 7], [333]], 0.7, batch_size=64, seed=4, weights=weights)
        for step in range(20):
            on_device = sampler.rows(torch.tensor(step, device="cuda"), "cuda")
            assert torch.equal(on_device.cpu(), sampler.rows(step))


WEIGHTS = np.repeat([1.0, 2.5, 1.0, 0.1, 7.0, 3.0], [300, 100, 50, 400, 3, 147])


def shares(weights):
    """Share of the samples by weight."""
    return {w: w * np.sum(weights == w) / weights.sum() for w in np.unique(weights)}


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_weights_are_exact_over_any_prefix(batch_size):
    sampler = MixtureSampler([[450, 550]], 1.0, batch_size, seed=3, weights=WEIGHTS)
    drawn = []
    for step in range(300):
        drawn.append(WEIGHTS[sampler.rows(step).numpy()])
        taken, num_drawn = np.concatenate(drawn), (step + 1) * batch_size
        for weight, share in shares(WEIGHTS).items():
            assert abs((taken == weight).sum() - share * num_drawn) < 3  # five parts: a tree of depth 3


def test_two_weights_are_off_by_less_than_one_sample():
    weights = np.repeat([2.0, 1.0], [100, 300])
    sampler = MixtureSampler([[100, 300]], 1.0, 6, seed=0, weights=weights)
    taken = 0
    for step in range(200):
        taken += int((sampler.indices(step)[0] == 0).sum())
        assert abs(taken - (step + 1) * 6 * 0.4) < 1
    assert taken == 480


def test_weights_inside_a_mix_leave_the_mix_exact():
    weights = np.concatenate([WEIGHTS, [1.0] * 30, [4.0] * 10])
    sampler = MixtureSampler([[450, 550], [40]], 0.7, 10, seed=3, weights=weights)
    rows = np.concatenate([sampler.rows(step).numpy() for step in range(500)])
    assert (rows < 1000).sum() == 3500
    assert abs((weights[rows[rows >= 1000]] == 4.0).sum() - 1500 * 40 / 70) < 1
    for weight, share in shares(WEIGHTS).items():
        assert abs((weights[rows[rows < 1000]] == weight).sum() - share * 3500) < 3


def test_rows_of_one_weight_are_equally_likely():
    weights = np.tile([1.0, 3.0], 5)
    sampler = MixtureSampler([[10]], 1.0, 100, seed=0, weights=weights)
    counts = np.bincount(np.concatenate([sampler.rows(t).numpy() for t in range(400)]), minlength=10)
    assert counts[1::2].sum() == 30_000
    np.testing.assert_allclose(counts, 40_000 * weights / 20, rtol=0.06)


@pytest.mark.parametrize("mix", [1.0, 0.3])
def test_one_weight_for_each_group_changes_no_bit(mix):
    groups, size = ([[10, 20], [7]], 37) if mix < 1 else ([[10, 20, 7]], 37)
    plain = MixtureSampler(groups, mix, 16, seed=2)
    weights = np.repeat([2.0, 5.0], [30, 7]) if mix < 1 else np.full(size, 0.25)
    weighted = MixtureSampler(groups, mix, 16, seed=2, weights=weights)
    for step in (0, 1, 99):
        assert torch.equal(plain.rows(step), weighted.rows(step))


def test_ranks_share_one_weighted_batch():
    options = dict(groups=[[450, 550], [40]], mix=0.7, batch_size=12, seed=1)
    options["weights"] = np.concatenate([WEIGHTS, [1.0] * 30, [4.0] * 10])
    whole = MixtureSampler(**options)
    parts = [MixtureSampler(**options, rank=r, world_size=3) for r in range(3)]
    for step in (0, 1, 2, 5000):
        for rank, part in enumerate(parts):
            assert torch.equal(part.rows(step), whole.rows(step)[rank::3])


def test_a_step_in_a_tensor_draws_the_same_with_weights():
    weights = np.repeat([1.0, 1e-3, 7.7, 1.0], [70_000, 1, 29_999, 500])
    sampler = MixtureSampler([[100_000], [500]], 0.9, batch_size=4096, seed=4, weights=weights)
    for step in (0, 1, 17, 159_999, 2**32 - 1):
        with use_backend("counter_random=reference"):
            from_tensor = sampler.rows(torch.tensor(step))
        assert torch.equal(sampler.rows(step), from_tensor)
        assert 0 <= int(from_tensor.min()) <= int(from_tensor.max()) < 100_500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(groups=[[0]], mix=1.0, batch_size=4, seed=0), "at least one transition"),
        (dict(groups=[[2**31]], mix=1.0, batch_size=4, seed=0), "at most"),
        (dict(groups=[[5], [5]], mix=1.5, batch_size=4, seed=0), "mix"),
        (dict(groups=[[5]], mix=1.0, batch_size=5, seed=0, world_size=2), "multiple"),
        (dict(groups=[[5]], mix=1.0, batch_size=4, seed=0, rank=2, world_size=2), "rank"),
        (dict(groups=[[5]], mix=1.0, batch_size=4, seed=0, weights=np.ones(4)), "one weight for each of 5"),
        (dict(groups=[[2]], mix=1.0, batch_size=4, seed=0, weights=np.array([1.0, 0.0])), "positive finite"),
        (dict(groups=[[2]], mix=1.0, batch_size=4, seed=0, weights=np.array([1.0, np.nan])), "positive finite"),
        (dict(groups=[[5], [5], [5]], mix=1.0, batch_size=4, seed=0), "one or two"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MixtureSampler(**arguments)
