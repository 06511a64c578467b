"""The submit page: forms, YAML and what becomes of them."""

from pathlib import Path
from typing import Any

import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetStates
from streamlit.testing.v1 import AppTest

import app
from app.actions import runs
from app.queries.projects import load_projects
from app.queries.runs import load_answer
from core.spec.model import RunSpec
from core.store import checks, users
from core.store.engine import read_session, session
from core.store.models import Membership, Role, Run, RunStatus
from tests.app.catalogues import CATALOGUE

MAIN = Path(app.__file__).with_name("main.py")
YAML = "model: {source: builtin:vit, dim: 64}\ntask: builtin:digits\nrecipe:\n- rtn: {bits: 4}\n"


def yaml_field(at: AppTest) -> Any:
    """The YAML field; its key changes with every text that the form writes."""
    return next(field for field in at.text_area if field.label == "YAML")


@pytest.fixture
def page(store, monkeypatch):
    """The submit page, opened with a small catalogue and YAML's spec in it."""
    monkeypatch.setattr("app.queries.catalogue.built_in", lambda: CATALOGUE)
    at = AppTest.from_file(str(MAIN), default_timeout=30).run()
    at.switch_page("screens/submit/page.py").run()
    return typed(at, YAML)


def typed(at: AppTest, yaml: str) -> AppTest:
    """The page after `yaml` was typed into its field."""
    yaml_field(at).set_value(yaml).run()
    assert not at.exception
    return at


def field(at: AppTest, name: str, kind: str = "number_input"):
    """The widget of a setting by the end of its key."""
    return next(widget for widget in getattr(at, kind) if widget.key and widget.key.endswith(name))


def shown_spec(at: AppTest) -> RunSpec:
    """The spec in the YAML field."""
    return RunSpec.from_yaml(yaml_field(at).value)


def shown_text(at: AppTest) -> str:
    """All messages of the page."""
    return "\n".join(e.value for e in (*at.markdown, *at.error, *at.info, *at.warning, *at.success))


def submit_button(at: AppTest):
    return next(button for button in at.button if button.label == "Submit")


def test_yaml_fills_the_form(page):
    assert field(page, "model.dim").value == 64
    assert field(page, "rtn.bits").value == 4


def test_the_form_writes_the_yaml(page):
    field(page, "rtn.bits").set_value(3).run()
    field(page, "rtn.symmetric", "toggle").set_value(False).run()
    assert shown_spec(page).recipe[0].settings == {"bits": 3, "symmetric": False}


def test_a_setting_at_its_default_leaves_the_yaml(page):
    field(page, "rtn.bits").set_value(8).run()
    assert shown_spec(page).recipe[0].settings == {}


def test_yaml_that_cannot_be_read_stays_with_its_reason(page):
    typed(page, "model: [")
    assert yaml_field(page).value == "model: ["
    assert "line 1" in shown_text(page)
    assert submit_button(page).disabled  # what would be submitted is not what the field shows
    assert field(page, "rtn.bits").value == 4
    field(page, "rtn.bits").set_value(5).run()
    assert shown_spec(page).recipe[0].settings == {"bits": 5}
    assert not submit_button(page).disabled


def test_a_problem_stands_at_its_field_and_keeps_the_run_back(page):
    typed(page, YAML.replace("bits: 4", "bits: 9"))
    assert field(page, "rtn.bits").value == 9
    assert "Must be at most 8" in shown_text(page)
    assert submit_button(page).disabled


def test_an_unknown_technique_is_named_with_the_nearest(page):
    typed(page, YAML.replace("rtn:", "rtm:"))
    assert "Did you mean rtn?" in shown_text(page)


def test_steps_are_added_moved_copied_and_removed(page):
    field(page, "add.step", "selectbox").set_value("train").run()
    assert field(page, "add.step", "selectbox").value is None
    next(b for b in page.button if b.key and b.key.endswith(".Move up") and not b.disabled).click().run()
    assert [step.technique for step in shown_spec(page).recipe] == ["train", "rtn"]
    [b for b in page.button if b.key and b.key.endswith(".Duplicate")][1].click().run()
    next(b for b in page.button if b.key and b.key.endswith(".Remove")).click().run()
    assert [(step.technique, step.settings) for step in shown_spec(page).recipe] == [("rtn", {"bits": 4})] * 2


def test_a_trainings_updates_are_no_steps(page):
    typed(page, YAML + "- train: {steps: 7}\n")
    updates = field(page, "train.steps")
    assert updates.label == "updates :small[:gray[≥ 1]]" and "In YAML: steps." in updates.help
    assert any("updates 7" in expander.label for expander in page.expander)
    updates.set_value(9).run()
    assert shown_spec(page).recipe[1].settings == {"steps": 9}


def test_methods_have_forms_of_their_own(page):
    typed(page, YAML + "- train: {methods: [sr_ste]}\n")
    field(page, "train.methods[0].sr_ste.m").set_value(8).run()
    field(page, "train.methods.add", "selectbox").set_value("distill_logits").run()
    methods = shown_spec(page).recipe[1].settings["methods"]
    assert methods == [{"sr_ste": {"m": 8}}, {"distill_logits": {"teacher": {"source": "stage:0"}}}]
    field(page, "methods[0].remove", "button").click().run()
    assert [next(iter(method)) for method in shown_spec(page).recipe[1].settings["methods"]] == ["distill_logits"]


def test_runtimes_come_from_the_catalogue_and_have_forms_of_their_own(page):
    chosen = field(page, "measure.runtimes", "multiselect")
    assert (chosen.value, len(chosen.options)) == (["eager"], 2)
    chosen.set_value(["eager", "onnxruntime"]).run()
    assert shown_spec(page).to_dict()["measure"] == {"runtimes": ["eager", "onnxruntime"]}
    field(page, "onnxruntime.optimization", "selectbox").set_value("none").run()
    assert shown_spec(page).to_dict()["measure"]["runtimes"] == ["eager", {"onnxruntime": {"optimization": "none"}}]
    field(page, "measure.runtimes", "multiselect").set_value(["onnxruntime"]).run()
    assert shown_spec(page).to_dict()["measure"]["runtimes"] == [{"onnxruntime": {"optimization": "none"}}]
    field(page, "measure.runtimes", "multiselect").set_value(["eager"]).run()
    assert "measure" not in shown_spec(page).to_dict()


@pytest.mark.parametrize(
    ("runtimes", "shown"),
    [
        ("[eagre]", "Did you mean eager?"),
        ("[{onnxruntime: {optimization: some}}]", "Choose none or all."),
        ("[eager, eager]", "Is listed twice"),
        ("[]", "at least 1"),
    ],
)
def test_a_problem_of_a_runtime_stands_once_at_its_field(page, runtimes, shown):
    typed(page, f"{YAML}measure: {{runtimes: {runtimes}}}\n")
    at_fields = [line for line in shown_text(page).splitlines() if line.startswith(":small[:red[")]
    assert [shown in line for line in at_fields] == [True]
    assert submit_button(page).disabled


def test_another_model_drops_the_settings_of_the_first(page):
    field(page, ".model.source", "selectbox").set_value("hf").run()
    assert "Has no name yet" in shown_text(page)
    field(page, "model.hf.rest", "text_input").set_value("some/model").run()
    assert shown_spec(page).model.model_dump(exclude_defaults=True) == {"source": "hf:some/model"}


def late(at: AppTest, states: Any) -> AppTest:
    """The page after a request of a browser that still shows what it showed with these states of its widgets."""
    at._run(states)
    assert not at.exception
    return at


def states(at: AppTest) -> Any:
    """What a browser that shows the page sends with every request: all values, and of the buttons the clicked one."""
    sent = at._tree.get_widget_states()
    kept = [state for state in sent.widgets if state.WhichOneof("value") != "trigger_value" or state.trigger_value]
    return WidgetStates(widgets=kept)


@pytest.mark.parametrize("changed", ["model.source", "add.step", "methods.add", "yaml", "remove", "reference", "seed"])
def test_a_late_browser_undoes_nothing(page, changed):
    typed(page, YAML + "- train: {methods: [{distill_logits: {teacher: hf:x}}]}\n")
    before = states(page)
    match changed:
        case "model.source":
            field(page, ".model.source", "selectbox").set_value("hf").run()
            field(page, "model.hf.rest", "text_input").set_value("some/model").run()
        case "add.step":
            field(page, "add.step", "selectbox").set_value("rtn")
            before = states(page)
            page.run()
        case "methods.add":
            field(page, "methods.add", "selectbox").set_value("sr_ste")
            before = states(page)
            page.run()
        case "yaml":
            typed(page, YAML.replace("dim: 64", "dim: 32"))
        case "remove":
            field(page, ".Remove", "button").click()
            before = states(page)
            page.run()
        case "reference":
            next(button for button in page.button if button.label == "Choose another reference").click()
            before = states(page)
            page.run()
        case "seed":
            field(page, "general.seed").set_value(7).run()
            before = states(page)
    there = shown_spec(page)
    assert shown_spec(late(page, before)) == there
    assert shown_spec(page.run()) == there


def test_a_double_click_submits_once(page):
    submit_button(page).click()
    clicked = states(page)
    page.run()
    late(page, clicked)
    with read_session() as s:
        assert s.query(Run).count() == 1


def test_submit_queues_the_run_and_links_to_it(page, store):
    submit_button(page).click().run()
    assert not page.exception
    with read_session() as s:
        run = s.get_one(Run, 1)
        assert (run.status, run.spec["recipe"]) == (RunStatus.QUEUED, [{"rtn": {"bits": 4}}])
    assert store == ["any"]
    assert "Run 1 is queued" in shown_text(page)


def test_an_identical_run_is_noted_unless_it_is_the_one_just_queued(page):
    submit_button(page).click().run()
    page.run()
    assert "has an identical spec" not in shown_text(page)
    typed(page, YAML.replace("bits: 4", "bits: 3"))
    typed(page, YAML)
    assert "Run 1 has an identical spec" in shown_text(page)


def test_a_name_that_another_recipe_goes_by_is_noted(page):
    typed(page, f"name: four bits\n{YAML}")
    assert not any("still the name of" in caption.value for caption in page.caption)
    field(page, "bits").set_value(3).run()
    assert any("still the name of the preset" in caption.value for caption in page.caption)
    field(page, "name", "text_input").set_value("three bits").run()
    assert not any("still the name of" in caption.value for caption in page.caption)


def test_a_step_that_is_added_shows_its_settings_and_choices_say_what_they_do(page):
    choice = next(box for box in page.selectbox if box.label == "Add a step")
    assert any(option.startswith("rtn · quantization · ") for option in choice.options)
    choice.set_value("rtn").run()
    assert [box.proto.expanded for box in page.expander if "rtn" in box.label] == [False, True]


def test_what_a_worker_finds_wrong_stands_at_the_field(page):
    spec = shown_spec(page)
    with session() as s:
        checks.answer(s, spec.hash, [runs.Problem("recipe[0].rtn.bits", 4, "is too few for this model", "Take 8.")])
    load_answer.clear()
    page.run()
    assert "Is too few for this model" in shown_text(page)
    assert submit_button(page).disabled


def test_what_is_wrong_with_a_whole_step_stands_in_it_and_names_it_as_the_form_does(page):
    spec = shown_spec(page)
    with session() as s:
        checks.answer(s, spec.hash, [runs.Problem("recipe[0]", "rtn", "cannot follow itself", "Keep one.")])
    load_answer.clear()
    page.run()
    assert "**step 1** cannot follow itself" in page.error[0].value
    assert any("Cannot follow itself" in text.value for text in page.expander[2].markdown)


def test_the_dense_companion_becomes_the_reference(page):
    typed(page, YAML.replace("- rtn: {bits: 4}", "- train: {steps: 7, methods: [sr_ste]}"))
    next(button for button in page.button if button.label == "Add a dense reference").click().run()
    reference = shown_spec(page).reference
    assert reference is not None
    assert [(step.technique, step.settings) for step in reference.recipe] == [("train", {"steps": 7})]
    assert reference.settings == {"dim": 64}


def test_a_clone_starts_from_the_earlier_spec(page):
    submit_button(page).click().run()
    at = AppTest.from_file(str(MAIN), default_timeout=30).run()
    at.switch_page("screens/submit/page.py")
    at.query_params["clone"] = "1"
    at.run()
    assert shown_spec(at).to_dict() == RunSpec.from_yaml(YAML).to_dict()


def test_viewers_cannot_submit(page):
    with session() as s:
        user = users.enrol(s, users.LOCAL_USER)
        s.get_one(Membership, (user.id, 1)).role = Role.VIEWER
    load_projects.clear()
    page.run()
    assert submit_button(page).disabled


def test_number_fields_take_what_is_out_of_range_and_the_page_refuses_it(page):
    typed(page, YAML + "- train: {steps: 7}\n- rtn: {bits: 4}\n")
    assert not any(number.proto.has_min or number.proto.has_max for number in page.number_input)
    field(page, "rtn.bits").set_value(99).run()
    assert "must be at most 8" in shown_text(page).lower() and submit_button(page).disabled


def test_calibration_data_are_chosen_mixed_and_given_up_again(page):
    field(page, ".calibration.add", "button").click().run()
    field(page, "calibration.sources[0].source", "selectbox").set_value("builtin:digits").run()
    field(page, ".calibration.add", "button").click().run()
    field(page, "calibration.sources[1].source", "selectbox").set_value("task").run()
    field(page, "calibration.sources[1].weight").set_value(3).run()
    field(page, "calibration.count").set_value(64).run()
    found = shown_spec(page).calibration
    assert [(source.source, source.weight) for source in found.sources] == [("builtin:digits", 1), ("task", 3)]
    assert found.count == 64 and found.seed is None
    assert any(expander.label == "Calibration data (chosen)" for expander in page.expander)
    for _ in range(2):
        field(page, "calibration.sources[0].remove", "button").click().run()
    assert shown_spec(page).calibration.sources[0].source == "task"  # the default again
    assert "sources" not in yaml_field(page).value
    assert not page.exception


def test_problems_of_calibration_data_are_shown_at_their_fields(page):
    for calibration, said in (
        ("{length: 2}", "greater than or equal to 8"),
        ("{sources: [task, {source: 'builtin:digits', size: 3}]}", "is not a known setting"),
        ("{sources: ['builtin:nothing']}", "is not a known task source"),
        ("{sources: [task, {source: 'file:'}]}", "has no name yet"),
        ("{sources: [{source: task, length: 9}]}", "is a setting of the task itself"),
        ("{sources: [task, task]}", "is listed twice"),
    ):
        typed(page, f"{YAML}calibration: {calibration}\n")
        assert said in shown_text(page).lower(), calibration
        assert submit_button(page).disabled
