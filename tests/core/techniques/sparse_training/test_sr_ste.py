"""SR-STE: the golden step of its paper's equations, its invariants, and what it leaves."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from core.algorithms.masks import nm_mask
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.subject import Subject
from core.technique import Update
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.pruning.nm_pruning import NmPruning
from core.techniques.sparse_training.rigl import Rigl
from core.techniques.sparse_training.sr_ste import SrSte
from core.techniques.sparse_training.top_kast import TopKast
from core.techniques.training.train import Train
from core.training.loop import Training
from tests.core.fakes import PlaneTask, TwoLayers, context, plane_subject, taken_up
from tests.core.training.test_loop import plan

GRADIENT = torch.tensor([[0.1, 0.2, 0.3, 0.4]])


def one_layer() -> Subject:
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    model[0].weight.data = torch.tensor([[0.5, -0.1, 0.3, -0.8]])
    return Subject({"main": model}, PlaneTask(), {"main": {}})


def step(subject: Subject, method: SrSte, *, optimizer: type = torch.optim.SGD, **options: float) -> Tensor:
    """One update on a loss whose gradient is GRADIENT; the dense weight after it."""
    method.begin(subject, context(subject))
    layer = subject.model[0]
    weight = layer.parametrizations.weight.original
    made = optimizer([weight], lr=0.1, **options)
    (GRADIENT * layer.weight).sum().backward()
    method.before_optimizer(Update(0, 1, made, 0.1))
    made.step()
    return weight.detach().clone()


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (0.0, [0.49, -0.12, 0.27, -0.84]),
        (2e-4, [0.49, -0.119998, 0.269994, -0.84]),
        (1.0, [0.49, -0.11, 0.24, -0.84]),
    ],
)
def test_golden_step(decay, expected):
    weight = step(one_layer(), SrSte(lambda_=decay))
    torch.testing.assert_close(weight, torch.tensor([expected]), atol=1e-7, rtol=0)


def test_decoupled_decay_is_not_scaled_by_adam():
    plain = step(one_layer(), SrSte(lambda_=0), optimizer=torch.optim.AdamW, weight_decay=0.0)
    decoupled = step(one_layer(), SrSte(lambda_=1, decoupled=True), optimizer=torch.optim.AdamW, weight_decay=0.0)
    pruned = torch.tensor([[0.0, -0.1, 0.3, 0.0]])
    torch.testing.assert_close(decoupled, plain - 0.1 * pruned, atol=1e-7, rtol=0)
    coupled = step(one_layer(), SrSte(lambda_=1), optimizer=torch.optim.AdamW, weight_decay=0.0)
    assert not torch.allclose(coupled, decoupled)


def by_the_equations(subject: Subject, n_updates: int, *, decay: float, decoupled: bool, adam: bool) -> Tensor:
    """The dense weight of `up` after updates at rate 0.02, all of them on the whole task, written out."""
    model, batch = subject.model, subject.task.batch(torch.arange(64))
    weight = model.up.weight.detach().clone()
    others = {name: p.detach().clone() for name, p in model.named_parameters() if name != "up.weight"}
    parts = {"up.weight": weight, **others}
    first = {name: torch.zeros_like(part) for name, part in parts.items()}
    second = {name: torch.zeros_like(part) for name, part in parts.items()}
    for t in range(1, n_updates + 1):
        mask = nm_mask(weight.abs(), 2, 4)
        seen = {name: part.clone().requires_grad_() for name, part in (parts | {"up.weight": weight * mask}).items()}
        logits = torch.func.functional_call(model, seen, (batch["x"],))
        gradients = torch.autograd.grad(subject.task.loss(logits, batch), list(seen.values()))
        pruned = decay * (~mask * weight)
        for (name, part), gradient in zip(parts.items(), gradients, strict=True):
            g = gradient + pruned if name == "up.weight" and not decoupled else gradient
            if name == "up.weight" and decoupled:
                part -= 0.02 * pruned
            ordinary = 0.1 if part.ndim > 1 else 0.0
            if adam:
                part *= 1 - 0.02 * ordinary
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g**2
                part -= 0.02 * (first[name] / (1 - 0.9**t)) / ((second[name] / (1 - 0.999**t)).sqrt() + 1e-8)
            else:
                first[name] = 0.9 * first[name] + g + ordinary * part
                part -= 0.02 * first[name]
    return weight


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("decoupled", [False, True])
def test_a_training_follows_the_equations(optimizer, decoupled):
    subject = plane_subject()
    expected = by_the_equations(subject, 8, decay=0.3, decoupled=decoupled, adam=optimizer == "adamw")
    method = SrSte(lambda_=0.3, decoupled=decoupled)
    course = {"steps": 8, "learning_rate": 0.02, "warmup": 0, "schedule": "constant", "clip_norm": 0}
    run = Training(subject, context(subject), plan(**course, optimizer=optimizer, weight_decay=0.1), [method])
    for index in range(8):
        run.index = index
        run._update()
    trained = subject.model.up.parametrizations.weight.original
    torch.testing.assert_close(trained.detach(), expected, atol=2e-6, rtol=1e-5)


def test_without_momentum_the_decay_is_the_same_in_the_gradient_and_apart():
    ends = []
    for decoupled in (False, True):
        subject = plane_subject()
        method = {"sr_ste": {"lambda": 0.5, "decoupled": decoupled}}
        Train(steps=10, optimizer="sgd", momentum=0, clip_norm=0, evaluations=0, methods=[method]).apply(
            subject, context(subject)
        )
        ends.append(subject.model.up.weight.detach())
    torch.testing.assert_close(*ends, atol=1e-6, rtol=1e-5)


def test_fine_tuning_begins_at_the_pruned_model_and_may_revive_what_was_pruned():
    subject = plane_subject()
    NmPruning().apply(subject, context(subject))
    mask, x = subject.mask("up.weight"), torch.randn(5, 8)
    pruned = subject.model(x)
    method = SrSte()
    method.begin(subject, context(subject))
    assert torch.equal(subject.model(x), pruned)
    subject = plane_subject()
    NmPruning().apply(subject, context(subject))
    Train(steps=100, learning_rate=0.05, evaluations=0, methods=["sr_ste"]).apply(subject, context(subject))
    assert (subject.mask("up.weight") & ~mask).any()


def test_the_decay_of_pruned_weights_steadies_the_masks():
    flips = []
    for decay in (0.0, 0.3):
        subject, record = plane_subject(), MemoryRecord()
        method = {"sr_ste": {"lambda": decay}}
        course = {"steps": 100, "optimizer": "sgd", "learning_rate": 0.3, "weight_decay": 0, "batch_size": 8}
        Train(**course, evaluations=0, methods=[method]).apply(subject, context(subject, record))
        flips.append(sum(value for _, value in record.curves["0/mask divergence"]))
    assert flips[1] < flips[0]


def test_zero_lambda_is_the_straight_through_estimator_bitwise():
    torch.manual_seed(0)
    subject = Subject({"main": TwoLayers()}, PlaneTask(), {"main": {}})
    dense = subject.model.up.weight.detach().clone().requires_grad_()
    head, bias = subject.model.head, subject.model.up.bias
    method = SrSte(lambda_=0)
    method.begin(subject, context(subject))
    original = subject.model.up.parametrizations.weight.original
    x = torch.randn(5, 8)
    sgd, own = (torch.optim.SGD([weight], lr=0.5, momentum=0.9) for weight in (original, dense))
    for index in range(4):
        masked = (dense * nm_mask(dense.detach().abs(), 2, 4)).detach().requires_grad_()
        head(torch.relu(nn.functional.linear(x, masked, bias))).square().sum().backward()
        dense.grad = masked.grad
        original.grad = None
        subject.model(x).square().sum().backward()
        method.before_optimizer(Update(index, 4, sgd, 0.5))
        sgd.step()
        own.step()
        assert torch.equal(original, dense)


def test_the_gradient_reaches_pruned_weights_and_the_forward_pass_does_not_see_them():
    subject = one_layer()
    SrSte().begin(subject, context(subject))
    layer = subject.model[0]
    assert torch.equal(layer.weight, torch.tensor([[0.5, 0.0, 0.0, -0.8]]))
    (GRADIENT * layer.weight).sum().backward()
    assert torch.equal(layer.parametrizations.weight.original.grad, GRADIENT)


def test_with_a_mask_that_stays_and_masked_gradients_it_is_pruning_then_training():
    """ASP: the largest weights are far above the others, so the mask cannot change."""
    frozen, following = plane_subject(), plane_subject()
    mask = nm_mask(frozen.model.up.weight.abs(), 2, 4)
    for subject in (frozen, following):
        subject.model.up.weight.data[mask] += 10 * subject.model.up.weight.data[mask].sign()
    NmPruning().apply(frozen, context(frozen))
    plan = {"steps": 10, "evaluations": 0, "optimizer": "sgd", "learning_rate": 0.01, "clip_norm": 0}
    Train(**plan).apply(frozen, context(frozen))
    Train(**plan, methods=[{"sr_ste": {"lambda": 0}}]).apply(following, context(following))
    assert torch.equal(following.mask("up.weight"), mask)
    torch.testing.assert_close(following.model.up.weight, frozen.model.up.weight, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 8)])
def test_a_training_leaves_plain_weights_with_exactly_n_of_m(n, m):
    subject, record = plane_subject(), MemoryRecord()
    method = {"sr_ste": {"n": n, "m": m}}
    Train(steps=30, learning_rate=0.05, evaluations=1, methods=[method]).apply(subject, context(subject, record))
    layer = subject.model.up
    assert type(layer) is nn.Linear
    assert not parametrize.is_parametrized(layer)
    assert isinstance(layer.weight, nn.Parameter)
    assert ((layer.weight != 0).view(-1, m).sum(dim=1) == n).all()
    assert torch.equal(subject.mask("up.weight"), layer.weight != 0)
    assert "head.weight" in dict(subject.model.named_parameters())
    assert subject.details["layers"][0]["sparsity"] == 1 - n / m
    assert subject.compressed
    divergence = [value for _, value in record.curves["0/mask divergence"]]
    assert len(divergence) == 29
    assert max(divergence) > 0
    assert all(0 <= value <= 2 * n / m for value in divergence)


def test_mask_divergence_counts_flipped_bits():
    subject, record = one_layer(), MemoryRecord()
    method = SrSte(lambda_=0)
    method.begin(subject, context(subject, record))
    layer = subject.model[0]
    weight = layer.parametrizations.weight.original
    for index, values in enumerate([[0.5, -0.1, 0.3, -0.8], [0.5, -0.1, 0.9, -0.8]]):  # kept 0, 3 then 2, 3
        weight.data = torch.tensor([values])
        layer.weight.sum().backward()
        method.before_optimizer(Update(index, 2, torch.optim.SGD([weight], lr=0.1), 0.1))
    assert record.curves["0/mask divergence"] == [(1, 0.5)]


@pytest.mark.parametrize("method", [SrSte(), TopKast(density=0.5, extra_density=0.2), Rigl(sparsity=0.5)])
@pytest.mark.parametrize(("sparsity", "level"), [(0.75, "warning"), (0.5, "info")])
def test_the_log_tells_whose_masks_give_way(method, sparsity, level):
    subject, record = plane_subject(), MemoryRecord()
    MagnitudePruning(sparsity=sparsity).apply(subject, context(subject))
    method.begin(subject, context(subject, record))
    message = f"masks of 1 layers ({100 * sparsity:g} % zeros) are replaced by new ones (50 %)"
    assert record.events == [(level, message)]


def test_a_layer_that_a_loss_does_not_see_is_passed_over():
    subject, record = plane_subject(), MemoryRecord()
    method = SrSte(n=1)
    method.begin(subject, context(subject, record))
    optimizer = torch.optim.SGD(subject.model.parameters(), lr=0.1)
    for index, seen in enumerate([False, True, False, True]):
        optimizer.zero_grad()
        (subject.model.up(torch.ones(1, 8)).sum() if seen else subject.model.head.bias.sum()).backward()
        method.before_optimizer(Update(index, 4, optimizer, 0.1))
    assert [index for index, _ in record.curves["0/mask divergence"]] == [3]


def test_a_mask_from_before_is_taken_over_and_others_stay():
    subject = plane_subject()
    subject.constrain("up.weight", mask=torch.zeros(16, 8, dtype=torch.bool))
    head_mask = torch.rand(2, 16) > 0.5
    subject.constrain("head.weight", mask=head_mask)
    Train(steps=5, evaluations=0, methods=["sr_ste"]).apply(subject, context(subject))
    assert int(subject.mask("up.weight").sum()) == 64
    assert (subject.model.up.weight != 0).any()
    assert torch.equal(subject.model.head.weight != 0, head_mask)


@pytest.mark.parametrize(("optimizer", "decoupled"), [("adamw", False), ("adamw", True), ("sgd", False)])
def test_a_training_that_was_interrupted_ends_as_one_that_was_not(tmp_path, optimizer, decoupled):
    method = {"sr_ste": {"decoupled": decoupled}}
    train = Train(steps=20, optimizer=optimizer, evaluations=0, methods=[method])
    (whole, record), (resumed, again) = taken_up(train, plane_subject, tmp_path, at=10)
    assert torch.equal(resumed.model.up.weight, whole.model.up.weight)
    assert again.curves["0/mask divergence"] == record.curves["0/mask divergence"][9:]


def test_settings_are_checked_and_lambda_goes_by_its_name():
    assert SrSte.model_validate({"lambda": 0.5}).lambda_ == 0.5
    assert "lambda" in SrSte.model_json_schema()["properties"]
    with pytest.raises(SpecError, match="n = 4"):
        SrSte(n=4).check(plane_subject())
    with pytest.raises(SpecError, match="does not divide the 8 input channels of up"):
        SrSte(m=32).check(plane_subject())


def test_label_names_the_pattern_and_an_unusual_lambda():
    assert [SrSte().label(), SrSte(lambda_=0).label(), SrSte(m=8, lambda_=0.1).label()] == [
        "2:4",
        "2:4 STE",
        "2:8 λ 0.1",
    ]
