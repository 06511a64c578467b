from alembic import command
from sqlalchemy import MetaData, select

from core.store import engine, provenance, runs, stages
from core.store.models import RunSource, RunStatus
from tests import factories
from tests.core.store.test_migrations import some_row


def finished(session, keys, **changes):
    """A run whose stages have these one-letter keys, from position 0 on."""
    run = factories.submit(session, **changes)
    for position, key in enumerate(keys):
        stage = factories.measured(key * 64, label=f"stage {key}")
        stage_id = stages.add_stage(session, stage, key, 10, "0")
        stages.attach_stage(session, run.id, position, stage_id, reused=False, reference_stage_id=None, comparison=None)
    run.status = RunStatus.DONE
    session.flush()
    return run


def family(session, run, limit=50, **how):
    return provenance.find_family(session, run.project_id, [run.id], limit, **how)


def sources(session, *found):
    return [tuple(row) for row in provenance.list_sources(session, [run.id for run in found])]


def test_what_a_spec_names_is_kept_when_it_is_submitted(session):
    first = factories.submit(session)
    recipe = [{"train": {"methods": [{"distil": {"teacher": f"run:{first.id}"}}]}}]
    second = factories.submit(session, model=f"run:{first.id}", recipe=recipe, reference="run:999")
    assert sources(session, first, second) == [
        (second.id, first.id, "model", 0),
        (second.id, first.id, "teacher", 1),
    ]


def test_a_spec_from_another_store_names_no_run_of_this_one(session):
    first = factories.submit(session)
    spec = factories.spec(model=f"run:{first.id}")
    other = runs.submit_run(
        session, spec, project_id=first.project_id, owner_id=first.owner_id, needs=(), from_elsewhere=True
    )
    assert sources(session, other) == []


def test_a_family_reaches_up_and_down_the_generations_and_aside_by_stages(session):
    grandmother = finished(session, "ab")
    aunt = finished(session, "ac", model=f"run:{grandmother.id}")
    mother = finished(session, "de", model=f"run:{grandmother.id}")
    child = finished(session, "fg", model=f"run:{mother.id}")
    twin = finished(session, "de")
    stranger = finished(session, "dh")  # only the source is the same
    found, n = family(session, mother)
    assert found == [mother.id, grandmother.id, twin.id, child.id] and n == 4
    assert family(session, mother, relatives=False) == ([mother.id, grandmother.id], 2)
    assert aunt.id in family(session, grandmother)[0]
    assert family(session, stranger) == ([stranger.id], 1)


def test_a_large_family_is_cut_after_its_elders(session):
    mother = finished(session, "ab")
    children = [finished(session, "c", model=f"run:{mother.id}") for _ in range(4)]
    assert family(session, mother, limit=3) == ([mother.id, children[3].id, children[2].id], 5)
    assert family(session, children[0], limit=1) == ([children[0].id], 2)


def test_a_circle_of_names_ends(session):
    first, second = factories.submit(session), factories.submit(session)
    for run, source in ((first, second), (second, first)):
        session.add(RunSource(run_id=run.id, source_id=source.id, role="model", position=0))
    session.flush()
    assert set(family(session, first)[0]) == {first.id, second.id}


def test_no_run_of_another_project_is_in_the_family(session):
    mother = finished(session, "ab")
    finished(session, "ab", model=f"run:{mother.id}")
    assert provenance.find_family(session, mother.project_id + 1, [mother.id], 50) == ([], 0)


def test_stages_come_in_order_and_a_run_without_any_is_there(session):
    first, second = finished(session, "ab"), factories.submit(session)
    rows = provenance.list_run_stages(session, [second.id, first.id])
    assert [(row.run_id, row.position, row.label) for row in rows] == [
        (first.id, 0, "stage a"),
        (first.id, 1, "stage b"),
        (second.id, None, None),
    ]


def test_the_upgrade_reads_what_earlier_runs_name(empty_url):
    database = engine.engine(empty_url)
    old = MetaData()
    with database.begin() as connection:
        command.upgrade(engine.migrations(connection), "0002")
        old.reflect(connection)
        for name in ("user", "project"):
            connection.execute(old.tables[name].insert(), [some_row(old.tables[name])])
        row = some_row(old.tables["run"])
        distilled = {"model": {"source": "run:1"}, "recipe": [{"rtn": {}}, {"cofi": {"teacher": "run:2"}}]}
        specs = [{"model": {"source": "builtin:vit"}}, {"model": {"source": "run:1"}, "name": "run:9"}, distilled]
        rows = [{**row, "id": n, "spec": spec} for n, spec in enumerate([*specs, specs[1]], start=1)]
        for number, values in enumerate(rows):
            if "computing_key" in values:
                values["computing_key"] = f"key {number}"
            connection.execute(old.tables["run"].insert(), [values])
        imported = {"run_id": 4, "need": "run:1 of the store that it comes from"}
        connection.execute(old.tables["run_need"].insert(), [imported])
    engine.upgrade(empty_url)
    with engine.read_session(empty_url) as s:
        columns = (RunSource.run_id, RunSource.source_id, RunSource.role, RunSource.position)
        found = [tuple(row) for row in s.execute(select(*columns).order_by(*columns))]
    assert found == [(2, 1, "model", 0), (3, 1, "model", 0), (3, 2, "teacher", 2)]
