import math

import pytest
import torch
from torch import nn

from core.measure.score import Interval, evaluate, interval, paired
from tests.core.measure.fakes import Accuracy, BitsPerCharacter


def right_or_wrong(*values):
    return {"correct": torch.tensor(values, dtype=torch.float)}


class Recording(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
        self.seen = []

    def forward(self, pixel_values):
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.seen.append(pixel_values)
        return pixel_values


def test_evaluate_scores_every_example_in_order_in_the_models_type():
    task = Accuracy(torch.eye(3)[[0, 1, 2, 0, 1]], torch.tensor([0, 1, 0, 0, 2]))
    model = Recording().train()
    shares = []
    examples = evaluate(model, task, device=torch.device("cpu"), batch_size=2, progress=shares.append)
    assert examples["correct"].tolist() == [1, 1, 0, 1, 0]
    assert [len(batch) for batch in model.seen] == [2, 2, 1]
    assert model.seen[0].dtype == torch.bfloat16
    assert model.training
    assert shares == [0, 0.4, 0.8]


def test_limit_scores_the_same_subset_for_every_model_and_batch_size():
    task = Accuracy(torch.arange(1000.0).view(-1, 1), torch.zeros(1000, dtype=torch.long))
    first, second = Recording(), Recording()
    for model, batch_size in ((first, 7), (second, 50)):
        examples = evaluate(model, task, device=torch.device("cpu"), batch_size=batch_size, limit=50)
        assert len(examples["correct"]) == 50
    chosen = torch.cat(first.seen).flatten()
    assert torch.equal(chosen, torch.cat(second.seen).flatten())
    assert chosen.max() > 500  # not only the first ones


def test_mode_is_restored_when_progress_stops_the_evaluation():
    task = Accuracy(torch.eye(2), torch.tensor([0, 1]))
    model = Recording().train()

    def stop(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, task, device=torch.device("cpu"), progress=stop)
    assert model.training


def test_interval_of_an_accuracy_agrees_with_the_normal_approximation():
    correct = torch.zeros(20_000)
    correct[:16_000] = 1
    found = interval(Accuracy(), {"correct": correct})
    half = 1.96 * math.sqrt(0.8 * 0.2 / 20_000) * 100
    assert found.value == pytest.approx(80, abs=1e-4)
    assert found.low == pytest.approx(80 - half, abs=0.1 * half)
    assert found.high == pytest.approx(80 + half, abs=0.1 * half)


def test_interval_of_a_ratio_resamples_windows_with_both_their_sums():
    generator = torch.Generator().manual_seed(0)
    characters = torch.randint(50, 150, (400,), generator=generator).float()
    nats = characters * (1 + 0.1 * torch.randn(400, generator=generator))
    found = interval(BitsPerCharacter(), {"nats": nats, "characters": characters})
    ratio = nats.sum() / characters.sum()
    residual = nats - ratio * characters  # linearised: what of a window's nats its characters do not explain
    half = float(1.96 * residual.std() / characters.mean() / math.sqrt(400)) / math.log(2)
    assert found.value == pytest.approx(float(ratio) / math.log(2), rel=1e-5)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)


def test_interval_is_the_same_every_time():
    examples = {"correct": (torch.arange(100) % 3 > 0).float()}
    assert interval(Accuracy(), examples) == interval(Accuracy(), examples)


def test_all_right_and_all_wrong_still_have_a_width():
    wilson = 100 * 1.96**2 / (100 + 1.96**2)
    right = interval(Accuracy(), {"correct": torch.ones(100)})
    wrong = interval(Accuracy(), {"correct": torch.zeros(100)})
    assert right == Interval(100, pytest.approx(100 - wilson, abs=1e-3), 100)
    assert wrong == Interval(0, 0, pytest.approx(wilson, abs=1e-3))


def test_interval_covers_the_truth_in_about_95_of_100_samples():
    generator = torch.Generator().manual_seed(1)
    covered = 0
    for _ in range(200):
        examples = {"correct": (torch.rand(300, generator=generator) < 0.9).float()}
        found = interval(Accuracy(), examples, n_resamples=200)
        covered += found.low <= 90 <= found.high
    assert 180 <= covered <= 198  # 95 % of 200 is 190; outside by chance about once in 1,000


def test_mcnemar_is_the_two_sided_binomial_test_of_the_differing_examples():
    examples = right_or_wrong(*[1] * 8, *[0] * 2, *[1] * 5)
    reference = right_or_wrong(*[0] * 8, *[1] * 2, *[1] * 5)
    # 2 of 10: 2 * (1 + 10 + 45) / 1024
    assert paired(Accuracy(), examples, reference).p_value == pytest.approx(112 / 1024)
    assert paired(Accuracy(), reference, examples).p_value == pytest.approx(112 / 1024)
    assert paired(Accuracy(), examples, examples).p_value == 1


def test_paired_difference_is_in_the_scores_unit_with_the_stage_first():
    found = paired(Accuracy(), right_or_wrong(1, 1, 1, 0), right_or_wrong(1, 0, 0, 0))
    assert found.delta == 50
    assert found.p_value == 0.5  # two coins: 2 * 1/4
    assert found.low <= 50 <= found.high


def test_paired_interval_is_narrower_than_that_of_independent_samples():
    generator = torch.Generator().manual_seed(2)
    reference = (torch.rand(1000, generator=generator) < 0.7).float()
    stage = reference.clone()
    stage[:20] = 1 - stage[:20]
    found = paired(Accuracy(), {"correct": stage}, {"correct": reference})
    assert found.high - found.low < 2.5  # 20 of 1,000 differ: 4 * sqrt(0.02 / 1000) = 1.8 points; independent: 8


def test_ratio_statistics_are_tested_by_swapping_the_models():
    generator = torch.Generator().manual_seed(3)
    characters = torch.full((200,), 100.0)
    reference = {"nats": 100 + 20 * torch.randn(200, generator=generator), "characters": characters}
    alike = {"nats": reference["nats"] + 0.01 * torch.randn(200, generator=generator), "characters": characters}
    worse = {"nats": reference["nats"] + 1 + torch.randn(200, generator=generator), "characters": characters}
    assert paired(BitsPerCharacter(), reference, reference, n_resamples=100).p_value == 1
    assert paired(BitsPerCharacter(), alike, reference, n_resamples=200).p_value > 0.05
    found = paired(BitsPerCharacter(), worse, reference, n_resamples=200)
    assert found.p_value == 1 / 201
    assert 0 < found.low < found.delta < found.high


@pytest.mark.parametrize("task", [Accuracy(), BitsPerCharacter()])
def test_models_that_are_equally_good_seldom_differ_significantly(task):
    generator = torch.Generator().manual_seed(4)
    significant = 0
    for _ in range(100):
        if isinstance(task, Accuracy):
            pair = [{"correct": (torch.rand(200, generator=generator) < 0.8).float()} for _ in range(2)]
        else:
            pair = [{"nats": torch.rand(40, generator=generator), "characters": torch.ones(40)} for _ in range(2)]
        significant += paired(task, *pair, n_resamples=99).p_value <= 0.05
    assert significant <= 12  # 5 expected; more than 12 by chance once in 1,000


def test_a_diverged_model_has_no_p_value():
    fine = {"nats": torch.ones(4), "characters": torch.ones(4)}
    found = paired(BitsPerCharacter(), {**fine, "nats": torch.full((4,), math.nan)}, fine)
    assert math.isnan(found.delta)
    assert math.isnan(found.p_value)


def test_scores_of_different_examples_are_not_paired():
    with pytest.raises(ValueError, match="3 examples cannot be paired with 2"):
        paired(Accuracy(), right_or_wrong(1, 1, 0), right_or_wrong(1, 0))
