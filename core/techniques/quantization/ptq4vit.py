"""PTQ4ViT: twin ranges for probabilities and for what GELU gives, and steps chosen by the loss's gradient.

Paper: https://arxiv.org/abs/2111.12293. One bit says which of two ranges a value is in. The steps of a product's two
operands are chosen in turn, several times, by the squared error of the product weighed with the gradient of the loss.
Every layer is calibrated on inputs of full precision, and operands inside of attention have a step for each head.
Unlike the authors' code, a value belongs to one range only, and the labels are the model's predictions, since the
divergence of a model from itself has no gradient. Here weights have a scale for each output. Layers after GELU and
products inside of attention run unpacked: size only.
"""

from collections.abc import Callable
from functools import partial

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.algorithms.activation_ranges import preferred_dtype
from core.algorithms.gradient_weighted import SPLITS, Operand, Recording, choose_in_turn, factors, record
from core.algorithms.quantization_grids import grid_between, in_stored_dtype, quantize_groups
from core.context import Context
from core.models.anatomy import anatomy
from core.nn.attention.products import OPERANDS, AttentionProducts
from core.nn.ffn.mlp import Mlp
from core.nn.integer_linear import dtype_name
from core.nn.precision import wide
from core.nn.quant_linear import QuantLinear
from core.nn.uneven_quantizers import AnyQuantizer, HeadQuantizer, TwinQuantizer
from core.subject import Subject
from core.techniques.quantization.layers import quantizable
from core.techniques.quantization.vision import VisionQuantization, products_of, swap_attentions


class Ptq4vit(VisionQuantization):
    """Quantize all that a Vision Transformer multiplies, with twin ranges and by the loss's gradient."""

    paper = "https://arxiv.org/abs/2111.12293"

    candidates: int = Field(100, ge=2, le=1000, description="steps to try, from 0.01 to 1.2 times that of the range")
    rounds: int = Field(3, ge=1, le=10, description="how many times the steps of both operands are chosen in turn")

    def apply(self, subject: Subject, context: Context) -> None:
        """Choose all steps on the model as it is, block by block, then quantize."""
        names, attentions = quantizable(subject, self.include_head, self.skip), self.attentions(subject)
        after_gelu = _after_gelu(subject.model)
        swap_attentions(subject, attentions)
        batches = list(context.calibration(self.calibration_examples))
        made: dict[str, tuple[AnyQuantizer, QuantLinear]] = {}
        parts = [*anatomy(subject.model).chain, ""]  # last, what is outside of blocks
        for index, part in enumerate(parts):
            context.record.progress(index / len(parts), part or "head")
            layers = [name for name in names if name not in made and (not part or name.startswith(f"{part}."))]
            inside = [name for name in attentions if part and name.startswith(f"{part}.")]
            watched = [f"{n}.products{operand}" for n in inside for operand in ("", *(f".{o}" for o in OPERANDS))]
            seen = record(subject.model, [*layers, *watched], batches) if layers or inside else {}
            with torch.no_grad():
                for name in layers:
                    linear = subject.model.get_submodule(name)
                    assert isinstance(linear, nn.Linear)
                    made[name] = self._search(linear, seen[name], name in after_gelu, subject.dtype)
                for name in inside:
                    self._quantize_products(products_of(subject.model, name), seen, f"{name}.products", subject.dtype)
        subject.details["layers"] = [self.replace(subject, name, *made[name]) for name in names]

    def _search(
        self, linear: nn.Linear, seen: Recording, is_twin: bool, dtype: torch.dtype
    ) -> tuple[AnyQuantizer, QuantLinear]:
        """The quantizer of a layer's inputs, and its integer weights."""
        x, output, gradient = (tensor.flatten(0, -2) for tensor in seen.joined())
        weight = wide(linear.weight.detach())
        bias = None if linear.bias is None else wide(linear.bias.detach())
        largest, tried = weight.abs().amax(1, keepdim=True), factors(self.candidates)

        def of_inputs(factor: Tensor) -> AnyQuantizer:
            if not is_twin:
                return self.uniform(factor * x.amin(), factor * x.amax(), dtype)
            step = factor * x.amax() / (2 ** (self.activation_bits - 1) - 1)
            return TwinQuantizer(self.activation_bits, of="gelu", scale_dtype=_stored(dtype)).set_steps(step)

        def of_weights(factor: Tensor) -> Callable[[Tensor], Tensor]:
            limits = factor.reshape(-1, 1) * largest
            return grid_between(-limits, limits, self.bits, True).nearest

        inputs = Operand(x, tried, of_inputs, torch.sum)
        weights = Operand(weight, tried, of_weights, lambda errors: errors.sum(0))
        product = partial(F.linear, bias=bias)
        for_inputs, for_weights = choose_in_turn(inputs, weights, product, output, gradient, self.rounds)
        return of_inputs(for_inputs), self._packed(linear, for_weights.reshape(-1, 1) * largest)

    def _packed(self, linear: nn.Linear, limits: Tensor) -> QuantLinear:
        weight = linear.weight.float()
        codes, scales, _ = in_stored_dtype(
            linear,
            lambda dtype: quantize_groups(
                weight, lambda rows, _=None: grid_between(-limits, limits, self.bits, True, dtype), None
            ),
        )
        return QuantLinear.of(linear, codes, scales, None, bits=self.bits, group_size=None)

    def _quantize_products(
        self, products: AttentionProducts, seen: dict[str, Recording], prefix: str, dtype: torch.dtype
    ) -> None:
        """Choose and set the quantizers of one attention."""
        q, k, v, probabilities = (
            seen[f"{prefix}.{name}"].joined_inputs() for name in ("query", "key", "value", "probabilities")
        )
        tried, bits, stored = factors(self.candidates), self.activation_bits, _stored(dtype)

        def by_head(x: Tensor) -> Operand:
            heads, step = x.shape[1], x.abs().amax((0, 2, 3)) / (2 ** (bits - 1) - 1)

            def quantizer(factor: Tensor) -> HeadQuantizer:
                return HeadQuantizer(bits, heads=heads, scale_dtype=stored).set_steps(factor * step)

            def by_unit(errors: Tensor) -> Tensor:  # query heads of one key head count together
                return errors.sum((0, 2, 3)).unflatten(0, (heads, -1)).sum(1)

            return Operand(x, tried, quantizer, by_unit)

        def twin(split: Tensor) -> TwinQuantizer:
            return TwinQuantizer(bits, of="softmax", scale_dtype=stored).set_steps(split)

        def scores(left: Tensor, right: Tensor) -> Tensor:
            return left @ _shared(right, left).mT * q.shape[-1] ** -0.5

        def mixed(left: Tensor, right: Tensor) -> Tensor:
            return left @ _shared(right, left)

        query, key, value = (by_head(x) for x in (q, k, v))
        share = Operand(probabilities, SPLITS, twin, torch.sum)
        for_query, for_key = choose_in_turn(query, key, scores, *seen[f"{prefix}.scores"].joined()[1:], self.rounds)
        for_share, for_value = choose_in_turn(share, value, mixed, *seen[prefix].joined()[1:], self.rounds)
        products.query, products.key = query.quantizer(for_query), key.quantizer(for_key)
        products.probabilities, products.value = twin(for_share), value.quantizer(for_value)


def _shared(right: Tensor, left: Tensor) -> Tensor:
    """Key heads repeated for the query heads that share them."""
    return right.repeat_interleave(left.shape[1] // right.shape[1], dim=1)


def _stored(dtype: torch.dtype) -> str:
    """The name of the dtype that steps are stored in."""
    return dtype_name(preferred_dtype(dtype))


def _after_gelu(model: nn.Module) -> set[str]:
    """The layers whose inputs come from GELU itself."""
    named = getattr(getattr(model, "config", None), "hidden_act", None)
    feeds = anatomy(model).feeds.values()
    return {
        names.down
        for names in feeds
        if names.gate is None and (named == "gelu" or type(model.get_submodule(names.down.rpartition(".")[0])) is Mlp)
    }
