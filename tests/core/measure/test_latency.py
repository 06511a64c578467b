import gc
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from core.measure import latency
from core.measure.contention import Contention
from core.measure.latency import TimingConditions, measure, ratio_interval, sample_of, threads, time_alternately
from core.measure.work import decode_work, forward_work
from core.runtimes.eager import eager

CPU = torch.device("cpu")
CONDITIONS = TimingConditions("a machine", "torch", "eager", "float32", threads=1, repeats=5, decode_tokens=3)


class QuietWatch:
    """A machine on which nobody else computes."""

    shares = itertools.repeat(0.0)

    def stop(self):
        share = next(self.shares)
        return Contention(share, disturbed=share > 0.1)


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.setattr(latency, "ContentionWatch", QuietWatch)
    monkeypatch.setattr(latency, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(latency, "RECOVERY_SECONDS", 0.0)
    return monkeypatch


def scripted(calls, name, times):
    values = iter(times)

    def sample():
        calls.append(name)
        return next(values)

    return sample


class Language(nn.Module):
    """Remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.lengths = []

    def make_cache(self, max_length):
        self.room = max_length
        return []

    def generate(self):
        raise NotImplementedError

    def forward(self, input_ids, cache=None):
        assert torch.is_inference_mode_enabled()
        if cache is not None:
            self.lengths.append(input_ids.shape[1])
        return torch.zeros(*input_ids.shape, 7)


def test_stage_and_reference_alternate_and_swap_who_goes_first(quiet):
    calls = []
    time_alternately(scripted(calls, "A", itertools.repeat(1)), scripted(calls, "B", itertools.repeat(1)), repeats=4)
    assert "".join(calls) == "AAA" + "BBB" + "ABBAABBA"


def test_medians_p95_and_the_ratio_of_medians(quiet):
    warm_up = [99.0] * 3
    stage = scripted([], "A", [*warm_up, 1, 2, 3, 4, 100])
    reference = scripted([], "B", [*warm_up, 2, 4, 6, 8, 10])
    found = time_alternately(stage, reference, repeats=5)
    assert (found.p50_ms, found.reference_p50_ms, found.ratio) == (3, 6, 0.5)
    assert found.p95_ms == pytest.approx(4 + 0.8 * 96)  # linear between the two last order statistics
    assert found.ratio_low <= 0.5 <= found.ratio_high
    assert (found.repeats, found.disturbed, found.contention) == (5, False, 0)


def test_without_a_reference_there_is_no_ratio(quiet):
    found = time_alternately(scripted([], "A", itertools.repeat(7)), None, repeats=5)
    assert (found.p50_ms, found.reference_p50_ms, found.ratio, found.ratio_low) == (7, None, None, None)


def test_a_disturbed_measurement_is_taken_again(quiet):
    quiet.setattr(QuietWatch, "shares", iter([0.9, 0.05]))
    stage = scripted([], "A", [0] * 3 + [50] * 5 + [1] * 5)
    found = time_alternately(stage, None, repeats=5)
    assert (found.p50_ms, found.disturbed, found.contention) == (1, False, 0.05)


def test_one_that_stays_disturbed_is_marked_and_the_best_try_kept(quiet):
    quiet.setattr(QuietWatch, "shares", iter([0.9, 0.4, 0.6]))
    stage = scripted([], "A", [0] * 3 + [9] * 5 + [4] * 5 + [6] * 5)
    found = time_alternately(stage, None, repeats=5)
    assert (found.p50_ms, found.disturbed, found.contention) == (4, True, 0.4)


def test_the_interval_of_the_ratio_covers_the_truth_in_about_95_of_100_measurements():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        drift = 1 + 0.5 * rng.random((30, 1))  # the machine slows down both alike
        times = drift * np.array([3.0, 2.0]) * (1 + 0.1 * rng.exponential(size=(30, 2)))
        low, high = ratio_interval(times, n_resamples=300)
        covered += low <= 1.5 <= high
    assert covered >= 182  # 95 % of 200 is 190, its standard deviation 3


def test_a_forward_pass_is_repeated_until_the_clock_can_read_it(quiet):
    calls = []
    ticks = itertools.count()
    quiet.setattr(latency.time, "perf_counter_ns", lambda: next(ticks) * 500_000)  # every reading 0.5 ms later

    class Runner:
        device = CPU

        def __call__(self, batch):
            calls.append(batch)

    sample = sample_of(forward_work(Runner(), {}))
    before = len(calls)
    assert sample() == 0.5 / 4  # 4 calls of 0.5 ms would last the 2 ms
    assert len(calls) - before == 4


def test_decoding_times_tokens_after_the_prompt(quiet):
    model = Language()
    ticks = itertools.count()
    quiet.setattr(latency.time, "perf_counter_ns", lambda: next(ticks) * 6_000_000)
    with torch.inference_mode():
        decoder = eager(model, CPU, torch.float32, {}).decoder()
        sample = sample_of(decode_work(decoder, {"input_ids": torch.ones(2, 5).long()}, 3, CPU))
        assert sample() == 2  # 6 ms for 3 tokens
    assert model.lengths == [5, 1, 1, 1]
    assert model.room == 8


def test_rows_of_a_language_model_are_prefill_and_decode(quiet):
    stage, reference = Language(), Language()
    batch = {"input_ids": torch.ones(2, 10, dtype=torch.long), "labels": torch.ones(2, 10)}
    runners = [eager(model, CPU, torch.float32, batch) for model in (stage, reference)]
    prefill, decode = measure(*runners, batch, CONDITIONS, language=True)
    assert (prefill.phase, prefill.batch, prefill.length, prefill.kernel) == ("prefill", 2, 10, "dense")
    assert (decode.phase, decode.runtime, decode.repeats, decode.threads) == ("decode", "eager", 5, 1)
    assert decode.ratio_low <= decode.ratio <= decode.ratio_high
    assert stage.lengths[:4] == [7, 1, 1, 1]  # 3 of the window's 10 tokens are generated


def test_each_model_is_fed_in_its_own_type(quiet):
    seen = {}

    class Image(nn.Linear):
        def forward(self, pixel_values):
            seen[self] = pixel_values.dtype
            return super().forward(pixel_values)

    stage, reference = Image(4, 2, dtype=torch.bfloat16), Image(4, 2)
    runners = [eager(stage, CPU, torch.bfloat16, {}), eager(reference, CPU, torch.float32, {})]
    (row,) = measure(*runners, {"pixel_values": torch.ones(8, 4)}, CONDITIONS, language=False)
    assert seen == {stage: torch.bfloat16, reference: torch.float32}
    assert (row.phase, row.length, row.batch) == ("forward", None, 8)


def test_threads_and_garbage_collection_are_restored(quiet):
    before = torch.get_num_threads()

    def failing():
        raise ZeroDivisionError

    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
        with pytest.raises(ZeroDivisionError):
            time_alternately(failing, None)
    assert torch.get_num_threads() == before
    collecting = []

    def sample():
        collecting.append(gc.isenabled())
        return 1.0

    time_alternately(sample, None, repeats=5)
    assert not any(collecting[-5:])
    assert gc.isenabled()


def test_a_measurement_can_be_stopped_between_rounds(quiet):
    ticks = []

    def tick():
        ticks.append(1)
        if len(ticks) == 6:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        time_alternately(lambda: 1.0, None, repeats=30, tick=tick)
    assert gc.isenabled()
