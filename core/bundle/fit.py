"""Checks that values fit into their columns, independent of the database: SQLite accepts texts of any length."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import BigInteger, String

from core.bundle.errors import BundleError
from core.store.models import Base

LARGEST = 2**63 - 1


def check(table: type[Base], row: Mapping[str, Any]) -> None:
    """Raise BundleError for a text that is too long, or a number that is out of range or not a number."""
    for name, value in row.items():
        kind = table.__table__.columns[name].type
        what = f"{table.__tablename__}.{name}"
        if isinstance(value, str) and isinstance(kind, String) and len(value) > (kind.length or len(value)):
            raise BundleError(f"The bundle does not fit this store: {what} has more than {kind.length} characters.")
        if isinstance(kind, BigInteger) and isinstance(value, int) and not -LARGEST <= value <= LARGEST:
            raise BundleError(f"The bundle does not fit this store: {what} is out of range.")
        if isinstance(value, float) and value != value:
            raise BundleError(f"The bundle does not fit this store: {what} is not a number.")
