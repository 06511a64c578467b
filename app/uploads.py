"""Models and data that a user brings along, and a look at the data before it is used."""

from typing import Any

import streamlit as st

from app.draft import Draft


def model_upload(draft: Draft) -> None: ...


def task_upload(draft: Draft) -> None: ...


def task_preview(task: dict[str, Any]) -> None: ...
