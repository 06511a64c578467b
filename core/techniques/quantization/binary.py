"""BiT: train with binary weights and activations of one or two bits, in steps that each teach the next.

Paper: https://arxiv.org/abs/2205.13016. A weight becomes a sign about its matrix's mean, times the mean magnitude about
it. Activations are elastic: their step and shift are learned, as LSQ's step is. One-bit codes are {0, 1} where inputs
have one sign (after ReLU; small negative values, as GELU has them, count as none), {-1, 1} elsewhere. The first part of
the training has `first_activation_bits` and learns from `teacher`, logits and blocks; the model that it ends with
teaches the second part, which has `activation_bits`. Embeddings and the head keep their precision, as in the paper;
here attention's own products do too. Binary weights have no zero, so masks cannot be kept.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from core.algorithms.distillation import Teacher
from core.algorithms.elastic_inputs import ElasticInput
from core.algorithms.fake_quantization import RoundedMatrices, binary, binary_scale, binary_signs
from core.algorithms.imitation import Imitation
from core.algorithms.input_summaries import summarize_inputs
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.models.anatomy import anatomy
from core.nn.binary_linear import BinaryLinear
from core.nn.integer_linear import IntegerLinear
from core.spec.model import ModelSpec
from core.subject import Subject
from core.technique import INTEGER_CODES, MASK, QUANTIZED_ACTIVATIONS, Losses, TrainingMethod, Update
from core.techniques.quantization.layers import quantizable
from core.techniques.quantization.trained_layers import (
    DECIDES,
    TrainedLayers,
    make_rates_relative,
    matrices_in,
    one_scale_dtype,
)

ONE_SIDED = 0.1  # of the largest input: a smallest one no further below zero counts as none


class Binary(TrainingMethod):
    """Train with binary weights and elastic activations, by stages of distillation, then pack the bits."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2205.13016"
    leaves = frozenset({INTEGER_CODES, QUANTIZED_ACTIVATIONS})
    decides = DECIDES
    refuses = {
        INTEGER_CODES: "Keep one of the two quantization steps.",
        MASK: "Binary weights have no zero: remove the step that prunes, or take bitnet, whose weights have one.",
    }

    activation_bits: int = Field(1, ge=1, le=8, description="bits per activation at the end")
    first_activation_bits: int | None = Field(
        2,
        ge=1,
        le=8,
        description="bits per activation in the first part of the training, whose model teaches the second",
        json_schema_extra={"when_empty": "one part"},
    )
    switch: float = Field(0.5, gt=0, lt=1, description="share of the updates in the first part")
    teacher: Teacher | None = Field(
        None,
        description="model reference that teaches the first part: stage:<n>, run:<id>, hf:<repo or folder>",
        json_schema_extra={"role": "model"},
    )
    alpha: float = Field(1.0, ge=0, le=1, description="weight of a teacher's logits; the labels' loss gets the rest")
    blocks_weight: float = Field(1.0, ge=0, le=1e6, description="weight of the error of the blocks' outputs")
    temperature: float = Field(1.0, gt=0, le=100, description="temperature for the logits of teacher and student")
    calibration_examples: int = Field(
        128, ge=1, le=100_000, description="number of calibration examples for the first steps of activations"
    )
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    _subject: Subject = PrivateAttr()
    _context: Context = PrivateAttr()
    _layers: TrainedLayers = PrivateAttr()
    _weights: dict[str, RoundedMatrices] = PrivateAttr(default_factory=dict)
    _inputs: dict[str, ElasticInput] = PrivateAttr(default_factory=dict)
    _taught: Imitation | None = PrivateAttr(None)
    _blocks: list[str] = PrivateAttr(default_factory=list)
    _second_part: bool = PrivateAttr(False)

    def label(self) -> str:
        """The bits."""
        before = f"W1A{self.first_activation_bits} → " if self.first_activation_bits is not None else ""
        return f"{before}W1A{self.activation_bits}"

    def check(self, subject: Subject) -> None:
        """The model has linear layers that are neither quantized nor pruned."""
        for name in quantizable(subject, include_head=False, skip=self.skip):
            if subject.mask(f"{name}.weight") is not None:
                raise SpecError.of("binary", name, "is pruned", self.refuses[MASK])

    def begin(self, subject: Subject, context: Context) -> None:
        """Load the teacher, and round the weights and inputs from now on."""
        self._subject, self._context, self._layers = subject, context, TrainedLayers(subject)
        if self.teacher is not None:
            self._taught = Imitation(context.resolve(ModelSpec.model_validate(self.teacher)), subject.model)
        if self.blocks_weight and (self._taught is not None or self.first_activation_bits is not None):
            self._blocks = anatomy(subject.model).chain
        names = quantizable(subject, include_head=False, skip=self.skip)
        for name, seen in summarize_inputs(subject, context, names, self.calibration_examples).items():
            layer = subject.model.get_submodule(name)
            n_matrices = matrices_in(layer)
            scales = binary_scale(layer.get_parameter("weight").detach().view(n_matrices, -1))
            magnitude = scales.new_tensor([seen.mean_magnitude])
            dtype = one_scale_dtype(torch.cat([scales, magnitude]), subject.saved_dtype)
            self._weights[name] = RoundedMatrices(n_matrices, dtype, binary)
            signed = seen.lowest < -ONE_SIDED * seen.highest
            bits = self.first_activation_bits or self.activation_bits
            n_features = layer.get_parameter("weight").shape[1]
            made = ElasticInput(n_features, seen.mean_magnitude, bits, signed=signed, dtype=dtype)
            self._inputs[name] = made.to(context.device)
            self._layers.round_(name, self._weights[name], self._inputs[name])

    def param_groups(self) -> list[dict[str, Any]]:
        """Steps and shifts, without decay; the first size of the step is what AdamW's rate is relative to."""
        return [
            {"params": [own.step, own.shift], "weight_decay": 0.0, "first_size": float(own.step.detach())}
            for own in self._inputs.values()
        ]

    def taps(self) -> Iterable[str]:
        """The blocks' outputs."""
        return self._blocks

    def losses(self, batch: Mapping[str, Tensor], logits: Tensor, taps: Mapping[str, Tensor]) -> Losses:
        """The teacher's terms; the labels keep 1 - alpha."""
        if self._taught is None:
            return Losses()
        weights = self.alpha, self.blocks_weight if self._blocks else 0.0
        return Losses(self._taught.terms(batch, logits, taps, *weights, self.temperature), task_weight=1 - self.alpha)

    def before_optimizer(self, update: Update) -> None:
        """Make AdamW's learning rate of a step relative to the step."""
        make_rates_relative(update)

    def after_optimizer(self, update: Update) -> None:
        """Keep the steps above zero; begin the second part where the first ends."""
        for own in self._inputs.values():
            own.constrain_()
        is_last = update.index + 1 == round(self.switch * update.total)
        if is_last and self.first_activation_bits is not None and not self._second_part:
            self._begin_second_part(update.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Which inputs have a sign, and the model that teaches the second part."""
        signed = {name: own.signed for name, own in self._inputs.items()}
        teacher = self._taught.teacher.state_dict() if self._second_part and self._taught is not None else {}
        return {"signed": signed, "second part": self._second_part, "teacher": teacher}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it up."""
        for name, signed in state["signed"].items():
            self._inputs[name].signed = signed
        if state["second part"]:
            self._teach_oneself().load_state_dict(state["teacher"])
            for own in self._inputs.values():
                own.bits = self.activation_bits

    def end(self, subject: Subject) -> None:
        """Pack the signs; let go of the teacher."""
        self._layers.pack(dict.fromkeys(self._weights, 1), self._packed)
        self._weights, self._inputs, self._taught = {}, {}, None

    def _begin_second_part(self, optimizer: torch.optim.Optimizer) -> None:
        seen = summarize_inputs(self._subject, self._context, self._inputs, self.calibration_examples)
        self._teach_oneself()
        first_sizes = {}
        for name, own in self._inputs.items():
            own.restart(self.activation_bits, seen[name].mean_magnitude)
            first_sizes[own.step] = float(own.step.detach())
        for group in optimizer.param_groups:
            if group["params"][0] in first_sizes:
                group["first_size"] = first_sizes[group["params"][0]]

    def _teach_oneself(self) -> nn.Module:
        """Make a copy of the model as it is the teacher."""
        teacher = copy.deepcopy(self._subject.model)
        for name in self._blocks:
            teacher.get_submodule(name)._forward_hooks.clear()  # the student's taps
        self._taught, self._second_part = Imitation(teacher, self._subject.model), True
        return teacher

    def _packed(self, name: str, linear: nn.Linear, expert: int) -> IntegerLinear:
        matrix, own = linear.weight[None], self._inputs[name]
        return BinaryLinear.of_signs(
            linear,
            binary_signs(matrix)[0],
            binary_scale(matrix).to(own.dtype),
            own.step.detach(),
            own.shift.detach(),
            activation_bits=own.bits,
            signed=own.signed,
        )
