"""What a stage claims against what it came to."""

import pandas as pd
import pytest

from app.screens.run.claims import list_claims

STAGE = {
    "position": 2, "label": "rtn", "trained": True, "compressed": True, "parameters": 1000, "nominal_bits": 4.0,
    "nominal_sparsity": 0.5, "size_bytes": 300, "ratio": 0.5, "ratio_high": 0.55, "disturbed": False,
}  # fmt: skip


def verdict(timed=frozenset({2}), **changes):
    [claim] = list_claims(pd.DataFrame([{**STAGE, **changes}]), set(timed))
    return claim


def test_the_ideal_size_counts_nonzero_weights_at_their_bits():
    assert verdict().ideal_bytes == pytest.approx(1000 * 0.5 * 4 / 8)
    assert verdict().speed_up == pytest.approx(2.0)


def test_what_keeps_its_claim_has_no_warning():
    assert verdict().warnings == ()


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"ratio": 0.97, "ratio_high": 1.02}, "sparse but not faster"),
        ({"ratio": 1.2, "ratio_high": 1.3, "nominal_sparsity": 0.0, "size_bytes": 500}, "quantized but not faster"),
        ({"size_bytes": 400}, "packed size above nominal"),
    ],
)
def test_a_broken_claim_is_named(changes, warning):
    assert verdict(**changes).warnings == (warning,)


def test_a_disturbed_time_is_marked_in_verdict_and_speed_up():
    claim = verdict(ratio=1.25, ratio_high=1.3, disturbed=True)
    assert claim.warnings == ("sparse but not faster (disturbed)",)
    assert claim.row()["Measured speed-up"] == "0.800× (disturbed)"
    assert verdict(ratio=None, ratio_high=None, disturbed=float("nan")).row()["Measured speed-up"] == "–"


def test_a_format_without_a_kernel_is_size_only():
    claim = verdict(timed=(), ratio=None, ratio_high=None)
    assert claim.warnings == ("size only (no kernel on this worker)",)
    assert claim.speed_up is None


def test_dense_untrained_and_foreign_stages_claim_nothing():
    rows = [{**STAGE, "compressed": False}, {**STAGE, "trained": False}, {**STAGE, "position": -1}]
    assert list_claims(pd.DataFrame(rows), {2}) == []
