"""Every op on the paper's shapes, cold L2: each of its backends; its definition under ``torch.compile`` in parts of
their own, as that takes a minute to compile.

The gate compares outputs and all gradients with the reference backend, or with its float64 where a case has one.
``num_bytes`` is what has to move at least: over the time, over the measured copy bandwidth, it is the share of the
possible.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.cases import StepCase, make_learner
from benchmarks.gpu.timing import Bench
from benchmarks.harness import compare
from benchmarks.peers.plain_batch import only
from ptr_fast.kernels import dispatch
from ptr_fast.kernels.augment import yuv420

__all__ = ["OPS", "OpCase", "cases", "run"]

ERROR_BOUND = 3e-2  # relative, 2-norm: bfloat16
_PRODUCTS = {"high": "", "medium": " bf16 products"}  # by torch's precision of float32 products


@dataclass(frozen=True)
class OpCase:
    """One call of an op.

    Attributes:
        op: name.
        label: the shapes.
        call: runs it through its public door; returns a tensor or a tuple of them.
        leaves: what gradients are taken for; empty: forward only.
        num_bytes: that the forward has to move, and forward with backward.
        restart: puts back what a call changes in place.
        compiled: what is compiled instead of ours: its backend; None: nothing.
        untimed: backends that are there to compare results with: timing them would say nothing.
        error_bound: of a backend's distance from the reference, relative, in the 2-norm of a tensor.
        exact: the reference in float64, of the same leaves and dtypes; for an op whose reference rounds before it
            decides where a gradient goes. Backends of ours are held to it; what PyTorch rounds, to it or the reference.
    """

    op: str
    label: str
    call: Callable[[], Any]
    leaves: tuple[torch.Tensor, ...] = ()
    num_bytes: tuple[int, int] = (0, 0)
    restart: Callable[[], None] | None = None
    compiled: str | None = "reference"
    untimed: tuple[str, ...] = ()
    error_bound: float = ERROR_BOUND
    exact: Callable[[], Any] | None = None


def run(bench: Bench, op: str, compiled: bool = False) -> None:
    """The rows of an op in ``gpu_kernels``: every backend on every shape, or the first one beside ``torch.compile``."""
    make = next(maker for maker in _MAKERS if maker.__name__ == op)
    for case in bench.mine(bench.attempt("gpu_kernels", op, lambda: make(bench)) or ()):
        if compiled and case.compiled is None:
            continue
        modes = (True,) if compiled and case.leaves else (False, True) if case.leaves else (False,)
        for backward in modes:
            label = f"{op} {case.label} {'forward+backward' if backward else 'forward'}{', compiled' * compiled}"
            bench.attempt("gpu_kernels", label, lambda b=backward, n=label, c=case: measure(bench, c, b, n, compiled))


def cases(bench: Bench) -> list[OpCase]:
    """Every case, for tests."""
    return [case for make in _MAKERS for case in make(bench)]


def measure(bench: Bench, case: OpCase, backward: bool, label: str, compiled: bool = False) -> dict[str, Any]:
    """The row of a case in one mode."""
    bench.need(10)
    grads: list[torch.Tensor] = []
    checking = [True]

    def work(call: Callable[[], Any] = case.call) -> list[torch.Tensor]:
        if case.restart is not None and checking:
            case.restart()
        with torch.set_grad_enabled(backward):
            out = call()
        outputs = [tensor for tensor in (out if isinstance(out, tuple | list) else (out,)) if tensor is not None]
        if not backward:
            return outputs
        if not grads:
            grads.extend(torch.randn_like(output) for output in outputs)
        gradients = torch.autograd.grad(outputs, case.leaves, grads, allow_unused=True)
        return [*outputs, *(gradient for gradient in gradients if gradient is not None)]

    variants: dict[str, Callable[[], Any]] = {}
    why_not: dict[str, str] = {}
    for name in dispatch.ops()[case.op]:
        # The interpreter would run it, for minutes; tests/kernels has its small shapes.
        if (bench.dry and name == "triton") or (compiled and variants):
            continue
        forced = _forced(work, case.op, name)
        try:
            forced()
        except RuntimeError as error:
            why_not[name] = str(error)[:300]
            continue
        variants[name] = forced
    if compiled:
        # Forgotten first: after a handful of compilations of one function the compiler gives up and runs it eagerly.
        torch.compiler.reset()
        call = torch.compile(case.call, dynamic=False, **({"backend": "eager"} if bench.dry else {}))
        variants["compiled"] = _forced(lambda: work(call), case.op, str(case.compiled))

    def gate() -> dict[str, Any]:
        reference = dispatch.ops()[case.op][-1]
        plain = [tensor.clone() for tensor in _forced(work, case.op, reference)()]
        exact = plain if case.exact is None else [tensor.clone() for tensor in work(case.exact)]
        errors = {}
        for name, variant in variants.items():
            found = [tensor.clone() for tensor in variant()]
            errors[name] = _distance(found, exact)
            near = errors[name]
            if name in (reference, "compiled") and not near <= case.error_bound:
                near = _distance(found, plain)
            assert near <= case.error_bound, f"{label}: {name} is {near:.2e} away from the reference"
        checking.clear()
        return {"errors": {name: float(f"{value:.2e}") for name, value in errors.items()}, "not_run": why_not}

    if bench.compile_only:
        for variant in variants.values():
            variant()
        return {}
    row = compare(
        "gpu_kernels",
        label,
        {name: bench.timed(variant) for name, variant in variants.items() if name not in case.untimed},
        gate,
        num_rounds=bench.rounds(21),
        **{key: round(value, 1) for key, value in bench.peaks.items()},
        num_bytes=case.num_bytes[backward],
        dry=bench.dry,
    )
    return row


def _distance(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """The largest relative distance of a pair of tensors, in the 2-norm; NaN where one is."""
    pairs = zip((tensor.detach().float() for tensor in found), (t.detach().float() for t in wanted), strict=True)
    return float(torch.stack([(a - b).norm() / b.norm().clamp(min=1e-6) for a, b in pairs]).max())


def _forced(work: Callable[[], Any], op: str, name: str) -> Callable[[], Any]:
    def forced() -> Any:
        with dispatch.use_backend(f"{op}={name}"):
            return work()

    return forced


def _images(
    bench: Bench, num_batch: int, channels: int, size: int, dtype: torch.dtype = torch.bfloat16
) -> torch.Tensor:
    if bench.small:
        num_batch, size = min(num_batch, 2), max(size // 8, 2)
    dtype = torch.float32 if bench.dry else dtype
    x = torch.randn(num_batch, channels, size, size, device=bench.device, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def _channels(bench: Bench, channels: int) -> torch.Tensor:
    return torch.randn(channels, device=bench.device).requires_grad_()


def group_norm_act(bench: Bench) -> list[OpCase]:
    """The norms of ResNet-34 and ResNet-50 on 128x128 frames; of one float32 frame as they are when acting."""
    function = importlib.import_module("ptr_fast.kernels.group_norm_act").group_norm_act
    made = []
    shapes = ((64, 32, "34"), (128, 16, "34"), (256, 16, "34"), (512, 16, "34"), (256, 32, "50"), (2048, 16, "50"))
    for channels, size, net in shapes:
        for branch in ("plain", "residual", "shortcut"):
            if branch == "shortcut" and channels == 64:
                continue
            x, weight, bias = (
                _images(bench, 256, channels, size),
                _channels(bench, channels),
                _channels(bench, channels),
            )
            extra: dict[str, Any] = {}
            leaves = [x, weight, bias]
            if branch != "plain":
                extra["residual"] = _images(bench, 256, channels, size)
            if branch == "shortcut":
                extra |= {"residual_weight": _channels(bench, channels), "residual_bias": _channels(bench, channels)}
            leaves += list(extra.values())
            streams = 1 if branch == "plain" else 2
            size_bytes = x.numel() * x.element_size()
            made.append(
                OpCase(
                    "group_norm_act",
                    f"ResNet-{net} {branch} {list(x.shape)} {x.dtype}",
                    lambda x=x, w=weight, b=bias, extra=extra: function(x, w, b, 4, 1e-5, **extra),
                    tuple(leaves),
                    ((1 + streams) * size_bytes, (3 + 3 * streams) * size_bytes),
                    compiled="reference" if (channels, net) == (256, "34") else None,
                )
            )
    acting = []
    for channels, size in ((64, 32), (128, 16), (256, 16), (512, 16), (2048, 16)):
        x = _images(bench, 1, channels, size, torch.float32).detach()
        weight, bias = _channels(bench, channels).detach(), _channels(bench, channels).detach()
        acting.append(
            OpCase(
                "group_norm_act",
                f"acting {list(x.shape)} {x.dtype}",
                lambda x=x, w=weight, b=bias: function(x, w, b, 4, 1e-5),
                num_bytes=(2 * x.numel() * 4,) * 2,
                compiled=None,
            )
        )
    return [*made[:6], *acting[:1]] if bench.small else [*made, *acting]


def group_norm_act_pool(bench: Bench) -> list[OpCase]:
    """The stem's norm, ReLU and max-pool."""
    function = importlib.import_module("ptr_fast.kernels.group_norm_act_pool").group_norm_act_pool
    definition = importlib.import_module("ptr_fast.kernels.group_norm_act_pool.reference").group_norm_act_pool
    x, weight, bias = _images(bench, 256, 64, 64), _channels(bench, 64), _channels(bench, 64)
    size = x.numel() * x.element_size()
    return [
        OpCase(
            "group_norm_act_pool",
            f"stem {list(x.shape)} {x.dtype}",
            lambda: function(x, weight, bias, 4, 1e-5),
            (x, weight, bias),
            (size * 5 // 4, size * 14 // 4),
            error_bound=5e-3,
            # Of maxima that are equal in bfloat16 the reference takes the first, our kernels the larger.
            exact=lambda: definition(x.double(), weight.double(), bias.double(), 4, 1e-5).to(x.dtype),
        )
    ]


def spatial_embedding(bench: Bench) -> list[OpCase]:
    """The pooling of ResNet-34 and ResNet-50."""
    function = importlib.import_module("ptr_fast.kernels.spatial_embedding").spatial_embedding
    made = []
    for channels in (512,) if bench.small else (512, 2048):
        x = _images(bench, 256, channels, 16)
        pixels = x.shape[2] * x.shape[3]
        kernel = (
            torch.randn(channels, pixels, 8, device=bench.device) / pixels
        ).requires_grad_()  # float32, as trained
        size = x.numel() * x.element_size()
        label = f"{list(x.shape)} {x.dtype}"
        made.append(
            OpCase("spatial_embedding", label, lambda x=x, k=kernel: function(x, k), (x, kernel), (size, 3 * size))
        )
    return made


def cql_head(bench: Bench) -> list[OpCase]:
    """The paper's heads, ten critics on 90 actions, searches among candidates; with products in TF32, and in bfloat16
    where a backend has them (``cuda``; the others take TF32 then, too).
    """
    function = importlib.import_module("ptr_fast.kernels.cql_head").cql_head
    sizes = {
        "paper": (2, 256, 9, 7, 256),
        "ten critics": (10, 256, 90, 7, 256),
        "states": (2, 256, 31, 6, 256),
        "simulation": (2, 64, 17, 4, 128),
        "search 50": (2, 1, 50, 7, 256),
        "search 10000": (2, 1, 10_000, 7, 256),
    }
    made = []
    for label, (num_critics, num_batch, num_actions, action_dim, width) in sizes.items():
        search = num_batch == 1
        if bench.small:
            num_batch, num_actions, width = min(num_batch, 4), min(num_actions, 90), 16

        def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
            return (torch.randn(shape, device=bench.device) * scale).requires_grad_()

        widths = (width, width, width, 1)
        terms = tuple(normal(num_critics, num_batch, size) for size in widths)
        weights = tuple(normal(num_critics, action_dim, size, scale=0.3) for size in widths)
        hidden = tuple(normal(num_critics, width, size, scale=width**-0.5) for size in widths[1:])
        actions = (torch.rand(num_batch, num_actions, action_dim, device=bench.device) * 2 - 1).requires_grad_()
        log_weight = None if search else torch.randn(num_batch, num_actions, device=bench.device)
        for precision in ("high", "medium"):

            def call(
                t=terms, w=weights, h=hidden, a=actions, lw=log_weight, precision=precision
            ) -> tuple[torch.Tensor, torch.Tensor | None]:
                before = torch.get_float32_matmul_precision()
                torch.set_float32_matmul_precision(precision)
                try:
                    return function(t, w, h, a, lw)
                finally:
                    torch.set_float32_matmul_precision(before)

            made.append(
                OpCase(
                    "cql_head",
                    f"{label} E={num_critics} B={num_batch} K={num_actions} H={width}{_PRODUCTS[precision]}",
                    call,
                    () if search else (*terms, *weights, *hidden, actions),
                    compiled="reference" if precision == "high" else None,
                    # TF32 turns over one ReLU in a thousand, here and in the reference, bfloat16 one in a hundred: a
                    # gradient moves by the root of that.
                    error_bound=6e-2 if precision == "high" else 0.2,
                )
            )
    return made


def counter_random(bench: Bench) -> list[OpCase]:
    """Normal numbers of one update at batch 1024."""
    module = importlib.import_module("ptr_fast.kernels.counter_random")
    num_samples, num_words = (4, 8) if bench.small else (1024, 28)
    step = torch.ones((), dtype=torch.int64, device=bench.device)

    def call() -> torch.Tensor:
        return module.normal(0, module.Stream.NEXT_EPS, step, range(num_samples), num_words, bench.device)

    return [OpCase("counter_random", f"normal B={num_samples} words={num_words}", call, compiled=None)]


def augment(bench: Bench) -> list[OpCase]:
    """512 frames of 128x128, as pixels and as planes: crop, jitter, scale."""
    module = importlib.import_module("ptr_fast.kernels.augment")
    num_images, size = (4, 16) if bench.small else (512, 128)
    dtype = torch.float32 if bench.dry else torch.bfloat16
    case = StepCase(encoder="conv3", num_batch=num_images, num_filters=8)
    params = only(make_learner(case, bench.device).draw(range(num_images), 1).augment)
    images = torch.randint(0, 256, (num_images, size, size, 3), dtype=torch.uint8, device=bench.device)
    label = f"{num_images} frames of {size}x{size} to {dtype}"
    out = []
    for layout, frames in (("", images), (" from YUV 4:2:0", yuv420.encode(images))):
        moved = frames.numel() + images.numel() * dtype.itemsize
        call = lambda frames=frames: module.augment(frames, params, dtype)  # noqa: E731
        # The reference works image by image, in hundreds of launches.
        out.append(
            OpCase("augment", label + layout, call, num_bytes=(moved, moved), compiled="planar", untimed=("reference",))
        )
    return out


def adam_polyak(bench: Bench) -> list[OpCase]:
    """Every weight of the ResNet-34 critic: Adam and the average in one pass."""
    module = importlib.import_module("ptr_fast.kernels.adam_polyak")
    name, width = ("resnet_small", 8) if bench.small else ("resnet34", 64)
    learner = make_learner(StepCase(encoder=name, num_batch=2, num_filters=width), bench.device)
    parameters = [p.detach() for p in learner.critic.parameters()]
    gradients = [torch.randn_like(p) for p in parameters]
    moments = [[torch.zeros_like(p) for p in parameters] for _ in range(3)]
    steps_N = torch.zeros(len(parameters), device=bench.device)
    operands = module.Operands(parameters, *moments[:2], steps_N, moments[2])
    starts = [[tensor.clone() for tensor in tensors] for tensors in (parameters, *moments)]

    def call() -> torch.Tensor:
        module.adam_polyak(operands, gradients, 1e-4, tau=0.005)
        return parameters[0]

    def restart() -> None:
        steps_N.zero_()
        for tensors, start in zip((parameters, *moments), starts, strict=True):
            torch._foreach_copy_(tensors, start)

    size = sum(p.numel() for p in parameters)
    label = f"{name} critic, {size / 1e6:.1f} M weights"
    num_bytes = (36 * size, 36 * size)
    return [OpCase("adam_polyak", label, call, num_bytes=num_bytes, restart=restart, compiled=None)]


_MAKERS = (group_norm_act, cql_head, group_norm_act_pool, augment, adam_polyak, spatial_embedding, counter_random)
OPS = tuple(maker.__name__ for maker in _MAKERS)
