"""Build a run from a model, a task and a recipe of techniques, with forms or as YAML."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from app.queries.catalogue import load_catalogue
from app.queries.runs import load_answer, load_estimate, load_identical, load_run_titles
from app.screens.submit import editor, forms, uploads
from app.screens.submit.calibration import draw_calibration
from app.screens.submit.draft import DraftPart, Step, make_dense_companion
from app.screens.submit.widgets import FormPlace, show_problem
from app.text import formats
from app.web import identity
from core.spec.model import LimitSpec, MeasureSpec

DEVICES = ["any", "cpu", "gpu"]

actor = identity.require_actor()
catalogue = load_catalogue()
done_runs = load_run_titles(actor.project.id, only_done=True)

wanted = st.query_params.get("clone", "")
if wanted.isdecimal() and st.session_state.get("cloned") != wanted:
    st.session_state["cloned"] = wanted
    editor.clone(int(wanted), actor.project.id)

draft = editor.read_draft()
spec, problems = draft.check(catalogue)
if spec is not None and not problems:
    problems = load_answer(spec.hash) or []


def place(part: DraftPart, name: str, field: str = "", stages: int | None = None) -> FormPlace:
    """The part of the draft that a form edits."""
    return FormPlace(draft, part, part.edition, name, field or name, catalogue, problems, done_runs, stages)


def general(name: str) -> dict[str, Any]:
    """Key and callback of the widget for the name, the seed or the device."""
    where = place(draft.general, "general")
    key = f"{where.key}.{name}"
    return {"key": key, "on_change": where.edit, "args": (editor.write, where, name, key)}


def click(name: str, act: Callable[..., None], *args: Any) -> dict[str, Any]:
    """Key and callback of a button that changes the recipe or the reference."""
    return {"key": f"{draft.edition}.{name}", "on_click": draft.edit, "args": (draft.edition, act, *args)}


def step_buttons(index: int, step: Step) -> None:
    """Buttons to move, duplicate and remove a step."""
    last = index == len(draft.steps) - 1
    for icon, words, off, act, *args in (
        ("arrow_upward", "Move up", index == 0, draft.move, -1),
        ("arrow_downward", "Move down", last, draft.move, 1),
        ("content_copy", "Duplicate", False, draft.duplicate),
        ("delete", "Remove", False, draft.remove),
    ):
        bound = click(f"{step.id}.{words}", act, step, *args)
        st.button(f":material/{icon}:", help=words, type="tertiary", disabled=off, **bound)


st.title("Submit a run")
presets = {preset.title: preset for preset in editor.read_presets()}
titles = dict(load_run_titles(actor.project.id))
preset_key, clone_key = f"{draft.edition}.preset", f"{draft.edition}.clone"
start, clone = st.columns([5, 3], gap="large")
start.selectbox(
    "Start from a preset",
    list(presets),
    index=None,
    placeholder="Start from a preset",
    key=preset_key,
    on_change=editor.start_from_preset,
    args=(draft, preset_key),
    label_visibility="collapsed",
)
clone.selectbox(
    "Clone an earlier run",
    list(titles),
    index=None,
    placeholder="Clone an earlier run" if titles else "No earlier run to clone",
    format_func=lambda number: f"#{number} {titles[number]}",
    disabled=not titles,
    key=clone_key,
    on_change=editor.clone_chosen,
    args=(draft, clone_key, actor.project.id),
    label_visibility="collapsed",
)
if draft.cloned_from is not None:
    st.badge(f"Cloned from run {draft.cloned_from}", icon=":material/content_copy:", color="gray")
elif draft.about:
    st.caption(draft.about)

left, right = st.columns([5, 3], gap="large")

with left:
    st.subheader("Model")
    with st.container(border=True):
        forms.draw_model(place(draft.model, "model"), "Source")
        uploads.draw_model_upload(draft)

    st.subheader("Task")
    with st.container(border=True):
        forms.draw_task(place(draft.task, "task"), "Source")
        uploads.draw_task_upload(draft)
        if st.toggle("Preview the data", key="preview"):
            uploads.draw_task_preview(draft.task.values)

    st.subheader("Recipe")
    if not draft.steps:
        st.info(
            "No steps yet, so only the unmodified model is measured. Add a technique below.", icon=":material/info:"
        )
    for index, step in enumerate(draft.steps):
        field = f"recipe[{index}]"
        entry = catalogue.techniques.get(step.technique)
        wrong = any(p.field == field or p.field.startswith(f"{field}.") for p in problems)
        title = f"**{index + 1} · {formats.plain(step.technique)}** &nbsp; {formats.plain(step.words)}"
        icon = ":material/error:" if wrong else None
        with st.expander(title, expanded=wrong or step.added, key=f"step.{step.id}", icon=icon):
            with st.container(horizontal=True, vertical_alignment="center"):
                if entry is not None:
                    st.markdown(f"{entry['summary']} [Paper]({entry['paper']})", width="stretch")
                with st.container(horizontal=True, width="content"):
                    step_buttons(index, step)
            if entry is None:
                show_problem(next((p for p in problems if p.field.startswith(field)), None))
            else:
                show_problem(next((p for p in problems if p.field == field), None))
                inside = place(step, step.technique, f"{field}.{step.technique}", stages=index)
                forms.draw_settings(entry["schema"], inside)
    steps = [name for name, entry in catalogue.techniques.items() if "step" in entry["forms"]]
    add_key = f"{draft.edition}.add.step"
    st.selectbox(
        "Add a step",
        sorted(steps, key=lambda name: (catalogue.techniques[name]["family"], name)),
        index=None,
        placeholder="Add a step: search by technique or family",
        format_func=lambda name: forms.make_title(catalogue, name),
        filter_mode="contains",
        key=add_key,
        on_change=draft.edit,
        args=(draft.edition, editor.add_step, draft, add_key),
        label_visibility="collapsed",
    )

    chosen = " (chosen)" if draft.calibration.values else " (the task's own)"
    with st.expander(f"Calibration data{chosen}", icon=":material/tune:"):
        draw_calibration(place(draft.calibration, "calibration"))

    st.subheader("Measurement")
    with st.expander("What is measured", icon=":material/speed:"):
        forms.draw_settings(MeasureSpec.model_json_schema(), place(draft.measure, "measure"))
    with st.expander(
        "Reference" + (" (chosen)" if draft.reference else " (automatic)"), icon=":material/compare_arrows:"
    ):
        st.caption("The baseline of ratios and differences. By default, the first trained, uncompressed stage.")
        if draft.reference is None:
            st.button("Choose another reference", **click("refer", draft.refer, {"source": "stage:0"}))
        else:
            forms.draw_model(place(draft.reference, "reference", stages=len(draft.steps)), "Reference")
            st.button("Choose automatically", **click("refer", draft.refer, None))
    with st.expander("Limits", icon=":material/timer:"):
        forms.draw_settings(LimitSpec.model_json_schema(), place(draft.limits, "limits"))

with right, st.container(key="summary"):
    values = draft.general.values
    st.text_input("Name", values["name"], max_chars=200, **general("name"))
    if draft.is_misnamed:
        whose = "the preset" if draft.cloned_from is None else f"run {draft.cloned_from}"
        st.caption(f":material/edit: This is still the name of {whose}, but the spec has changed.")
    seed, device = st.columns(2)
    seed.number_input("Seed", value=values["seed"], step=1, **general("seed"))
    device.selectbox("Device", DEVICES, DEVICES.index(values["device"]), **general("device"))

    if draft.unread:
        st.error("The YAML is not a valid spec. Fix it, or edit the form to replace it.", icon=":material/error:")
    elif problems:
        editor.show_problems(problems)
    elif spec is not None:
        editor.show_answer(spec, actor.may_submit)
        estimate = load_estimate(spec.to_dict(), spec.hash)
        if estimate is not None:
            st.caption(
                f":material/schedule: About {formats.duration(estimate)}, based on earlier runs, without reused stages."
            )
        identical = [row for row in load_identical(actor.project.id, spec.hash) if row[0] != draft.submitted]
        for run_id, status, created_at in identical[:1]:
            st.info(
                f"Run {run_id} has an identical spec ({status}, {formats.ago(created_at)}).",
                icon=":material/content_copy:",
            )
            st.page_link("screens/run/page.py", label=f"Open run {run_id}", query_params={"run": str(run_id)})
        companion = make_dense_companion(spec, catalogue)
        if companion is not None:
            st.warning(
                "No stage of this recipe is trained and uncompressed, so there is no baseline. "
                "You can train the dense model as the reference.",
                icon=":material/compare_arrows:",
            )
            st.button("Add a dense reference", **click("companion", draft.refer, companion))

    st.button(
        "Submit",
        key=f"{draft.edition}.submit.{draft.submitted}",
        type="primary",
        icon=":material/send:",
        width="stretch",
        disabled=bool(draft.unread or problems) or spec is None or not actor.may_submit,
        help=None if actor.may_submit else "You are a viewer of this project. Ask an owner to make you a member.",
        on_click=editor.submit,
        args=(actor, draft, draft.submitted),
    )
    if draft.refused:
        st.error(formats.plain(draft.refused), icon=":material/error:")
    if draft.submitted is not None:
        st.success(f"Run {draft.submitted} is queued.", icon=":material/check_circle:")
        st.page_link(
            "screens/run/page.py",
            label=f"Open run {draft.submitted}",
            icon=":material/arrow_forward:",
            query_params={"run": str(draft.submitted)},
        )

    text = draft.to_yaml()
    key = f"{draft.edition}.yaml.{hash(text)}"  # a new field for each text, as an existing field keeps its value
    with st.container(key="yaml"):
        st.text_area(
            "YAML",
            text,
            key=key,
            height=420,
            on_change=editor.take_yaml,
            args=(draft, text, key),
            help="The same spec as the form. Edit either one.",
        )
    for problem in draft.unread.problems if draft.unread else ():
        show_problem(problem, problem.field)
