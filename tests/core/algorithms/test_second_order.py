"""The second-order sweep: by hand, against a surgeon who inverts the Hessian at every column, and its error."""

import pytest
import torch
from torch import Tensor

from core.algorithms.masks import keep_largest, keep_largest_in_rows, nm_mask
from core.algorithms.quantization_grids import min_max
from core.algorithms.second_order import NOfM, Unstructured, exact_error, factorize, solve
from tests.core.algorithms.surgeon import EXACT, damped, problem, rounding, surgeon


def test_two_weights_by_hand():
    hessian = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=EXACT)  # its inverse is [[2, -1], [-1, 2]] / 3
    weight = torch.tensor([[1.0, 2.0]], dtype=EXACT)
    found = solve(weight, factorize(hessian, damping=0), pattern=NOfM(1, 2))
    # zeroing the first costs 1 / (2/3) = 1.5, the second 4 * 2 = 8; the second then gets (1/3) / (2/3) more
    assert found.mask.tolist() == [[False, True]]
    assert torch.allclose(found.weight, torch.tensor([[0.0, 2.5]], dtype=EXACT))
    assert found.error.tolist() == pytest.approx([1.5])


def test_the_factor_is_that_of_the_damped_inverse():
    _, hessian = problem()
    factor = factorize(hessian)
    upper = factor.upper
    assert torch.equal(upper, upper.triu())
    assert torch.allclose(upper.T @ upper, torch.linalg.inv(damped(hessian)), rtol=1e-9)
    assert not factor.dead.any()
    assert factor.damping == 0.01


PATTERNS = [
    None,
    Unstructured(0.5, 24),
    Unstructured(0.83, 6),
    Unstructured(0.3, 1),
    NOfM(2, 4),
    NOfM(1, 8),
    NOfM(2, 3),
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("bits", [None, 3])
@pytest.mark.parametrize("has_old", [False, True])
def test_it_does_what_a_surgeon_does_who_inverts_anew_at_every_column(pattern, bits, has_old):
    weight, hessian = problem()
    old = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.8 if has_old else None
    weight = weight if old is None else weight * old
    found = solve(
        weight, factorize(hessian), pattern=pattern, mask=old, rounding=None if bits is None else rounding(bits)
    )
    expected, mask = surgeon(weight, damped(hessian), pattern=pattern, old=old, bits=bits)
    assert torch.equal(found.mask, mask)
    assert torch.allclose(found.weight, expected, atol=1e-9)
    assert not found.weight[~mask].any()


@pytest.mark.parametrize(("group_size", "block"), [(8, 16), (16, 8), (12, 8), (16, 128), (5, 16)])
@pytest.mark.parametrize("pattern", [None, NOfM(2, 4), Unstructured(0.5, 4)], ids=str)
def test_groups_are_fitted_to_the_weights_as_they_are_when_their_turn_comes(group_size, block, pattern):
    if pattern is not None and group_size % 4:
        pytest.skip("cuts a choice of four")
    weight, hessian = problem()
    grids = rounding(3, True, group_size)
    found = solve(weight, factorize(hessian), pattern=pattern, rounding=grids, block_size=block)
    expected, mask = surgeon(weight, damped(hessian), pattern=pattern, bits=3, group_size=group_size)
    assert torch.equal(found.mask, mask)
    assert torch.allclose(found.weight, expected, atol=1e-6)  # grids are float32
    codes, scales, zero_points = grids.result()
    assert scales.shape == (12, -(-24 // group_size))
    repeated = scales.repeat_interleave(group_size, dim=1)[:, :24]
    offsets = codes - zero_points.repeat_interleave(group_size, dim=1)[:, :24]
    assert torch.equal((repeated * offsets).double(), found.weight)


def test_columns_whose_mask_is_chosen_at_once_are_whole_groups():
    weight, hessian = problem()
    found = solve(weight, factorize(hessian), pattern=Unstructured(0.5, 14), rounding=rounding(3, True, 6))
    expected, mask = surgeon(weight, damped(hessian), pattern=Unstructured(0.5, 12), bits=3, group_size=6)
    assert torch.equal(found.mask, mask)
    assert torch.allclose(found.weight, expected, atol=1e-6)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("grids", [{}, {"symmetric": False}, {"group_size": 24}, None], ids=str)
@pytest.mark.parametrize("block", [1, 24, 128])
def test_the_errors_sum_up_to_that_of_the_outputs(pattern, grids, block):
    weight, hessian = problem(d=48)
    hessian[:, 7] = hessian[7] = 0  # a dead input
    old = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.9
    weight = weight * old
    found = solve(
        weight,
        factorize(hessian),
        pattern=pattern,
        mask=old,
        rounding=None if grids is None else rounding(3, **grids),
        block_size=block,
    )
    alive = weight.clone()
    alive[:, 7] = 0
    mean = hessian.diagonal().sum() / 47
    change = found.weight - alive
    by_row = ((change @ (hessian + 0.01 * mean * torch.eye(48, dtype=EXACT))) * change).sum(1)
    assert torch.allclose(found.error, by_row, rtol=1e-11)
    assert not found.weight[:, 7].any()


@pytest.mark.parametrize("pattern", [None, NOfM(2, 4), Unstructured(0.5, 12)], ids=str)
def test_the_size_of_blocks_makes_no_difference_where_nothing_is_chosen_by_block(pattern):
    weight, hessian = problem(d=96)
    factor = factorize(hessian)
    whole = solve(weight, factor, pattern=pattern, rounding=rounding(4), block_size=1024)
    for block in (1, 20, 32):
        found = solve(weight, factor, pattern=pattern, rounding=rounding(4), block_size=block)
        assert torch.allclose(found.weight, whole.weight)
        assert torch.equal(found.mask, whole.mask)


def test_without_correlation_rounding_is_to_the_nearest_and_pruning_by_weighted_magnitude():
    weight, hessian = problem()
    hessian = torch.diag(hessian.diagonal())
    rounded = solve(weight, factorize(hessian, damping=0), rounding=rounding(4))
    assert torch.equal(rounded.weight.float(), min_max(weight.float(), 4, True).nearest(weight.float()))
    pruned = solve(weight, factorize(hessian, damping=0), pattern=Unstructured(0.5, 24))
    score = weight.square() * hessian.diagonal()
    assert torch.equal(pruned.mask, keep_largest(score, score.numel() // 2))
    assert torch.equal(pruned.weight, weight * pruned.mask)


def test_a_choice_is_for_128_columns_but_not_for_more_than_half():
    weight, hessian = problem(d=24)
    by_size = solve(weight, factorize(hessian), pattern=Unstructured(0.5)).mask
    assert torch.equal(by_size, solve(weight, factorize(hessian), pattern=Unstructured(0.5, 12)).mask)
    assert not torch.equal(by_size, solve(weight, factorize(hessian), pattern=Unstructured(0.5, 24)).mask)
    weight, hessian = problem(rows=4, d=300)
    by_size = solve(weight, factorize(hessian), pattern=Unstructured(0.5)).mask
    assert torch.equal(by_size, solve(weight, factorize(hessian), pattern=Unstructured(0.5, 128)).mask)


@pytest.mark.parametrize("sparsity", [0.0, 0.31, 0.5, 0.77, 0.99])
def test_the_share_is_exact_over_blocks_of_any_size(sparsity):
    weight, hessian = problem(rows=7, d=50)
    found = solve(weight, factorize(hessian), pattern=Unstructured(sparsity, 13), block_size=16)
    assert int((~found.mask).sum()) == round(sparsity * 350)


@pytest.mark.parametrize("pattern", [Unstructured(0.5), Unstructured(0.5, 8), NOfM(2, 4)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_on_correlated_inputs_it_loses_less_than_wanda_and_magnitude_and_no_less_than_the_best_for_its_mask(
    pattern, seed
):
    weight, hessian = problem(rows=32, d=64, n=400, seed=seed)
    found = solve(weight, factorize(hessian), pattern=pattern)

    def pruned(scores: Tensor, choose) -> float:
        mask = nm_mask(scores, 2, 4) if isinstance(pattern, NOfM) else choose(scores)
        return float(exact_error(weight * mask - weight, hessian))

    magnitude = pruned(weight.abs(), lambda scores: keep_largest(scores, scores.numel() // 2))
    wanda = pruned(weight.abs() * hessian.diagonal().sqrt(), lambda scores: keep_largest_in_rows(scores, 32))
    error = float(exact_error(found.weight - weight, hessian))
    assert error < 0.8 * min(wanda, magnitude)
    best = torch.zeros_like(weight)
    for row, kept in enumerate(found.mask):
        right = hessian[kept] @ weight[row]
        best[row, kept] = torch.linalg.solve(hessian[kept][:, kept], right)
    assert exact_error(best - weight, hessian) < error


def test_kept_weights_may_be_rounded_to_zero_but_pruned_ones_always_are():
    weight, hessian = problem()
    grids = rounding(2, symmetric=False)
    found = solve(weight, factorize(hessian), pattern=Unstructured(0.6), rounding=grids)
    codes, _, zero_points = grids.result()
    assert ((codes == zero_points) >= ~found.mask).all()
    assert (found.weight[~found.mask] == 0).all()
    assert len(codes.unique()) <= 4


def test_float32_weights_stay_float32_and_close():
    weight, hessian = problem(d=64)
    exact = solve(weight, factorize(hessian), pattern=NOfM(2, 4))
    found = solve(weight.float(), factorize(hessian.float()), pattern=NOfM(2, 4))
    assert found.weight.dtype == torch.float32
    assert float((found.mask == exact.mask).float().mean()) > 0.99
    assert float(found.error.sum()) == pytest.approx(float(exact.error.sum()), rel=1e-2)


def test_inputs_that_were_always_zero_have_no_say():
    weight, hessian = problem()
    smaller, alive = hessian[:20, :20], slice(0, 20)
    hessian = torch.zeros_like(hessian)
    hessian[alive, alive] = smaller
    found = solve(weight, factorize(hessian), pattern=NOfM(2, 4))
    expected = solve(weight[:, alive], factorize(smaller), pattern=NOfM(2, 4))
    assert torch.allclose(found.weight[:, alive], expected.weight)
    assert not found.weight[:, 20:].any()
    assert torch.isfinite(factorize(hessian, damping=0).upper).all()
    nothing = solve(weight, factorize(torch.zeros_like(hessian)), pattern=Unstructured(0.5))
    assert not nothing.weight.any()
    assert torch.isfinite(nothing.error).all()


def test_the_given_weight_and_hessian_are_left_alone():
    weight, hessian = problem()
    before = weight.clone(), hessian.clone()
    solve(weight, factorize(hessian), pattern=NOfM(2, 4), rounding=rounding())
    assert torch.equal(weight, before[0])
    assert torch.equal(hessian, before[1])


def test_what_cannot_be_solved_is_refused():
    weight, hessian = problem()
    with pytest.raises(ValueError, match="groups of 6 columns do not consist of whole groups of 4"):
        solve(weight, factorize(hessian), pattern=NOfM(2, 4), rounding=rounding(3, True, 6))
    hessian[3, 3] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        factorize(hessian)
