"""What every weight quantizer owes to every family of models: it runs, or is refused with the reason beforehand.

What it leaves is finite, reloads equal, and is smaller. One family for each quantizer, and each family by `rtn`, are in
the normal suite; all combinations are in the slow one.
"""

import pytest
import torch
from safetensors.torch import load_file

from core import models
from core.artifacts import artifact
from core.errors import SpecError
from core.families import Family
from core.integrity import PACKED
from core.measure import size
from core.measure.compute import count_weights
from core.models.meta import empty_weights
from core.nn.corrected_linear import CorrectedLinear
from core.nn.replacement import Replacement
from core.subject import Subject
from core.tasks.base import Kind, logits_of
from core.technique import INTEGER_CODES, SENSITIVITY, OneShot
from core.techniques.catalogue import TECHNIQUES
from tests.core.fakes import context
from tests.core.techniques.pruning.families import kind_of, loaded, subject_of
from tests.core.techniques.steps import SMALL, bind, precede

FAMILIES = (
    "builtin gpt",
    "builtin encoder",
    "builtin vit",
    "builtin resnet",
    "llama",
    "qwen2",
    "opt",
    "gpt2",
    "bert",
    "vit",
    "deit",
    "mixtral",
)
KINDS = {"image": Kind.IMAGE_CLASSIFICATION, "text": Kind.LANGUAGE_MODELLING, "padded": Kind.TEXT_CLASSIFICATION}
QUANTIZERS = {
    name: cls
    for name, cls in TECHNIQUES.items()
    if issubclass(cls, OneShot) and cls.family is Family.QUANTIZATION and INTEGER_CODES in cls.leaves
}
FOLDING = ("smoothquant", "awq")  # a BERT adds what its norms give to the stream, so nothing folds into them
ONLY_FOR_VITS = ("fq_vit", "ptq4vit", "repq_vit")
CHOICES = ({}, {"include_head": True}, {"include_embeddings": True})
CASES = [
    pytest.param(name, family, marks=() if name == "rtn" or j == i % len(FAMILIES) else pytest.mark.slow)
    for i, name in enumerate(QUANTIZERS)
    for j, family in enumerate(FAMILIES)
]


def steps(name: str) -> list[dict]:
    """The step with its settings for small models, and with the further choices that it has."""
    known = QUANTIZERS[name].model_fields
    return [{name: SMALL.get(name, {}) | choice} for choice in CHOICES if known.keys() >= choice.keys()]


def preceding(name: str) -> list[dict]:
    """The step that must come directly before this one, if there is one."""
    return [{"sensitivity": SMALL["sensitivity"]}] if SENSITIVITY in QUANTIZERS[name].follows else []


def fresh(family: str) -> Subject:
    subject = subject_of(family, depth=2)
    subject.task.kind = KINDS[kind_of(family)]
    return subject


def answers(model: torch.nn.Module, subject: Subject) -> torch.Tensor:
    with torch.inference_mode():
        return logits_of(model, artifact.probe_batch(subject.task))


def is_refused(step: dict, subject: Subject) -> bool:
    """Whether the check refuses, which sees no weights, with a reason and a remedy."""
    with empty_weights():
        described = Subject({"main": models.build(subject.configs["main"])}, subject.task, subject.configs)
    problems = []
    try:
        bind(step).check(described)
    except SpecError as error:
        problems = error.problems
    assert all(problem.field and problem.message and problem.remedy for problem in problems)
    return bool(problems)


@pytest.mark.parametrize(("name", "family"), CASES)
def test_a_quantizer_runs_and_reloads_equal_or_is_refused_with_its_reason(name, family, tmp_path):
    for index, step in enumerate(steps(name)):
        subject = fresh(family)
        if any(is_refused(each, subject) for each in (*preceding(name), step)):
            continue
        before, folder = count_weights(subject.model), tmp_path / str(index)
        artifact.save(subject, folder / "before", loaded(subject))
        bound = bind(step)
        precede(bound, subject)
        bound.apply(subject, context(subject))
        check_stage(subject, folder, before.parameters)


def check_stage(subject: Subject, folder, n_parameters: int) -> None:
    """The quantized model answers, counts what it did, and its artifact is smaller and reloads equal."""
    expected = answers(subject.model, subject)
    assert expected.isfinite().all()
    assert any(isinstance(module, Replacement) for module in subject.model.modules())
    counted = count_weights(subject.model)
    corrected = [m for m in subject.model.modules() if isinstance(m, CorrectedLinear)]
    assert counted.parameters == n_parameters + sum(m.rank * (m.in_features + m.out_features) for m in corrected)
    assert counted.bits < 32
    assert subject.details["layers"]
    artifact.save(subject, folder / "after", loaded(subject))
    assert torch.equal(
        answers(artifact.load_models(folder / "after")["main"], subject),
        load_file(folder / "after" / artifact.PROBE)["output"],
    )
    again = artifact.load_subject(folder / "after", subject.task, torch.device("cpu"))
    assert torch.equal(answers(again.model, subject), expected)
    before, after = (size.tensor_payload(folder / part / PACKED) for part in ("before", "after"))
    assert after < before


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_quantizer_takes_all_families_of_linear_layers_as_they_come(name):
    refused = {family for family in FAMILIES if is_refused(steps(name)[0], fresh(family))}
    images = {family for family in FAMILIES if kind_of(family) == "image"}
    others = set(FAMILIES) - images if name in ONLY_FOR_VITS else {"bert"} if name in FOLDING else set()
    assert refused <= {"builtin resnet"} | others
