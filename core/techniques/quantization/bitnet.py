"""BitNet b1.58: train with weights of -1, 0 and 1 times one scale, and inputs of 8 bits a token.

Paper: https://arxiv.org/abs/2402.17764. A weight becomes clip(round(W / mean|W|), -1, 1) mean|W|, an input
round(127 x / max|x|) max|x| / 127 for each token, after an RMSNorm of the layer's own; gradients pass straight through
to float32 weights. Embeddings and the head keep their precision. Two stages: in the second half of the updates the
learning rate is 2/3 of what the training's schedule gives, and nothing decays (with `schedule: linear` and
`weight_decay: 0.1` the authors' schedule).
Here any model's linear layers are converted, norms before them stay and biases too, and experts have a scale each. In
a trained model a norm's gain begins at the root mean square of the layer's inputs, so that these keep their size.
Without training ternary weights destroy a model: give it many updates, and best a teacher (`distill_logits`).
"""

from pydantic import Field, PrivateAttr
from torch import nn

from core.algorithms.fake_quantization import RoundedMatrices, ternary, ternary_codes, ternary_scale
from core.algorithms.input_summaries import summarize_inputs
from core.context import Context
from core.families import Family
from core.nn.bit_linear import BitInput, BitLinear
from core.nn.integer_linear import IntegerLinear
from core.subject import Subject
from core.technique import INTEGER_CODES, QUANTIZED_ACTIVATIONS, TrainingMethod, Update
from core.techniques.quantization.layers import quantizable
from core.techniques.quantization.trained_layers import DECIDES, TrainedLayers, matrices_in, one_scale_dtype

SECOND_STAGE = 2 / 3  # of the learning rate
TERNARY_BITS = 8 / 5  # five codes a byte


class Bitnet(TrainingMethod):
    """Train with ternary weights and 8-bit activations, as BitNet b1.58 does, then pack five weights in a byte."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2402.17764"
    leaves = frozenset({INTEGER_CODES, QUANTIZED_ACTIVATIONS})
    decides = DECIDES
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}

    two_stages: bool = Field(
        True, description="in the second half of the updates train at 2/3 of the learning rate, without weight decay"
    )
    calibration_examples: int = Field(
        128, ge=1, le=100_000, description="number of calibration examples for the gains of a trained model's norms"
    )
    include_head: bool = Field(False, description="also quantize the output layer")
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    _layers: TrainedLayers = PrivateAttr()
    _weights: dict[str, RoundedMatrices] = PrivateAttr(default_factory=dict)
    _inputs: dict[str, BitInput] = PrivateAttr(default_factory=dict)

    def label(self) -> str:
        """The bits."""
        return "W1.58A8"

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless the model has linear layers that are not quantized yet."""
        quantizable(subject, self.include_head, self.skip)

    def begin(self, subject: Subject, context: Context) -> None:
        """Round the weights and inputs from now on."""
        self._layers = TrainedLayers(subject)
        names = quantizable(subject, self.include_head, self.skip)
        seen = summarize_inputs(subject, context, names, self.calibration_examples) if subject.trained else {}
        for name in names:
            layer = subject.model.get_submodule(name)
            weight, n_matrices = layer.get_parameter("weight").detach(), matrices_in(layer)
            dtype = one_scale_dtype(ternary_scale(weight.view(n_matrices, -1)), subject.saved_dtype)
            gain = seen[name].root_mean_square if name in seen else 1.0
            self._weights[name] = RoundedMatrices(n_matrices, dtype, ternary)
            self._inputs[name] = BitInput(weight.shape[1], gain).to(context.device)
            self._layers.round_(name, self._weights[name], self._inputs[name])

    def before_optimizer(self, update: Update) -> None:
        """The second stage: a lower learning rate, and no decay."""
        if self.two_stages and 2 * update.index >= update.total:
            for group in update.optimizer.param_groups:
                group["lr"] *= SECOND_STAGE
                group["weight_decay"] = 0.0

    def end(self, subject: Subject) -> None:
        """Pack the codes."""
        self._layers.pack(dict.fromkeys(self._weights, TERNARY_BITS), self._packed)
        self._weights, self._inputs = {}, {}

    def _packed(self, name: str, linear: nn.Linear, expert: int) -> IntegerLinear:
        matrix = linear.weight[None]
        scale = ternary_scale(matrix).to(self._weights[name].dtype)
        codes = ternary_codes(matrix, scale.to(matrix.dtype))[0]
        return BitLinear.of_codes(linear, codes, scale, self._inputs[name].gain.detach())
