"""The table of a sensitivity step: its costs, what is compared with the best choice, and its JSON."""

import json

import numpy as np
import pytest

from core.allocation.choice import Unaffordable, total
from core.allocation.table import LayerFormat, LayerGroup, SensitivityTable

FORMATS = [LayerFormat(32, dense=True), LayerFormat(2), LayerFormat(4), LayerFormat(8), LayerFormat(8, None, 8)]
WEIGHTS = (100, 400, 300)


def table(losses=((0, 9, 3, 1, 1.5), (0, 8, 2, 0.5, 0.6), (0, 7, 1, 0.1, 0.2))):
    groups = [
        LayerGroup(
            layers=[f"blocks.{i}.q", f"blocks.{i}.k"] if i == 0 else [f"blocks.{i}.up"],
            block=f"blocks.{i}",
            weights=n,
            losses=list(losses[i]),
            bytes=[4 * n, n // 4, n // 2, n, n],
            macs=1e6 * n,
            milliseconds=[1.0, 1.0, 0.5, 1.0, 0.25],
            kernels=[None, None, "int4", None, "int8"],
        )
        for i, n in enumerate(WEIGHTS)
    ]
    return SensitivityTable("kl", FORMATS, groups, 1_000_000, 16, {"symmetric": True})


def test_names_of_formats_and_of_tied_layers():
    assert [each.name for each in FORMATS] == ["dense", "2-bit", "4-bit", "8-bit", "W8A8"]
    assert LayerFormat(4, 64).name == "4-bit g64"
    assert [group.name for group in table().groups] == ["blocks.0.q, k", "blocks.1.up", "blocks.2.up"]


def test_costs_in_each_unit():
    found, four = table(), np.full(3, 2)
    assert found.cost(four, "average-bits") == pytest.approx(4)
    assert found.cost(four, "megabytes") == pytest.approx(1.0004)
    assert found.cost(four, "bit-operations") == pytest.approx(0.8 * 4 * 32)  # activations stay in 32 bits
    assert found.cost(np.full(3, 4), "bit-operations") == pytest.approx(0.8 * 8 * 8)
    assert found.cost(four, "milliseconds") == pytest.approx(1.5)


@pytest.mark.parametrize("unit", ["average-bits", "megabytes", "bit-operations", "milliseconds"])
def test_the_budget_is_met_and_no_uniform_choice_within_it_is_better(unit):
    found = table()
    costs = [found.cost(choice, unit) for choice in found.uniform_choices()]
    for budget in np.linspace(min(costs), max(costs), 9):
        chosen = found.solve(unit, budget)
        assert found.cost(chosen, unit) <= budget * (1 + 1e-9)
        for choice in [*found.uniform_choices(), *found.edge_choices()]:
            if found.cost(choice, unit) <= budget:
                assert found.predicted(chosen) <= found.predicted(choice)


def test_a_budget_in_megabytes_counts_what_no_format_changes():
    assert table().solve("megabytes", 1.0002).tolist() == [1, 1, 1]
    with pytest.raises(Unaffordable):
        table().solve("megabytes", 1.0001)


def test_baselines_are_the_best_that_fit():
    found = table().baselines("average-bits", 6.0)
    assert found["uniform"].tolist() == [2, 2, 2]
    assert found["first and last at 8 bit"].tolist() == [3, 2, 3]  # 6 bits on average: (100 + 300) * 8 + 400 * 4
    assert table().baselines("average-bits", 5.9)["first and last at 8 bit"].tolist() == [3, 1, 3]
    assert table().baselines("average-bits", 1.0) == {}


def test_only_formats_with_a_kernel_here():
    chosen = table().solve("average-bits", 8.0, "here")
    assert set(chosen.tolist()) <= {0, 2, 4}
    assert total(table().losses, chosen) > total(table().losses, table().solve("average-bits", 8.0))


def test_the_table_survives_json_with_losses_that_are_missing():
    found = table(((0, None, 3, 1, 1), (0, 8, 2, 1, 1), (0, 7, 1, 1, 1)))
    text = json.dumps(found.to_json(), allow_nan=False)
    again = SensitivityTable.from_json(json.loads(text))
    assert again.formats == found.formats
    assert np.array_equal(again.losses, found.losses, equal_nan=True)
    assert again.solve("average-bits", 4.0).tolist() == found.solve("average-bits", 4.0).tolist()
    assert again.solve("average-bits", 4.0)[0] != 1
