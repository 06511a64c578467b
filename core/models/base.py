"""Base classes of model settings."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from core.errors import SpecError
from core.tasks.base import InputFormat, Kind, Task


class ModelSettings(BaseModel):
    """Settings of a model source; its fields become the form and the documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Architecture(ModelSettings):
    """Settings of a model with new weights, from the zoo or a plug-in."""

    kind: ClassVar[Kind]  # of the tasks that it serves
    module: ClassVar[type[nn.Module]]  # made from what `resolve` gives; `initialize_(generator)` draws its weights

    def resolve(self, task: Task) -> tuple[dict[str, Any], InputFormat]:
        """Keyword arguments of `module`, plain JSON, and its input format; raises SpecError (`model.depth`)."""
        raise NotImplementedError(type(self).__name__)


def divisors(number: int) -> list[int]:
    """All numbers that divide `number`, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]


class TransformerSettings(Architecture):
    """Size and parts of the reference Transformer."""

    dim: int = Field(192, ge=8, le=8192, description="width of the residual stream")
    depth: int = Field(6, ge=1, le=128, description="blocks")
    heads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="attention heads; dim / 64 if empty",
        json_schema_extra={"when_empty": "dim / 64"},
    )
    ffn_ratio: float = Field(4.0, gt=0, le=16, description="hidden width of the feed-forward network, times dim")
    ffn: Literal["mlp", "swiglu"] = Field(
        "mlp", description="feed-forward network; swiglu takes 2/3 of the hidden width"
    )
    attention: Literal["full", "sliding_window"] = Field("full", description="attention in every block")
    window: int | None = Field(
        None,
        ge=1,
        le=131072,
        description="tokens that sliding_window attention reads",
        json_schema_extra={"when_empty": "not set"},
    )

    def resolve_blocks(self, kv_heads: int | None = None) -> dict[str, Any]:
        """Keyword arguments of `core.nn.transformer.Transformer` that these settings determine."""
        heads = self._heads()
        if kv_heads is not None and heads % kv_heads:
            options = ", ".join(map(str, divisors(heads)))
            raise SpecError.of(
                "model.kv_heads", kv_heads, f"does not divide the {heads} heads", f"Choose one of {options}."
            )
        return {
            "dim": self.dim,
            "depth": self.depth,
            "heads": heads,
            "kv_heads": kv_heads or heads,
            "attention": self.attention,
            "attention_settings": self._attention_settings(),
            "ffn": self.ffn,
            "ffn_dim": self._ffn_dim(),
        }

    def check_pooling(self, pooling: str) -> str:
        """The pooling; rejected if the token that is read could not attend to the others."""
        if pooling == "cls" and self.attention == "sliding_window":
            message = "reads a token whose attention covers only its own window"
            raise SpecError.of("model.pooling", pooling, message, "Set pooling: mean.")
        return pooling

    def _heads(self) -> int:
        fitting = divisors(self.dim)
        if self.heads is None:
            return max(h for h in fitting if h <= max(1, self.dim // 64))
        if self.heads not in fitting:
            options = ", ".join(str(h) for h in fitting if h <= 256)
            raise SpecError.of(
                "model.heads", self.heads, f"does not divide dim {self.dim}", f"Choose one of {options}."
            )
        return self.heads

    def _ffn_dim(self) -> int:
        if self.ffn == "mlp":
            return max(1, round(self.ffn_ratio * self.dim))
        return max(8, round(self.ffn_ratio * self.dim * 2 / 3 / 8) * 8)  # as many weights as the two-layer one

    def _attention_settings(self) -> dict[str, Any]:
        if self.attention == "full":
            if self.window is not None:
                remedy = "Remove it, or set attention: sliding_window."
                raise SpecError.of("model.window", self.window, "is only for sliding_window attention", remedy)
            return {}
        if self.window is None:
            raise SpecError.of(
                "model.window", None, "is required for sliding_window attention", "Add it, for example 64."
            )
        return {"window": self.window}


class TextSettings(TransformerSettings):
    """Additional settings of text models: maximum length and position encoding."""

    length: int | None = Field(
        None,
        ge=8,
        le=131072,
        description="maximum number of tokens; the task's if empty",
        json_schema_extra={"when_empty": "the task's"},
    )
    positions: Literal["learned", "rotary"] = Field("learned", description="position encoding")
    embedding_std: float | None = Field(
        None,
        gt=0,
        le=1,
        description="standard deviation of initial token and position embeddings; depends on dim if empty",
        json_schema_extra={"when_empty": "by dim"},
    )

    def resolve_text(self, task: Task, kv_heads: int | None = None) -> dict[str, Any]:
        """Keyword arguments of all text models."""
        blocks = self.resolve_blocks(kv_heads)
        if self.positions == "rotary" and (blocks["dim"] // blocks["heads"]) % 2:
            remedy = "Choose another number of heads, or learned positions."
            raise SpecError.of(
                "model.heads",
                blocks["heads"],
                "makes heads of odd width, and rotary positions need an even one",
                remedy,
            )
        text = {**blocks, "length": self.length or task.length or 256, "positions": self.positions}
        # where it is empty it is left out, so that models made before it was there keep their content hash
        return text if self.embedding_std is None else {**text, "embedding_std": self.embedding_std}
