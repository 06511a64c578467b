"""Steps with settings that fit small models of up to some ten tokens, and applying them where they fit."""

import pytest

from core.errors import SpecError
from core.spec.model import StepSpec
from core.subject import Subject
from core.technique import SENSITIVITY, Technique
from core.techniques.catalogue import technique
from tests.core.fakes import context

SMALL = {
    "adaround": {"iterations": 4, "calibration_examples": 16},
    "autoround": {"iterations": 4, "calibration_examples": 16},
    "block_local": {"block": 5},
    "channel_permutation": {"strategy": "greedy_swap", "escapes": 0},
    "head_pruning": {"importance": "magnitude"},
    "kv_cache_quantization": {"group_size": 8, "window": 4},
    "low_rank_correction": {"rank": 2},
    "mixed_precision": {"budget": 6.0, "calibration_examples": 4},
    "ptq4vit": {"candidates": 4, "rounds": 1, "calibration_examples": 8},
    "repq_vit": {"calibration_examples": 8},
    "sensitivity": {"bits": [4, 8], "granularities": ["channel"], "calibration_examples": 4},
    "sliding_window": {"window": 6},
    "sparse_ffn": {"block_size": 4},
}


def bind(step: dict) -> Technique:
    """The technique of a step as recipes write it, {name: settings}."""
    return technique(StepSpec.model_validate(step), "recipe[0]")


def precede(bound: Technique, subject: Subject, **options: object) -> None:
    """Apply the step that must come directly before this one, if there is one. `options` are the context's."""
    if SENSITIVITY in type(bound).follows:
        bind({"sensitivity": SMALL["sensitivity"]}).apply(subject, context(subject, **options))
        subject.sensitivity = subject.details["sensitivity"]


def apply_or_skip(step: dict, subject: Subject) -> Subject:
    """The subject after the step; skips the test where the step refuses it with its reason."""
    bound = bind(step)
    try:
        precede(bound, subject)
        bound.check(subject)
    except SpecError as error:
        pytest.skip(f"refused with its reason: {error}")
    bound.apply(subject, context(subject))
    return subject
