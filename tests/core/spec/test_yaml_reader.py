"""YAML that is hostile, or just wrong: each is refused at once, with where and why."""

import pytest

from core.errors import SpecError
from core.spec.model import RunSpec

GOOD = "model: builtin:vit\ntask: builtin:digits\n"


def problem(text: str) -> str:
    with pytest.raises(SpecError) as refused:
        RunSpec.from_yaml(text)
    return str(refused.value)


def test_aliases_of_aliases_are_counted_and_not_written_out() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    assert "expands to more than 20,000 values" in problem("\n".join([*lines, "model: *a29"]))


def test_an_alias_may_stand_for_a_value_twice() -> None:
    spec = RunSpec.from_yaml(GOOD + "recipe:\n  - train: &t {steps: 5}\n  - train: *t\n")
    assert [step.settings for step in spec.recipe] == [{"steps": 5}, {"steps": 5}]


@pytest.mark.parametrize(
    "text",
    [
        "model: &m {source: builtin:vit, recipe: [*m]}\ntask: builtin:digits\n",
        GOOD + "recipe: &r\n  - train: {methods: *r}\n",
        GOOD + "name: " + "[" * 60 + "]" * 60,
        "model: " + "[" * 5000 + "]" * 5000,
    ],
)
def test_endless_and_deep_nesting(text: str) -> None:
    assert "contains itself, or is nested more than 50 levels deep" in problem(text)


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf"])
def test_numbers_that_are_not_finite(number: str) -> None:
    """Range checks let NaN pass, and PostgreSQL's JSON knows neither."""
    said = problem(GOOD + f"recipe:\n  - train: {{learning_rate: {number}}}\nlimits: {{minutes: {number}}}\n")
    assert "recipe[0].train.learning_rate" in said and "limits.minutes" in said and "is not a finite number" in said


def test_a_key_that_stands_twice() -> None:
    said = problem(GOOD + "seed: 1\nseed: 2\n")
    assert said.startswith("line 4 = 'seed: 2'") and "the key seed appears twice" in said


def test_python_objects_are_not_made() -> None:
    assert "could not determine a constructor" in problem(GOOD + "name: !!python/object/apply:os.system [echo]\n")


def test_a_date_that_is_none() -> None:
    assert "cannot be read" in problem(GOOD + "name: 2020-99-99\n")


@pytest.mark.parametrize("character", [r"\0", r"\ud800"])
def test_characters_that_no_store_keeps(character: str) -> None:
    assert problem(GOOD + f'name: "a{character}b"\n').startswith("name = ")
