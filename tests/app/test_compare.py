"""The Compare page: the base, differences by example, settings, doubts; all of it from the address."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlalchemy import delete, select, update
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest

import app
from app.text import stage_references
from core.artifacts.store import MANIFEST
from core.measured import MeasuredStage
from core.store import curves, stages
from core.store.comparison import ComparedItem
from core.store.engine import session
from core.store.models import Latency, RunStatus, Stage
from tests import factories
from tests.app import row_tables
from tests.app.navigation import go_to

MAIN = Path(app.__file__).with_name("main.py")


def opened(**query: str) -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30)
    at.query_params.update(query)
    go_to(at, "compare")
    at.run()
    assert not at.exception
    return at


def keep(home: Path, key: str, correct: np.ndarray) -> None:
    """The artifact of a stage, as far as this page reads it."""
    folder = home / "artifacts" / key[:2] / key
    folder.mkdir(parents=True)
    save_file({"correct": correct.astype(np.float32)}, folder / "examples.safetensors")
    (folder / MANIFEST).write_text("{}")


def record(s, name: str, measured: MeasuredStage, **spec: object) -> int:
    """A finished run with one stage, timed under the factories' conditions; returns its number."""
    run = factories.submit(s, name=name, **spec)
    run.status = RunStatus.DONE
    run.environment = {"hardware": factories.HARDWARE, "software": factories.SOFTWARE}
    stage_id = stages.add_stage(s, measured, f"{measured.key[:2]}/{measured.key}", 100, "0")
    stages.attach_stage(s, run.id, 1, stage_id, reused=False, reference_stage_id=stage_id, comparison=None)
    stages.set_latencies(s, run.id, stage_id, [factories.latency(p50_ms=2.0 * run.id)], stage_id)
    curves.add_points(s, run.id, [("1/loss", step, 1.0 / step) for step in range(1, 30)])
    return int(run.id)


@pytest.fixture
def three(store, tmp_path):
    """Runs 1 (base), 2 (clearly worse, half the size) and 3 (the same within chance)."""
    right = np.ones(400)
    worse, same = right.copy(), right.copy()
    worse[:40], same[:2] = 0, 0
    layers = {"layers": [{"name": f"blocks.{i}.{part}", "sparsity": 0.5} for i in range(2) for part in "qv"]}
    with session() as s:
        record(s, "dense", factories.measured("a" * 64, score=100.0, label="dense"))
        record(
            s,
            "half",
            factories.measured("b" * 64, score=90.0, size_bytes=500_000, label="half", details=layers),
            recipe=[{"train": {"steps": 50}}, {"rtn": {"bits": 4}}],
        )
        record(s, "other seed", factories.measured("c" * 64, score=99.5, label="alike"), seed=7)
    for key, correct in (("a" * 64, right), ("b" * 64, worse), ("c" * 64, same)):
        keep(tmp_path, key, correct)


def differences(at: AppTest):
    """What the table of settings says, wherever its lines break."""
    return at.table[0].value.map(lambda text: text.replace("\N{NO-BREAK SPACE}", " ").replace("\\", ""))


def summary(at: AppTest):
    """The table with one line an item, by its run."""
    return row_tables.frame(at).set_index("Run")


def test_the_first_run_is_the_base_and_others_stand_against_it(three):
    table = summary(opened(runs="1,2,3"))
    assert list(table.index) == ["run 1 · dense", "run 2 · half", "run 3 · other seed"]
    assert list(table["Stage"]) == ["dense (base)", "half", "alike"]
    assert table.loc["run 2 · half", "Score vs base"].startswith("−10.0 points, worse (p < 0.001)")
    assert "not significant" in table.loc["run 3 · other seed", "Score vs base"]
    assert table.loc["run 2 · half", "Size / base"] == "0.500×"
    assert table.loc["run 3 · other seed", "Latency / base"] == "3.00×"


def test_a_stage_is_named_by_its_run_and_alike_wherever_it_stands(three):
    at = opened(runs="1,2,3.1")
    table, base = summary(at), at.selectbox(key="base of 1,2,3.1")
    assert list(table.index) == ["run 1 · dense", "run 2 · half", "run 3.1 · other seed"]
    assert base.options == ["run 1 · dense", "run 2 · half", "run 3.1 · alike"]
    chart = at.get("vega_lite_chart")[0].proto
    assert "Difference in accuracy from run 1 · dense" in json.dumps(json.loads(chart.spec), ensure_ascii=False)
    drawn = [convert_arrow_bytes_to_pandas_df(dataset.data.data) for dataset in chart.datasets]
    assert [list(rows["name"]) for rows in drawn if "name" in rows] == [["run 2 · half", "run 3.1 · alike"]]


def test_a_latency_says_why_it_is_missing_or_that_it_was_disturbed(three):
    with session() as s:
        half, alike = (s.scalars(select(Stage).where(Stage.label == label)).one().id for label in ("half", "alike"))
        s.execute(delete(Latency).where(Latency.stage_id == half))
        s.execute(update(Latency).where(Latency.stage_id == alike).values(disturbed=True))
    at = opened(runs="1,2,3")
    latency = summary(at)["Latency p50"]
    assert latency["run 2 · half"] == "size only (no kernel on this worker)"
    assert latency["run 3 · other seed"].endswith(" ms (disturbed)")
    assert latency["run 1 · dense"].endswith(" ms")
    assert any(caption.value.startswith("Disturbed:") for caption in at.caption)


def test_an_empty_board_leads_to_a_first_run(store):
    assert "has no runs yet" in opened().info[0].value


def test_another_base_turns_the_differences(three):
    at = opened(runs="1,2,3")
    at.selectbox(key="base of 1,2,3").select("2").run()
    assert at.text_input(key="runs").value == "2,1,3"
    table = summary(at)
    assert (table.index[0], table["Stage"].iloc[0]) == ("run 2 · half", "half (base)")
    assert table.loc["run 1 · dense", "Score vs base"].startswith("+10.0 points, better")


def test_only_settings_that_differ_are_shown(three):
    at = opened(runs="1,2,3", show="Settings")
    table = differences(at).set_index("Setting")
    assert set(table.index) == {"step 1 · train · updates", "step 2 · rtn · bits", "seed"}
    assert list(table.loc["step 1 · train · updates"]) == ["20", "50", "20"]


def test_curves_and_layers_are_drawn_from_the_address(three):
    at = opened(runs="1,2", show="Curves", curve="loss")
    assert at.selectbox(key="curve").value == "loss"
    assert len(at.get("vega_lite_chart")) == 1
    assert len(opened(runs="1,2", show="Layers").get("vega_lite_chart")) == 1


def test_other_data_are_not_compared_and_can_be_left_out(three):
    with session() as s:
        record(s, "shapes", factories.measured("d" * 64, task_hash="1" * 64))
    at = opened(runs="1,2,4")
    assert any("Run 4 was scored on different data" in warning.value for warning in at.warning)
    assert summary(at)["Score vs base"].iloc[-1] == "different data"
    at.button[0].click().run()
    assert len(summary(at)) == 2


def test_what_has_no_results_here_says_so(three, tmp_path):
    (tmp_path / "artifacts" / "bb" / ("b" * 64) / MANIFEST).unlink()
    assert "not on this host" in summary(opened(runs="1,2"))["Score vs base"].iloc[1]


def test_unknown_runs_and_nonsense_are_said(three):
    assert any("99" in warning.value for warning in opened(runs="1,2,99").warning)
    assert "is not a run or stage" in opened(runs="1,two").error[0].value
    assert "Enter at least two runs" in opened(runs="1").info[0].value


def test_items_are_read_and_written():
    items = [ComparedItem(12), ComparedItem(15, 2)]
    assert stage_references.parse(" 12, 15.2 12") == items
    assert stage_references.write(items) == "12,15.2"
    with pytest.raises(stage_references.AddressError, match="at most 100"):
        stage_references.parse(",".join(map(str, range(101))))


def test_cells_that_wrap_keep_numbers_with_their_units(three):
    given = row_tables.given(opened(runs="1,2,3"))
    size = [column["name"] for column in given["columns"]].index("Size")
    assert [row["cells"][size] for row in given["rows"]][1] == "500\N{NO-BREAK SPACE}kB"
