"""The draft that forms and YAML share."""

import pytest

from app.draft import Draft, dense_companion
from core.spec import RunSpec
from tests.app.catalogues import CATALOGUE

TEXT = """
name: example
model: {source: builtin:vit, dim: 64}
task: builtin:digits
seed: 3
recipe:
  - train: {steps: 5, methods: [sr_ste, {distill_logits: {teacher: stage:0}}]}
  - rtn: {bits: 4}
  - rtn
measure: {batch_sizes: [1, 64]}
"""


def spec(*recipe, **more):
    return RunSpec.parse(
        {"model": {"source": "builtin:vit", "dim": 64}, "task": "builtin:digits", "recipe": list(recipe), **more}
    )


def test_a_spec_survives_the_draft():
    original = RunSpec.from_yaml(TEXT)
    again, problems = Draft.of(original).check(CATALOGUE)
    assert problems == []
    assert again is not None
    assert again.techniques() == original.techniques()
    assert again.to_dict()["recipe"][1:] == original.to_dict()["recipe"][1:]
    assert (again.seed, again.name, again.measure) == (3, "example", original.measure)


def test_editing_the_draft_leaves_the_spec_alone():
    original = RunSpec.from_yaml(TEXT)
    Draft.of(original).steps[1].settings["bits"] = 2
    assert original.recipe[1].settings == {"bits": 4}


def test_steps_move_and_copy_with_their_settings():
    draft = Draft.of(spec({"train": {"steps": 5}}, {"rtn": {"bits": 4}}))
    draft.move(1, -1)
    draft.duplicate(0)
    draft.steps[0].settings["bits"] = 3
    draft.add("train", {})
    draft.remove(2)
    assert draft.to_dict()["recipe"] == [{"rtn": {"bits": 3}}, {"rtn": {"bits": 4}}, {"train": {}}]
    assert len({step.id for step in draft.steps}) == 3


def test_widgets_are_drawn_anew_after_a_structural_change():
    draft = Draft.of(spec("rtn", "rtn"))
    before = draft.generation
    draft.remove(0)
    assert draft.generation != before


def test_problems_name_the_field():
    draft = Draft.of(spec({"rtn": {"bits": 9}}))
    _, problems = draft.check(CATALOGUE)
    assert [(p.field, p.value) for p in problems] == [("recipe[0].rtn.bits", 9)]


def test_a_source_without_a_name_is_a_problem():
    draft = Draft.of(spec())
    draft.model = {"source": "hf:"}
    _, problems = draft.check(CATALOGUE)
    assert [p.field for p in problems] == ["model.source"]


def test_a_recipe_that_only_trains_sparsely_is_offered_its_dense_companion():
    sparse = spec({"train": {"steps": 7, "methods": [{"sr_ste": {"n": 2}}]}}, "rtn")
    assert dense_companion(sparse, CATALOGUE) == {
        "source": "builtin:vit", "dim": 64, "recipe": [{"train": {"steps": 7}}]
    }  # fmt: skip


@pytest.mark.parametrize(
    "complete",
    [
        spec("train", "rtn"),
        spec("rtn"),
        spec({"train": {"methods": [{"distill_logits": {"teacher": "hf:x"}}]}}),
        spec("rtn", "train", reference="hf:some/model"),
        RunSpec.parse({"model": "hf:some/model", "task": "builtin:digits", "recipe": ["rtn", "train"]}),
    ],
)
def test_no_companion_where_there_is_a_reference_or_nothing_to_train(complete):
    assert dense_companion(complete, CATALOGUE) is None


def test_a_widget_of_before_a_redrawing_writes_into_the_draft_no_more():
    draft = Draft.of(
        RunSpec.parse({"model": "builtin:vit", "task": "builtin:digits", "recipe": [{"rtn": {"bits": 4}}]})
    )
    held = (draft.model, draft.task, draft.steps[0].settings)
    draft.redraw()
    for values in held:
        values["source"] = values["bits"] = "late"
    assert draft.model == {"source": "builtin:vit"}
    assert draft.task == {"source": "builtin:digits"}
    assert draft.steps[0].settings == {"bits": 4}
