"""group_norm_act and its pool in CUDA C++: outputs and gradients against float64, run by the emulator without a GPU.

The product's Python around the kernels runs as it is; only the native module is the emulator's, and the GPU's limits
are those of an architecture. On a GPU the same tests run the kernels themselves.
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable

import pytest
import torch
from emulated_kernels import emulator

from benchmarks.group_norm_blocks import ENCODERS, norms_of
from ptr_fast.kernels.group_norm_act import _why_triton, reference
from ptr_fast.kernels.group_norm_act import blocks as plans
from ptr_fast.kernels.group_norm_act import cuda as act
from ptr_fast.kernels.group_norm_act_pool import cuda as pool
from ptr_fast.kernels.group_norm_act_pool import reference as pool_reference

LAST = torch.channels_last
NO_GPU = not torch.cuda.is_available()
DEVICES = [  # emulated only where there is no GPU
    pytest.param("cpu", marks=pytest.mark.skipif(not NO_GPU, reason="the GPU runs the same tests")),
    pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(NO_GPU, reason="no GPU")]),
]
DTYPES = [torch.float32, torch.bfloat16]

# (B, C, H, W, groups) and the architecture whose plan runs, with the reason
SHAPES = {
    "contiguous_shares_of_a_cluster": ((1, 64, 32, 32, 4), 90),
    "rows_of_two_groups": ((2, 128, 8, 8, 4), 90),
    "without_clusters": ((1, 128, 16, 16, 4), 80),
    "odd_pixels_uneven_shares": ((1, 64, 19, 27, 2), 90),
    "vectors_do_not_divide_the_threads": ((2, 96, 5, 7, 4), 90),
    "more_groups_than_warps": ((1, 160, 3, 5, 20), 90),
    "one_pixel": ((3, 32, 1, 1, 4), 90),
    "one_group": ((1, 24, 5, 5, 1), 90),
}
POOL_SHAPES = {
    "even": ((2, 64, 8, 8, 4), 90),
    "cluster": ((1, 64, 32, 32, 4), 90),
    "odd": ((1, 24, 7, 5, 3), 90),
    "odd_height_cluster": ((1, 64, 33, 20, 2), 90),
    "odd_width_without_clusters": ((1, 64, 16, 15, 2), 80),
    "one_pixel": ((3, 32, 1, 1, 4), 90),
    "one_row": ((1, 32, 1, 9, 4), 90),
    "one_column": ((1, 32, 9, 1, 4), 90),
}


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """on(device, architecture, seed): what the kernels run on, and in which order the emulator runs threads."""

    def choose(device: str, architecture: int = 90, seed: int = 0) -> None:
        if device == "cuda":
            return
        module = types.SimpleNamespace(require=emulator)
        for product in (act, pool):
            monkeypatch.setattr(product, "native", module)
            monkeypatch.setattr(product, "stream", lambda device: seed)
        monkeypatch.setattr(act, "limits_of", lambda device: plans.DEVICES[architecture])
        # An element that no kernel writes shows.
        for owner, name in ((torch, "empty_like"), (torch, "empty"), (torch.Tensor, "new_empty")):
            original = getattr(owner, name)

            def filled(*args, _original=original, **options):
                made = _original(*args, **options)
                return made.fill_(float("nan") if made.is_floating_point() else 15)

            monkeypatch.setattr(owner, name, filled)

    return choose


def tensors(
    shape: tuple[int, ...], dtype: torch.dtype, branch: str, device: str, *, mean: float = 1.0
) -> dict[str, torch.Tensor]:
    B, C, H, W, _ = shape
    generator = torch.Generator().manual_seed(0)

    def image(height: int = H, width: int = W, offset: float = 0.0) -> torch.Tensor:
        values = torch.randn(B, C, height, width, generator=generator) * 2 + offset
        return values.to(device=device, dtype=dtype).contiguous(memory_format=LAST)

    def channels() -> torch.Tensor:
        return torch.randn(C, generator=generator).to(device)

    given = {"x": image(offset=mean), "weight": channels(), "bias": channels()}
    if branch == "pool":
        return given | {"dy": image(-(-H // 2), -(-W // 2))}
    if branch != "none":
        given["residual"] = image()
    if branch == "norm":
        given |= {"residual_weight": channels(), "residual_bias": channels()}
    return given | {"dy": image()}


def run(module, given: dict[str, torch.Tensor], groups: int, activation: str = "relu") -> dict[str, torch.Tensor]:
    """y and the gradient of every input, of an op's ``cuda`` or ``reference`` module."""
    leaves = {name: given[name].detach().clone().requires_grad_() for name in given if name != "dy"}
    if hasattr(module, "group_norm_act_pool"):
        y = module.group_norm_act_pool(leaves["x"], leaves["weight"], leaves["bias"], groups, 1e-5)
    else:
        y = module.group_norm_act(
            leaves["x"], leaves["weight"], leaves["bias"], groups, 1e-5, leaves.get("residual"), activation,
            leaves.get("residual_weight"), leaves.get("residual_bias"),
        )  # fmt: skip
    gradients = torch.autograd.grad(y, list(leaves.values()), given["dy"])
    return {"y": y.detach(), **{f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}}


def without_near_ties(given: dict[str, torch.Tensor], groups: int, branch: str) -> None:
    """Sets dy to 0 where rounding decides who gets the gradient: near the ReLU's corner, in windows of equal maxima."""
    wide = {name: tensor.double() for name, tensor in given.items()}
    z = reference.group_norm_act(
        wide["x"], wide["weight"], wide["bias"], groups, 1e-5, wide.get("residual"), "none",
        wide.get("residual_weight"), wide.get("residual_bias"),
    )  # fmt: skip
    if branch == "pool":
        z = torch.nn.functional.pad(z.relu(), (z.shape[3] % 2, 2, z.shape[2] % 2, 2), value=-1.0)
        height, width = given["dy"].shape[2:]
        top = z.unfold(2, 3, 2).unfold(3, 3, 2)[:, :, :height, :width].flatten(-2).topk(2).values
        near = (top[..., 0] - top[..., 1] < 1e-4) | (top[..., 0] < 1e-4)
    else:
        near = z.abs() < 1e-4
    given["dy"][near] = 0.0


def check_parity(shape, dtype, branch: str, device: str, activation: str = "relu", mean: float = 1.0) -> None:
    given, groups = tensors(shape, dtype, branch, device, mean=mean), shape[-1]
    if activation == "relu":
        without_near_ties(given, groups, branch)
    ours, plain = (pool, pool_reference) if branch == "pool" else (act, reference)
    exact = run(plain, {k: v.double() for k, v in given.items()}, groups, activation)
    single = run(plain, {k: v.float() for k, v in given.items()}, groups, activation)
    for name, found in run(ours, given, groups, activation).items():
        wanted = exact[name]
        assert found.dtype == (dtype if found.ndim == 4 else torch.float32)
        scale = wanted.abs().max().item() + 1e-30
        error = (found.double() - wanted).abs()
        allowed = torch.full_like(wanted, max(2 * (single[name].double() - wanted).abs().max().item(), 1e-6 * scale))
        if found.dtype == torch.bfloat16:
            allowed += wanted.abs() * 2**-8  # half a unit in the last place
        assert (error <= allowed).all(), f"{name}: error {error.max():.2e}, allowed {allowed.max():.2e}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("branch", ["none", "add", "norm"])
@pytest.mark.parametrize("name", SHAPES)
def test_parity(name, branch, dtype, device, on) -> None:
    shape, architecture = SHAPES[name]
    if shape[1] // shape[4] % (16 // dtype.itemsize):
        pytest.skip("not a multiple of a vector's channels: the backend refuses it")
    on(device, architecture)
    check_parity(shape, dtype, branch, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", POOL_SHAPES)
def test_pool_parity(name, dtype, device, on) -> None:
    shape, architecture = POOL_SHAPES[name]
    on(device, architecture)
    check_parity(shape, dtype, "pool", device)


NORMS = sorted({norm for encoder in ENCODERS for size in (64, 128) for norm in norms_of(encoder, size)})


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", NORMS, ids=[f"{'x'.join(map(str, norm[0]))}_{norm[2]}" for norm in NORMS])
def test_all_norms_of_the_nets(norm, dtype, device, on) -> None:
    size, groups, branch = norm
    on(device)
    for num_images in (1, 2, 3, 4):
        check_parity((num_images, *size, groups), dtype, branch, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("branch", ["none", "add", "norm"])
def test_without_activation(branch, device, on) -> None:
    on(device)
    check_parity(SHAPES["odd_pixels_uneven_shares"][0], torch.float32, branch, device, "none")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mean", [100.0, 10000.0])
def test_mean_far_from_zero(mean, device, on) -> None:
    on(device)
    check_parity(SHAPES["contiguous_shares_of_a_cluster"][0], torch.float32, "none", device, "none", mean)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("branch", ["none", "add", "norm", "pool"])
def test_same_bits_in_any_order(branch, device, on) -> None:
    shape = (2, 64, 16, 20, 4)
    given, module = tensors(shape, torch.bfloat16, branch, device), pool if branch == "pool" else act
    found = []
    for seed in range(3):
        on(device, seed=seed)
        found.append(run(module, given, shape[-1]))
    for (key, first), again in itertools.product(found[0].items(), found[1:]):
        assert torch.equal(first, again[key]), key


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("branch", ["none", "norm", "pool"])
def test_nan_stays_nan(branch, device, on) -> None:
    on(device)
    given = tensors((2, 16, 4, 4, 2), torch.float32, branch, device)
    given["residual" if branch == "norm" else "x"][1, 0, 0, 0] = float("nan")
    y = run(pool if branch == "pool" else act, given, 2)["y"]
    assert torch.isfinite(y[0]).all()
    assert torch.isnan(y[1, :8]).all()
    assert torch.isfinite(y[1, 8:]).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("branch", ["none", "add", "norm", "pool"])
def test_tensors_that_start_anywhere_and_no_gradient(branch, device, on) -> None:
    on(device)
    given, module = tensors((1, 32, 6, 6, 4), torch.bfloat16, branch, device), pool if branch == "pool" else act
    moved = {}
    for name, tensor in given.items():
        buffer = torch.zeros(tensor.numel() + 1, dtype=tensor.dtype, device=device)[1:]
        flat = tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor
        buffer.copy_(flat.reshape(-1))
        moved[name] = buffer.view(flat.shape).permute(0, 3, 1, 2) if tensor.ndim == 4 else buffer
        assert moved[name].data_ptr() % 16
    first, again = run(module, given, 4), run(module, moved, 4)
    for name, wanted in first.items():
        assert torch.equal(wanted, again[name]), name
    with torch.no_grad():
        args = (moved["x"], moved["weight"], moved["bias"], 4, 1e-5)
        if branch == "pool":
            assert torch.equal(pool.group_norm_act_pool(*args), first["y"])
        else:
            rest = (moved.get("residual"), "relu", moved.get("residual_weight"), moved.get("residual_bias"))
            assert torch.equal(act.group_norm_act(*args, *rest), first["y"])


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_share_no_memory_and_there_is_no_second_derivative(device, on) -> None:
    on(device)
    given = tensors((2, 32, 4, 4, 2), torch.float32, "norm", device)
    pointers = [tensor.data_ptr() for tensor in run(act, given, 2).values()]
    assert len(set(pointers)) == len(pointers)
    x = given["x"].requires_grad_()
    for y in (
        act.group_norm_act(x, given["weight"], given["bias"], 2, 1e-5, None, "relu"),
        pool.group_norm_act_pool(x, given["weight"], given["bias"], 2, 1e-5),
    ):
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(y.sum(), x, create_graph=True)


@pytest.mark.parametrize("architecture", plans.DEVICES)
def test_every_norm_of_the_nets_has_a_plan(architecture) -> None:
    """What does not fit is told; on a GPU with clusters of 227 KiB everything fits."""
    limits = plans.DEVICES[architecture]
    refused = set()
    for (size, groups, branch), num_images, dtype in itertools.product(NORMS, (1, 4, 64, 256), DTYPES):
        kinds = {"pool": ("pool_forward", "pool_backward"), "norm": ("forward_norm", "backward_norm")}
        for kind in kinds.get(branch, ("forward", "backward")):
            plan = plans.plan(kind, dtype.itemsize, num_images, size[1:], size[0], groups, limits)
            if isinstance(plan, str):
                assert "do not fit the shared memory" in plan
                refused.add((size, dtype))
                continue
            assert plan.shared_bytes + 128 <= limits.block_bytes
            assert plan.cluster <= limits.max_cluster
            assert plan.pixels * plan.cluster >= size[1] * size[2] > plan.pixels * (plan.cluster - 1)
            if num_images == 1 and limits.max_cluster > 1:  # acting: one image over many blocks
                assert plan.num_blocks >= min(32, size[0] * size[1] * size[2] * dtype.itemsize // 16384)
    if architecture in (90, 100):
        assert not refused
    else:
        assert all(size[0] * dtype.itemsize >= 512 or size[1] >= 32 for size, dtype in refused)


def test_plans_and_kernels_agree_on_shared_memory(on) -> None:
    on("cpu")
    for branch, kinds in {
        "none": ("forward", "backward"),
        "norm": ("forward_norm", "backward_norm"),
        "pool": ("pool_forward", "pool_backward"),
    }.items():
        given = tensors((1, 64, 12, 10, 4), torch.bfloat16, branch, "cpu")
        module = pool if branch == "pool" else act
        x = given["x"]
        with torch.no_grad():
            if branch == "pool":
                module.group_norm_act_pool(x, given["weight"], given["bias"], 4, 1e-5)
            else:
                rest = [given.get(name) for name in ("residual", "residual_weight", "residual_bias")]
                module.group_norm_act(x, given["weight"], given["bias"], 4, 1e-5, rest[0], "relu", *rest[1:])
        assert emulator().group_norm_act_shared_bytes() == act.blocks(kinds[0], x, 4).shared_bytes
        run(module, given, 4)
        assert emulator().group_norm_act_shared_bytes() == act.blocks(kinds[1], x, 4).shared_bytes


@pytest.mark.parametrize(
    ("shape", "dtype", "why"),
    [
        ((256, 512, 16, 16), torch.bfloat16, "faster alone on an H200"),
        ((64, 256, 32, 32), torch.bfloat16, "faster alone on an H200"),
        ((256, 2048, 16, 16), torch.bfloat16, "a group of an image has 256 KiB; beyond 128"),
        ((1, 512, 16, 16), torch.float32, "measured for one image alone in float32"),
    ],
)
def test_why_triton_is_taken(shape, dtype, why) -> None:
    x, channels = torch.empty(shape, dtype=dtype, device="meta"), torch.empty(shape[1], device="meta")
    said = _why_triton(x, channels, channels, 4, 1e-5, None, "relu", None, None)
    assert said.startswith(why)


def test_what_the_kernels_refuse_is_told(on) -> None:
    on("cpu")
    given = tensors((1, 32, 4, 4, 8), torch.float32, "none", "cpu")
    args = (given["weight"], given["bias"])
    assert act.supports(given["x"], *args, 8, 1e-5, None, "relu") is None
    narrow = act.supports(given["x"].bfloat16(), *args, 8, 1e-5, None, "relu")
    assert narrow == "a group has 4 channels, the CUDA kernels take multiples of 8"
    assert "channels_last" in str(act.supports(given["x"].contiguous(), *args, 8, 1e-5, None, "relu"))
    assert "float64" in str(pool.supports(given["x"].double(), *args, 8, 1e-5))
    with pytest.raises(ValueError, match="whole groups of 4 that divide 32 channels, got 6"):
        emulator().group_norm_act_cuda_forward(
            emulator().GroupNormCudaShape(False, 1, 4, 4, 32, 8, 6, 16, 1), 0, 0, 0, 0, 0, 0, 0, 0, 0, 1e-5, True, 0
        )


@pytest.mark.parametrize(("built", "clusters"), [("80", 1), ("80 90", 8)])
def test_a_newer_gpu_has_no_clusters_where_the_newest_code_is_from_before_them(monkeypatch, built, clusters):
    gpu = types.SimpleNamespace(
        multi_processor_count=132, shared_memory_per_multiprocessor=228 << 10, max_threads_per_multi_processor=2048,
        major=10,
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    monkeypatch.setattr(plans.native, "build_info", lambda: {"cuda_architectures": built})
    assert plans.limits_of.__wrapped__(torch.device("cuda", 0)).max_cluster == clusters
