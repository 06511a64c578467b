"""Small models of every architecture that the catalogue has, of any length."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from core import models
from core.context import Context
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.families import Family
from core.models.loaded import Loaded
from core.spec.model import ModelSpec
from core.subject import Subject
from core.tasks.answers import AnswersTask
from core.tasks.base import Task
from core.tasks.data import DATA_SPLITS, AnswersData, TextData
from core.tasks.texts import TextTask
from core.technique import OneShot
from core.techniques.catalogue import TECHNIQUES

DIM, DEPTH, HEADS = 64, 2, 2
FAMILIES = (Family.ATTENTION, Family.ARCHITECTURE)
SOURCES = ("builtin:gpt", "builtin:encoder")
FULL, FULL_PAPER = "full attention", "https://arxiv.org/abs/1706.03762"


@dataclass(frozen=True)
class Candidate:
    """An architecture in a model; `technique` is None for the unchanged model."""

    technique: str | None
    source: str

    @property
    def name(self) -> str:
        """What it is called in tables."""
        plain = self.technique or FULL
        return plain if self.source == "builtin:gpt" else f"{plain} (bidirectional)"

    def described(self) -> dict[str, Any]:
        """Settings, summary and paper."""
        if self.technique is None:
            summary = "Every token sees every other one, or every earlier one."
            return {"settings": {}, "summary": summary, "paper": FULL_PAPER}
        known = TECHNIQUES[self.technique]
        summary = (known.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")
        return {"settings": known().model_dump(mode="json"), "summary": summary, "paper": known.paper}


def build(candidate: Candidate, length: int) -> nn.Module:
    """The model with random weights, for `length` tokens. Raises SpecError if the two do not go together."""
    task = _task(candidate.source, length)
    spec = ModelSpec(source=candidate.source, dim=DIM, depth=DEPTH, heads=HEADS)
    loaded: Loaded = models.load(spec, task, torch.Generator().manual_seed(0))
    if candidate.technique is None:
        return loaded.module
    step = TECHNIQUES[candidate.technique]()
    assert isinstance(step, OneShot)
    subject = Subject({"main": loaded.module}, task, {"main": loaded.config}, loaded.trained)
    context = Context(
        device=torch.device("cpu"), task=task, seed_material="survey", record=MemoryRecord(), resolve=_no_model
    )
    step.check(subject)
    step.apply(subject, context)
    return subject.model


def _task(source: str, length: int) -> Task:
    """What a model needs to know of its task: the length, and how many classes there are."""
    texts = {split: ["." * (length + 1)] for split in DATA_SPLITS}
    if source == "builtin:gpt":
        return AnswersTask("survey", AnswersData(texts, (length,), length, "survey"))
    labels = {split: np.zeros(1, dtype=np.int64) for split in DATA_SPLITS}
    return TextTask("survey", TextData(tuple("0123456789"), labels, texts, length, "survey"))


def _no_model(reference: ModelSpec | str) -> nn.Module:
    raise SpecError.of("model", str(reference), "is not available in a survey", "Leave it out.")


def list_steps() -> list[str]:
    """The architectures of the catalogue by name."""
    return [name for name, known in TECHNIQUES.items() if known.family in FAMILIES and issubclass(known, OneShot)]


def list_candidates(length: int) -> Iterator[Candidate | tuple[str, str]]:
    """What can be measured at a length; of a technique that no model takes, its name and why."""
    yield from (Candidate(None, source) for source in SOURCES)
    for name in list_steps():
        refusals = []
        for source in SOURCES:
            try:
                build(Candidate(name, source), length)
            except (SpecError, ValidationError) as error:
                refusals.append(f"{source}: {error}")
            else:
                yield Candidate(name, source)
                break
        else:
            yield name, "; ".join(refusals)
