import pytest

from core.errors import SpecError
from core.spec.model import RunSpec

EXAMPLE = """
model: {source: builtin:vit, dim: 192, depth: 6}
task: {source: builtin:digits}
seed: 0
recipe:
  - train: {steps: 500}
  - train: {steps: 200, methods: [{sr_ste: {n: 2, m: 4}}, {distill_logits: {temperature: 2, teacher: stage:1}}]}
  - rtn: {bits: 8}
  - cast
measure: {batch_sizes: [1, 64]}
"""


def problem(text: str):
    with pytest.raises(SpecError) as caught:
        RunSpec.from_yaml(text)
    return caught.value.problems[0]


def test_yaml_survives_the_way_there_and_back():
    spec = RunSpec.from_yaml(EXAMPLE)
    assert RunSpec.from_yaml(spec.to_yaml()) == spec
    assert spec.model.settings == {"dim": 192, "depth": 6}
    assert spec.recipe[3].technique == "cast" and spec.recipe[3].settings == {}
    assert spec.techniques() == ["train", "sr_ste", "distill_logits", "rtn", "cast"]
    assert spec.to_dict()["version"] == 1


def test_hash_is_of_what_is_asked_not_of_how_it_is_written_or_called():
    spec = RunSpec.from_yaml(EXAMPLE)
    assert RunSpec.parse({**spec.to_dict(), "name": "another", "seed": 0}).hash == spec.hash
    assert RunSpec.parse({**spec.to_dict(), "seed": 1}).hash != spec.hash


def test_runtimes_are_names_or_names_with_settings():
    base = {"model": "builtin:vit", "task": "builtin:digits"}
    spec = RunSpec.parse({**base, "measure": {"runtimes": ["eager", {"compile": {"mode": "max-autotune"}}]}})
    assert [runtime.name for runtime in spec.measure.runtimes] == ["eager", "compile"]
    assert [runtime.settings for runtime in spec.measure.runtimes] == [{}, {"mode": "max-autotune"}]
    assert spec.to_dict()["measure"] == {"runtimes": ["eager", {"compile": {"mode": "max-autotune"}}]}
    assert RunSpec.from_yaml(spec.to_yaml()) == spec


def test_a_spec_of_an_earlier_release_keeps_its_hash():
    base = {"version": 1, "model": "builtin:vit", "task": "builtin:digits"}
    plain = RunSpec.parse({**base, "measure": {"runtimes": ["eager"]}})
    timed = RunSpec.parse({**base, "measure": {"runtimes": ["eager", "onnxruntime"]}})
    assert plain.hash == "4778193b863652de436165a4b269667c4ffd0e113abb3c4294abe20836982979"
    assert timed.hash == "848cb75c83e5ebb175cf282b6524c6c0789687117faf298d62f387395ca3c8b4"


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("task: builtin:digits", "model", "is missing"),
        ("model: builtin:vit\ntask: builtin:digits\nrecipy: []", "recipy", "is not a known key"),
        ("model: builtin:vit\ntask: builtin:digits\nseed: -1", "seed", "greater than or equal to 0"),
        ("model: builtin:vit\ntask: builtin:digits\nversion: 2", "version", "must be 1"),
        (
            "model: builtin:vit\ntask: builtin:digits\nmeasure: {batch_sizes: [0]}",
            "measure.batch_sizes[0]",
            "greater than",
        ),
        ("model: [\n", "line 2", "expected"),
        ("model: 5\ntask: builtin:digits", "model", "is neither a name nor a mapping"),
        ("model: builtin:vit\ntask: builtin:digits\nseed: true", "seed", "must be a whole number"),
        ("model: builtin:vit\ntask: builtin:digits\nseed: '8'", "seed", "must be a whole number"),
        ("model: builtin:vit\ntask: builtin:digits\nrecipe: [null]", "recipe[0]", "is neither a name nor a mapping"),
        ("model: builtin:vit\ntask: builtin:digits\nrecipe: [{rtn: {}, svd: {}}]", "recipe[0]", "names 2 techniques"),
        (
            "model: builtin:vit\ntask: builtin:digits\nmeasure: {runtimes: [{eager: {}, compile: {}}]}",
            "measure.runtimes[0]",
            "names 2 runtimes",
        ),
        ("- a list", "spec", "is not a mapping"),
    ],
)
def test_a_broken_spec_names_the_field_and_the_remedy(text, field, words):
    found = problem(text)
    assert found.field == field and words in found.message and found.remedy


def test_yaml_can_construct_nothing_but_data():
    assert "could not determine a constructor" in problem("model: !!python/object/apply:os.getcwd []").message
