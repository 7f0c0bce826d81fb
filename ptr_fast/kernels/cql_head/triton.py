"""cql_head in Triton: up to three hidden layers in float32 with TF32 products, on CUDA GPUs.

The forward pass writes Q and the log-sum-exp alone. The backward pass computes the hidden layers again and writes each
of them and its gradient once, for a block of states at a time; :mod:`ptr_fast.kernels.cql_head.row_sums` turns them
into gradients of weights and state terms. Accumulators of a 256 x 256 weight would not fit beside the products in a
multiprocessor.

Note "TF32". Inputs of the products are rounded to 11 significant bits (float32 has 24, the trunk's bfloat16 8); sums,
state terms, the last layer, Q and log-sum-exp are float32. Full float32 products would need more registers than a
thread has: the kernels are not for programs that ask PyTorch for them (``torch.set_float32_matmul_precision``).
"""

from __future__ import annotations

from typing import Any

import torch

from ptr_fast.kernels.cql_head.kernels import cql_head_backward_kernel, cql_head_forward_kernel
from ptr_fast.kernels.cql_head.row_sums import add_sums, blocks_of_states
from ptr_fast.kernels.triton_backend import interpreting

__all__ = ["cql_head", "supports"]

_MAX_WIDTH = 256  # wider tiles do not fit into registers
_MAX_ACTION = 64

# Padded width of the second layer -> rows of a tile, columns of a chunk, warps forward, warps backward, stages. Bounds:
# the tile's accumulator (rows x width) in registers, chunks of weights and the tile as an operand in the 99 KiB
# of shared memory of sm_120. Nothing spills under Triton 3.6 and 3.7. Not measured on a GPU yet.
_LAUNCH = {**dict.fromkeys((16, 32, 64, 128), (32, 16, 4, 4, 2)), 256: (32, 16, 4, 8, 2)}


def supports(
    state_terms: tuple[torch.Tensor, ...],
    action_weights: tuple[torch.Tensor | None, ...],
    hidden_weights: tuple[torch.Tensor, ...],
    actions_BKA: torch.Tensor,
    log_weight_BK: torch.Tensor | None,
) -> str | None:
    """None where the kernels can run, else why not (where they may run at all is asked before)."""
    tensors = (*state_terms, *action_weights, *hidden_weights, actions_BKA, log_weight_BK)
    if torch.get_float32_matmul_precision() == "highest" and not interpreting():
        return "products in full float32 are asked for, the kernels' are in TF32"
    if len(hidden_weights) > 3:
        return f"{len(hidden_weights)} hidden layers, the kernels are for three at most"
    widths = [term.shape[2] for term in state_terms]
    if max(widths) > _MAX_WIDTH:
        return f"a hidden layer of {max(widths)}, the kernels are for {_MAX_WIDTH} at most"
    if actions_BKA.shape[2] > _MAX_ACTION:
        return f"actions of {actions_BKA.shape[2]} dimensions, the kernels are for {_MAX_ACTION} at most"
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
    return _CqlHead.apply(len(state_terms), actions_BKA, log_weight_BK, *state_terms, *action_weights, *hidden_weights)


class _Layers:
    """The tensors of one call by layer, and their arguments to the kernels; layers that are not there get stand-ins."""

    def __init__(self, num_layers: int, actions_BKA: torch.Tensor, tensors: tuple[torch.Tensor | None, ...]) -> None:
        self.terms, self.actions = tensors[:num_layers], tensors[num_layers : 2 * num_layers]
        self.hidden = tensors[2 * num_layers :]
        self.num_hidden = num_layers - 1
        self.num_heads = _shape(self.terms[0])[0]
        self.widths = [_shape(term)[2] for term in self.terms[:-1]]
        self.stand_in = actions_BKA
        launch = _LAUNCH[self.padded(1 if self.num_hidden > 1 else 0)]
        self.rows, chunk, self.forward_warps, self.backward_warps, num_stages = launch
        self.constants: dict[str, Any] = {
            "LAYERS": self.num_hidden,
            **{f"H{i + 1}": self.widths[i] if i < self.num_hidden else 16 for i in range(3)},
            "N2": self.padded(1) if self.num_hidden > 1 else 16,
            "A2": self._of(self.actions, 1) is not None,
            "A3": self._of(self.actions, 2) is not None,
            "A_LAST": self.actions[-1] is not None,
            "R": self.rows,
            "C": chunk,
            "A": max(16, _power_of_two(actions_BKA.shape[2])),
            "num_stages": num_stages,
        }

    def padded(self, i: int) -> int:
        return max(16, _power_of_two(self.widths[i]))

    def _of(self, part: tuple[torch.Tensor | None, ...], i: int) -> torch.Tensor | None:
        return part[i] if i < self.num_hidden else None

    def pointers(self, *, last_term: bool) -> list[torch.Tensor]:
        """state terms 1 to 3 (and the last), action weights 1 to 3 and the last, hidden weights 2, 3 and the last."""
        terms = [self._of(self.terms, i) for i in range(3)] + ([self.terms[-1]] if last_term else [])
        actions = [*(self._of(self.actions, i) for i in range(3)), self.actions[-1]]
        hidden = [*(self.hidden[i] if i + 1 < self.num_hidden else None for i in range(2)), self.hidden[-1]]
        return [self.stand_in if tensor is None else tensor for tensor in (*terms, *actions, *hidden)]

    def strides(self, *, last_term: bool) -> list[int]:
        """From head to head of the terms, from state to state of the terms, from head to head of the weights."""
        tensors = self.pointers(last_term=last_term)
        terms, weights = tensors[: 3 + last_term], tensors[3 + last_term :]
        steps = [0 if term.shape[1] == 1 else term.stride(1) for term in terms]
        return [term.stride(0) for term in terms] + steps + [weight.stride(0) for weight in weights]


class _CqlHead(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, num_layers: int, actions_BKA: torch.Tensor, log_weight_BK: torch.Tensor | None, *tensors: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        actions_BKA = actions_BKA.contiguous()
        log_weight_BK = None if log_weight_BK is None else log_weight_BK.contiguous()
        tensors = tuple(None if tensor is None else _with_dense_rows(tensor) for tensor in tensors)
        layers = _Layers(num_layers, actions_BKA, tensors)
        E, (B, K, A) = layers.num_heads, actions_BKA.shape
        q_EBK = torch.empty((E, B, K), dtype=torch.float32, device=actions_BKA.device)
        lse_EB = None if log_weight_BK is None else torch.empty((E, B), dtype=torch.float32, device=actions_BKA.device)
        num_states = _states_per_program(K, layers.rows)
        cql_head_forward_kernel[(-(-B // num_states), E)](
            actions_BKA,
            actions_BKA if log_weight_BK is None else log_weight_BK,
            q_EBK,
            q_EBK if lse_EB is None else lse_EB,
            *layers.pointers(last_term=True),
            *layers.strides(last_term=True),
            B,
            K,
            A,
            num_states,
            HAS_LSE=lse_EB is not None,
            P=_power_of_two(num_states),
            num_warps=layers.forward_warps,
            **layers.constants,
        )
        kept = (q_EBK, lse_EB) if lse_EB is not None else (None, None)
        ctx.save_for_backward(actions_BKA, log_weight_BK, *kept, *tensors)
        ctx.num_layers = num_layers
        ctx.set_materialize_grads(False)
        return q_EBK, lse_EB

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, dq_EBK: torch.Tensor | None, dlse_EB: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "cql_head: the triton backend has no second derivative; "
                "run the forward pass inside dispatch.use_backend('reference')"
            )
        actions_BKA, log_weight_BK, q_EBK, lse_EB, *tensors = ctx.saved_tensors
        if dq_EBK is None and dlse_EB is None:
            return (None,) * (3 + len(tensors))
        layers = _Layers(ctx.num_layers, actions_BKA, tuple(tensors))
        wanted = ctx.needs_input_grad[3:]
        sums = [
            torch.zeros(tensor.shape, dtype=torch.float32, device=tensor.device) if need else None
            for need, tensor in zip(wanted, tensors, strict=True)
        ]
        to_actions = ctx.needs_input_grad[1]
        dactions_BKA = torch.empty(actions_BKA.shape, dtype=torch.float32, device=actions_BKA.device)
        E, (B, K, A) = layers.num_heads, actions_BKA.shape
        dq_EBK = None if dq_EBK is None else dq_EBK.contiguous()
        dlse_EB = None if dlse_EB is None else dlse_EB.contiguous()
        given = (actions_BKA, log_weight_BK, q_EBK, lse_EB, dq_EBK, dlse_EB)
        for states in blocks_of_states(E, B, K):
            first_row, num_rows = states.start * K, (states.stop - states.start) * K
            g_ER, rows, dactions_ERA = _backward_rows(layers, given, first_row, num_rows, any(wanted), to_actions)
            if any(wanted):
                actions_RA = actions_BKA[states].reshape(num_rows, A)
                add_sums(ctx.num_layers, sums, actions_RA, g_ER.unsqueeze(2), rows, states)
            if to_actions:
                dactions_BKA[states] = dactions_ERA.sum(dim=0).view(-1, K, A)
        return None, dactions_BKA if to_actions else None, None, *sums


def _backward_rows(
    layers: _Layers,
    given: tuple[torch.Tensor | None, ...],
    first_row: int,
    num_rows: int,
    store: bool,
    to_actions: bool,
) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
    """Launches the backward kernel on a block: dq ``[E, R]``, (h, d) per hidden layer, dactions ``[E, R, A]``."""
    actions_BKA, log_weight_BK, q_EBK, lse_EB, dq_EBK, dlse_EB = given
    assert actions_BKA is not None
    E, (B, K, A), device = layers.num_heads, actions_BKA.shape, actions_BKA.device
    g_ER = torch.empty((E, num_rows if store else 1), dtype=torch.float32, device=device)
    rows = []
    for width in layers.widths if store else []:
        h, d = (torch.empty((E, num_rows, width), dtype=torch.float32, device=device) for _ in range(2))
        rows.append((h, d))
    dactions_ERA = torch.empty((E, num_rows if to_actions else 1, A), dtype=torch.float32, device=device)
    stored = [[pair[part] for pair in rows] + [g_ER] * (3 - len(rows)) for part in (0, 1)]
    has_lse = dlse_EB is not None
    softmax = (log_weight_BK, q_EBK, lse_EB) if has_lse else (g_ER,) * 3
    cql_head_backward_kernel[(-(-num_rows // layers.rows), E)](
        actions_BKA,
        *softmax,
        g_ER if dq_EBK is None else dq_EBK,
        g_ER if dlse_EB is None else dlse_EB,
        *layers.pointers(last_term=False),
        g_ER,
        *stored[0],
        *stored[1],
        dactions_ERA,
        *layers.strides(last_term=False),
        first_row,
        num_rows,
        B,
        K,
        A,
        HAS_DQ=dq_EBK is not None,
        HAS_LSE=has_lse,
        STORE=store,
        TO_ACTIONS=to_actions,
        num_warps=layers.backward_warps,
        **layers.constants,
    )
    return g_ER, rows, dactions_ERA


def _states_per_program(num_samples: int, rows: int) -> int:
    """So many states that their rows fill tiles of ``rows`` well, with as few tiles per program as that takes."""
    if num_samples <= rows // 2:
        return rows // num_samples
    candidates = range(1, 5)
    return min(candidates, key=lambda n: (round(-(-n * num_samples // rows) * rows / (n * num_samples), 1), n))


def _power_of_two(value: int) -> int:
    return 1 << (value - 1).bit_length()


def _shape(tensor: torch.Tensor | None) -> torch.Size:
    assert tensor is not None
    return tensor.shape


def _with_dense_rows(tensor: torch.Tensor) -> torch.Tensor:
    dense = tensor.stride(2) == 1 and tensor.stride(1) == tensor.shape[2]
    return tensor if dense else tensor.contiguous()
