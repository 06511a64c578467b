"""A linear layer under Top-KAST that computes and keeps nothing for set C but its weights: see `top_kast_layers`."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from core.techniques.sparse_training.top_kast_layers import exploration_gradient

ROWS_AT_ONCE = 512  # of activations in one sampled product: on a CPU they should fit into its cache


class _SampledGradient(torch.autograd.Function):
    """A linear layer of A's weights, whose backward computes the entries of B of the weight's gradient, no others."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, layer: "SparseBackward") -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer = layer
        return F.linear(x, layer.active_weight(), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        (x,) = ctx.saved_tensors
        layer: SparseBackward = ctx.layer
        dtype = layer.values.dtype
        rows = gradient.reshape(-1, layer.out_features).to(dtype)
        for_values = layer.sampled_product(rows, x.reshape(-1, layer.in_features).to(dtype))
        for_x = (rows @ layer.active_weight()).view(x.shape).to(x.dtype) if ctx.needs_input_grad[0] else None
        for_bias = rows.sum(0) if ctx.needs_input_grad[2] else None
        return for_x, for_values, for_bias, None


class SparseBackward(nn.Module):
    """A linear layer in training, the weights of B in one vector that the optimizer updates, those of C in another.

    Both are in the order of the dense weight's rows; `row_starts` and `columns` say where B's lie (CSR), `active` which
    of B are in A.
    """

    values: nn.Parameter  # [|B|]
    rest: Tensor  # [|C|]
    row_starts: Tensor  # [out + 1], int32
    columns: Tensor  # [|B|], int32
    active: Tensor  # [|B|], bool

    def __init__(self, linear: nn.Linear, forward_set: Tensor, backward_set: Tensor):
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self.bias = linear.bias
        self.values = nn.Parameter(torch.empty(0))
        for name in ("rest", "row_starts", "columns", "active"):
            self.register_buffer(name, torch.empty(0))
        self._store(linear.weight.detach(), forward_set, backward_set)

    @property
    def trained(self) -> nn.Parameter:
        """The weights of B."""
        return self.values

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], by the weights of A."""
        return _SampledGradient.apply(x, self.values, self.bias, self)

    def active_weight(self) -> Tensor:
        """The weights of A [out, in], zero elsewhere; made anew at every use, which costs less than keeping it."""
        return self._pattern(self.values.detach() * self.active).to_dense()

    def sampled_product(self, gradient: Tensor, x: Tensor) -> Tensor:
        """The entries of B [|B|] of gradient^T x, from [n_rows, out] and [n_rows, in]."""
        product = self._pattern(torch.zeros_like(self.values))
        for left, right in zip(gradient.split(ROWS_AT_ONCE), x.split(ROWS_AT_ONCE), strict=True):
            product = torch.sparse.sampled_addmm(product, left.t(), right)
        return product.values()

    @torch.no_grad()
    def weight_of_all(self) -> Tensor:
        """The dense weight, put together from B and C."""
        backward_set = self._backward_set()
        weight = self.values.new_empty(self.out_features, self.in_features)
        weight[backward_set] = self.values
        weight[~backward_set] = self.rest
        return weight

    def forward_set(self) -> Tensor:
        """The mask A."""
        backward_set = self._backward_set()
        return backward_set.masked_scatter(backward_set, self.active)

    @torch.no_grad()
    def choose(self, forward_set: Tensor, backward_set: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Go on with other sets: what stays in B keeps the optimizer's state, what enters it begins at zero."""
        state, old = optimizer.state.get(self.values, {}), self._backward_set()
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == self.values.shape:
                dense = value.new_zeros(old.shape)
                dense[old] = value
                state[name] = dense[backward_set]
        self._store(self.weight_of_all(), forward_set, backward_set)

    def penalize(self, strength: float, density: float) -> None:
        """Add to the gradient, which is B's."""
        if self.values.grad is not None:
            self.values.grad.add_(exploration_gradient(self.values.detach(), self.active, strength, density))

    def restore(self, model: nn.Module, name: str) -> None:
        """An ordinary linear layer with the weights of A."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        linear.weight = nn.Parameter(self.active_weight())
        linear.bias = self.bias
        model.set_submodule(name, linear)

    def _store(self, weight: Tensor, forward_set: Tensor, backward_set: Tensor) -> None:
        self.values.grad = None
        self.values.data = weight[backward_set]
        self.rest = weight[~backward_set]
        self.columns = backward_set.nonzero()[:, 1].int()
        self.row_starts = F.pad(backward_set.sum(1).cumsum(0), (1, 0)).int()
        self.active = forward_set[backward_set]

    def _pattern(self, values: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the layout is announced as beta
            shape = (self.out_features, self.in_features)
            return torch.sparse_csr_tensor(self.row_starts, self.columns, values, shape, check_invariants=False)

    def _backward_set(self) -> Tensor:
        mask = torch.zeros(self.out_features, self.in_features, dtype=torch.bool, device=self.values.device)
        rows = torch.arange(self.out_features, device=mask.device).repeat_interleave(self.row_starts.diff())
        mask[rows, self.columns.long()] = True
        return mask

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """A checkpoint's sets may be of other sizes than those chosen from the weights before the training."""
        for name in ("values", "rest", "columns", "active"):
            own = getattr(self, name)
            own.data = own.new_empty(state_dict[prefix + name].shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
