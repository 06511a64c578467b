"""Measures every architecture at every length: times in turn, so that a drifting machine slows all alike."""

import statistics
from collections.abc import Callable, Container, Sequence
from datetime import UTC, datetime

import torch

from core.complexity import costs, subjects
from core.complexity.report import Costs, MeasuredArchitecture, SurveyConditions, SurveyReport
from core.complexity.subjects import Candidate
from core.errors import SpecError
from core.measure import lock
from core.measure.contention import ContentionWatch
from core.measure.hardware import hardware_name
from core.measure.latency import Sample, sample_of
from core.software import release

TIMED = ("train_ms", "forward_ms", "decode_ms")

Place = tuple[Candidate, int, str]  # architecture, length, quantity
Say = Callable[[str], object]


def survey(lengths: Sequence[int], rounds: int, only: Sequence[str] = (), say: Say = print) -> SurveyReport:
    """The costs of all architectures, or of those in `only`, at ascending lengths; `say` gets the progress."""
    found: list[Candidate] = []
    refused: dict[str, str] = {}
    for each in subjects.list_candidates(lengths[-1]):
        if isinstance(each, tuple):
            refused[each[0]] = each[1]
        elif not only or each.technique in only or each.technique is None:
            found.append(each)
    samples, known = _prepared(found, lengths, say)
    times, disturbed = _times(samples, rounds, say)
    peaks = _peaks(found, lengths, times, say)
    return SurveyReport(
        conditions=_conditions(rounds, disturbed),
        lengths=list(lengths),
        architectures=[_measured(each, lengths, known | times | peaks) for each in found],
        refused=refused,
    )


def _prepared(
    found: Sequence[Candidate], lengths: Sequence[int], say: Say
) -> tuple[dict[Place, Sample], dict[Place, float]]:
    """What is to be timed, and the counts that need no repetition; nothing of a length that is refused."""
    samples: dict[Place, Sample] = {}
    known: dict[Place, float] = {}
    for candidate in found:
        say(f"building {candidate.name}")
        for length in lengths:
            try:
                model = subjects.build(candidate, length)
            except SpecError:
                continue
            known[candidate, length, "operations"] = costs.operations(model, length)
            samples[candidate, length, "train_ms"] = sample_of(costs.train_work(model, length))
            samples[candidate, length, "forward_ms"] = sample_of(costs.forward_work(model, length))
            if candidate.source == "builtin:gpt":
                filled = costs.filled_cache(model, length)
                known[candidate, length, "state_bytes"] = costs.state_bytes(filled)
                samples[candidate, length, "decode_ms"] = sample_of(costs.decode_work(model, filled))
    return samples, known


def _times(samples: dict[Place, Sample], rounds: int, say: Say) -> tuple[dict[Place, float], float]:
    """Medians over rounds in which each is timed once, a first one warms up; and others' share of the cores.

    Between rounds whoever waits for the measuring lock has a turn.
    """
    say("warming up")
    for sample in samples.values():
        sample()
    taken: dict[Place, list[float]] = {place: [] for place in samples}
    shares = []
    for index in range(rounds):
        say(f"timing, round {index + 1} of {rounds}")
        with lock.measuring():
            watch = ContentionWatch()
            for place, sample in samples.items():
                taken[place].append(sample())
            shares.append(watch.stop().share)
    return {place: statistics.median(times) for place, times in taken.items()}, statistics.mean(shares)


def _peaks(found: Sequence[Candidate], lengths: Sequence[int], timed: Container[Place], say: Say) -> dict[Place, float]:
    peaks: dict[Place, float] = {}
    for candidate in found:
        say(f"memory of {candidate.name}")
        taken = [length for length in lengths if (candidate, length, "train_ms") in timed]
        for length, n_bytes in zip(taken, costs.train_bytes(candidate, taken), strict=True):
            peaks[candidate, length, "train_bytes"] = n_bytes
    return peaks


def _measured(candidate: Candidate, lengths: Sequence[int], known: dict[Place, float]) -> MeasuredArchitecture:
    columns = {
        quantity: [known.get((candidate, length, quantity)) for length in lengths] for quantity in Costs.model_fields
    }
    return MeasuredArchitecture(
        name=candidate.name,
        technique=candidate.technique,
        model=candidate.source,
        costs=Costs(**columns),
        **candidate.described(),
    )


def _conditions(rounds: int, disturbed: float) -> SurveyConditions:
    return SurveyConditions(
        taken_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        hardware=hardware_name("cpu"),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        slimboard=release(),
        dtype="float32",
        dim=subjects.DIM,
        depth=subjects.DEPTH,
        heads=subjects.HEADS,
        rounds=rounds,
        disturbed_share=disturbed,
    )
