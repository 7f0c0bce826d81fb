"""Adam that moves the averaged weights in the same pass (:mod:`ptr_fast.kernels.adam_polyak`)."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from ptr_fast.kernels.adam_polyak import Operands, adam_polyak

__all__ = ["AdamPolyak"]


class _Adam(torch.optim.Adam):
    """``torch.optim.Adam`` without what keeps ``torch.compile`` out of it.

    At the first call of these four PyTorch imports the whole compiler: 1.5 s of a core and 140 MB in every process that
    trains, for what is never compiled here.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class AdamPolyak(_Adam):
    """``torch.optim.Adam`` (0.9, 0.999, 1e-8) whose step also moves an average of each parameter.

    Its state is Adam's, and loads what Adam saved. Moments and counts of updates keep their memory from the first step
    on, whatever is loaded, and on a GPU the rate is a 0-d tensor there: a captured step stays valid.

    Args:
        parameters: trained tensors of one dtype on one device; a gradient may be None, then it is not trained.
        lr: learning rate.
        averages: ``average <- tau * parameter + (1 - tau) * average`` after every step, one per parameter, or None.
        tau: see averages.
        weight_decay: decoupled, as AdamW's; of every parameter. 0: off.
        max_grad_norm: of all gradients together; larger ones are scaled down to it. 0: off. Of several ranks it is the
            norm of the gradient that they have averaged.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        lr: float,
        averages: Sequence[torch.Tensor] | None = None,
        tau: float = 0.0,
        weight_decay: float = 0.0,
        max_grad_norm: float = 0.0,
    ) -> None:
        device = parameters[0].device
        rate = torch.tensor(lr, device=device) if device.type == "cuda" else lr
        decoupled = weight_decay > 0.0
        super().__init__(parameters, rate, (0.9, 0.999), 1e-8, weight_decay, decoupled_weight_decay=decoupled)
        self._decay = {"weight_decay": weight_decay, "decoupled_weight_decay": decoupled}
        self._parameters, self._averages, self._tau = list(parameters), averages, tau
        self._max_grad_norm = max_grad_norm
        self._operands: Operands | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient, and of every average."""
        if self._operands is None or self._operands.moved():
            self._operands = self._make_operands()
        group = self.param_groups[0]
        gradients = [parameter.grad for parameter in self._parameters]
        regularisation = group["weight_decay"], self._max_grad_norm
        adam_polyak(self._operands, gradients, group["lr"], group["betas"], group["eps"], self._tau, *regularisation)

    def state_dict(self) -> dict[str, Any]:
        """As ``torch.optim.Adam``'s, the rate a float."""
        state = super().state_dict()
        for group in state["param_groups"]:
            group["lr"] = float(group["lr"])
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what :meth:`state_dict` gave, in any memory layout; the decay stays this optimiser's.

        Raises:
            ValueError: it is of other parameters.
        """
        rates = [group["lr"] for group in self.param_groups]
        operands = self._operands if self._operands is not None else self._make_operands()
        super().load_state_dict(state_dict)
        loaded, self.state = self.state, defaultdict(dict)
        for group, rate in zip(self.param_groups, rates, strict=True):
            if isinstance(rate, torch.Tensor):
                group["lr"] = rate.fill_(group["lr"])
            group.update(self._decay)
        self._adopt(operands)
        for i, parameter in enumerate(self._parameters):
            entry = loaded.get(parameter)  # None: it had no update
            for name, tensor in self.state[parameter].items():
                value = torch.zeros(()) if entry is None else entry[name]
                if entry is not None and value.shape != tensor.shape:
                    raise ValueError(f"{name} {i}: expected shape {tuple(tensor.shape)}, got {tuple(value.shape)}")
                tensor.copy_(value)

    def _make_operands(self) -> Operands:
        """Operands on the parameters' memory of now, with the moments that there are."""
        moments: dict[str, list[torch.Tensor]] = {"exp_avg": [], "exp_avg_sq": []}
        steps_N = torch.zeros(len(self._parameters), device=self._parameters[0].device)
        for i, parameter in enumerate(self._parameters):
            state = self.state.get(parameter, {})
            for name, tensors in moments.items():
                moment = torch.zeros_like(parameter)
                tensors.append(moment.copy_(state[name]) if state else moment)
            if state:
                steps_N[i] = state["step"]
        operands = Operands(self._parameters, moments["exp_avg"], moments["exp_avg_sq"], steps_N, self._averages)
        self._adopt(operands)
        return operands

    def _adopt(self, operands: Operands) -> None:
        """Shows the operands' moments and counts under the names of ``torch.optim.Adam``."""
        self._operands = operands
        for i, parameter in enumerate(self._parameters):
            self.state[parameter] = {
                "step": operands.steps_N[i],
                "exp_avg": operands.exp_avgs[i],
                "exp_avg_sq": operands.exp_avg_sqs[i],
            }
