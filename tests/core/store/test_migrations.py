import subprocess
import sys

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, Table, inspect, select

from core.analysis.replicates import replicate
from core.spec.model import RunSpec
from core.store import engine
from core.store.models import Base, Run, RunStage, Stage


def test_there_is_one_head():
    assert len(ScriptDirectory.from_config(engine.migrations()).get_heads()) == 1


def test_migrated_store_equals_the_models(store_url):
    with engine.engine(store_url).begin() as connection:
        command.check(engine.migrations(connection))  # raises where autogenerate would add an operation


def test_every_table_is_there(store_url):
    assert set(Base.metadata.tables) <= set(inspect(engine.engine(store_url)).get_table_names())


def test_two_processes_may_upgrade_at_the_same_time(empty_url):
    assert engine.revision(empty_url)[0] is None
    call = f"from core.store.engine import upgrade; upgrade({empty_url!r})"
    processes = [subprocess.Popen([sys.executable, "-c", call], stderr=subprocess.PIPE) for _ in range(3)]
    errors = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    found, expected = engine.revision(empty_url)
    assert found == expected


def some_row(table: Table) -> dict[str, object]:
    """A row with whatever its columns take; every number is 1, so that foreign keys meet."""
    filled = {int: 1, float: 1.0, str: "some", bool: True, object: {}}  # JSON holds any object
    required = [column for column in table.columns if not column.nullable and column.server_default is None]
    return {column.name: filled[column.type.python_type] for column in required}


def test_latencies_of_the_first_release_outlive_the_upgrade(empty_url):
    database = engine.engine(empty_url)
    first = MetaData()
    with database.begin() as connection:
        command.upgrade(engine.migrations(connection), "0001")
        first.reflect(connection)
        for name in ("user", "project", "run", "stage", "latency"):
            connection.execute(first.tables[name].insert(), [some_row(first.tables[name])])
        before = connection.execute(select(first.tables["latency"])).mappings().one()
        assert "energy_mj" not in before
    engine.upgrade(empty_url)
    with database.begin() as connection:
        after = connection.execute(select(Base.metadata.tables["latency"])).mappings().one()
    assert {**after} == {**before, "energy_mj": None, "reference_energy_mj": None}


def test_older_stages_are_told_what_they_repeat(empty_url):
    database = engine.engine(empty_url)
    before = MetaData()
    spec = {"model": {"source": "builtin:vit"}, "task": {"source": "builtin:digits"}, "recipe": [{"rtn": {}}]}
    with database.begin() as connection:
        command.upgrade(engine.migrations(connection), "0004")
        before.reflect(connection)
        for name in ("user", "project"):
            connection.execute(before.tables[name].insert(), [some_row(before.tables[name])])
        for number in (1, 2):
            changes = {"id": number, "spec": {**spec, "seed": number}, "key": str(number), "stage_id": number}
            places = {"run_id": number, "position": 1, "reference_stage_id": None}
            for name in ("run", "stage", "run_stage"):
                table = before.tables[name]
                row = some_row(table) | {k: v for k, v in (changes | places).items() if k in table.columns}
                connection.execute(table.insert(), [row])
    engine.upgrade(empty_url)
    with engine.read_session(empty_url) as session:
        first, second = session.scalars(select(Stage).order_by(Stage.id)).all()
        assert first.recipe_hash == second.recipe_hash == replicate({**spec, "seed": 1}, 1, "some", {}).recipe
        assert first.seeds_hash != second.seeds_hash


def test_older_stages_have_no_fidelity(empty_url):
    database = engine.engine(empty_url)
    before = MetaData()
    with database.begin() as connection:
        command.upgrade(engine.migrations(connection), "0007")
        before.reflect(connection)
        for name in ("user", "project", "run", "stage", "run_stage"):
            connection.execute(before.tables[name].insert(), [some_row(before.tables[name])])
    engine.upgrade(empty_url)
    with engine.read_session(empty_url) as session:
        place = session.scalars(select(RunStage)).one()
        assert (place.reused, place.kl, place.kl_max, place.flips) == (True, None, None, None)


def test_upgrade_of_a_current_store_changes_nothing(store_url):
    before = engine.revision(store_url)
    engine.upgrade(store_url)
    assert engine.revision(store_url) == before


def test_older_runs_of_checkpoints_are_told_that_they_were_float32(empty_url):
    database = engine.engine(empty_url)
    before = MetaData()
    with database.begin() as connection:
        command.upgrade(engine.migrations(connection), "0007")
        before.reflect(connection)
        for name in ("user", "project"):
            connection.execute(before.tables[name].insert(), [some_row(before.tables[name])])
        for number, model in ((1, {"source": "hf:acme/small"}), (2, {"source": "builtin:vit"})):
            spec = {"version": 1, "name": "x", "model": model, "task": {"source": "hf:acme/reviews"}}
            changes = {"id": number, "spec": spec, "spec_hash": "old", "key": str(number), "stage_id": number}
            changes |= {"run_id": number, "position": 0, "reference_stage_id": None, "settings": {}}
            changes |= {"technique": "source", "label": model["source"]}
            for name in ("run", "stage", "run_stage"):
                table = before.tables[name]
                row = some_row(table) | {k: v for k, v in changes.items() if k in table.columns}
                connection.execute(table.insert(), [row])
    engine.upgrade(empty_url)
    with engine.read_session(empty_url) as session:
        first, second = session.execute(select(Run.spec, Run.spec_hash).order_by(Run.id)).all()
        assert first.spec["model"] == {"source": "hf:acme/small", "dtype": "float32"}
        assert first.spec["task"] == {"source": "hf:acme/reviews"}
        assert first.spec_hash == RunSpec.parse(first.spec).hash
        assert second.spec["model"] == {"source": "builtin:vit"} and second.spec_hash == "old"
        stages = session.scalars(select(Stage).order_by(Stage.id)).all()
        assert [stage.settings for stage in stages] == [{"dtype": "float32"}, {}]
        assert stages[0].recipe_hash == replicate(first.spec, 0, "some", {}).recipe
        assert {stage.checkpoint_bytes for stage in stages} == {None}
