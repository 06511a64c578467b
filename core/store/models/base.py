"""The common base of all tables: names of constraints, types of columns."""

import enum
from typing import Any

from sqlalchemy import JSON, BigInteger, Enum, Integer, MetaData
from sqlalchemy.orm import DeclarativeBase

BigId = BigInteger().with_variant(Integer, "sqlite")  # sizes pass 2**31; SQLite numbers rows only in an INTEGER key


class Base(DeclarativeBase):
    """Base of every table; constraint names are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, int: BigId}


def short_enum(values: type[enum.StrEnum]) -> Enum:
    """A short string column, the same in SQLite and Postgres, to which values can be added later."""
    return Enum(values, native_enum=False, length=20, values_callable=lambda e: [v.value for v in e])
