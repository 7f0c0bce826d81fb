"""No op of an update in bfloat16 mixes dtypes in a way that the CPU takes and a GPU refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from learner_cases import make_batch, make_spec
from torch.utils._python_dispatch import TorchDispatchMode

from ptr_fast.config import CqlConfig, EncoderConfig
from ptr_fast.kernels import dispatch
from ptr_fast.kernels.group_norm_act import group_norm_act
from ptr_fast.kernels.group_norm_act_pool import group_norm_act_pool
from ptr_fast.learners import make_learner

# Ops whose floating-point tensors must be of one dtype on a GPU; statistics (the second and third result) apart.
ONE_DTYPE = {
    "addmm",
    "baddbmm",
    "bmm",
    "convolution",
    "convolution_backward",
    "mm",
    "native_group_norm",
    "native_group_norm_backward",
    "native_layer_norm",
}
STATISTICS = {"native_group_norm_backward": (2, 3)}  # positions of mean and rstd


class OneDtype(TorchDispatchMode):
    """Fails where a GPU would; ``seen`` are the ops that it looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ONE_DTYPE:
            self.seen.add(name)
            tensors = [a for i, a in enumerate(args) if i not in STATISTICS.get(name, ())]
            dtypes = {a.dtype for a in tensors if isinstance(a, torch.Tensor) and a.is_floating_point()}
            assert len(dtypes) == 1, f"{name} of {dtypes}"
        return function(*args, **(kwargs or {}))


@pytest.fixture
def plain_pytorch() -> Iterator[None]:
    names = [f"{op}={'planar' if op == 'augment' else 'reference'}" for op in dispatch.ops()]
    with dispatch.use_backend(",".join(names)):
        yield


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("variant", ["plain", "residual", "residual with a norm", "pool"])
def test_norms_take_float32_weights_with_activations_of_any_dtype(dtype, variant, plain_pytorch):
    x, residual = (torch.randn(2, 8, 4, 4).to(dtype).requires_grad_() for _ in range(2))
    weight, bias, *own = (torch.randn(8).requires_grad_() for _ in range(4))
    with OneDtype() as mode:
        if variant == "pool":
            out = group_norm_act_pool(x, weight, bias, 4)
        else:
            norm = own if variant == "residual with a norm" else (None, None)
            residual = None if variant == "plain" else residual
            out = group_norm_act(x, weight, bias, 4, residual=residual, residual_weight=norm[0], residual_bias=norm[1])
        out.square().sum().backward()
    assert mode.seen == {"native_group_norm", "native_group_norm_backward"}
    assert out.dtype == dtype
    assert x.grad.dtype == dtype
    assert weight.grad.dtype == torch.float32


@pytest.mark.parametrize("encoder", ["resnet_small", "conv3"])
def test_an_update_in_bfloat16_mixes_no_dtypes(encoder, plain_pytorch):
    spec = make_spec()
    config = CqlConfig(
        encoder=EncoderConfig(name=encoder, embedding_dim=16), hidden_dims=(16, 16), num_action_samples=2
    )
    learner = make_learner(config, spec, seed=1, encoder_dtype=torch.bfloat16)
    with OneDtype() as mode:
        learner.update(make_batch(spec, num_batch=3), 0)
    assert {"convolution", "convolution_backward", "native_group_norm", "bmm"} <= mode.seen
