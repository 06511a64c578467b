"""Which stages are one recipe with different seeds."""

import subprocess
import sys

import pytest

from core.analysis.replicates import Replicate, replicate
from core.spec.model import RunSpec

TASK = "t" * 64
RECIPE = [{"train": {"steps": 20}}, {"rtn": {"bits": 4}}]


def of(position=2, task_hash=TASK, sources=None, **changes):
    spec = RunSpec.parse({"model": "builtin:vit", "task": "builtin:digits", "recipe": RECIPE, **changes})
    return replicate(spec.to_dict(), position, task_hash, sources or {})


def test_only_the_seed_differs():
    assert of(seed=1).recipe == of(seed=2).recipe
    assert len({of(seed=seed).seeds for seed in (0, 1, 2)}) == 3
    assert of() == of(seed=0, name="another name", device="cpu", measure={"repeats": 40})  # none changes the weights


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "builtin:gpt"},
        {"model": {"source": "builtin:vit", "dim": 32}},
        {"recipe": [{"train": {"steps": 21}}, {"rtn": {"bits": 4}}]},
        {"recipe": [{"rtn": {"bits": 4}}, {"train": {"steps": 20}}]},
        {"measure": {"test_examples": 100}},
        {"task_hash": "u" * 64},
        {"position": 1},
    ],
)
def test_whatever_else_differs_is_another_recipe(changes):
    assert of(**changes).recipe != of().recipe


def test_later_steps_do_not_count():
    assert of(position=1) == of(position=1, recipe=RECIPE[:1])
    assert of(position=0) == of(position=0, recipe=[])


def test_a_default_that_is_written_out_changes_nothing():
    bare, written = ({"recipe": [{"train": {"methods": methods}}, {"rtn": settings}]} for methods, settings in (
        (["sr_ste"], {}), ([{"sr_ste": {"n": 2, "m": 4}}], {"bits": 8})
    ))  # fmt: skip
    assert of(**bare) == of(**written)
    assert of(recipe=[{"train": {"methods": [{"sr_ste": {"n": 1}}]}}, "rtn"]) != of(**bare)


def test_runs_that_are_named_count_as_their_recipe_and_seeds():
    first, second, other = Replicate(7, 0), Replicate(7, 1), Replicate(8, 1)
    spec = {"recipe": [{"rtn": {"bits": 4}}]}
    a, b = (of(1, model=f"run:{n}", sources={n: found}, **spec) for n, found in ((12, first), (13, second)))
    assert a.recipe == b.recipe
    assert a.seeds != b.seeds  # both of seed 0 themselves
    assert of(1, model="run:14", sources={14: other}, **spec).recipe != a.recipe
    assert of(1, model="run:12", **spec).recipe != of(1, model="run:13", **spec).recipe  # of another store


def test_only_the_named_runs_of_the_steps_so_far_count():
    recipe = [{"train": {"steps": 20}}, {"distil": {"teacher": "run:12"}}]
    taught = of(1, recipe=recipe, sources={12: Replicate(7, 5)})
    assert taught == of(1, recipe=recipe, sources={12: Replicate(7, 6)})
    assert of(2, recipe=recipe, sources={12: Replicate(7, 5)}) != of(2, recipe=recipe, sources={12: Replicate(7, 6)})


def test_hashes_fit_a_signed_integer_and_are_the_same_everywhere():
    found = of()
    assert 0 <= found.recipe < 2**63
    code = (
        "from core.analysis.replicates import replicate;"
        "print(replicate({'model': {'source': 'builtin:vit'}, 'recipe': ['rtn']}, 1, 't', {}).recipe)"
    )
    told = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                       env={"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(told) == 1


CALIBRATED = [{"train": {"steps": 20}}, {"wanda": {"sparsity": 0.5}}]


def calibrated(position=2, **calibration):
    return of(position, recipe=CALIBRATED, calibration=calibration)


def test_calibration_sets_are_replicates_of_one_recipe():
    default = calibrated()
    others = [
        calibrated(seed=1),
        calibrated(seed=2),
        calibrated(sources="builtin:markov"),
        calibrated(sources=["task", "builtin:markov"]),
    ]
    assert {found.recipe for found in others} == {default.recipe}
    assert len({default.seeds, *(found.seeds for found in others)}) == 5
    assert default == of(recipe=CALIBRATED)  # as before there was such a section


def test_other_lengths_and_counts_of_calibration_are_other_recipes():
    assert len({calibrated().recipe, calibrated(length=64).recipe, calibrated(count=64).recipe}) == 3
    counted = [CALIBRATED[0], {"wanda": {"sparsity": 0.5, "calibration_examples": 64}}]
    assert calibrated(count=64) == of(recipe=counted)
    assert calibrated(count=32, length=8).recipe != of(recipe=counted).recipe


def test_calibration_does_not_count_before_a_step_that_calibrates():
    assert calibrated(1, sources="builtin:markov", seed=3, length=64) == of(1, recipe=CALIBRATED)
