"""The draft that forms and YAML share."""

import pytest

from app.screens.submit.draft import Draft, Unread, make_dense_companion
from app.screens.submit.widgets import FormPlace
from core.spec.model import RunSpec
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
    Draft.of(original).steps[1].values["bits"] = 2
    assert original.recipe[1].settings == {"bits": 4}


def test_steps_move_and_copy_with_their_settings():
    draft = Draft.of(spec({"train": {"steps": 5}}, {"rtn": {"bits": 4}}))
    draft.move(draft.steps[1], -1)
    draft.duplicate(draft.steps[0])
    draft.steps[0].values["bits"] = 3
    draft.add("train", {})
    draft.remove(draft.steps[2])
    assert draft.to_dict()["recipe"] == [{"rtn": {"bits": 3}}, {"rtn": {"bits": 4}}, {"train": {}}]
    assert len({step.id for step in draft.steps}) == 3


def test_what_a_click_meant_of_an_earlier_list_of_steps_is_dropped():
    draft = Draft.of(spec("rtn", "rtn", "train"))
    seen = draft.edition
    for _ in range(2):  # a double click, or a browser that has not yet drawn the shorter list
        draft.edit(seen, draft.remove, draft.steps[0])
    assert [step.technique for step in draft.steps] == ["rtn", "train"]


def test_problems_name_the_field():
    draft = Draft.of(spec({"rtn": {"bits": 9}}))
    _, problems = draft.check(CATALOGUE)
    assert [(p.field, p.value) for p in problems] == [("recipe[0].rtn.bits", 9)]


def test_a_source_without_a_name_is_a_problem():
    draft = Draft.of(spec())
    draft.model.values = {"source": "hf:"}
    _, problems = draft.check(CATALOGUE)
    assert [p.field for p in problems] == ["model.source"]


def test_a_recipe_that_only_trains_sparsely_is_offered_its_dense_companion():
    sparse = spec({"train": {"steps": 7, "methods": [{"sr_ste": {"n": 2}}]}}, "rtn")
    assert make_dense_companion(sparse, CATALOGUE) == {
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
    assert make_dense_companion(complete, CATALOGUE) is None


def place(draft, part, *path):
    return FormPlace(draft, part, part.edition, "name", "field", CATALOGUE).inside(*path)


def test_a_widget_of_before_a_redrawing_writes_into_the_draft_no_more():
    draft = Draft.of(spec({"rtn": {"bits": 4}}))
    step, late = draft.steps[0], place(draft, draft.steps[0])
    step.redraw()
    late.edit(late.put, "bits", 5)
    assert step.values == {"bits": 4}
    newest = place(draft, step)
    newest.edit(newest.put, "bits", 6)
    assert step.values == {"bits": 6}


def test_a_widget_of_a_part_that_was_replaced_writes_into_the_draft_no_more():
    draft = Draft.of(spec("rtn", "rtn"))
    late = place(draft, draft.steps[0])
    draft.remove(draft.steps[0])
    late.edit(late.put, "bits", 5)
    assert draft.to_dict()["recipe"] == [{"rtn": {}}]


def test_a_form_within_a_form_writes_where_it_stands():
    draft = Draft.of(spec({"train": {"methods": ["sr_ste", {"distill_logits": {"teacher": "hf:x"}}]}}))
    train = draft.steps[0]
    place(draft, train, "methods", 0, "sr_ste").put("n", 3)
    teacher = place(draft, train, "methods", 1, "distill_logits", "teacher")
    assert teacher.values == {"source": "hf:x"}
    teacher.put("dim", 8)
    nested = place(draft, train, "not", "there")
    assert nested.values == {}
    nested.leave_out("yet")
    assert train.values == {
        "methods": [{"sr_ste": {"n": 3}}, {"distill_logits": {"teacher": {"source": "hf:x", "dim": 8}}}]
    }
    nested.put("yet", 1)
    assert train.values["not"] == {"there": {"yet": 1}}


def test_the_form_replaces_a_text_that_cannot_be_read():
    draft = Draft.of(spec("rtn"))
    draft.unread = Unread("model: [", [])
    assert draft.to_yaml() == "model: ["
    where = place(draft, draft.general)
    where.edit(where.put, "seed", 7)
    assert RunSpec.from_yaml(draft.to_yaml()).seed == 7
