"""DynamicViT: small predictors, trained with the model, drop the tokens of an image that matter least.

Paper: https://arxiv.org/abs/2106.02034. Predictors stand in front of `stages` blocks, spread evenly; after the s-th the
share keep ** s of the patches is left. The loss adds the squared distance from these shares, and ties logits and kept
tokens to the model as it was before (section 3.3). Weights of the terms are the paper's: 2, 0.5 and 0.5. Tokens are
tied by the KL divergence of their softmax, as in the authors' code, here the class token among them. Predictors and
model train at one rate here; the authors hold the model still at first, and train it at a smaller rate then.
"""

import copy
from collections.abc import Iterable, Mapping

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn
from torch.nn import functional as F

from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.models.anatomy import anatomy
from core.nn.tokens.selecting import SelectingBlock
from core.subject import Subject
from core.tasks.base import logits_of
from core.technique import BLOCKS, REDUCED_TOKENS, ROTATED_STREAM, Losses, TrainingMethod
from core.techniques.parts import NEEDS_PLAIN_BLOCKS
from core.techniques.pruning.token_blocks import Tokens, tokens_of

RATIO_WEIGHT = 2.0


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over rows [n, d] of KL(softmax(teacher) || softmax(student)); 0 without rows."""
    if not len(student):
        return student.sum()
    answered, expected = (F.log_softmax(x.float(), dim=-1) for x in (student, teacher))
    return F.kl_div(answered, expected, reduction="batchmean", log_target=True)


class DynamicVit(TrainingMethod):
    """Learn which tokens later blocks can skip. Evaluation then computes only the kept tokens."""

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/2106.02034"
    leaves = frozenset({REDUCED_TOKENS})
    decides = frozenset({BLOCKS})
    refuses = {
        **NEEDS_PLAIN_BLOCKS,
        ROTATED_STREAM: "Tokens of a rotated stream are not scored: remove one of the two steps.",
        REDUCED_TOKENS: "A block can reduce its tokens in only one way: remove one of the two steps.",
    }

    keep: float = Field(0.7, gt=0, lt=1, description="share of the patches that each stage keeps")
    stages: int = Field(3, ge=1, le=16, description="number of stages, each with a predictor, spread over the depth")
    distillation: float = Field(
        0.5, ge=0, le=10, description="weight of each distillation loss from the original model"
    )

    _norm: str = PrivateAttr()
    _teacher: nn.Module | None = PrivateAttr(None)
    _teacher_tokens: Tensor = PrivateAttr()
    _last: SelectingBlock = PrivateAttr()

    def label(self) -> str:
        """What is left of the patches."""
        return f"keeps {100 * self.keep**self.stages:.0f} %"

    def check(self, subject: Subject) -> None:
        """The model is a Vision Transformer deep enough for the stages, with patches to drop at each."""
        tokens = tokens_of(subject)
        depth = len(tokens.parts)
        if self.stages >= depth:
            message = f"do not fit between the model's {depth} blocks"
            raise SpecError.of("stages", self.stages, message, f"Choose at most {depth - 1}.")
        if int(self.keep**self.stages * tokens.patches) < 1:
            message = f"leaves nothing of {tokens.patches} patches after {self.stages} stages"
            raise SpecError.of("keep", self.keep, message, "Choose a larger share, or fewer stages.")

    def begin(self, subject: Subject, context: Context) -> None:
        """Copy the model as the teacher, and swap its blocks."""
        tokens = tokens_of(subject)
        known = anatomy(subject.model)
        assert known.norm is not None
        self._norm = known.norm
        if subject.trained and self.distillation:
            self._teacher = copy.deepcopy(subject.model).eval().requires_grad_(False)
            self._teacher.get_submodule(self._norm).register_forward_hook(self._keep_tokens)
        elif self.distillation:
            context.record.event(
                "warning", "the model is not trained yet, so dynamic_vit has no teacher to distil from"
            )
        self._swap(subject, tokens, context)

    def _swap(self, subject: Subject, tokens: Tokens, context: Context) -> None:
        depth = len(tokens.parts)
        places = [round(depth * (stage + 1) / (self.stages + 1)) for stage in range(self.stages)]
        rows = []
        generator = context.generator("predictors")
        for index, (name, parts) in enumerate(tokens.parts.items()):
            keep = self.keep ** (places.index(index) + 1) if index in places else None
            block = SelectingBlock(
                parts, tokens.head_dim, tokens.protected, tokens.patches, tokens.dim, keep, RATIO_WEIGHT / self.stages
            )
            _initialize(block, generator)
            subject.replace(name, block.to(context.device))
            self._last = block
            passed = [place for place in places if place <= index]
            left = tokens.protected + max(1, int(self.keep ** len(passed) * tokens.patches))
            rows.append({"name": name, "predictor": keep is not None, "tokens": left})
        subject.details["layers"] = rows

    def taps(self) -> Iterable[str]:
        """The last norm: the tokens before they are pooled."""
        return (self._norm,) if self._teacher is not None else ()

    def losses(self, batch: Mapping[str, Tensor], logits: Tensor, taps: Mapping[str, Tensor]) -> Losses:
        """The ties to the teacher: logits, and the tokens that are kept to the end."""
        if self._teacher is None:
            return Losses()
        with torch.no_grad():
            expected = logits_of(self._teacher, dict(batch))
        tokens = taps[self._norm]  # [B, T, dim]
        assert self._last.kept is not None
        kept = self._last.kept > 0
        terms = {
            "distillation of logits": divergence(logits, expected),
            "distillation of tokens": divergence(tokens[kept], self._teacher_tokens[kept]),
        }
        return Losses({name: self.distillation * term for name, term in terms.items()})

    def _keep_tokens(self, module: nn.Module, args: object, output: Tensor) -> None:
        self._teacher_tokens = output

    def end(self, subject: Subject) -> None:
        """Let go of the teacher; the predictors stay, as parts of the model."""
        self._teacher = None
        del self._last


def _initialize(block: SelectingBlock, generator: torch.Generator) -> None:
    """Draw the predictor's weights from the step's own randomness."""
    for module in block.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
            nn.init.zeros_(module.bias)
