"""Orders of two steps that a model refuses after the first are refused before anything is computed."""

import copy

import pytest

from core.errors import SpecError
from core.publish import describe_catalogue
from core.spec.catalogue import Catalogue
from core.spec.model import RunSpec, StepSpec
from core.spec.schema_validation import validate
from core.tasks.base import Kind
from core.technique import OneShot
from core.techniques.catalogue import TECHNIQUES, technique
from core.techniques.parts import NEEDS_PLAIN_BLOCKS
from tests.core.fakes import context
from tests.core.techniques.pruning.families import subject_of
from tests.core.techniques.steps import SMALL, precede

FOLDING = ("awq", "smoothquant")  # only the model itself shows whether it has a place to fold factors into

SETTINGS = {
    "adaround": {"iterations": 4, "calibration_examples": 16},
    "autoround": {"iterations": 4, "calibration_examples": 16},
    "bigbird": {"block": 2, "random_blocks": 1},
    "block_local": {"block": 4},
    "channel_permutation": {"strategy": "greedy_swap", "escapes": 0},
    "cofi": {"teacher": "stage:0"},
    "distill_logits": {"teacher": "stage:0"},
    "dynamic_vit": {"stages": 1},
    "etc": {"radius": 2, "global_tokens": 3, "max_distance": 2},
    "ffn_pruning": {"round_to": 1, "importance": "l2"},
    "head_pruning": {"importance": "magnitude"},
    "kv_cache_quantization": {"group_size": 8, "window": 2},
    "low_rank_correction": {"rank": 2},
    "mixed_precision": SMALL["mixed_precision"],
    "ptq4vit": SMALL["ptq4vit"],
    "sensitivity": SMALL["sensitivity"],
    "sliding_window": {"window": 4},
    "sparse_ffn": {"block_size": 4},
    "width_pruning": {"round_to": 1, "importance": "l2"},
}
CATALOGUE = Catalogue(**describe_catalogue(plugins=False))
STEPS = [name for name, cls in TECHNIQUES.items() if issubclass(cls, OneShot) and name != "train"]
FIRST = [
    *({name: {}} for name in STEPS),
    {"block_local": {"every": 2}},
    {"mamba": {"replaces": "attention"}},
    {"moe": {"every": 1}},
    {"rotation": {"residual_stream": False}},
]
THEN = [*({name: {}} for name in TECHNIQUES), {"mamba": {"replaces": "attention"}}, {"cofi": {"residual": False}}]
FAMILIES = {
    "builtin gpt": (Kind.LANGUAGE_MODELLING, {"kv_heads": 4}),
    "builtin vit": (Kind.IMAGE_CLASSIFICATION, {"pooling": "mean"}),
    "builtin encoder": (Kind.TEXT_CLASSIFICATION, {}),
}


def bound(step: dict):
    (name, settings), *_ = step.items()
    return technique(StepSpec(technique=name, settings=SETTINGS.get(name, {}) | settings), "recipe[0]")


def refused_by_declaration(first: dict, second: dict) -> bool:
    written = [{name: SETTINGS.get(name, {}) | more for name, more in step.items()} for step in (first, second)]
    recipe = [step if next(iter(step)) in (*STEPS, "train") else {"train": {"methods": [step]}} for step in written]
    spec = RunSpec.parse({"model": "builtin:vit", "task": "builtin:digits", "recipe": recipe})
    try:
        validate(spec, CATALOGUE)
    except SpecError as error:
        of_order = [problem for problem in error.problems if not problem.message.startswith("needs ")]
        return bool(of_order) and all(problem.message.startswith("cannot follow") for problem in of_order)
    return False


def refusal(step, subject) -> SpecError | None:
    """Why a subject refuses a step; a pattern that does not divide some layer's inputs is no matter of order."""
    try:
        step.check(subject)
    except SpecError as error:
        return None if error.problems[0].field == "m" else error
    return None


@pytest.fixture(scope="module")
def fresh():
    made = {}
    for family, (kind, more) in FAMILIES.items():
        made[family] = subject_of(family, depth=4, **more)
        made[family].task.kind = kind
    return made


def changed_by(earlier, fresh):
    """Each subject that takes a step, as it was and as the step leaves it."""
    for original in fresh.values():
        if refusal(earlier, original) is None:
            subject = copy.deepcopy(original)
            precede(earlier, subject)
            earlier.apply(subject, context(subject))
            yield original, subject


@pytest.mark.parametrize("first", FIRST, ids=str)
def test_what_a_subject_refuses_after_a_step_is_declared(first, fresh):
    for original, subject in changed_by(bound(first), fresh):
        for second in THEN:
            later = bound(second)
            if refusal(later, original) is None and (why := refusal(later, subject)) is not None:
                by_model = next(iter(second)) in FOLDING and "folded into" in str(why)
                assert by_model or refused_by_declaration(first, second), (first, second, str(why))


@pytest.mark.parametrize("first", [step for step in FIRST if bound(step).leaves & {*NEEDS_PLAIN_BLOCKS}], ids=str)
def test_an_order_of_architectures_that_is_declared_impossible_is_refused_by_the_subject_too(first, fresh):
    """A run may begin from an earlier one's model, whose steps no form sees."""
    for original, subject in changed_by(bound(first), fresh):
        for second in THEN:
            later = bound(second)
            if refusal(later, original) is None and refused_by_declaration(first, second):
                assert refusal(later, subject) is not None, (first, second)
