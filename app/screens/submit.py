"""Build a run: a model, a task and a recipe of techniques, by forms or as YAML."""

from functools import partial

import streamlit as st

from app import actions, data, editor, formats, forms, identity, uploads
from app.draft import dense_companion
from app.widgets import Place, show_problem
from core.errors import SpecError
from core.spec import LimitSpec, MeasureSpec, RunSpec

user, project = identity.user(), identity.project()
catalogue = data.load_catalogue()
done_runs = data.load_run_titles(project.id, only_done=True)

clone = st.query_params.get("clone", "")
if clone.isdecimal() and st.session_state.get("cloned") != clone:
    st.session_state["cloned"] = clone
    if (found := data.load_spec(int(clone), project.id)) is None:
        st.toast(f"There is no run {clone} in this project.", icon=":material/error:")
    else:
        editor.start_from(RunSpec.parse(found), cloned_from=int(clone))

draft = editor.current()
spec, problems = draft.check(catalogue)
if spec is not None and not problems:
    problems = data.load_answer(spec.hash) or []
yaml_key = editor.keep_yaml_in_step(draft, spec)


def place(values: dict, field: str, stages: int | None = None) -> Place:
    """Where a form of this page writes to."""
    key = f"{draft.generation}.{field}"
    return Place(values, field, key, catalogue, draft.redraw, problems, done_runs, stages)


st.title("Submit a run")
with st.container(horizontal=True, vertical_alignment="center"):
    with st.popover("Start from a preset", icon=":material/auto_awesome_mosaic:"):
        for number, preset in enumerate(editor.presets()):
            st.button(
                preset.title,
                key=f"preset.{number}",
                help=preset.description,
                type="tertiary",
                on_click=editor.start_from_yaml,
                args=(preset.text,),
            )
    titles = dict(data.load_run_titles(project.id))
    with st.popover("Clone an earlier run", icon=":material/content_copy:", disabled=not titles):
        chosen = st.selectbox(
            "Run", list(titles), format_func=lambda n: f"#{n} {titles[n]}", index=None, key="clone.run"
        )
        if st.button("Clone and edit", disabled=chosen is None):
            st.query_params["clone"] = str(chosen)
            st.session_state.pop("cloned", None)
            st.rerun()
    if draft.cloned_from is not None:
        st.badge(f"Cloned from run {draft.cloned_from}", icon=":material/content_copy:", color="gray")

left, right = st.columns([5, 3], gap="large")

with left:
    st.subheader("Model")
    with st.container(border=True):
        forms.model_form(place(draft.model, "model"), "Where it comes from")
        uploads.model_upload(draft)

    st.subheader("Task")
    with st.container(border=True):
        forms.task_form(place(draft.task, "task"), "Data and score")
        with st.container(horizontal=True, vertical_alignment="center"):
            uploads.task_upload(draft)
            shown = st.toggle("Preview the data", key="preview")
        if shown:
            uploads.task_preview(draft.task)

    st.subheader("Recipe")
    if not draft.steps:
        st.info("No steps yet: the model is measured as it is. Add a technique below.", icon=":material/info:")
    for index, step in enumerate(draft.steps):
        field = f"recipe[{index}]"
        entry = catalogue.techniques.get(step.technique)
        wrong = any(p.field == field or p.field.startswith(f"{field}.") for p in problems)
        title = f"**{index + 1} · {formats.plain(step.technique)}** &nbsp; {formats.plain(step.words)}"
        icon = ":material/error:" if wrong else None
        with st.expander(title, expanded=wrong, key=f"step.{step.id}", icon=icon):
            with st.container(horizontal=True, vertical_alignment="center"):
                if entry is not None:
                    st.markdown(f"{entry['summary']} [Paper]({entry['paper']})", width="stretch")
                button = partial(editor.step_button, draft)
                button(
                    "Move up", ":material/arrow_upward:", f"{step.id}.up", partial(draft.move, index, -1), index == 0
                )
                last = index == len(draft.steps) - 1
                button("Move down", ":material/arrow_downward:", f"{step.id}.down", partial(draft.move, index, 1), last)
                button("Duplicate", ":material/content_copy:", f"{step.id}.copy", partial(draft.duplicate, index))
                button("Remove", ":material/delete:", f"{step.id}.remove", partial(draft.remove, index))
            if entry is None:
                show_problem(next((p for p in problems if p.field.startswith(field)), None))
            else:
                forms.settings_form(entry["schema"], place(step.settings, f"{field}.{step.technique}", stages=index))
    steps = [name for name, entry in catalogue.techniques.items() if "step" in entry["forms"]]
    st.selectbox(
        "Add a step",
        sorted(steps, key=lambda name: (catalogue.techniques[name]["family"], name)),
        index=None,
        placeholder="Add a step: search by technique or family",
        format_func=lambda name: f"{name} · {catalogue.techniques[name]['family']}",
        key="add.step",
        on_change=editor.add_step,
        args=("add.step",),
        label_visibility="collapsed",
    )

    st.subheader("Measuring")
    with st.expander("What is measured", icon=":material/speed:"):
        forms.settings_form(MeasureSpec.model_json_schema(), place(draft.measure, "measure"))
    with st.expander(
        "Reference" + (" (chosen)" if draft.reference else " (automatic)"), icon=":material/compare_arrows:"
    ):
        st.caption("What ratios and changes are taken against: by default the first trained, uncompressed stage.")
        if draft.reference is None:
            st.button("Choose another", on_click=editor.set_reference, args=({"source": "stage:0"},))
        else:
            forms.model_form(place(draft.reference, "reference", stages=len(draft.steps)), "Reference")
            st.button("Choose automatically", on_click=editor.set_reference, args=(None,))
    with st.expander("Limits", icon=":material/timer:"):
        forms.settings_form(LimitSpec.model_json_schema(), place(draft.limits, "limits"))

with right, st.container(key="summary"):
    key = f"{draft.generation}.name"
    st.text_input("Name", draft.name, max_chars=200, key=key, on_change=editor.write, args=("name", key))
    seed, device = st.columns(2)
    key = f"{draft.generation}.seed"
    seed.number_input("Seed", 0, 2**31 - 1, draft.seed, key=key, on_change=editor.write, args=("seed", key))
    key = f"{draft.generation}.device"
    device.selectbox(
        "Device",
        ["any", "cpu", "gpu"],
        ["any", "cpu", "gpu"].index(draft.device),
        key=key,
        on_change=editor.write,
        args=("device", key),
    )

    unread = editor.yaml_problems()
    if unread:
        st.error("The YAML cannot be read. Mend it, or change the form to replace it.", icon=":material/error:")
    elif problems:
        lines = (f"- **{formats.plain(p.field)}**: {formats.plain(f'{p.message}. {p.remedy}')}" for p in problems[:8])
        st.error("\n".join(lines), icon=":material/error:")
    elif spec is not None:
        editor.worker_answer(spec, project.may_submit)
        estimate = data.load_estimate(spec.to_dict(), spec.hash)
        if estimate is not None:
            st.caption(
                f":material/schedule: About {formats.duration(estimate)}, by earlier runs; reused stages take none."
            )
        for run_id, status, created_at in data.load_identical(project.id, spec.hash)[:1]:
            st.info(
                f"Run {run_id} asks for exactly this ({status}, {formats.ago(created_at)}).",
                icon=":material/content_copy:",
            )
            st.page_link("screens/run.py", label=f"Open run {run_id}", query_params={"run": str(run_id)})
        companion = dense_companion(spec, catalogue)
        if companion is not None:
            st.warning(
                "No stage of this recipe is trained and uncompressed, so nothing could be compared. "
                "Its dense companion can be trained as the reference.",
                icon=":material/compare_arrows:",
            )
            st.button("Add the dense companion", on_click=editor.set_reference, args=(companion,))

    submitted = st.button(
        "Submit",
        key="submit",
        type="primary",
        icon=":material/send:",
        width="stretch",
        disabled=bool(unread or problems) or spec is None or not project.may_submit,
        help=None if project.may_submit else "You are a viewer of this project; its owners can make you a member.",
    )
    if submitted and spec is not None:
        try:
            st.session_state["submitted"] = actions.submit(user.id, project.id, spec, catalogue, draft.cloned_from)
            data.forget_runs()
        except (actions.NotAllowed, SpecError) as error:
            st.error(str(error))
    if "submitted" in st.session_state:
        run_id = st.session_state["submitted"]
        st.success(f"Run {run_id} is queued.", icon=":material/check_circle:")
        st.page_link(
            "screens/run.py",
            label=f"Open run {run_id}",
            icon=":material/arrow_forward:",
            query_params={"run": str(run_id)},
        )

    st.text_area(
        "YAML",
        key=yaml_key,
        height=420,
        on_change=editor.take_yaml,
        args=(yaml_key,),
        help="The same spec; edit either.",
    )
    for problem in unread:
        show_problem(problem, problem.field)
