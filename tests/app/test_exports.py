"""Files that leave the pages: read back they hold what the pages show, and nothing in them is carried out."""

import io
import json
import re

import altair as alt
import numpy as np
import pandas as pd
import pytest
from sqlalchemy import func, select
from streamlit.testing.v1 import AppTest

from app.charts import tradeoffs as charts
from app.charts.annotated import annotate
from app.charts.axes import AXES, score_axis
from app.exports import files, frames, html, latex
from app.queries import runs as queried
from app.queries import tradeoffs
from app.queries.runs import count_runs, read_all_runs
from app.screens.compare import tables
from core.measured import Comparison
from core.quantities import QUANTITIES, SCORE
from core.store.engine import read_session, session
from core.store.listing import RunFilter
from core.store.models import RunStage, Stage
from core.store.tradeoffs.filters import PointFilter
from tests import factories
from tests.app.test_compare import opened as compare_page
from tests.app.test_compare import three
from tests.app.test_runs import opened as runs_page
from tests.app.test_tradeoffs import filled, opened

__all__ = ["filled", "three"]
HOSTILE = [
    r"\input{/etc/passwd}",
    "100 % of $x_1^2$ & #1 {~} \\",
    '<b>"quoted"</b> `tick` [a] a--b |c|',
    "line\nbreak\ttab \x07 bell",
    "−1 ± 2 × 3 → 4 · 5 – 6 ½ é",
    "%",
    "\\\\",
    "\\end{tabular}",
]


def labels(at: AppTest, name: str) -> list[str]:
    """What the page's Export menu, opened, offers."""
    assert not at.get("download_button")  # a closed one draws nothing
    at.session_state[f"export {name}"] = True
    at.run()
    return [button.proto.label for button in at.get("download_button")]


def read_back(table: pd.DataFrame) -> None:
    """Both kinds of file hold the table: Parquet also its types."""
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(files.write_parquet(table))), table)
    again = pd.read_csv(io.BytesIO(files.write_csv(table)), keep_default_na=False, na_values=[""])
    assert list(again.columns) == list(table.columns)
    for name in table.select_dtypes("number"):
        np.testing.assert_array_equal(again[name].astype(float), table[name].astype(float), err_msg=name)
    for name in table.select_dtypes(["object", "str"]):
        assert again[name].astype(object).fillna("").tolist() == table[name].astype(object).fillna("").tolist(), name


def test_runs_are_exported_with_raw_numbers(filled):
    everything = read_all_runs(RunFilter(1), "newest")
    table = frames.frame_runs(everything)
    read_back(table)
    assert len(table) == 120 and table["run"].tolist() == list(range(120, 0, -1))
    with read_session() as s:
        for row in table.sample(20, random_state=0).to_dict("records"):
            query = (
                select(Stage)
                .join(RunStage, RunStage.stage_id == Stage.id)
                .where(RunStage.run_id == row["run"])
                .order_by(RunStage.position.desc())
            )
            last = s.scalars(query).first()
            if last is None:
                assert row["last stage"] is None or pd.isna(row["last stage"])
                continue
            assert row["size [bytes]"] == last.size_bytes
            assert row[f"{last.score_name} [{last.score_unit}]"] == last.score
            assert row[f"{last.score_name} [{last.score_unit}] "[:-1].replace(" [", " low [")] == last.score_low
            others = {"accuracy [%]", "bits per character [bits]"} - {f"{last.score_name} [{last.score_unit}]"}
            assert all(pd.isna(row[other]) for other in others)


def test_only_the_runs_that_the_filter_leaves_are_exported(filled):
    chosen = RunFilter(1, model="builtin:gpt")
    table = frames.frame_runs(read_all_runs(chosen, "oldest"))
    assert set(table["model"]) == {"builtin:gpt"} and table["run"].is_monotonic_increasing
    assert len(table) == count_runs(chosen)


def test_numbers_of_runs_pass_in_parts(filled, monkeypatch):
    whole = frames.frame_runs(read_all_runs(RunFilter(1), "newest"))
    monkeypatch.setattr(queried, "PART", 7)
    pd.testing.assert_frame_equal(frames.frame_runs(read_all_runs(RunFilter(1), "newest")), whole)


def points_of(task: str) -> tuple[pd.DataFrame, dict]:
    row = tradeoffs.load_tasks(1).set_index("task").loc[task]
    axes = {**AXES, "score": score_axis(row["score_name"], row["score_unit"], bool(row["higher_is_better"]))}
    chosen = PointFilter(1, row["task_hash"], conditions=tradeoffs.load_conditions(1, row["task_hash"])[0][0])
    found = tradeoffs.read_all_points(chosen, "size_bytes", "score")
    return annotate(found, axes["size_bytes"], axes["score"], {}, axes), axes


def test_every_point_is_exported_also_those_that_the_chart_leaves_out(filled):
    shown, _ = points_of("builtin:digits")
    table = frames.frame_points(shown, "accuracy", "%")
    read_back(table)
    with read_session() as s:
        n, size, score = s.execute(
            select(func.count(), func.sum(Stage.size_bytes), func.sum(Stage.score)).where(
                Stage.task == "builtin:digits"
            )
        ).one()
    assert len(table) == n and table["size [bytes]"].sum() == size
    assert table["accuracy [%]"].sum() == pytest.approx(score)
    assert {head for quantity in QUANTITIES if quantity is not SCORE for head in quantity.exported.values()} <= {*table}
    assert table["KL to the reference [nats]"].notna().any() and table["perplexity"].isna().all()
    assert table["latency p50 [ms]"].notna().all() and table["on frontier"].any()
    assert (table["speed-up low"] <= table["speed-up"]).all() and (table["speed-up"] <= table["speed-up high"]).all()


@pytest.fixture
def judged() -> tuple[pd.DataFrame, dict]:
    """Three compared items, one of other data, with hostile names."""
    every = dict.fromkeys(column for quantity in QUANTITIES for column in quantity.columns)
    common = {**every, "stage_id": 0, "reference_stage_id": None, "position": 1, "run_recipe": "train",
              "owner": "ada", "score_name": "accuracy", "score_unit": "%", "higher_is_better": True, "macs": 10,
              "parameters": 5, "nonzeros": 5, "score_low": 90.0, "score_high": 99.0, "p50_ms": 2.0, "p95_ms": 3.0,
              "disturbed": False, "trained": True, "is_timed": True}  # fmt: skip
    items = pd.DataFrame(
        [
            {**common, "item": "1", "run_id": 1, "label": "dense", "run_name": "=1+1", "score": 97.123456789012345,
             "size_bytes": 1_000_003},
            {**common, "item": "2", "run_id": 2, "label": 'a,"b"', "run_name": HOSTILE[0], "score": 1 / 3,
             "size_bytes": 500_000, "p50_ms": 1.0, "kl": 0.25, "kl_low": 0.2, "kl_high": 0.3},
            {**common, "item": "3", "run_id": 3, "label": "x", "run_name": "line\nbreak", "score": 2.5, "size_bytes": 7,
             "score_name": "bits per character", "score_unit": "bits", "p50_ms": None},
        ]
    )  # fmt: skip
    base = items.iloc[0].to_dict()
    return tables.judge(items, base, {"2": Comparison(-2.0, -3.0, -1.0, 1e-5), "3": "different data"}), base


def test_a_comparison_is_exported_with_raw_numbers(judged):
    table = frames.frame_comparison(*judged)
    read_back(table)
    assert table["accuracy [%]"].tolist()[:2] == [97.123456789012345, 1 / 3] and np.isnan(table["accuracy [%]"][2])
    assert table["bits per character [bits]"][2] == 2.5
    assert table["difference from base low [points]"].tolist()[1] == -3.0
    assert table["size / base"][1] == 500_000 / 1_000_003 and table["time / base"][1] == 0.5
    assert table["base"].tolist() == [True, False, False]
    assert table["KL to the reference low [nats]"].tolist()[1] == 0.2
    assert np.isnan(table["KL to the reference [nats]"][0])
    assert table["verdict"].tolist() == ["", "worse", ""] and table["not compared because"][2] == "different data"


UNESCAPED = {written: sign for sign, written in latex._WRITTEN.items()}
TOKEN = re.compile("|".join(map(re.escape, sorted(UNESCAPED, key=len, reverse=True))))


def text_of(cell: str) -> str:
    """What LaTeX sets for a cell; fails where anything in it is a command that `escaped` does not write."""
    left = TOKEN.sub("", cell)
    assert not re.search(r"[\\{}$&#%_~^]", left), cell
    return TOKEN.sub(lambda found: UNESCAPED[found[0]], cell)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_latex_shows_every_text_and_carries_nothing_out(hostile):
    expected = "".join(c for c in " ".join(hostile.split()) if c.isprintable())
    assert text_of(latex.escape(hostile)) == expected


def test_a_latex_table_has_a_row_a_line_and_as_many_cells_as_columns(judged):
    rows, base = judged
    summary = tables.summarize(rows, base)
    text = latex.write_table(summary).decode()
    lines = [line for line in text.splitlines() if line.endswith(r" \\")]
    cells = [re.split(r"(?<!\\)&", line.removesuffix(r"\\")) for line in lines]
    assert [len(row) for row in cells] == [len(summary.columns)] * 4
    shown = [[text_of(cell.strip()) for cell in row] for row in cells]
    assert shown[0] == list(summary.columns)
    assert shown[2] == [" ".join(str(value).split()) for value in summary.iloc[1]]
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert f"\n{rule}\n" in text


def test_a_chart_as_html_needs_no_network_and_runs_no_text(filled):
    shown, axes = points_of("builtin:digits")
    shown.loc[0, "label"] = "</script><script>alert(1)</script>"
    chart = charts.draw_scatter(shown, axes["size_bytes"], axes["score"], {}, axes=axes)
    page = html.write_page(chart, "<img src=x onerror=alert(1)>").decode()
    assert page.count("<script") == page.count("</script") == 2
    assert "alert(1)</script>" not in page and "<img" not in page.partition("<script")[0]
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page.partition("<script")[0])
    assert "default-src 'none'" in page
    spec = re.search(r'vegaEmbed\("#chart", (\{.*\}), \{mode', page)[1]
    assert "</script><script>alert(1)" in json.dumps(json.loads(spec))  # as a text, in its place


def test_a_plain_chart_is_whole_in_its_page():
    dots = alt.Chart(pd.DataFrame({"x": [1, 2], "y": [3, 4]})).mark_point().encode(x="x", y="y")
    page = html.write_page(alt.layer(dots), "x").decode()
    assert "window.vegaEmbed=" in page and json.dumps("point") in page


def test_the_pages_offer_their_files(filled):
    assert labels(opened(points_of="builtin:digits"), "slimboard-tradeoffs") == ["CSV", "Parquet", "HTML"]
    assert labels(runs_page(), "slimboard-runs") == ["CSV", "Parquet"]


def test_compare_offers_its_files(three):
    assert labels(compare_page(runs="1,2,3"), "slimboard-comparison") == ["CSV", "Parquet", "LaTeX"]


def test_nothing_is_made_before_it_is_asked_for(filled, monkeypatch):
    def made(*_: object) -> bytes:
        raise AssertionError("made while the page was drawn")

    for module, name in ((files, "write_csv"), (files, "write_parquet"), (latex, "write_table"), (html, "write_page")):
        monkeypatch.setattr(module, name, made)
    monkeypatch.setattr(queried, "read_all_runs", made)
    opened(points_of="builtin:digits")
    runs_page()


def test_no_run_at_all_is_exported_as_no_row(store):
    with session() as s:
        factories.submit(s, name="only queued")
    table = frames.frame_runs(read_all_runs(RunFilter(1), "newest"))
    read_back(table)
    assert table["name"].tolist() == ["only queued"]
