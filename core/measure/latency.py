"""Latency: a stage and its reference are timed alternately, so that drift of the machine affects both equally."""

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from core.measure.contention import Contention, ContentionWatch
from core.measure.energy import Meter, energy_mj
from core.measure.work import Work, decode_work, forward_work
from core.measured import LatencyRow
from core.models.batches import Batch, place
from core.runtimes.base import Runner

SHORTEST_MS = 2.0  # one timing lasts at least so long: calls are repeated inside it
LONG_MS = 10 * SHORTEST_MS  # a warm call as long as this would not be shorter than `SHORTEST_MS` at the next try
WARM_UP_SECONDS = 0.1
WARM_UP_CALLS = (3, 100)  # at least, at most
RECOVERY_SECONDS = 0.5
TRIES = 3  # of a measurement that something disturbed
LEVEL = 0.95

Sample = Callable[[], float]  # times once; milliseconds of one call, or of one token
Tick = Callable[[], None]  # called between rounds; raises to stop


@dataclass(frozen=True)
class Timing:
    """The result of timing a stage alternately with its reference; times in milliseconds."""

    p50_ms: float
    p95_ms: float
    reference_p50_ms: float | None
    ratio: float | None  # of the medians, stage / reference
    ratio_low: float | None  # 95 % bootstrap interval over rounds
    ratio_high: float | None
    repeats: int
    disturbed: bool
    contention: float


@dataclass(frozen=True)
class TimingConditions:
    """The conditions of a latency measurement."""

    hardware: str
    software: str
    runtime: str  # with its settings: "eager", "compile mode max-autotune"
    dtype: str
    threads: int
    repeats: int = 30
    decode_tokens: int = 32


def _nothing() -> None:
    """A tick that does nothing."""


def measure(
    stage: Runner,
    reference: Runner | None,
    batch: Batch,
    conditions: TimingConditions,
    *,
    language: bool,
    meter: Meter | None = None,
    tick: Tick = _nothing,
) -> list[LatencyRow]:
    """Rows for one batch of keyword arguments: forward; for language models prefill and decode.

    Each runner gets the batch on its device and in its dtype; `reference` is None for the reference itself.
    Decoding reads all but `decode_tokens` of the window and then generates that many, so that no model exceeds
    its maximum length. If there is a meter, energy is measured separately, after the timing.
    """
    batch = {key: value for key, value in batch.items() if key != "labels"}
    length = batch["input_ids"].shape[1] if "input_ids" in batch else None
    rows = []
    with threads(conditions.threads), torch.inference_mode():
        for phase in ("prefill", "decode") if language else ("forward",):
            work = _work(stage, batch, phase, conditions.decode_tokens)
            compared = _work(reference, batch, phase, conditions.decode_tokens) if reference else None
            if work is None:
                continue
            reference_sample = sample_of(compared) if compared else None
            timing = time_alternately(sample_of(work), reference_sample, repeats=conditions.repeats, tick=tick)
            row = _row(stage, batch, length, phase, conditions, timing)
            rows.append(row if meter is None else _with_energy(row, meter, work, compared))
            tick()
    return rows


def time_alternately(stage: Sample, reference: Sample | None, *, repeats: int = 30, tick: Tick = _nothing) -> Timing:
    """Time stage and reference alternately; repeat disturbed measurements and keep the least disturbed one."""
    best: tuple[Contention, NDArray[np.float64]] | None = None
    samples = [stage] if reference is None else [stage, reference]
    for sample in samples:
        _warm_up(sample, tick)
    with _no_garbage_collection():
        for i in range(TRIES):
            _let_others_finish(i, tick)
            watch = ContentionWatch()
            times = _rounds(samples, repeats, tick)
            contention = watch.stop()
            if best is None or contention.share < best[0].share:
                best = contention, times
            if not contention.disturbed:
                break
    assert best is not None
    return _summary(best[1], best[0])


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Use `n` CPU threads inside the context, and restore the number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def sample_of(work: Work) -> Sample:
    """Times one call of the work, as the mean over its `n_calls`, or over as many as fill `SHORTEST_MS`."""
    stopwatch = _stopwatch(work.device)
    calls = work.n_calls or _calls_that_fill(lambda n: stopwatch(lambda: work.repeat(n)))

    def sample() -> float:
        work.prepare()
        return stopwatch(lambda: work.repeat(calls)) / calls

    return sample


def _work(runner: Runner, batch: Batch, phase: str, decode_tokens: int) -> Work | None:
    batch = place(batch, runner.device, runner.dtype)
    if phase != "decode":
        return forward_work(runner, batch)
    decoder = runner.decoder()
    n_tokens = min(decode_tokens, batch["input_ids"].shape[1] - 1)
    if decoder is None or n_tokens < 1:
        return None
    prompt = {"input_ids": batch["input_ids"][:, :-n_tokens]}
    return decode_work(decoder, prompt, n_tokens, runner.device)


def _stopwatch(device: torch.device) -> Callable[[Callable[[], None]], float]:
    """Milliseconds per call: by CUDA events on a GPU, by the clock elsewhere."""

    def by_clock(call: Callable[[], None]) -> float:
        start = time.perf_counter_ns()
        call()
        return (time.perf_counter_ns() - start) / 1e6

    def by_events(call: Callable[[], None]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(end))

    return by_events if device.type == "cuda" else by_clock


def _calls_that_fill(time_calls: Callable[[int], float]) -> int:
    """How many calls last `SHORTEST_MS`, judged by the fastest of a few warm calls; one long call is enough."""
    time_calls(2)
    fastest = time_calls(1)
    if fastest < LONG_MS:
        fastest = min(fastest, *(time_calls(1) for _ in range(4)))
    return max(1, math.ceil(SHORTEST_MS / max(fastest, 1e-4)))


def _warm_up(sample: Sample, tick: Tick) -> None:
    start = time.perf_counter()
    least, most = WARM_UP_CALLS
    for i in range(most):
        if i >= least and time.perf_counter() - start > WARM_UP_SECONDS:
            return
        sample()
        tick()


def _let_others_finish(n_disturbed: int, tick: Tick) -> None:
    """Wait, longer after each disturbance: other computing processes pause only at their next step."""
    end = time.monotonic() + RECOVERY_SECONDS * n_disturbed
    while time.monotonic() < end:
        tick()
        time.sleep(0.05)


def _rounds(samples: list[Sample], repeats: int, tick: Tick) -> NDArray[np.float64]:
    """Times [repeats, samples]; the order alternates between rounds."""
    times = np.empty((repeats, len(samples)))
    for i in range(repeats):
        order = range(len(samples)) if i % 2 == 0 else reversed(range(len(samples)))
        for j in order:
            times[i, j] = samples[j]()
        tick()
    return times


def _summary(times: NDArray[np.float64], contention: Contention) -> Timing:
    p50 = np.median(times, axis=0)
    ratio = low = high = reference = None
    if times.shape[1] == 2:
        reference, ratio = float(p50[1]), float(p50[0] / p50[1])
        low, high = ratio_interval(times)
    return Timing(
        p50_ms=float(p50[0]),
        p95_ms=float(np.quantile(times[:, 0], 0.95)),
        reference_p50_ms=reference,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        repeats=len(times),
        disturbed=contention.disturbed,
        contention=contention.share,
    )


def ratio_interval(times: NDArray[np.float64], *, n_resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of the ratio of medians of `times` [rounds, 2]; rounds are resampled whole."""
    rounds = np.random.default_rng(seed).integers(len(times), size=(n_resamples, len(times)))
    medians = np.median(times[rounds], axis=1)  # [n_resamples, 2]
    low, high = np.quantile(medians[:, 0] / medians[:, 1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _with_energy(row: LatencyRow, meter: Meter, work: Work, reference: Work | None) -> LatencyRow:
    """The row with the energy per call of each; without it if the measurement was disturbed."""
    if row.disturbed:
        return row
    watch = ContentionWatch()
    used, compared = energy_mj(meter, work, row.p50_ms), None
    if reference is not None and row.reference_p50_ms is not None:
        compared = energy_mj(meter, reference, row.reference_p50_ms)
    return row if watch.stop().disturbed else replace(row, energy_mj=used, reference_energy_mj=compared)


def _row(
    stage: Runner, batch: Batch, length: int | None, phase: str, conditions: TimingConditions, timing: Timing
) -> LatencyRow:
    return LatencyRow(
        hardware=conditions.hardware,
        software=conditions.software,
        runtime=conditions.runtime,
        kernel=stage.kernel,
        dtype=conditions.dtype,
        threads=conditions.threads,
        batch=len(next(iter(batch.values()))),
        length=length,
        phase=phase,
        p50_ms=timing.p50_ms,
        p95_ms=timing.p95_ms,
        reference_p50_ms=timing.reference_p50_ms,
        ratio=timing.ratio,
        ratio_low=timing.ratio_low,
        ratio_high=timing.ratio_high,
        repeats=timing.repeats,
        disturbed=timing.disturbed,
        contention=timing.contention,
    )
