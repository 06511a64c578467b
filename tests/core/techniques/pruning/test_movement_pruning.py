"""Movement pruning: what the scores add up, the ramp to the exact share, and the soft penalty."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.subject import Subject
from core.technique import Update
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.pruning.movement_pruning import MovementPruning, cubic_rise, hard_masks
from core.techniques.training.train import Train
from core.training.loop import Training
from tests.core.fakes import PlaneTask, context, plane_subject, taken_up
from tests.core.techniques.sparse_training.test_top_kast import three_layers
from tests.core.training.test_loop import plan

NAMES = ("up.weight", "middle.weight")


def scored(subject: Subject, name: str = "up") -> tuple[nn.Parameter, nn.Parameter, Tensor]:
    """A layer's weight, scores and mask in the middle of a training."""
    chain = subject.model.get_submodule(f"{name}.parametrizations.weight")
    part = chain.get_submodule("0")
    return chain.original, part.score, part.mask


@pytest.mark.parametrize(("target", "rises"), [(2.0, True), (-1.0, False), (0.2, False)])
def test_on_a_quadratic_the_score_rises_while_the_weight_grows_away_from_zero(target, rises):
    for start in (0.5, -0.5):
        model = nn.Sequential(nn.Linear(1, 1, bias=False))
        model[0].weight.data = torch.tensor([[start]])
        subject = Subject({"main": model}, PlaneTask(), {"main": {}})
        method = MovementPruning(sparsity=0.4)
        method.begin(subject, context(subject))
        weight, score, _ = scored(subject, "0")
        optimizer = torch.optim.SGD([weight, score], lr=0.1)
        ((model(torch.ones(1, 1)) - target * start / 0.5) ** 2).sum().backward()
        optimizer.step()
        assert (float(score.detach()) > 0) == rises
        assert (abs(float(weight.detach())) > 0.5) == rises


def test_under_sgd_scores_add_up_the_movement_of_every_weight_pruned_or_not():
    subject = plane_subject()
    method = MovementPruning(sparsity=0.6, ramp_start=0.0, ramp_end=0.5, score_learning_rate=0.3)
    method.begin(subject, context(subject))
    weight, score, _ = scored(subject)
    scores = torch.optim.SGD(method.param_groups())
    weights = torch.optim.SGD([weight], lr=0.1)
    head, bias, batch = subject.model.head, subject.model.up.bias, subject.task.batch(torch.arange(32))
    expected = torch.zeros_like(weight)
    for index in range(12):
        mask = scored(subject)[2]
        product = (weight * mask).detach().requires_grad_()
        loss = F.cross_entropy(head(F.relu(F.linear(batch["x"], product, bias))), batch["labels"])
        (gradient,) = torch.autograd.grad(loss, product)
        expected -= 0.3 * gradient * weight.detach()
        scores.zero_grad()
        weights.zero_grad()
        F.cross_entropy(subject.model(batch["x"]), batch["labels"]).backward()
        torch.testing.assert_close(weight.grad, gradient * mask)
        scores.step()
        weights.step()
        method.after_optimizer(Update(index, 12, scores, 0.1))
        torch.testing.assert_close(score.detach(), expected, atol=1e-7, rtol=1e-5)
    pruned = ~scored(subject)[2]
    assert int(pruned.sum()) == round(0.6 * 128)
    assert (score.grad[pruned] != 0).any()  # a pruned weight's score still learns


def test_masks_keep_an_exact_share_of_each_layer_or_of_all():
    scores = {"small": torch.tensor([[1.0, 2.0, 3.0, 4.0]]), "large": torch.tensor([[5.0, 6.0, 7.0, -9.0]])}
    by_layer = hard_masks(scores, 0.5, together=False)
    assert by_layer["small"].tolist() == [[False, False, True, True]]
    assert by_layer["large"].tolist() == [[False, True, True, False]]
    together = hard_masks(scores, 0.5, together=True)
    assert together["small"].tolist() == [[False, False, False, True]]
    assert together["large"].tolist() == [[True, True, True, False]]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_kept_share_falls_along_a_cubic_between_two_holds(scope):
    subject = three_layers()
    method = MovementPruning(sparsity=0.8, ramp_start=0.2, ramp_end=0.7, scope=scope)
    run = Training(subject, context(subject), plan(steps=20, learning_rate=0.02), [method])
    for index in range(20):
        run.index = index
        progress = min(max((index - 4) / 10, 0), 1)
        share = 1 - 0.8 * (1 - (1 - progress) ** 3)
        kept = [int(scored(subject, name)[2].sum()) for name in ("up", "middle")]
        if scope == "global":
            assert sum(kept) == round(share * 320)
        else:
            assert kept == [round(share * 128), round(share * 192)]
        run._update()
    assert cubic_rise(0) == 0 and cubic_rise(1) == 1 and cubic_rise(0.5) == 0.875


@pytest.mark.parametrize("ramp_end", [0.75, 1.0])
def test_a_training_leaves_plain_weights_under_exactly_the_sparsity_asked_for(ramp_end):
    subject, record = three_layers(), MemoryRecord()
    method = {"movement_pruning": {"sparsity": 0.75, "ramp_end": ramp_end}}
    Train(steps=20, learning_rate=0.02, methods=[method]).apply(subject, context(subject, record))
    for name in NAMES:
        layer, mask = subject.model.get_submodule(name.removesuffix(".weight")), subject.mask(name)
        assert type(layer) is nn.Linear and not parametrize.is_parametrized(layer)
        assert int(mask.sum()) == round(0.25 * mask.numel())
        assert torch.equal(layer.weight != 0, mask)
    assert subject.mask("head.weight") is None
    assert [row["sparsity"] for row in subject.details["layers"]] == [0.75, 0.75]
    assert record.curves["0/sparsity"][-1] == (19, 0.75)
    assert sum(value for _, value in record.curves["0/mask churn"]) >= 0.75
    assert subject.compressed


def test_scores_have_their_own_rate_and_no_decay():
    subject, method = three_layers(), MovementPruning(score_learning_rate=0.5)
    course = plan(steps=10, learning_rate=0.1, weight_decay=0.3, warmup=0, schedule="linear")
    run = Training(subject, context(subject), course, [method])
    run.index = 5
    run._update()
    group = run.optimizer.param_groups[-1]
    assert [p is s for p, s in zip(group["params"], [scored(subject, n)[1] for n in ("up", "middle")], strict=True)]
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.0)
    assert run.optimizer.param_groups[0]["lr"] == 0.05


def test_the_soft_penalty_is_the_mean_of_all_sigmoids_and_rises_with_the_threshold():
    subject = three_layers()
    method = MovementPruning(mode="soft", lambda_=8.0, threshold=0.3, ramp_start=0.0, ramp_end=1.0)
    method.begin(subject, context(subject))
    assert method.losses({}, torch.zeros(1), {}).terms["score penalty"] == 0
    values = {name: torch.randn(scored(subject, name)[1].shape, dtype=torch.float64) for name in ("up", "middle")}
    for name, value in values.items():
        scored(subject, name)[1].data = value
    method.after_optimizer(Update(4, 11, torch.optim.SGD(method.param_groups()), 0.1))  # half of the ramp
    for name, value in values.items():
        assert torch.equal(scored(subject, name)[2], value.sigmoid() > 0.875 * 0.3)
    penalty = method.losses({}, torch.zeros(1), {}).terms["score penalty"]
    mean = torch.cat([value.sigmoid().flatten() for value in values.values()]).mean()
    assert penalty.item() == pytest.approx(0.875 * 8 * float(mean), rel=1e-6)
    penalty.backward()
    slope = values["up"].sigmoid() * (1 - values["up"].sigmoid())
    torch.testing.assert_close(scored(subject)[1].grad, 0.875 * 8 * slope / 320, rtol=1e-5, atol=1e-9)


def test_soft_pruning_prunes_more_under_a_larger_lambda():
    shares = []
    for strength in (0.0, 3.0, 1000.0):
        subject = three_layers()
        method = {"movement_pruning": {"mode": "soft", "lambda": strength, "score_learning_rate": 0.3}}
        Train(steps=60, learning_rate=0.02, evaluations=0, methods=[method]).apply(subject, context(subject))
        shares.append(sum(row["sparsity"] * row["weights"] for row in subject.details["layers"]) / 320)
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.5


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_what_was_pruned_before_stays_pruned_and_counts(scope):
    subject = three_layers()
    old = torch.rand(16, 8, generator=torch.Generator().manual_seed(0)) > 0.4
    subject.constrain("up.weight", mask=old)
    method = {"movement_pruning": {"sparsity": 0.7, "scope": scope}}
    Train(steps=20, learning_rate=0.05, evaluations=0, methods=[method]).apply(subject, context(subject))
    assert not (subject.mask("up.weight") & ~old).any()
    masks = [subject.mask(name) for name in NAMES]
    assert sum(int(mask.sum()) for mask in masks) == pytest.approx(0.3 * 320, abs=1)


def test_masks_from_before_hold_where_another_method_swaps_the_blocks(vision_subject):
    subject, _ = vision_subject("builtin cls")
    MagnitudePruning(sparsity=0.9).apply(subject, context(subject))
    masks = {name: constraint.tensor for name, constraint in subject.constraints.items()}
    methods = [{"movement_pruning": {"sparsity": 0.1}}, {"dynamic_vit": {"stages": 1}}]
    Train(steps=3, batch_size=8, evaluations=0, methods=methods).apply(subject, context(subject))
    assert subject.constraints.keys() == masks.keys()
    for name, mask in masks.items():
        assert not subject.model.get_parameter(name.removeprefix("main."))[~mask].any()


def test_a_teacher_takes_part_in_the_same_training():
    subject, record = three_layers(), MemoryRecord()
    methods = [{"movement_pruning": {"sparsity": 0.5}}, {"distill_logits": {"teacher": "stage:0", "alpha": 0.7}}]
    Train(steps=20, learning_rate=0.02, methods=methods).apply(subject, context(subject, record))
    assert int(subject.mask("up.weight").sum()) == 64
    assert len(record.curves["0/distillation"]) == 20


@pytest.mark.parametrize(
    "settings",
    [{"scope": "global"}, {"mode": "soft", "lambda": 30.0, "score_learning_rate": 0.3}],
)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_training_taken_up_from_its_checkpoint_ends_the_same(tmp_path, settings, optimizer):
    train = Train(
        steps=20, learning_rate=0.05, optimizer=optimizer, evaluations=0, methods=[{"movement_pruning": settings}]
    )
    (whole, record), (resumed, again) = taken_up(train, three_layers, tmp_path, at=10)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
    for name in ("0/sparsity", "0/mask churn"):
        assert again.curves[name] == record.curves[name][10:]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ramp_start": 0.8}, "ramp_start = 0.8: must be less than ramp_end, which is 0.75"),
        ({"sparsity": 0.999}, "sparsity = 0.999: leaves none of the 128 weights of up"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(SpecError, match=message):
        MovementPruning(**settings).check(three_layers())


def test_label_names_what_settles_the_sparsity():
    labels = [MovementPruning(), MovementPruning(scope="global"), MovementPruning(mode="soft", lambda_=400)]
    assert [method.label() for method in labels] == ["85 %", "85 % global", "soft λ 400"]
