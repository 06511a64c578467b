"""The Export menu: each file is made on request, not when the page is drawn."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from app.exports import files


@dataclass(frozen=True)
class ExportFile:
    """A downloadable file: its button's label, its extension, its type, and the function that makes it."""

    label: str
    ending: str
    mime: str
    make: Callable[[], bytes]


def offer_table(make: Callable[[], pd.DataFrame]) -> list[ExportFile]:
    """A table as CSV and Parquet."""
    return [
        ExportFile("CSV", "csv", "text/csv", lambda: files.write_csv(make())),
        ExportFile("Parquet", "parquet", "application/vnd.apache.parquet", lambda: files.write_parquet(make())),
    ]


def show(name: str, offered: list[ExportFile], words: str) -> None:
    """A menu of downloads named `<name>.<ending>`, under a description of their contents."""
    menu = st.popover("Export", icon=":material/download:", key=f"export {name}", on_change="rerun")
    if not menu.open:
        return  # its buttons take time to draw
    with menu:
        st.caption(words)
        for file in offered:
            st.download_button(
                file.label,
                file.make,
                file_name=f"{name}.{file.ending}",
                mime=file.mime,
                on_click="ignore",
                width="stretch",
                key=f"export {file.ending}",
            )
