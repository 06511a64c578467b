"""name the dtype of older runs: their Hugging Face models were loaded as float32"""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from core.spec.recorded_dtype import settings_with_recorded_dtype, with_recorded_dtype
from core.store.recipe_hashes import fill

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

RUN = sa.table("run", sa.column("id"), sa.column("spec", sa.JSON), sa.column("spec_hash"))
STAGE = sa.table("stage", sa.column("id"), sa.column("label"), sa.column("technique"), sa.column("settings", sa.JSON))
NAMES_ONE = sa.cast(RUN.c.spec, sa.Text).like("%hf:%")


def upgrade() -> None:
    connection = op.get_bind()
    changed = False
    for run_id, spec in connection.execute(sa.select(RUN.c.id, RUN.c.spec).where(NAMES_ONE)).all():
        named = with_recorded_dtype(spec)
        if named != spec:
            changed = True
            values = {"spec": named, "spec_hash": _hash(named)}
            connection.execute(RUN.update().where(RUN.c.id == run_id).values(values))
    sources = sa.and_(STAGE.c.technique == "source", STAGE.c.label.like("hf:%"))
    for stage_id, label, settings in connection.execute(
        sa.select(STAGE.c.id, STAGE.c.label, STAGE.c.settings).where(sources)
    ).all():
        named = settings_with_recorded_dtype(label, settings)
        connection.execute(STAGE.update().where(STAGE.c.id == stage_id).values(settings=named))
    if changed:
        fill(connection)


def _hash(spec: dict[str, Any]) -> str:
    """As `RunSpec.hash`."""
    asked = {key: value for key, value in spec.items() if key != "name"}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
