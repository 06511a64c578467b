"""The type of query results: rows of columns."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

Columns = Row[*tuple[Any, ...]]
Rows = Sequence[Columns]
