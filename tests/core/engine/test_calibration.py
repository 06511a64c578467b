"""Runs with calibration data of their own: which stages change, what is recorded, and what is refused."""

import pytest

from core.engine.pipeline import check
from core.engine.stage_plan import with_count
from core.errors import SpecError
from core.measured import CALIBRATION
from core.settings import settings
from core.spec.model import StepSpec
from tests.core.engine.small_runs import run, same, spec, weights
from tests.core.sentences import save_texts, sentences

WANDA = {"wanda": {"sparsity": 0.5, "calibration_examples": 16}}
GPT = {"source": "builtin:gpt", "dim": 16, "depth": 1, "heads": 2, "length": 32}
TEXT = {"model": GPT, "task": {"source": "file:texts.txt", "length": 16}, "reference": "stage:0"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMBOARD_DATA", str(tmp_path))
    settings.cache_clear()
    save_texts(tmp_path)
    yield tmp_path
    settings.cache_clear()


def stages(folder, *recipe: object, **calibration: object):
    changes = {"calibration": calibration} if calibration else {}
    return run(folder, spec(*(recipe or (WANDA, {"rtn": {"bits": 4}})), **TEXT, **changes))


def keys(found) -> list[str]:
    return [stage.measured.key for stage in found]


def test_other_data_change_the_stages_from_the_first_that_calibrates(folder):
    by_default, written = stages(folder), stages(folder, sources="task")
    assert keys(by_default) == keys(written) and all(stage.measured for stage in written)
    other = stages(folder, sources="builtin:python-docs")
    seeded = stages(folder, seed=5)
    longer = stages(folder, length=32)
    for changed in (other, seeded, longer):
        assert [a == b for a, b in zip(keys(by_default), keys(changed), strict=True)] == [True, False, False]
    assert len({*keys(other), *keys(seeded), *keys(longer)}) == 7
    assert not same(weights(folder, by_default[1]), weights(folder, other[1]))


def test_a_recipe_without_calibration_keeps_its_keys(folder):
    recipe = [{"rtn": {"bits": 4}}]
    assert keys(stages(folder, *recipe)) == keys(stages(folder, *recipe, sources="builtin:python-docs", seed=2))


def test_the_count_is_that_of_steps_which_say_none_themselves(folder):
    bare = {"wanda": {"sparsity": 0.5}}
    assert keys(stages(folder, bare, count=16)) == keys(stages(folder, WANDA))
    assert keys(stages(folder, WANDA, count=8)) == keys(stages(folder, WANDA))
    train = StepSpec.model_validate({"train": {"methods": ["sr_ste"]}})
    assert with_count(train, "recipe[0]", 4).settings["methods"] == [{"sr_ste": {}}]


def test_what_a_stage_saw_is_recorded_with_it(folder):
    mixed = stages(folder, WANDA, sources=["task", {"source": "builtin:python-docs", "weight": 3}])
    found = mixed[1].measured.details[CALIBRATION]
    assert found["examples"] == {"task": 4, "builtin:python-docs": 12} and found["tokens"] == 16 * 16
    assert {row["tokens"] for row in found["layers"]} == {256}
    assert CALIBRATION not in mixed[0].measured.details


def test_random_numbers_do_not_depend_on_the_calibration_data(folder):
    random = {"head_pruning": {"importance": "random", "pruning_ratio": 0.5, "rounds": 1}}
    first, second = (stages(folder, random, seed=seed) for seed in (1, 2))
    assert keys(first)[1] != keys(second)[1]  # it might have calibrated
    assert same(weights(folder, first[1]), weights(folder, second[1]))


@pytest.mark.usefixtures("folder")
def test_problems_are_found_before_anything_is_computed():
    with pytest.raises(SpecError, match=r"calibration.length = 64: exceeds the model's maximum of 32 tokens"):
        check(spec(WANDA, **TEXT, calibration={"length": 64}))
    with pytest.raises(SpecError, match=r"calibration.sources\[0\].source = 'file:none.txt'"):
        check(spec(WANDA, **TEXT, calibration={"sources": "file:none.txt"}))


def test_gradients_on_data_of_another_task_are_refused_in_words(folder):
    rows = "\n".join(["text,label", *(f"{text},{'ab'[len(text) % 2]}" for text in sentences(80))])
    (folder / "labelled.csv").write_text(rows)
    asked = spec(
        {"head_pruning": {"pruning_ratio": 0.5, "rounds": 1}},
        model={"source": "builtin:encoder", "dim": 16, "depth": 1, "heads": 2},
        task={"source": "file:labelled.csv", "length": 16},
        calibration={"sources": "file:texts.txt"},
    )
    with pytest.raises(SpecError, match="no labels of the task's own"):
        run(folder, asked)
