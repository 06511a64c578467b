"""Tables as file contents."""

import io

import pandas as pd


def write_csv(table: pd.DataFrame) -> bytes:
    """The table as CSV in UTF-8, numbers at full precision."""
    return table.to_csv(index=False).encode()


def write_parquet(table: pd.DataFrame) -> bytes:
    """The table as Parquet."""
    written = io.BytesIO()
    table.to_parquet(written, index=False)
    return written.getvalue()
