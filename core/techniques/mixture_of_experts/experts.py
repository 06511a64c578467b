"""What the steps that put experts in the place of feed-forward networks share.

A model that is not trained gets experts drawn anew; a trained one is upcycled (https://arxiv.org/abs/2212.05055): every
expert begins as a copy of the network whose place it takes, masks included, and the router is drawn.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from core.algorithms.module_swapping import dense_ffns, transformer
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.models.anatomy import anatomy
from core.nn.experts.feed_forward import Form
from core.nn.experts.mixture import MixtureOfExperts
from core.nn.experts.swapping import LAYERS, draw_like_, form_of, make_mixture, upcycle_
from core.nn.ffn.gated import GatedFfn
from core.nn.ffn.mlp import Mlp
from core.nn.reversible import ReversibleStack
from core.nn.transformer import TransformerBlock
from core.subject import Subject
from core.technique import INTEGER_CODES, LOW_RANK, REDUCED_TOKENS, ROTATED_STREAM, OneShot
from core.techniques.parts import EXPERTS, NEEDS_DENSE_FFN, NO_DENSE_FFN, TWO_STREAMS

Ffn = Mlp | GatedFfn


class ExpertsStep(OneShot):
    """Base of the steps; a subclass names its module, that module's settings, and how its weights are drawn."""

    family = Family.MIXTURE_OF_EXPERTS
    compresses = False
    module: ClassVar[type[MixtureOfExperts]]
    leaves = frozenset({EXPERTS})
    leaves_with = {"every=1": frozenset({NO_DENSE_FFN})}
    refuses = {
        **NEEDS_DENSE_FFN,
        TWO_STREAMS: "Routers add a loss that reversible blocks cannot backpropagate: remove one of the two steps.",
        INTEGER_CODES: "Put the step that creates experts before the one that quantizes.",
        LOW_RANK: "Put the step that creates experts before the one that factors layers.",
        REDUCED_TOKENS: "Blocks that reduce tokens call their parts directly: remove one of the two steps.",
        ROTATED_STREAM: "Put the step that creates experts before the one that rotates the stream.",
    }

    experts: int = Field(8, ge=2, le=4096, description="experts per feed-forward network")
    every: int = Field(2, ge=1, le=128, description="replace every n-th feed-forward network")
    expert_width: float = Field(
        1.0, gt=0, le=16, description="hidden width of an expert relative to the network's; must be 1 in trained models"
    )

    def label(self) -> str:
        """How many experts a token meets, of how many."""
        return f"{self.choices()} of {self.experts}"

    def choices(self) -> int:
        """Experts that a token meets."""
        return self.module.choices

    def settings(self) -> dict[str, Any]:
        """The module's keyword arguments that its technique's settings determine."""
        raise NotImplementedError(type(self).__name__)

    def form(self, ffn: Ffn, trained: bool) -> Form:
        """What the experts in the place of this network are made of."""
        known = form_of(ffn)
        return known if trained else Form(**{**known.arguments(), "hidden": self._hidden(known.hidden)})

    def draw_(self, mixture: MixtureOfExperts, ffn: Ffn, trained: bool, generator: torch.Generator) -> None:
        """Fill the mixture's weights, which are zero."""
        if trained:
            upcycle_(mixture, ffn)
        else:
            draw_like_(mixture, ffn, generator)

    def check(self, subject: Subject) -> None:
        """There are networks of dense layers to swap, and more experts than a token meets."""
        if self.choices() >= self.experts:
            message = f"must exceed the {self.choices()} experts per token"
            raise SpecError.of("experts", self.experts, message, f"Choose {self.choices() + 1} or more.")
        if subject.trained and self.expert_width != 1:
            message = "must be 1 in trained models, whose experts start as copies"
            raise SpecError.of(
                "expert_width", self.expert_width, message, "Set it to 1, or put this step before train."
            )
        for name, ffn in self._chosen(subject).items():
            self._require_dense(subject, name, ffn)
        if isinstance(transformer(subject).blocks, ReversibleStack):
            message = "is reversible and cannot backpropagate a router's loss"
            raise SpecError.of("model", type(subject.model).__name__, message, self.refuses[TWO_STREAMS])

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap the chosen networks."""
        rows = []
        for name, ffn in self._chosen(subject).items():
            form = self.form(ffn, subject.trained)
            mixture = make_mixture(self.module, self.experts, form, ffn, **self.settings())
            self.draw_(mixture, ffn, subject.trained, context.generator(name))
            masks = {part: subject.mask(f"{name}.{part}.weight") for part in LAYERS}
            subject.replace(name, mixture)
            for part, mask in masks.items():
                if mask is not None:
                    subject.constrain(f"{name}.experts.{part}.weight", mask=mask.repeat(self.experts, 1))
            rows.append(
                {
                    "name": name,
                    "experts": self.experts,
                    "chosen": self.choices(),
                    "parameters of one": form.parameters(),
                }
            )
        subject.details["layers"] = rows
        if anatomy(subject.model).causal and self.settings().get("eval_capacity_factor") is not None:
            context.record.event("info", "the model is causal: it is evaluated without a limit on an expert's tokens")

    def _chosen(self, subject: Subject) -> dict[str, Ffn]:
        found = dense_ffns(subject)
        chosen = {name: ffn for i, (name, ffn) in enumerate(found.items()) if (i + 1) % self.every == 0}
        if not chosen:
            message = f"skips all {len(found)} feed-forward networks of this model"
            raise SpecError.of("every", self.every, message, f"Choose at most {len(found)}.")
        return chosen

    def _hidden(self, hidden: int) -> int:
        return max(1, round(self.expert_width * hidden))

    def _require_dense(self, subject: Subject, name: str, ffn: Ffn) -> None:
        block = subject.model.get_submodule(name.rpartition(".")[0])
        if not isinstance(block, TransformerBlock):
            message = f"is part of a {type(block).__name__}, which does not pass it the padding mask"
            raise SpecError.of("model", name, message, "Remove one of the two steps.")
        packed = next((part for part, layer in ffn.named_children() if type(layer) not in (nn.Linear, nn.GELU)), None)
        if packed is not None:
            kind = type(ffn.get_submodule(packed)).__name__
            message = f"is a {kind}, from which experts cannot be created"
            raise SpecError.of("model", f"{name}.{packed}", message, "Put this step before the one that packs it.")
        if not form_of(ffn).hidden:
            message = "has no hidden units left"
            raise SpecError.of("model", name, message, "Put this step before the one that prunes them.")
