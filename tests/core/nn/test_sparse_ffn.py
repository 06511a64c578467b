"""The sparse feed-forward network: trax's einsums, one unit a block, what is hard and what is noisy, what is read."""

import numpy as np
import pytest
import torch

from core.measure import compute
from core.nn.ffn import sparse_ffn
from core.nn.ffn.sparse_ffn import SparseFfn

DIM, HIDDEN, BLOCK = 12, 40, 8
CONTROLLER = ("controller_in", "controller_out", "controller_bias")


def layer(**settings) -> SparseFfn:
    chosen = {"block_size": BLOCK, "rank": 5, "quant_prob": 0.3, "temperature": 0.1, **settings}
    made = SparseFfn(DIM, HIDDEN, **chosen)
    generator = torch.Generator().manual_seed(0)
    made.initialize_(generator)
    for bias in (made.controller_bias, made.bias):
        torch.nn.init.normal_(bias, generator=generator)
    return made.double()


def inputs(rows: int) -> torch.Tensor:
    return torch.randn(rows, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def trax(made: SparseFfn, x: torch.Tensor, mask: np.ndarray) -> np.ndarray:
    """The authors' einsums, on weights in the authors' order: W1 [d, d1, N], W2 [N, d1, d]."""
    w1, w2 = made.up.detach().numpy().transpose(2, 0, 1), made.down.detach().numpy().transpose(1, 0, 2)
    middle = np.einsum("bd,dxy->bxy", x.numpy(), w1) * mask
    return np.einsum("bxy,yxd->bd", np.maximum(middle, 0), w2) + made.bias.detach().numpy()


def trax_logits(made: SparseFfn, x: torch.Tensor) -> np.ndarray:
    c1 = made.controller_in.detach().numpy().T
    c2 = made.controller_out.detach().numpy().T.reshape(made.rank, made.n_blocks, BLOCK)
    bias = made.controller_bias.detach().numpy().reshape(made.n_blocks, BLOCK)
    return np.einsum("bd,dl,lxy->bxy", x.numpy(), c1, c2) + bias


@pytest.mark.parametrize("rows", [1, BLOCK // 2, BLOCK // 2 + 1, 50])
def test_evaluation_is_the_authors_einsums_gathered_or_masked(rows):
    made, x = layer().eval(), inputs(rows)
    logits = trax_logits(made, x)
    expected = trax(made, x, np.eye(BLOCK)[logits.argmax(-1)])
    np.testing.assert_allclose(made(x).detach().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(made.gathered(x).detach().numpy(), expected, atol=1e-12)


def test_soft_batches_are_the_authors_einsums():
    made, x = layer(quant_prob=0.0).train(), inputs(9)
    exps = np.exp(trax_logits(made, x))
    np.testing.assert_allclose(
        made(x).detach().numpy(), trax(made, x, exps / exps.sum(-1, keepdims=True)), rtol=1e-5, atol=1e-6
    )


def test_exactly_one_unit_of_every_block_is_kept():
    made, x = layer(quant_prob=1.0), inputs(33)
    mask = made.training_mask(made.logits(x)).detach()
    torch.testing.assert_close(mask.amax(-1), torch.ones(33, 5))
    torch.testing.assert_close(mask.sum(-1), torch.ones(33, 5))
    assert ((mask.abs() < 1e-6).sum(-1) == BLOCK - 1).all()


@pytest.mark.parametrize("quant_prob", [0.0, 1.0])
def test_gradients_reach_the_controller_in_both_branches(quant_prob):
    made = layer(quant_prob=quant_prob).train()
    made(inputs(20)).square().sum().backward()
    for name in (*CONTROLLER, "up", "down", "bias"):
        assert made.get_parameter(name).grad.abs().max() > 0, name


def test_the_hard_masks_gradient_is_the_soft_ones(monkeypatch):
    made, logits = layer(quant_prob=1.0), torch.randn(4, 5, BLOCK, requires_grad=True)
    weight = torch.randn(4, 5, BLOCK)
    (hard,) = torch.autograd.grad((made.training_mask(logits) * weight).sum(), logits)
    (soft,) = torch.autograd.grad((logits.softmax(-1) * weight).sum(), logits)
    torch.testing.assert_close(hard, soft)


def test_noise_is_in_the_hard_branch_alone_and_multiplied_by_the_temperature(monkeypatch):
    drawn = []
    noise = torch.zeros(1, 5, BLOCK)
    noise[..., 3] = 1.0
    monkeypatch.setattr(sparse_ffn, "gumbel_noise", lambda like: drawn.append(like) or noise)
    logits = torch.zeros(1, 5, BLOCK)
    logits[..., 0] = 0.15
    layer(quant_prob=0.0).training_mask(logits)
    assert not drawn
    soft = layer(quant_prob=0.0).training_mask(logits)
    torch.testing.assert_close(soft, logits.softmax(-1))
    assert (layer(quant_prob=1.0).training_mask(logits).argmax(-1) == 0).all()  # 0.1 * 1 < 0.15
    assert (layer(quant_prob=1.0, temperature=0.2).training_mask(logits).argmax(-1) == 3).all()
    assert len(drawn) == 2


def test_noise_is_standard_gumbel_of_clipped_draws(monkeypatch):
    torch.manual_seed(0)
    noise = sparse_ffn.gumbel_noise(torch.empty(200_000, dtype=torch.bfloat16))
    assert noise.dtype == torch.float32
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(np.pi**2 / 6, rel=0.02)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.tensor([0.0, 1.0]))
    ends = sparse_ffn.gumbel_noise(torch.empty(2))
    torch.testing.assert_close(ends, torch.tensor([-2.6258, 13.8155]), rtol=1e-2, atol=0)


def test_thirty_of_a_hundred_batches_are_hard_as_a_whole():
    torch.manual_seed(0)
    made, logits = layer(), torch.randn(6, 5, BLOCK)
    largest = torch.stack([made.training_mask(logits).detach().amax(-1) for _ in range(2000)])
    is_hard = (largest > 0.9999).flatten(1)
    assert (is_hard.all(1) == is_hard.any(1)).all()  # one draw a batch
    assert is_hard.all(1).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_batches_longer_than_one_token_are_gathered_token_by_token():
    made, x = layer().eval(), inputs(4)
    together = made.gathered(x.view(2, 2, DIM)).view(4, DIM)
    torch.testing.assert_close(together, torch.cat([made.gathered(row) for row in x.split(1)]))


def test_generation_reads_and_computes_the_papers_few_weights():
    with torch.device("meta"):
        made = SparseFfn(1024, 4096, block_size=64, rank=64, quant_prob=0.3, temperature=0.1).eval()
    one = torch.Size((1, 1, 1024))
    assert made.macs(one) == 458_752  # dense: 8,388,608
    assert made.macs(torch.Size((1, 256, 1024))) == 256 * (8_388_608 + 64 * (1024 + 4096))
    weights = sum(p.numel() for p in made.parameters() if p.ndim > 1)
    assert weights - made.inactive_parameters() == 458_752


def test_compute_counts_what_is_executed():
    made, x = layer().eval(), inputs(1)
    model = torch.nn.Sequential(made)
    assert compute.count_macs(model, {"input": x}) == made.macs(x.shape) == 5 * (DIM + HIDDEN) + 2 * DIM * 5
    many = inputs(50)
    expected = sum(50 * a * b for a, b in [(DIM, 5), (5, HIDDEN), (DIM, HIDDEN), (HIDDEN, DIM)])
    assert compute.count_macs(model, {"input": many}) == expected


def test_curves_tell_units_in_use_and_how_decided_the_controller_is():
    made = layer(quant_prob=1.0, temperature=0.0)
    logits = torch.zeros(2, 5, BLOCK)
    logits[0, :, 1], logits[1, :, 2] = 50.0, 50.0
    made.training_mask(logits)
    seen = made.observed()
    assert seen["units in use (%)"] == pytest.approx(100 * 2 / BLOCK)
    assert seen["largest share in a soft mask (%)"] == pytest.approx(100)


def test_half_precision_and_autocast_answer():
    made = layer().float().eval()
    x = inputs(30).float()
    exact = made(x)
    half = layer().bfloat16().eval()
    assert (half(x.bfloat16()).float() - exact).abs().median() < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(made.train()(x)).all()


def test_arguments_make_an_equal_module():
    made = layer()
    again = SparseFfn(**made.arguments())
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in made.named_parameters()}
    assert again.arguments() == made.arguments()
