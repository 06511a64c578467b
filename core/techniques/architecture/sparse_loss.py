"""Sparse loss: the layer that gives the logits of all tokens becomes a multiplicative one.

Paper: https://arxiv.org/abs/2111.12763 (Scaling Transformers, section 3.3); initial weights are those of its authors'
code. A head that shares the embedding's weights is untied: the embedding keeps them, and the head's own come on top.
The head's weights cannot be taken over: they are drawn anew, and the model is trained after this step.
"""

from pydantic import Field
from torch import nn

from core.algorithms.module_swapping import forget_training, transformer
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.multiplicative import MultiplicativeLinear
from core.subject import Subject
from core.tasks.kinds import Kind
from core.technique import OneShot
from core.techniques.architecture.fresh import REFUSES
from core.techniques.parts import OTHER_HEAD


class SparseLoss(OneShot):
    """Replace a language model's head with a multiplicative layer that has about 1 / n_modules of its weights."""

    family = Family.ARCHITECTURE
    paper = "https://arxiv.org/abs/2111.12763"
    leaves = frozenset({OTHER_HEAD})
    refuses = {**REFUSES, OTHER_HEAD: "The head is already a multiplicative layer: remove one of the two steps."}

    n_modules: int = Field(4, ge=2, le=256, description="modules that the vocabulary is divided into (S)")

    def label(self) -> str:
        """The modules."""
        return f"{self.n_modules} modules"

    def check(self, subject: Subject) -> None:
        """A language model whose head is a plain linear layer over more tokens than modules."""
        head = transformer(subject).head
        if subject.task.kind is not Kind.LANGUAGE_MODELLING:
            message = f"is {subject.task.kind}, but sparse_loss needs a head over a vocabulary"
            raise SpecError.of("task", subject.task.name, message, "Remove sparse_loss.")
        if not isinstance(head, nn.Linear):
            message = "is not a plain linear layer"
            raise SpecError.of(
                "model", type(head).__name__, message, "Remove sparse_loss, or move it to the start of the recipe."
            )
        if self.n_modules > head.out_features:
            message = f"exceeds the {head.out_features} tokens of the vocabulary"
            raise SpecError.of("n_modules", self.n_modules, message, "Choose fewer.")

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap the head; say what that does to the number of weights."""
        forget_training(subject, context, "head")
        model = transformer(subject)
        before = _parameters(model)
        head = model.head
        made = MultiplicativeLinear(head.in_features, head.out_features, self.n_modules, bias=head.bias is not None)
        made.initialize_(context.generator("sparse_loss"))
        subject.replace("head", made.to(context.device, subject.dtype).train(head.training))
        added = _parameters(model) - before
        weights = {"weights": _parameters(made), "added_to_model": added}
        subject.details["layers"] = [{"name": "head", "modules": self.n_modules, **weights}]
        if added > 0:
            message = f"the head no longer shares the embedding's weights: the model has {added:,} more parameters"
            context.record.event("info", message)


def _parameters(module: nn.Module) -> int:
    """Parameters, those that are shared once."""
    return sum(parameter.numel() for parameter in module.parameters())
