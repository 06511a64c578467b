"""keep which runs a run names"""

import json
import re
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "run_source",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("source_id", ID, nullable=False),
        sa.Column("role", sa.String(length=60), nullable=False),
        sa.Column("position", ID, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_source_run_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["source_id"], ["run.id"], name=op.f("fk_run_source_source_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "source_id", "role", "position", name=op.f("pk_run_source")),
    )
    op.create_index("ix_run_source_source_id_run_id", "run_source", ["source_id", "run_id"])
    _read_specs(op.get_bind())


def _read_specs(connection: sa.Connection) -> None:
    """Fill the table from the specs; a number in an imported run's spec names a run of another store."""
    rows = connection.execute(sa.text("SELECT id, spec FROM run WHERE CAST(spec AS TEXT) LIKE '%run:%'")).all()
    imported = set(connection.scalars(sa.text("SELECT run_id FROM run_need WHERE need LIKE 'run:%'")))
    known = set(connection.scalars(sa.text("SELECT id FROM run")))
    found = {
        (run_id, source_id, role[:60], position)
        for run_id, spec in rows
        if run_id not in imported
        for source_id, role, position in _sources(json.loads(spec) if isinstance(spec, str) else spec)
        if source_id in known
    }
    if found:
        table = sa.table("run_source", *map(sa.column, ("run_id", "source_id", "role", "position")))
        names = ("run_id", "source_id", "role", "position")
        connection.execute(table.insert(), [dict(zip(names, row, strict=True)) for row in sorted(found)])


def _sources(spec: dict[str, Any]) -> Iterator[tuple[int, str, int]]:
    for key, value in spec.items():
        if key == "recipe":
            for index, step in enumerate(value):
                yield from _named(step, "", index + 1)
        else:
            yield from _named(value, key, -1 if key == "reference" else 0)


def _named(value: Any, role: str, position: int) -> Iterator[tuple[int, str, int]]:
    if isinstance(value, str) and (named := re.fullmatch(r"run:(\d{1,9})", value)):
        yield int(named[1]), role, position
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _named(inner, role if key == "source" else str(key), position)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner, role, position)
