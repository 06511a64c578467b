"""What reads return: rows of columns, whichever they are."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

Columns = Row[*tuple[Any, ...]]
Rows = Sequence[Columns]
