"""The catalogue: every technique with its family, paper and settings, and the workers that can run it."""

import pandas as pd
import streamlit as st

from app.components import wrapped_table
from app.queries.catalogue import load_catalogue, load_offers
from app.text.formats import NOTHING
from app.text.schema import Field, in_words, list_fields
from app.web import identity

identity.require_actor()
catalogue = load_catalogue()
offers = load_offers()

st.title("Techniques")
st.caption(
    f"{len(catalogue.techniques)} techniques. Steps form a recipe. Methods run inside a `train` step. "
    "All of them are available on the Submit page."
)

wanted = st.query_params.get("technique", "")
families = sorted({entry["family"] for entry in catalogue.techniques.values()})
text = st.text_input("Search", placeholder="name, family or description", icon=":material/search:")
chosen = st.pills("Family", families, selection_mode="multi")


def describe_default(field: Field) -> str:
    """The value of a setting that is not given."""
    if field.required or (field.default is None and field.nullable):
        return field.when_empty
    return NOTHING if field.default in (None, [], {}) else in_words(field.default)


def describe_setting(field: Field) -> dict[str, str]:
    """One row of a technique's table of settings."""
    return {
        "Setting": field.name,
        "Default": describe_default(field),
        "Values": field.range,
        "Description": field.description,
    }


def matches(name: str, entry: dict) -> bool:
    """Whether a technique matches the search and the selected families."""
    words = f"{name} {entry['family']} {entry['doc']}".lower()
    return all(word in words for word in text.lower().split()) and (not chosen or entry["family"] in chosen)


def show(name: str, entry: dict) -> None:
    """A technique: one line, with all details when expanded."""
    forms = {"step": "step", "method": "method of train"}
    able = offers.get(f"technique:{name}", {}).get(entry["hash"], [])
    summary = entry["summary"].rstrip(".")
    with st.expander(f"**{name}** &nbsp; {summary}", expanded=name == wanted, key=f"technique.{name}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge(entry["family"], color="blue")
            for form in entry["forms"]:
                st.badge(forms[form], color="gray")
            for need in entry["requires"]:
                st.badge(f"needs {need}", color="orange")
            if able:
                st.badge(f"{len(able)} worker{'s' if len(able) > 1 else ''}", icon=":material/check:", color="green")
            else:
                st.badge("no worker available", icon=":material/warning:", color="orange")
        st.markdown(entry["doc"])
        rows = [describe_setting(field) for field in list_fields(entry["schema"])]
        if rows:
            wrapped_table.show(pd.DataFrame(rows))
        else:
            st.caption("No settings.")
        with st.container(horizontal=True, vertical_alignment="center"):
            st.link_button("Paper", entry["paper"], icon=":material/open_in_new:")
            st.link_button("Link to this technique", f"?technique={name}", icon=":material/link:", type="tertiary")
            if able:
                st.caption(f"Runs on {', '.join(able)}.")


shown = {name: entry for name, entry in catalogue.techniques.items() if matches(name, entry)}
if not shown:
    st.info("No techniques match. Try fewer words or another family.")
if wanted in shown and not text and not chosen:
    show(wanted, shown.pop(wanted))
for family in families:
    members = {name: entry for name, entry in shown.items() if entry["family"] == family}
    if members:
        st.subheader(f"{family.capitalize()} ({len(members)})")
    for name, entry in members.items():
        show(name, entry)
