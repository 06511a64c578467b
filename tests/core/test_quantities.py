"""The declaration of quantities: everything that lists quantities follows from it."""

from dataclasses import fields

import pytest

from app.charts.axes import AXES as CHART_AXES
from app.charts.axes import SCALES
from app.cli import terminal
from app.text import formats
from core import quantities
from core.measured import Fidelity, MeasuredStage
from core.quantities import AXES, BY_NAME, QUANTITIES, Origin, Quantity, Shown, Unit, kept_in
from core.scores import SCORES
from core.store.models import RunStage, Stage
from core.store.tradeoffs.columns import details
from core.store.tradeoffs.filters import Conditions, PointFilter
from tests import factories


def test_names_titles_and_exported_heads_are_unique():
    for told in (
        [quantity.name for quantity in QUANTITIES],
        [quantity.title for quantity in QUANTITIES],
        [head for quantity in QUANTITIES for head in quantity.exported.values()],
        [quantity.limit for quantity in QUANTITIES if quantity.limit],
        [quantity.policy for quantity in QUANTITIES if quantity.policy],
    ):
        assert len(set(told)) == len(told)


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda quantity: quantity.name)
def test_the_store_and_the_records_have_what_is_declared(quantity: Quantity):
    assert quantity.meaning.endswith(".")
    if quantity.origin is Origin.STAGE:
        assert set(quantity.columns) <= {field.name for field in fields(MeasuredStage)}
        assert set(quantity.columns) <= set(Stage.__table__.columns.keys())
    if quantity.origin is Origin.COMPARISON:
        assert all(
            (hasattr(RunStage, column) and hasattr(Fidelity, column)) or column in FIDELITY
            for column in quantity.columns
        )
    if quantity.origin is Origin.SCORES:
        assert (quantity.better == "more") == SCORES[quantity.score].higher_is_better


FIDELITY = {field.name for field in fields(Fidelity)} & set(RunStage.__table__.columns.keys())


def test_a_record_of_fidelity_is_a_row():
    assert {field.name for field in fields(Fidelity)} == FIDELITY


@pytest.mark.parametrize("unit", [unit for unit in Unit if unit is not Unit.SCORE], ids=lambda unit: unit.name)
def test_every_unit_can_be_read_and_scaled(unit):
    assert formats.READERS[unit](2.0) and formats.READERS[unit](None) == formats.NOTHING
    assert SCALES[unit]


def test_points_have_every_axis_and_charts_offer_it():
    conditions = Conditions("Example CPU", "eager", 8, 1, None, "forward")
    selected = details(PointFilter(1, "0" * 64, conditions=conditions)).selected_columns.keys()
    assert {column for quantity in QUANTITIES for column in quantity.columns} <= set(selected)
    assert [quantity.name for quantity in AXES] == ["score", *CHART_AXES]


def test_json_has_every_quantity_that_needs_no_conditions():
    near = Fidelity(0.1, 0.05, 0.2, 1.0, 98.0, 1.5, 0.25)
    measured = factories.measured("a", scores={"accuracy": 95.0, "perplexity": 9.5})
    told = terminal.describe_stage(1, measured, near, [])
    wanted = kept_in(Origin.STAGE, Origin.SCORES, Origin.COMPARISON)
    assert {column for quantity in wanted for column in quantity.columns} <= told.keys()
    assert (told["kl"], told["kl_low"], told["flips"], told["perplexity"]) == (0.1, 0.05, 1.75, 9.5)
    without = terminal.describe_stage(1, factories.measured("a"), None, [])
    assert without["kl"] is without["flips"] is without["perplexity"] is None


def test_the_printed_table_leaves_out_what_no_stage_has():
    near = Fidelity(0.00123, 0.001, 0.002, 1.0, 98.0, 1.5, 0.25)
    plain = terminal.describe_stage(0, factories.measured("a"), None, [])
    compared = terminal.describe_stage(1, factories.measured("b"), near, [])
    assert "KL" not in terminal.format_stages([plain])
    head, first, second = terminal.format_stages([plain, compared]).splitlines()
    at = head.index("KL")
    assert first[at:].split()[0] == formats.NOTHING and second[at:].startswith("0.00123 nats")
    assert "Perplexity" not in head


def test_a_quantity_that_is_declared_appears_without_another_edit(monkeypatch):
    """What is declared of a column that exists is exported and printed; nothing else lists it."""
    added = Quantity(
        "active_parameters", "Active parameters", Unit.COUNT, "less", Origin.STAGE, Shown.TERMINAL, meaning="Counted."
    )
    monkeypatch.setattr(quantities, "QUANTITIES", (*QUANTITIES, added))
    told = terminal.describe_stage(1, factories.measured("a"), None, [])
    assert told["active_parameters"] == 1_000_000
    assert "Active parameters" in terminal.format_stages([told])
    assert "active_parameters" not in BY_NAME
