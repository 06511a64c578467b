"""SVD: ranks from the share kept, layers that would not shrink left alone, nothing undone that was pruned."""

import pytest
import torch

from core.errors import SpecError
from core.nn.low_rank_linear import LowRankLinear
from core.techniques.low_rank.svd import Svd, rank_for, saves
from core.techniques.pruning.nm_pruning import NmPruning
from tests.core.fakes import TwoLayers, context, plane_subject


def test_rank_is_the_largest_whose_factors_fit():
    assert rank_for(0.5, 100, 300) == 37  # 0.5 * 30000 / 400 = 37.5
    assert 37 * 400 <= 0.5 * 30_000 < 38 * 400
    assert rank_for(0.01, 8, 8) == 1


def test_a_rank_saves_below_mn_over_m_plus_n():
    assert saves(74, 100, 300)
    assert not saves(75, 100, 300)


def test_error_is_that_of_the_discarded_singular_values():
    subject = plane_subject()
    weight = subject.model.up.weight.detach().clone()
    bias = subject.model.up.bias
    Svd(rank=3).apply(subject, context(subject))
    layer = subject.model.up
    assert isinstance(layer, LowRankLinear)
    values = torch.linalg.svdvals(weight)
    error = (layer.up.weight @ layer.down.weight - weight).norm()
    torch.testing.assert_close(error, values[3:].norm())
    assert layer.up.bias is bias
    row = subject.details["layers"][0]
    assert (row["name"], row["shape"], row["rank"]) == ("up", [16, 8], 3)
    assert row["relative error"] == pytest.approx(float(values[3:].norm() / values.norm()), rel=1e-4)
    assert type(subject.model.head) is torch.nn.Linear


def test_a_layer_of_that_rank_is_kept_exactly():
    subject = plane_subject()
    torch.manual_seed(0)
    subject.model.up.weight.data = torch.randn(16, 2) @ torch.randn(2, 8)
    x = torch.randn(4, 8)
    before = subject.model(x)
    Svd(rank=2).apply(subject, context(subject))
    torch.testing.assert_close(subject.model(x), before, atol=1e-5, rtol=1e-5)


def test_a_rank_that_saves_nothing_is_refused():
    with pytest.raises(SpecError, match="rank = 6: does not reduce any layer of this model"):
        Svd(rank=6).check(plane_subject())
    Svd(rank=5).check(plane_subject())


def test_pruned_layers_are_refused():
    subject = plane_subject()
    NmPruning().apply(subject, context(subject))
    with pytest.raises(SpecError, match="put svd before the step that prunes"):
        Svd().check(subject)


def test_it_checks_a_model_without_weights():
    subject = plane_subject()
    with torch.device("meta"):
        subject.models["main"] = TwoLayers()
    Svd().check(subject)


def test_label_is_the_rank_or_the_share():
    assert [Svd(rank=8).label(), Svd(kept=0.25).label()] == ["rank 8", "25 %"]
