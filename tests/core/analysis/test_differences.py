"""Only what differs between specs is told, and a default is no difference."""

from core.analysis.differences import differing, flattened, words
from core.spec.catalogue import built_in
from core.spec.model import RunSpec


def spec(*recipe, **more):
    return RunSpec.parse({"model": "builtin:vit", "task": "builtin:digits", "recipe": list(recipe), **more})


def told(*specs):
    return {words(name): values for name, values in differing([flattened(s, built_in()) for s in specs]).items()}


def test_a_setting_at_its_default_is_the_same_as_one_left_out():
    assert told(spec({"rtn": {"bits": 8}}), spec("rtn")) == {}


def test_settings_differ_by_step_and_technique():
    first = spec({"train": {"steps": 200}}, {"rtn": {"bits": 4}}, seed=1)
    second = spec({"train": {"steps": 500}}, "cast")
    found = told(first, second)
    assert found["step 1 · train · updates"] == [200, 500]
    assert found["step 2"] == ["rtn", "cast"]
    assert found["step 2 · rtn · bits"] == [4, None]
    assert found["seed"] == [1, 0]
    assert "step 1" not in found


def test_methods_of_a_training_are_told_with_their_settings():
    plain = spec("train")
    sparse = spec({"train": {"methods": [{"sr_ste": {"n": 1}}]}})
    found = told(plain, sparse)
    assert found["step 1 · method · sr_ste"] == [None, "yes"]
    assert found["step 1 · sr_ste · n"] == [None, 1]
    assert found["step 1 · sr_ste · m"] == [None, 4]


def test_models_and_data_are_told_with_their_settings():
    other = RunSpec.parse({"model": {"source": "builtin:vit", "dim": 64}, "task": "builtin:shapes", "recipe": []})
    found = told(spec(), other)
    assert found["model · dim"] == [192, 64]
    assert found["task · source"] == ["builtin:digits", "builtin:shapes"]
