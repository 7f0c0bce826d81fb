"""cql_head in CUDA (csrc/kernels/cql_head.cu): up to four hidden layers of at most 256, on CUDA GPUs.

The forward pass is two launches, three with the log-sum-exp: weights are packed in the order in which the tensor cores
take them, then a block holds 64 rows (state, action) of one head from their actions to Q. The backward pass computes
the hidden layers again and writes each of them and its gradient once, for a block of states at a time;
:mod:`ptr_fast.kernels.cql_head.row_sums` turns them into gradients of weights and state terms.

Note "Precision of products". With ``torch.set_float32_matmul_precision`` at ``high`` the inputs of the products are
rounded to TF32, 11 significant bits; at ``medium`` to bfloat16, 8 bits; ``highest`` is refused. Sums, state terms, the
last layer, Q and the log-sum-exp are float32 in either. The products that make gradients of weights are PyTorch's, of
hidden layers and their gradients that were rounded so.
"""

from __future__ import annotations

from typing import Any

import torch

from ptr_fast import native
from ptr_fast.kernels import cuda_backend
from ptr_fast.kernels.cql_head.row_sums import add_sums, blocks_of_states

__all__ = ["cql_head", "products", "supports"]

MAX_HIDDEN = 4
MAX_WIDTH = 256
MAX_ACTION = 16
_PRODUCTS = {"high": "tf32", "medium": "bf16"}


def products() -> str | None:
    """What the inputs of products are rounded to, here and now: ``tf32``, ``bf16``, or None where they must not be."""
    return _PRODUCTS.get(torch.get_float32_matmul_precision())


def supports(
    state_terms: tuple[torch.Tensor, ...],
    action_weights: tuple[torch.Tensor | None, ...],
    hidden_weights: tuple[torch.Tensor, ...],
    actions_BKA: torch.Tensor,
    log_weight_BK: torch.Tensor | None,
) -> str | None:
    """None where the kernels can run, else why not (where they may run at all is asked before)."""
    if products() is None:
        return "products in full float32 are asked for, the kernels' are in TF32 or bfloat16"
    if len(hidden_weights) > MAX_HIDDEN:
        return f"{len(hidden_weights)} hidden layers, the kernels are for {MAX_HIDDEN} at most"
    widest = max(term.shape[2] for term in state_terms)
    if widest > MAX_WIDTH:
        return f"a hidden layer of {widest}, the kernels are for {MAX_WIDTH} at most"
    if actions_BKA.shape[2] > MAX_ACTION:
        return f"actions of {actions_BKA.shape[2]} dimensions, the kernels are for {MAX_ACTION} at most"
    tensors = (*state_terms, *action_weights, *hidden_weights, actions_BKA, log_weight_BK)
    dtypes = {tensor.dtype for tensor in tensors if tensor is not None}
    if dtypes != {torch.float32}:
        return f"dtypes {sorted(map(str, dtypes))}, the kernels are for float32"
    if any(tensor.numel() == 0 for tensor in tensors if tensor is not None):
        return "a tensor is empty"
    return None


def cql_head(
    state_terms: tuple[torch.Tensor, ...],
    action_weights: tuple[torch.Tensor | None, ...],
    hidden_weights: tuple[torch.Tensor, ...],
    actions_BKA: torch.Tensor,
    log_weight_BK: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    tensors = (*state_terms, *action_weights, *hidden_weights)
    with_back = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (actions_BKA, *tensors))
    return _CqlHead.apply(len(state_terms), with_back, actions_BKA, log_weight_BK, *tensors)


class _Kernels:
    """The launches of the native module, on the current stream of a device."""

    def __init__(self, device: torch.device) -> None:
        self.module, self.stream = native.require(), cuda_backend.stream(device)

    def packed_words(self, call: dict[str, Any]) -> int:
        """32-bit words of packed weights of one head."""
        return self.module.cql_head_cuda_packed_words(call)

    def forward(self, call: dict[str, Any]) -> None:
        """Launches the forward pass."""
        self.module.cql_head_cuda_forward(call, self.stream)

    def backward(self, call: dict[str, Any]) -> None:
        """Launches the backward pass over some rows."""
        self.module.cql_head_cuda_backward(call, self.stream)


def _call(
    num_layers: int,
    given: tuple[torch.Tensor, torch.Tensor | None],
    tensors: tuple[torch.Tensor | None, ...],
    product: str,
    rows: list[tuple[torch.Tensor, torch.Tensor]] | None = None,
) -> dict[str, Any]:
    """What both passes tell the kernels (csrc/bindings/cql_head_cuda.h); ``rows``: where h and d of each layer go."""
    actions_BKA, log_weight_BK = given
    terms, weights, hidden = tensors[:num_layers], tensors[num_layers : 2 * num_layers], tensors[2 * num_layers :]
    layers = []
    for i, (term, weight) in enumerate(zip(terms, weights, strict=True)):
        assert term is not None
        before = hidden[i - 1] if i > 0 else None
        stored = rows[i] if rows and i < len(rows) else (None, None)
        layers.append(
            (
                term.shape[2],
                term.data_ptr(),
                term.stride(0),
                0 if term.shape[1] == 1 else term.stride(1),
                *_address_and_stride(weight),
                *_address_and_stride(before),
                *map(_address, stored),
            )
        )
    assert terms[0] is not None
    return {
        "products": product,
        "sizes": (terms[0].shape[0], *actions_BKA.shape),
        "layers": layers,
        "actions": actions_BKA.data_ptr(),
        "log_weight": _address(log_weight_BK),
        "packed": 0,
    }


class _CqlHead(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        num_layers: int,
        with_back: bool,
        actions_BKA: torch.Tensor,
        log_weight_BK: torch.Tensor | None,
        *layers: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        actions_BKA = actions_BKA.contiguous()
        log_weight_BK = None if log_weight_BK is None else log_weight_BK.contiguous()
        tensors = tuple(None if tensor is None else _with_dense_rows(tensor) for tensor in layers)
        E, (B, K, _), device = layers[0].shape[0], actions_BKA.shape, actions_BKA.device
        product = products()
        assert product is not None
        kernels, call = _Kernels(device), _call(num_layers, (actions_BKA, log_weight_BK), tensors, product)
        packed = torch.empty((E, kernels.packed_words(call)), dtype=torch.int32, device=device)
        q_EBK = torch.empty((E, B, K), dtype=torch.float32, device=device)
        lse_EB = None if log_weight_BK is None else torch.empty((E, B), dtype=torch.float32, device=device)
        kernels.forward(
            call | {"packed": packed.data_ptr(), "with_back": with_back, "q": q_EBK.data_ptr(), "lse": _address(lse_EB)}
        )
        kept = (q_EBK, lse_EB) if lse_EB is not None else (None, None)
        ctx.save_for_backward(packed, actions_BKA, log_weight_BK, *kept, *tensors)
        ctx.num_layers, ctx.product = num_layers, product
        ctx.set_materialize_grads(False)
        return q_EBK, lse_EB

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, dq_EBK: torch.Tensor | None, dlse_EB: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "cql_head: the cuda backend has no second derivative; "
                "run the forward pass inside dispatch.use_backend('reference')"
            )
        packed, actions_BKA, log_weight_BK, q_EBK, lse_EB, *tensors = ctx.saved_tensors
        if dq_EBK is None and dlse_EB is None:
            return (None,) * (4 + len(tensors))
        wanted, to_actions = ctx.needs_input_grad[4:], ctx.needs_input_grad[2]
        sums = [
            torch.zeros(tensor.shape, dtype=torch.float32, device=tensor.device) if need else None
            for need, tensor in zip(wanted, tensors, strict=True)
        ]
        num_layers, device, (B, K, A) = ctx.num_layers, actions_BKA.device, actions_BKA.shape
        widths = [tensor.shape[2] for tensor in tensors[: num_layers - 1]]
        dactions_BKA = torch.empty(actions_BKA.shape, dtype=torch.float32, device=device) if to_actions else None
        dq_EBK = None if dq_EBK is None else dq_EBK.contiguous()
        dlse_EB = None if dlse_EB is None else dlse_EB.contiguous()
        kernels, E = _Kernels(device), tensors[0].shape[0]
        for states in blocks_of_states(E, B, K):
            num_rows = (states.stop - states.start) * K

            def new(width: int, num_rows: int = num_rows) -> torch.Tensor:
                return torch.empty((E, num_rows, width), dtype=torch.float32, device=device)

            rows = [(new(width), new(width)) for width in widths] if any(wanted) else []
            g_ER1, dactions_ERA = new(1) if any(wanted) else None, new(A) if to_actions else None
            kernels.backward(
                _call(num_layers, (actions_BKA, log_weight_BK), tuple(tensors), ctx.product, rows)
                | {
                    "packed": packed.data_ptr(),
                    "first_row": states.start * K,
                    "num_rows": num_rows,
                    "q": _address(q_EBK),
                    "lse": _address(lse_EB),
                    "dq": _address(dq_EBK),
                    "dlse": _address(dlse_EB),
                    "g": _address(g_ER1),
                    "dactions": _address(dactions_ERA),
                }
            )
            if g_ER1 is not None:
                add_sums(num_layers, sums, actions_BKA[states].reshape(num_rows, A), g_ER1, rows, states)
            if dactions_BKA is not None and dactions_ERA is not None:
                dactions_BKA[states] = dactions_ERA.sum(dim=0).view(-1, K, A)
        return None, None, dactions_BKA, None, *sums


def _with_dense_rows(tensor: torch.Tensor) -> torch.Tensor:
    dense = tensor.stride(2) == 1 and tensor.stride(1) == tensor.shape[2]
    return tensor if dense else tensor.contiguous()


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _address_and_stride(tensor: torch.Tensor | None) -> tuple[int, int]:
    return (0, 0) if tensor is None else (tensor.data_ptr(), tensor.stride(0))
