"""Training a 16-bit model: float32 masters, the model's own dtype again at the end."""

import pytest
import torch
from torch import nn

from core.algorithms.master_weights import MasterWeights
from core.artifacts import checkpoint
from core.errors import TechniqueFailure
from core.subject import Subject
from core.techniques.training.train import Train
from core.training.loop import Training
from tests.core.fakes import context, plane_subject, taken_up
from tests.core.training.test_loop import plan, same, weights

HALF = [torch.bfloat16, torch.float16]


def half_subject(dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Subject:
    subject = plane_subject(seed)
    subject.model.to(dtype)
    return subject


def dtypes(model: nn.Module) -> set[torch.dtype]:
    return {tensor.dtype for tensor in model.state_dict().values()}


@pytest.mark.parametrize("dtype", HALF)
def test_updates_too_small_for_16_bits_add_up(dtype):
    subject = half_subject(dtype)
    with torch.no_grad():
        subject.model.up.weight.fill_(1.0)  # the next smaller bfloat16 is 1 - 2^-8
    settings = {"steps": 100, "learning_rate": 2e-4, "warmup": 0, "schedule": "constant", "weight_decay": 0}
    Training(subject, context(subject), plan(**settings), []).run()
    moved = (subject.model.up.weight.float() - 1).abs().max()
    assert moved > 0.01
    assert subject.model.up.weight.dtype == dtype


@pytest.mark.parametrize("dtype", HALF)
def test_it_is_the_float32_training_rounded_once(dtype):
    subject, exact = half_subject(dtype), plane_subject()
    exact.model.load_state_dict(subject.model.state_dict())
    for each in (subject, exact):
        Training(each, context(each), plan(steps=20), []).run()
    assert all(torch.equal(w, exact.model.state_dict()[n].to(dtype)) for n, w in subject.model.state_dict().items())


def test_weights_gradients_and_optimizer_are_float32_meanwhile(tmp_path):
    subject = half_subject()
    place = tmp_path / "state.safetensors"
    run = Training(subject, context(subject, checkpoint=place), plan(), [])
    run._update()
    assert dtypes(subject.model) == {torch.float32} == {subject.dtype}
    moments = [value for state in run.optimizer.state.values() for value in state.values() if value.ndim]
    assert moments and {value.dtype for value in moments} == {torch.float32}
    run.save()
    assert {value.dtype for value in checkpoint.load_state(place)["model"].values()} == {torch.float32}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_training_taken_up_keeps_its_masters(tmp_path, optimizer):
    train = Train(steps=30, optimizer=optimizer, batch_size=16)
    (whole, _), (resumed, _) = taken_up(train, half_subject, tmp_path, at=13)
    assert dtypes(whole.model) == {torch.bfloat16}
    assert same(weights(whole), weights(resumed))


def test_masks_hold_on_the_masters_and_after():
    subject = half_subject()
    mask = torch.rand(16, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    subject.constrain("up.weight", mask=mask)
    run = Training(subject, context(subject), plan(steps=5), [])
    run._update()
    assert not subject.model.up.weight[~mask].any() and subject.model.up.weight[mask].all()
    run.run()
    assert subject.model.up.weight.dtype == torch.bfloat16
    assert not subject.model.up.weight[~mask].any()


class Mixed(nn.Module):
    """Tied 16-bit weights, a float32 norm, a saved buffer and a computed one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
        self.norm = nn.LayerNorm(3)
        self.head.weight = self.embedding.weight
        self.register_buffer("average", torch.ones(3))
        self.register_buffer("seen", torch.ones(3, dtype=torch.long))
        self.to(torch.bfloat16)
        self.norm.float()
        self.register_buffer("computed", torch.ones(3, dtype=torch.float16), persistent=False)


def test_each_tensor_gets_its_own_dtype_back():
    model = Mixed()
    before = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    masters = MasterWeights(model)
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32, torch.long}
    assert model.head.weight is model.embedding.weight
    model.added = nn.Linear(2, 2)
    masters.restore()
    after = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    assert after == {**before, "added.weight": torch.bfloat16, "added.bias": torch.bfloat16}
    assert before["norm.weight"] == torch.float32 and model.computed.dtype == torch.float16
    assert model.head.weight is model.embedding.weight


def test_a_float32_model_is_left_alone():
    model = nn.Linear(2, 2)
    data = model.weight.data_ptr()
    masters = MasterWeights(model)
    model.extra = nn.Linear(2, 2).double()
    masters.restore()
    assert model.weight.data_ptr() == data


def test_weights_that_float16_cannot_hold_are_not_made_infinite():
    model = nn.Linear(2, 2).half()
    masters = MasterWeights(model)
    with torch.no_grad():
        model.weight[0, 0] = 1e6
    with pytest.raises(TechniqueFailure, match="a weight of weight exceeds the range of float16"):
        masters.restore()
