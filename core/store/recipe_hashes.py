"""The recipe hash of each recorded stage, from the specs of runs. Shared by migrations that change either."""

import json

import sqlalchemy as sa

from core.analysis.replicates import Replicate, replicate  # stages that come later are grouped by the same


def fill(connection: sa.Connection) -> None:
    """Set `recipe_hash` and `seeds_hash` of every stage; the runs in a spec are earlier ones."""
    sources: dict[int, set[int]] = {}
    for run_id, source_id in connection.execute(sa.text("SELECT run_id, source_id FROM run_source")):
        sources.setdefault(run_id, set()).add(source_id)
    rows = connection.execute(
        sa.text(
            "SELECT run.id, run.spec, run_stage.position, run_stage.stage_id, stage.task_hash FROM run_stage"
            " JOIN run ON run.id = run_stage.run_id JOIN stage ON stage.id = run_stage.stage_id"
            " WHERE run_stage.position >= 0 ORDER BY run.id, run_stage.position"
        )
    ).all()
    last: dict[int, Replicate] = {}
    found: dict[int, Replicate] = {}
    for run_id, spec, position, stage_id, task_hash in rows:
        named = {number: last[number] for number in sources.get(run_id, ()) if number in last}
        told = replicate(json.loads(spec) if isinstance(spec, str) else spec, position, task_hash, named)
        last[run_id] = found.setdefault(stage_id, told)
    if found:
        table = sa.table("stage", *map(sa.column, ("id", "recipe_hash", "seeds_hash")))
        update = table.update().where(table.c.id == sa.bindparam("stage_id"))
        values: dict[str, sa.BindParameter[int]] = {
            "recipe_hash": sa.bindparam("recipe"),
            "seeds_hash": sa.bindparam("seeds"),
        }
        connection.execute(
            update.values(values),
            [{"stage_id": stage_id, "recipe": told.recipe, "seeds": told.seeds} for stage_id, told in found.items()],
        )
