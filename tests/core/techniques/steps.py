"""Steps with settings that fit small models of up to some ten tokens, and applying them where they fit."""

import pytest

from core.errors import SpecError
from core.spec.model import StepSpec
from core.subject import Subject
from core.technique import Technique
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
    "sliding_window": {"window": 6},
    "sparse_ffn": {"block_size": 4},
}


def bind(step: dict) -> Technique:
    """The technique of a step as recipes write it, {name: settings}."""
    return technique(StepSpec.model_validate(step), "recipe[0]")


def apply_or_skip(step: dict, subject: Subject) -> Subject:
    """The subject after the step; skips the test where the step refuses it with its reason."""
    bound = bind(step)
    try:
        bound.check(subject)
    except SpecError as error:
        pytest.skip(f"refused with its reason: {error}")
    bound.apply(subject, context(subject))
    return subject
