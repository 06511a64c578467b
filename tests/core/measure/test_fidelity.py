"""Fidelity by hand, against a slow oracle, and whatever the size of the parts in which it is computed."""

import math

import pytest
import torch
from torch import nn

from core.measure import fidelity, score
from core.measure.fidelity import FidelityMeter, Incomparable, divergences
from core.tasks.windows import IGNORED
from tests.core.measure.fakes import Accuracy

THREE_QUARTERS = torch.tensor([math.log(3.0), 0.0])  # logits of 3/4 and 1/4
ONE_HALF = torch.zeros(2)


class Table(nn.Module):
    """Logits by the index that an example is."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.logits[pixel_values.long()]


def metered(reference: torch.Tensor, stage: torch.Tensor, labels: torch.Tensor, *cuts: int) -> FidelityMeter:
    """A meter that saw all examples, in batches that end at the `cuts`."""
    meter = FidelityMeter(Table(reference), torch.device("cpu"))
    ends = [*cuts, len(labels)]
    for start, end in zip([0, *cuts], ends, strict=True):
        indices = torch.arange(start, end, dtype=torch.float)
        meter.watch({"pixel_values": indices, "labels": labels[start:end]}, stage[start:end])
    return meter


def test_the_divergence_is_from_the_reference_by_hand():
    toward = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    back = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert divergences(THREE_QUARTERS[None], ONE_HALF[None]).item() == pytest.approx(toward, abs=1e-8)
    assert divergences(ONE_HALF[None], THREE_QUARTERS[None]).item() == pytest.approx(back, abs=1e-8)
    assert toward == pytest.approx(0.130812, abs=1e-6) and back == pytest.approx(0.143841, abs=1e-6)


def test_a_classifier_by_hand():
    first, second = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    reference = torch.stack([first, first, second, first, second])
    stage = torch.stack([first, second, second, second, first])
    labels = torch.tensor([0, 0, 0, 1, 1])  # right both, lost, wrong both, gained, lost
    found = metered(reference, stage, labels).result()
    p = 1 / (1 + math.exp(-2))
    of_one_change = (2 * p - 1) * 2  # logits swapped: (p - q) ln(p / q)
    assert found.kl == pytest.approx(3 * of_one_change / 5, rel=1e-6)
    assert (found.top1_agreement, found.right_to_wrong, found.wrong_to_right) == pytest.approx((40.0, 40.0, 20.0))
    assert found.flips == pytest.approx(60.0)
    assert found.kl_low < found.kl < found.kl_high


def test_text_counts_the_tokens_that_are_scored():
    reference = torch.stack([THREE_QUARTERS, ONE_HALF, ONE_HALF])[None].repeat(2, 1, 1)  # [2, 3, 2]
    stage = torch.stack([ONE_HALF, THREE_QUARTERS, ONE_HALF])[None].repeat(2, 1, 1)
    labels = torch.tensor([[0, IGNORED, 1], [IGNORED, IGNORED, 1]])
    found = metered(reference, stage, labels).result()
    assert found.kl == pytest.approx(0.130812 / 3, abs=1e-6)  # one of three scored tokens differs
    assert found.kl_p99 == pytest.approx(0.98 * 0.130812, abs=1e-4)  # between the second and the third of three


def random_text(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [12, 7, 11] of a reference and a stage near it, and labels of which some are not scored."""
    generator = torch.Generator().manual_seed(seed)
    reference = 3 * torch.randn(12, 7, 11, generator=generator)
    stage = reference + 0.7 * torch.randn(12, 7, 11, generator=generator)
    labels = torch.randint(11, (12, 7), generator=generator)
    labels[torch.rand(12, 7, generator=generator) < 0.3] = IGNORED
    return reference, stage, labels


def oracle(reference: torch.Tensor, stage: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Token by token and class by class, in Python's floats."""
    kls, agree, lost, gained = [], 0, 0, 0
    for before, after, label in zip(reference.view(-1, 11), stage.view(-1, 11), labels.view(-1).tolist(), strict=True):
        if label == IGNORED:
            continue
        p, q = ([math.exp(x) for x in row.tolist()] for row in (before, after))
        p, q = ([x / sum(row) for x in row] for row in (p, q))
        kls.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
        first, second = p.index(max(p)), q.index(max(q))
        agree += first == second
        lost += first == label != second
        gained += second == label != first
    kls.sort()
    place = 0.99 * (len(kls) - 1)
    below = math.floor(place)
    return {
        "kl": sum(kls) / len(kls),
        "kl_max": kls[-1],
        "kl_p99": kls[below] + (place - below) * (kls[below + 1] - kls[below]),
        "top1_agreement": 100 * agree / len(kls),
        "right_to_wrong": 100 * lost / len(kls),
        "wrong_to_right": 100 * gained / len(kls),
    }


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_a_slow_oracle(seed):
    found = metered(*random_text(seed)).result()
    for name, value in oracle(*random_text(seed)).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-5), name


def test_parts_and_batches_change_nothing(monkeypatch):
    whole = metered(*random_text()).result()
    monkeypatch.setattr(fidelity, "REFERENCE_LOGITS", 7 * 11 * 2)  # two windows at a time
    monkeypatch.setattr(fidelity, "DIVERGED_LOGITS", 33)  # three tokens at a time
    assert metered(*random_text(), 5, 6).result() == whole


def test_no_more_of_the_reference_is_held_than_is_allowed(monkeypatch):
    monkeypatch.setattr(fidelity, "REFERENCE_LOGITS", 7 * 11 * 3)
    seen = []
    reference, stage, labels = random_text()
    meter = FidelityMeter(Table(reference), torch.device("cpu"))
    meter.reference.register_forward_hook(lambda module, given, logits: seen.append(len(logits)))
    meter.watch({"pixel_values": torch.arange(12.0), "labels": labels}, stage)
    assert seen == [3, 3, 3, 3]


def test_the_interval_resamples_windows_as_wholes():
    """Tokens of a window err alike here: an interval over single tokens would be seven times narrower."""
    generator = torch.Generator().manual_seed(0)
    shift = torch.rand(200, 1, generator=generator).expand(200, 49)
    reference = torch.zeros(200, 49, 2)
    stage = torch.stack([2 * shift, torch.zeros(200, 49)], dim=-1)
    found = metered(reference, stage, torch.zeros(200, 49, dtype=torch.long)).result()
    of_windows = divergences(reference[:, 0], stage[:, 0])
    half = 1.96 * float(of_windows.std()) / math.sqrt(200)
    assert (found.kl - found.kl_low, found.kl_high - found.kl) == pytest.approx((half, half), rel=0.15)


def test_equal_models_do_not_differ_and_one_example_has_no_interval():
    reference, _, labels = random_text()
    found = metered(reference, reference, labels).result()
    assert (found.kl, found.kl_high, found.kl_p99, found.top1_agreement, found.flips) == (0, 0, 0, 100, 0)
    one = metered(ONE_HALF[None], THREE_QUARTERS[None], torch.tensor([0])).result()
    assert one.kl > 0 and one.kl_low is None


def test_what_a_reference_excludes_adds_nothing_and_what_a_stage_excludes_cannot_be_compared():
    excluding = torch.tensor([[0.0, -math.inf]])
    assert divergences(excluding, ONE_HALF[None]).item() == pytest.approx(math.log(2))
    with pytest.raises(Incomparable, match="is inf"):
        metered(ONE_HALF[None], excluding, torch.tensor([0])).result()


def test_other_classes_cannot_be_compared():
    with pytest.raises(Incomparable, match=r"shapes: \[1, 3\] and \[1, 2\]"):
        metered(torch.zeros(1, 3), torch.zeros(1, 2), torch.tensor([0])).result()


def test_the_reference_sees_inputs_in_its_own_type():
    """A stage in bfloat16 is scored on rounded inputs; the reference is not."""
    inputs = torch.linspace(0, 1, 64).view(64, 1)
    linear = nn.Linear(1, 3)
    narrow = nn.Linear(1, 3).to(torch.bfloat16)
    narrow.load_state_dict({name: value.to(torch.bfloat16) for name, value in linear.state_dict().items()})

    class Model(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, pixel_values):
            return self.inner(pixel_values)

    labels = torch.zeros(64, dtype=torch.long)
    meter = FidelityMeter(Model(linear), torch.device("cpu"))
    task = Accuracy(inputs, labels)
    score.evaluate(Model(narrow), task, device=torch.device("cpu"), batch_size=10, watch=meter.watch)
    expected = divergences(linear(inputs), narrow(inputs.to(torch.bfloat16)).float()).mean()
    assert meter.result().kl == pytest.approx(float(expected.detach()), rel=1e-4)
