"""The trade-off page: axes, filters, limits and what they say."""

from hashlib import sha256
from pathlib import Path

import pytest
import streamlit as st
from scipy.stats import ttest_ind
from sqlalchemy import func, select, update
from streamlit.testing.v1 import AppTest

import app
from app.charts.axes import AXES
from app.queries import tradeoffs as point_data
from app.text import formats
from core.store import stages
from core.store.engine import read_session, session
from core.store.models import Latency, Stage
from core.store.tradeoffs import queries
from core.store.tradeoffs.filters import Conditions, PointFilter
from core.store.tradeoffs.thinning import Logs
from tests import factories
from tests.app import row_tables

MAIN = Path(app.__file__).with_name("main.py")


def opened(**query: str) -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30)
    at.query_params.update(query)
    at.session_state["filters"] = True  # the box is open
    at.run()
    assert not at.exception
    return at


@pytest.fixture
def filled(store):
    with session() as s:
        factories.fill_store(s, 120)


def listed(at: AppTest):
    return row_tables.frame(at)


def number_input(at: AppTest, start: str):
    return next(widget for widget in at.number_input if widget.label.startswith(start))


def test_an_empty_project_leads_to_submit(store):
    at = opened()
    assert "No measurements yet" in at.info[0].value
    assert len(at.get("page_link")) == 1


def test_the_table_lists_the_frontier_with_units(filled):
    table = listed(opened(points_of="builtin:digits"))
    assert table["Size"].str.contains("B$").all()
    assert table["Accuracy"].str.endswith(" %").all()
    assert table["Speed-up"].str.endswith("×").all()
    assert list(table["Run"]) == [str(number) for number in table.index]


def test_the_table_has_the_axes_beside_what_is_asked_most(filled):
    plain = listed(opened(points_of="builtin:digits"))
    assert list(plain)[3:] == [
        "Accuracy", "Size", "Latency p50", "Speed-up", "Compression", "MACs", "Peak memory", "KL", "Kernel"
    ]  # fmt: skip
    assert "Nonzeros" in listed(opened(points_of="builtin:digits", x="Nonzero parameters"))


def test_fidelity_is_an_axis_and_a_limit(filled):
    at = opened(points_of="builtin:digits", x="KL to the reference", most_kl="0.01")
    table = listed(at)
    assert not at.exception and table["KL"].str.endswith(" nats").all()
    assert (table["KL"].str.split().str[0].astype(float) <= 0.01).all()
    assert not any("limit" in caption.value and "brings" in caption.value for caption in at.caption)
    text = opened(points_of="builtin:python-docs", x="Perplexity")
    assert not text.exception and "Perplexity" in listed(text)


def test_the_address_chooses_task_and_axes(filled):
    at = opened(points_of="builtin:shapes", x="Multiply-accumulates", y="Compression")
    assert [button.label for button in at.menu_button] == [
        ":gray[Task:] builtin:shapes", ":gray[X axis:] Multiply-accumulates", ":gray[Y axis:] Compression",
        ":gray[Chart:] scatter",
    ]  # fmt: skip
    assert not at.exception


def test_less_bits_per_character_are_up_and_the_page_says_so(filled):
    captions = " ".join(caption.value for caption in opened(points_of="builtin:python-docs").caption)
    assert "The Y axis is reversed, because lower bits per character is better" in captions


def test_limits_name_the_best_stage_with_its_reasons(filled):
    at = opened(points_of="builtin:digits")
    number_input(at, "Size at most").set_value(1.0).run()
    with read_session() as s:
        best = s.scalar(
            select(func.max(Stage.score)).where(Stage.task == "builtin:digits", Stage.size_bytes <= 1_000_000)
        )
    text = at.success[0].value
    assert f"accuracy {best:.1f} %" in text and "smaller)" in text and "vs its reference" in text
    assert "within the limits" in at.subheader[0].value


def test_a_recommendation_by_disturbed_times_says_so(filled):
    remedy = "Requeue on an idle machine to confirm the latency."
    with session() as s:
        s.execute(update(Latency).values(disturbed=False))
    assert remedy not in opened(points_of="builtin:digits", most_ms="3").success[0].value
    st.cache_data.clear()
    with session() as s:
        s.execute(update(Latency).values(disturbed=True))
    at = opened(points_of="builtin:digits", most_ms="3")
    assert at.success[0].value.endswith(remedy)
    impossible = opened(points_of="builtin:digits", most_ms="0.000001")
    assert impossible.warning[0].value.endswith(remedy)  # the fastest, of which the limit is told


def test_impossible_limits_say_what_to_do(filled):
    at = opened(points_of="builtin:digits")
    number_input(at, "Accuracy at least").set_value(101.0).run()
    assert "No recipe meets all limits" in at.warning[0].value
    assert "No stage meets all limits" in opened(points_of="builtin:digits", seeds="each", most_mb="0").warning[0].value


def record_seeds(scores: dict[str, list[float]]) -> dict[str, list[int]]:
    """A run a score, by the name of its recipe, with seeds from 0 on; the runs' numbers by recipe."""
    found: dict[str, list[int]] = {}
    with session() as s:
        for size, (name, of_seeds) in enumerate(scores.items(), 1):
            for seed, score in enumerate(of_seeds):
                run = factories.submit(s, seed=seed, recipe=[{"rtn": {"bits": size + 1}}])
                measured = factories.measured(
                    f"{name} {seed}", label=name, score=score, score_low=score - 0.1, score_high=score + 0.1,
                    size_bytes=1000 * size,
                )  # fmt: skip
                stage_id = stages.add_stage(s, measured, name, 1, "0")
                stages.attach_stage(s, run.id, 1, stage_id, reused=False, reference_stage_id=None, comparison=None)
                found.setdefault(name, []).append(run.id)
    return found


def test_seeds_of_one_recipe_are_judged_by_their_mean_and_single_stages_by_themselves(store):
    numbers = record_seeds({"lucky": [90.0, 99.0], "steady": [96.0, 96.2, 96.4], "single": [80.0]})
    at = opened(most_mb="1")
    told, runs = at.success[0].value, ", ".join(map(str, numbers["steady"]))
    assert told.startswith(f"**steady** of builtin:vit (mean of 3 seeds: runs {runs}) is the best of the 3 recipes")
    assert "accuracy 96.2 %" in told
    assert at.get("page_link")[-1].proto.label == f"Open run {numbers['steady'][-1]}"
    [behind] = [text.value for text in at.markdown if "Runner-up" in text.value]
    assert "**lucky** of builtin:vit (mean of 2 seeds: runs" in behind and "accuracy 94.5 %" in behind
    alone = opened(most_mb="1", seeds="each").success[0].value
    assert alone.startswith(f"**lucky** of builtin:vit (run {numbers['lucky'][1]}) is the best of the 6 stages")


def test_a_limit_is_held_against_the_mean(store):
    record_seeds({"lucky": [90.0, 99.0], "single": [80.0]})
    at = opened(**{"limit.accuracy": "95"})
    assert "No recipe meets all limits" in at.warning[0].value
    assert "**lucky**" in opened(**{"limit.accuracy": "95"}, seeds="each").success[0].value


def test_the_recommendation_says_where_the_runner_up_may_be_as_good(store):
    record_seeds({"best": [95.0, 97.0, 99.0], "close": [94.0, 96.0, 98.0], "far": [50.0, 50.1, 50.2]})
    told = opened(most_mb="1").success[0].value
    p = ttest_ind([94.0, 96.0, 98.0], [95.0, 97.0, 99.0], equal_var=False).pvalue
    assert told.endswith(f"Accuracy does not differ significantly from the runner-up's: p = {p:.3f}.")


def test_a_sure_lead_is_not_questioned(store):
    record_seeds({"best": [95.0, 95.1, 95.2], "far": [50.0, 50.1, 50.2]})
    at = opened(most_mb="1")
    assert "significantly" not in at.success[0].value
    assert any("significant: p" in text.value for text in at.markdown if "Runner-up" in text.value)


def test_filters_leave_their_family_and_the_references(filled):
    at = opened(points_of="builtin:digits")
    next(widget for widget in at.multiselect if widget.label == "Families").set_value(["pruning"]).run()
    assert not at.exception
    assert set(listed(at)["Stage"].str.split().str[0]) <= {"nm_pruning", "magnitude_pruning", "train"}


def test_a_quantity_that_nothing_has_is_told(filled):
    with session() as s:
        s.query(Stage).update({"peak_memory_bytes": None})
    at = opened(points_of="builtin:digits", x="Peak memory")
    assert "Choose other axes" in at.info[0].value


def test_a_limit_names_the_runner_up_and_what_moving_it_would_buy(filled):
    at = opened(points_of="builtin:digits")
    assert not [text for text in at.markdown if "Runner-up" in text.value]  # nothing is decided without a limit
    number_input(at, "Size at most").set_value(1.0).run()
    with read_session() as s:
        query = select(Stage).where(Stage.task == "builtin:digits").order_by(-Stage.score, Stage.size_bytes, Stage.id)
        ranked = s.scalars(query).all()
    best, second = [stage for stage in ranked if stage.size_bytes <= 1_000_000][:2]
    looser = min(
        (stage for stage in ranked if stage.size_bytes > 1_000_000 and stage.score > best.score),
        key=lambda stage: stage.size_bytes,
    )
    smaller = next(stage for stage in ranked if stage.size_bytes < best.size_bytes)
    [text] = [text.value for text in at.markdown if "Runner-up" in text.value]
    first, moved = text.splitlines()
    assert f"{second.score:.1f} % ({formats.score_change(second.score - best.score, '%')})" in first
    size = AXES["size_bytes"]
    assert f"at **{size.read_rounded(looser.size_bytes, up=True)}** or more" in moved
    assert f"{looser.score:.1f} % ({formats.score_change(looser.score - best.score, '%')})" in moved
    assert f"below **{size.read_rounded(best.size_bytes, up=False)}**" in moved
    assert f"{smaller.score:.1f} % ({formats.score_change(smaller.score - best.score, '%')})" in moved


def test_impossible_limits_say_how_far_each_would_have_to_move(filled):
    at = opened(points_of="builtin:digits")
    number_input(at, "Size at most").set_value(0.000001).run()
    with read_session() as s:
        smallest = s.scalar(select(func.min(Stage.size_bytes)).where(Stage.task == "builtin:digits"))
    assert f"at **{AXES['size_bytes'].read_rounded(smallest, up=True)}** or more" in " ".join(
        text.value for text in at.markdown
    )


def test_a_weight_gives_score_for_size(filled):
    at = opened(points_of="builtin:digits")
    number_input(at, "Value of halving the size").set_value(100.0).run()
    with read_session() as s:
        smallest = s.scalar(select(func.min(Stage.size_bytes)).where(Stage.task == "builtin:digits"))
    assert "is the best compromise of the" in at.success[0].value
    assert formats.size(smallest) in at.success[0].value


def test_the_address_holds_filters_limits_weights_and_scales(filled):
    at = opened(
        points_of="builtin:digits",
        families="pruning",
        stage="train",
        most_mb="1.5",
        most_ms="3",
        **{"limit.accuracy": "90", "size_worth.accuracy": "2", "log.size_bytes": "false"},
    )
    assert at.multiselect(key="address families").value == ["pruning"]
    assert at.text_input(key="address stage").value == "train"
    limits = {key: at.number_input(key=f"address {key}").value for key in ("most_mb", "most_ms", "limit.accuracy")}
    assert limits == {"most_mb": 1.5, "most_ms": 3.0, "limit.accuracy": 90.0}
    assert at.number_input(key="address size_worth.accuracy").value == 2.0
    assert at.toggle(key="address log.size_bytes").value is False


def test_the_address_holds_the_conditions_whatever_their_count(filled):
    batches = ("forward, batch 1 ·", "forward, batch 64 ·")
    offered = opened(points_of="builtin:digits").selectbox(key="address timed").options
    assert [option.startswith(batches) for option in offered] == [True, True]
    other = opened(points_of="builtin:digits", timed=offered[1]).selectbox(key="address timed").value
    assert other == offered[1]


def test_the_closed_box_says_how_latency_was_measured_and_how_much_is_set(filled):
    at = AppTest.from_file(str(MAIN), default_timeout=30)
    at.query_params.update(points_of="builtin:digits", size="Peak memory", seeds="each", most_mb="7")
    at.run()
    offered = opened(points_of="builtin:digits").selectbox(key="address timed").options
    assert f"Latency of {offered[0]}. 3 active." in [caption.value for caption in at.caption]
    [chart] = at.get("vega_lite_chart")
    assert "mark_size" in chart.proto.spec and "Peak memory" in chart.proto.spec


def test_a_limit_on_one_kind_of_score_is_none_on_another(filled):
    at = opened(points_of="builtin:digits", **{"limit.accuracy": "90"})
    at.menu_button(key="address points_of").click("builtin:python-docs").run()
    assert number_input(at, "Bits per character").value is None


@pytest.fixture
def seeded(store):
    with session() as s:
        factories.fill_store(s, 90, n_seeds=3)


def test_seeds_of_one_recipe_are_one_mark_unless_each_is_asked_for(seeded):
    at = opened(points_of="builtin:digits")
    assert at.segmented_control(key="address seeds").value == "one mark"
    assert set(listed(at)["Seeds"]) <= {"1", "2", "3"}
    each = opened(points_of="builtin:digits", seeds="each")
    assert each.segmented_control(key="address seeds").value == "each"
    assert "Seeds" not in listed(each)


def test_who_moved_the_frontier_is_drawn_when_it_is_opened(filled):
    at = opened(points_of="builtin:digits")
    charts = len(at.get("vega_lite_chart"))
    at.session_state["progress"] = True
    at.run()
    assert not at.exception
    assert len(at.get("vega_lite_chart")) == charts + 1
    assert "hypervolume" in " ".join(caption.value for caption in at.caption)


@pytest.mark.parametrize(
    ("chart", "said"), [("parallel coordinates", "Higher is better"), ("by hardware", "each hardware")]
)
def test_the_address_chooses_another_chart_of_the_same_points(filled, chart, said):
    at = opened(points_of="builtin:digits", chart=chart)
    assert len(at.get("vega_lite_chart")) == 1
    assert said in " ".join(caption.value for caption in at.caption)
    assert len(listed(at)) == len(listed(opened(points_of="builtin:digits")))


def test_what_is_recorded_meanwhile_is_read_at_once_beside_what_was_kept(filled):
    def found() -> tuple[dict[str, int], dict[Conditions, int], set[int]]:
        tasks = point_data.load_tasks(1).set_index("task_hash")["n_stages"].to_dict()
        task_hash = sha256(b"builtin:digits").hexdigest()
        points = point_data.load_points(PointFilter(1, task_hash), "size_bytes", "score", Logs(), as_one=False)
        return tasks, dict(point_data.load_conditions(1, task_hash)), set(points["stage_id"])

    found()
    with session() as s:
        factories.fill_store(s, 40, seed=7)
    with read_session() as s:
        stages_of_task = queries.list_points(s, PointFilter(1, sha256(b"builtin:digits").hexdigest()))
        tasks = {row.task_hash: row.n_stages for row in queries.list_tasks(s, 1)}
        conditions = dict(queries.list_conditions(s, PointFilter(1, sha256(b"builtin:digits").hexdigest())))
    assert found() == (tasks, conditions, {point["stage_id"] for point in stages_of_task})
    assert list(point_data.load_tasks(1)["n_stages"]) == sorted(tasks.values(), reverse=True)
