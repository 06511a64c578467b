"""LSQ: train with rounded weights and activations, and learn the step of every grid by gradient descent.

Paper: https://arxiv.org/abs/1902.08153. A value v becomes s round(clip(v/s, -Qn, Qp)). The gradient by the step s is
round(v/s) - v/s inside the range and -Qn or Qp outside, times 1/sqrt(N Qp) for N values that share the step; steps
begin at 2 mean|v|/sqrt(Qp). Activations that calibration never sees below zero have no sign.
Here weights may have a step an output channel (the paper: one a layer), and steps are rounded to their stored dtype in
every forward pass, so the packed layer has exactly the values that were trained. Under AdamW, whose updates do not
depend on the gradient's size, a step's learning rate is relative to its first size. A model's first and last layer
have 8 bits where they are quantized at all: embeddings never are, the head only if asked for.
"""

from typing import Any, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import nn

from core.algorithms.fake_quantization import STEP_RANGE, initial_step, step_codes
from core.algorithms.input_summaries import summarize_inputs
from core.algorithms.learned_grid import LearnedGrid
from core.context import Context
from core.families import Family
from core.nn.integer_linear import IntegerLinear
from core.nn.quant_linear import QuantLinear
from core.nn.sparse_integer_linear import with_activations
from core.subject import Subject
from core.technique import INTEGER_CODES, QUANTIZED_ACTIVATIONS, TrainingMethod, Update
from core.techniques.quantization.layers import quantizable
from core.techniques.quantization.trained_layers import (
    DECIDES,
    TrainedLayers,
    ends_of,
    make_rates_relative,
    matrices_in,
    one_scale_dtype,
    step_dtype,
)


class Lsq(TrainingMethod):
    """Train with rounded weights (and activations) whose grids' steps are learned, then pack the integer codes."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/1902.08153"
    leaves = frozenset({INTEGER_CODES})
    leaves_with = {"activation_bits": frozenset({QUANTIZED_ACTIVATIONS})}
    decides = DECIDES
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}

    bits: int = Field(4, ge=2, le=8, description="bits per weight")
    granularity: Literal["channel", "tensor"] = Field(
        "channel", description="weights that share a step: an output channel's, or a layer's"
    )
    activation_bits: int | None = Field(
        None,
        ge=2,
        le=8,
        description="bits per activation; not quantized if empty",
        json_schema_extra={"when_empty": "not quantized"},
    )
    calibration_examples: int = Field(
        128, ge=1, le=100_000, description="number of calibration examples for the first steps of activations"
    )
    eight_bit_ends: bool = Field(
        True, description="8 bits in the model's first and last layer, where they are quantized"
    )
    include_head: bool = Field(False, description="also quantize the output layer")
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    _context: Context = PrivateAttr()
    _layers: TrainedLayers = PrivateAttr()
    _bits: dict[str, int] = PrivateAttr(default_factory=dict)
    _weights: dict[str, LearnedGrid] = PrivateAttr(default_factory=dict)
    _inputs: dict[str, LearnedGrid] = PrivateAttr(default_factory=dict)

    def label(self) -> str:
        """The bits, and what shares a step."""
        activations = f"A{self.activation_bits}" if self.activation_bits is not None else ""
        return f"W{self.bits}{activations}" + (" per tensor" if self.granularity == "tensor" else "")

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless the model has linear layers that are not quantized yet."""
        quantizable(subject, self.include_head, self.skip)

    def begin(self, subject: Subject, context: Context) -> None:
        """Give every weight its first steps."""
        self._context, self._layers = context, TrainedLayers(subject)
        names = quantizable(subject, self.include_head, self.skip)
        ends = ends_of(subject.model) if self.eight_bit_ends else set()
        self._bits = {name: 8 if name in ends else self.bits for name in names}
        self._inputs = self._input_grids(subject, names, ends) if self.activation_bits is not None else {}
        for name in names:
            self._weights[name] = self._weight_grid(name, subject)
            self._layers.round_(name, self._weights[name], self._inputs.get(name))

    def param_groups(self) -> list[dict[str, Any]]:
        """The steps of each layer, without decay; their first size, which is what AdamW's rate is relative to."""
        return [
            {"params": [grid.step], "weight_decay": 0.0, "first_size": float(grid.smallest.mean() * STEP_RANGE)}
            for grid in self._grids()
        ]

    def before_optimizer(self, update: Update) -> None:
        """Make AdamW's learning rate of a step relative to the step."""
        make_rates_relative(update)

    @torch.no_grad()
    def after_optimizer(self, update: Update) -> None:
        """Keep the steps above zero, and draw how far they have moved."""
        for grid in self._grids():
            grid.step.copy_(torch.maximum(grid.step, grid.smallest))
        for kind, grids in (("weight", self._weights), ("activation", self._inputs)):
            if grids:
                ratios = torch.cat([grid.step / grid.smallest / STEP_RANGE for grid in grids.values()])
                self._context.record.curve(f"{kind} steps, relative to the first", update.index, float(ratios.mean()))

    def state_dict(self) -> dict[str, Any]:
        """Which activations have a sign; steps and weights are the model's while it is trained."""
        return {"signed": {name: grid.low < 0 for name, grid in self._inputs.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it up."""
        for name, signed in state["signed"].items():
            self._inputs[name].set_sign(signed)

    def end(self, subject: Subject) -> None:
        """Pack the codes with the steps as they are now."""
        self._layers.pack(self._bits, self._packed)
        self._weights, self._inputs = {}, {}

    def _grids(self) -> list[LearnedGrid]:
        return [*self._weights.values(), *self._inputs.values()]

    def _input_grids(self, subject: Subject, names: list[str], ends: set[str]) -> dict[str, LearnedGrid]:
        grids = {}
        for name, seen in summarize_inputs(subject, self._context, names, self.calibration_examples).items():
            bits, signed = 8 if name in ends else self.activation_bits or 8, seen.lowest < 0
            n_features = subject.model.get_submodule(name).get_parameter("weight").shape[1]
            high = 2 ** (bits - signed) - 1
            first = initial_step(torch.tensor([seen.mean_magnitude], device=self._context.device), high)
            dtype = one_scale_dtype(first, subject.saved_dtype)
            grids[name] = LearnedGrid(first, bits, n_features, signed=signed, dtype=dtype)
        return grids

    def _weight_grid(self, name: str, subject: Subject) -> LearnedGrid:
        layer = subject.model.get_submodule(name)
        weight = layer.get_parameter("weight").detach()
        rows = weight.view(len(weight) if self.granularity == "channel" else matrices_in(layer), -1)
        first = initial_step(rows.abs().mean(1), 2 ** (self._bits[name] - 1) - 1)
        first = torch.where(first > 0, first, 1.0)
        dtype = step_dtype(first, subject.saved_dtype)
        return LearnedGrid(first, self._bits[name], rows.shape[1], signed=True, dtype=dtype)

    def _packed(self, name: str, linear: nn.Linear, expert: int) -> IntegerLinear:
        grid, bits = self._weights[name], self._bits[name]
        steps = grid.stored_steps()
        if self.granularity == "channel":
            steps = steps.unflatten(0, (-1, linear.out_features))[expert]
        else:
            steps = steps[expert].expand(linear.out_features)
        codes = step_codes(linear.weight, steps.float()[:, None], grid.low, grid.high) - grid.low
        layer = QuantLinear.of(linear, codes, steps[:, None], None, bits=bits, group_size=None)
        return with_activations(layer, self._inputs[name].quantizer()) if name in self._inputs else layer
