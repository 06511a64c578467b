"""A small published catalogue for tests of the front end."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.spec.catalogue import Catalogue


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Train(_Settings):
    steps: int = Field(500, ge=1, description="number of optimizer updates")
    learning_rate: float = Field(1e-3, gt=0, le=100)
    methods: list[Any] = Field(default=[], json_schema_extra={"role": "methods"})


class Rtn(_Settings):
    bits: int = Field(8, ge=2, le=8, description="bits per weight")
    symmetric: bool = True
    group_size: int | None = Field(None, ge=1, json_schema_extra={"when_empty": "the row"})
    observer: Literal["minmax", "mse"] = "minmax"


class SrSte(_Settings):
    n: int = Field(2, ge=1)
    m: int = Field(4, ge=2)


class Distill(_Settings):
    temperature: float = Field(2.0, gt=0)
    teacher: Any = Field(json_schema_extra={"role": "model"})


class Vit(_Settings):
    dim: int = Field(192, ge=8)


class OnnxRuntime(_Settings):
    optimization: Literal["none", "all"] = "all"


class Nothing(_Settings):
    pass


def entry(settings: type[BaseModel], **more: Any) -> dict[str, Any]:
    """An entry as `core.publish` writes it."""
    words = {"hash": settings.__name__.lower(), "summary": "What it does.", "doc": "What it does.\n\nMore."}
    return {**words, "schema": settings.model_json_schema(), **more}


def technique(settings: type[BaseModel], family: str, form: str, compresses: bool = True) -> dict[str, Any]:
    """A technique's entry."""
    paper = "https://example.org/paper"
    return entry(settings, family=family, paper=paper, forms=[form], requires=[], compresses=compresses)


CATALOGUE = Catalogue(
    techniques={
        "train": technique(Train, "training", "step", compresses=False),
        "rtn": technique(Rtn, "quantization", "step"),
        "sr_ste": technique(SrSte, "sparse training", "method"),
        "distill_logits": technique(Distill, "distillation", "method", compresses=False),
    },
    models={"builtin:vit": entry(Vit), "hf": entry(Nothing), "run": entry(Nothing)},
    tasks={"builtin:digits": entry(Nothing), "file": entry(Nothing)},
    runtimes={
        "eager": entry(Nothing, requires=[]),
        "onnxruntime": entry(OnnxRuntime, requires=["cpu", "onnxruntime"]),
    },
)
