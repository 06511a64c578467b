"""`slimboard gate` with a policy that asks something against a device's champion."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli import main
from core.errors import SpecError
from core.store import champions, stages, users
from core.store.engine import session
from core.store.models import RunStatus
from core.store.tradeoffs.filters import Conditions
from tests import factories
from tests.app.test_compare import keep

DEVICE = Conditions(factories.HARDWARE, "eager", 8, 1, None, "forward")
LARGE_BATCH = Conditions(factories.HARDWARE, "eager", 8, 64, None, "forward")
SHAPES = {"task": "builtin:shapes", "task_hash": "1" * 64}
DENSE_KEY, CHAMPION_KEY, WORSE_KEY, ALIKE_KEY = (letter * 64 for letter in "dcwa")


def record(key: str, *, dense: int | None = None, position: int = 1, ratio: float = 0.5, **changes) -> int:
    """A finished run with a dense stage, its reference, and one timed beside it; returns its number."""
    with session() as s:
        run = factories.submit(s)
        run.status = RunStatus.DONE
        reference = stages.add_stage(s, factories.measured(DENSE_KEY, compressed=False), "d", 1, "0")
        stages.attach_stage(s, run.id, 0, reference, reused=False, reference_stage_id=reference, comparison=None)
        stage_id = stages.add_stage(s, factories.measured(key, label=f"stage {key[0]}", **changes), key, 1, "0")
        stages.attach_stage(s, run.id, position, stage_id, reused=False, reference_stage_id=reference, comparison=None)
        ends = {"ratio": ratio, "ratio_low": ratio * 0.98, "ratio_high": ratio * 1.02}
        timed = [factories.latency(batch=batch, p50_ms=4.0 * ratio, **ends) for batch in (1, 64)]
        stages.set_latencies(s, run.id, stage_id, timed, reference)
        return int(run.id)


def crown(run_id: int, device: Conditions = DEVICE) -> None:
    with session() as s:
        told = {"project_id": 1, "run_id": run_id, "position": 1, "user_id": users.enrol(s, users.LOCAL_USER).id}
        champions.crown(s, device=device, **told)


@pytest.fixture
def runs(store, tmp_path) -> dict[str, int]:
    """Runs by name: the champion with 400 right answers of 400, one clearly worse and half as large, and one alike."""
    right = np.ones(400)
    worse, alike = right.copy(), right.copy()
    worse[:8], alike[:4] = 0, 0
    for key, correct in ((CHAMPION_KEY, right), (WORSE_KEY, worse), (ALIKE_KEY, alike)):
        keep(tmp_path, key, correct)
    found = {
        "champion": record(CHAMPION_KEY, score=100.0, size_bytes=400_000),
        "worse": record(WORSE_KEY, score=98.0, size_bytes=200_000, ratio=0.4),
        "alike": record(ALIKE_KEY, score=99.0, size_bytes=400_000, ratio=0.6),
    }
    crown(found["champion"])
    return found


@pytest.fixture
def gate(tmp_path: Path, runs):
    """The command's result for a policy's text and a run's name or number."""

    def held(text: str, run: str, *more: str):
        path = tmp_path / "policy.yaml"
        path.write_text(text)
        return CliRunner().invoke(main.cli, ["gate", str(path), str(runs.get(run, run)), *more])

    return held


def test_a_run_is_held_against_the_champion_by_example_by_size_and_by_their_ratios_of_time(gate, runs):
    policy = "champion: {size: {ratio_at_most: 0.5}, score: {loss_at_most: 2}, latency: {ratio_at_most: 0.81}}"
    done = gate(policy, "worse")
    assert (done.exit_code, done.stderr) == (0, "")
    title, champion, _, _, size, loss, time, _, last = done.stdout.splitlines()
    assert title == f"run {runs['worse']}, stage 1: stage w"
    device = "forward, batch 1 · Example CPU, 8 cores, eager, 8 threads"
    assert champion == f"champion: run {runs['champion']}, stage 1: stage c ({device})"
    assert "0.5 × champion" in size and size.startswith("pass  champion.size.ratio_at_most")
    assert "2 points" in loss and "significant (p = 0.008)" in loss  # McNemar: 8 answers lost, none gained
    assert "0.8 × champion" in time and "batch 1, forward" in time and "median" not in time
    assert last == "All 3 rules kept."
    assert gate("champion: {score: {loss_at_most: 1.9}}", "worse").exit_code == 1
    assert gate("champion: {latency: {ratio_at_most: 0.79}}", "worse").exit_code == 1
    assert gate("champion: {size: {ratio_at_most: 0.49}}", "worse").exit_code == 1


def test_a_loss_against_the_champion_that_may_be_chance_is_excused_where_that_is_asked_for(gate):
    strict = "champion: {score: {loss_at_most: 0.5}}"
    lenient = "champion: {score: {loss_at_most: 0.5, significant_only: true}}"
    assert [gate(strict, "alike").exit_code, gate(lenient, "alike").exit_code] == [1, 0]  # 4 lost: p = 0.125
    assert gate(lenient, "worse").exit_code == 1


def test_without_the_results_by_example_the_scores_alone_decide_and_nothing_is_excused(gate, runs, tmp_path):
    (tmp_path / "artifacts" / "aa" / ALIKE_KEY / "examples.safetensors").unlink()
    done = gate("champion: {score: {loss_at_most: 0.5, significant_only: true}}", "alike")
    assert done.exit_code == 1
    assert "1 points" in done.stdout and "no test: its results by example are not on this host" in done.stdout
    assert gate("champion: {score: {loss_at_most: 1}}", "alike").exit_code == 0


def test_stages_timed_beside_different_references_are_compared_by_their_medians_which_is_said(gate, runs):
    with session() as s:
        other = stages.add_stage(s, factories.measured("o" * 64), "o", 1, "0")
        stage_id = stages.find_stage_id(s, ALIKE_KEY)
        stages.set_latencies(s, runs["alike"], stage_id, [factories.latency(p50_ms=1.0)], other)
    done = gate("champion: {latency: {ratio_at_most: 0.5}}", "alike")  # 1 ms, and the champion's 2 ms
    assert done.exit_code == 0
    assert "0.5 × champion" in done.stdout and "the two medians" in done.stdout


def test_a_run_that_was_not_timed_on_the_champions_device_does_not_keep_a_limit_on_its_time(gate, runs):
    with session() as s:
        stage_id = stages.find_stage_id(s, ALIKE_KEY)
        stages.set_latencies(s, runs["alike"], stage_id, [factories.latency(hardware="another")], None)
    done = gate("champion: {latency: {ratio_at_most: 99}}", "alike")
    assert done.exit_code == 1
    assert "NOT MEASURED" in done.stdout and "not timed with hardware Example CPU, 8 cores" in done.stdout
    assert "length" not in done.stdout  # the device has none


def test_several_devices_each_have_their_rules_and_their_champion(gate, runs):
    crown(runs["alike"], LARGE_BATCH)
    policy = "champion: [{batch: 1, size: {ratio_at_most: 1}}, {batch: 64, size: {ratio_at_most: 1}}]"
    told = json.loads(gate(policy, "worse", "--json").stdout)
    assert [(c["rule"], c["run"], c["position"], c["device"]["batch"]) for c in told["champions"]] == [
        ("champion[0]", runs["champion"], 1, 1),
        ("champion[1]", runs["alike"], 1, 64),
    ]
    assert [(rule["rule"], rule["value"], rule["unit"]) for rule in told["rules"]] == [
        ("champion[0].size.ratio_at_most", 0.5, "× champion"),
        ("champion[1].size.ratio_at_most", 0.5, "× champion"),
    ]


def test_json_without_a_champion_is_as_it_was(gate):
    assert "champions" not in json.loads(gate("size: {at_most: 1 GB}", "worse", "--json").stdout)


RULE = "size: {ratio_at_most: 1}"


@pytest.mark.parametrize(
    ("conditions", "run", "said"),
    [
        (
            "hardware: TPU, ",
            "worse",
            "champion = {'hardware': 'TPU'}: is no device with a champion. There is one for fo",
        ),
        ("batch: 64, ", "worse", "champion = {'batch': 64}: is no device with a champion"),
        ("", "champion", "champion = {}: names the very stage that is gated, which always equals itself. Gate another"),
    ],
)
def test_a_champion_that_is_not_there_or_is_the_run_itself_is_told(gate, conditions, run, said):
    done = gate(f"champion: {{{conditions}{RULE}}}", run)
    assert isinstance(done.exception, SpecError)  # for which the console script exits with 2
    assert said in str(done.exception)
    assert done.stdout == ""


def test_a_device_that_is_not_named_far_enough_is_told_with_those_that_fit(gate, runs):
    crown(runs["alike"], LARGE_BATCH)
    said = str(gate(f"champion: {{runtime: eager, {RULE}}}", "worse").exception)
    assert "champion = {'runtime': 'eager'}: fits 2 devices with a champion. Name more of hardware, runtime" in said
    assert "batch 1 ·" in said and "batch 64 ·" in said


def test_a_champion_of_another_task_is_none(gate):
    other = record("s" * 64, **SHAPES)
    said = str(gate(f"champion: {{batch: 1, {RULE}}}", str(other)).exception)
    assert "has a champion of builtin:digits only, and the run was scored on builtin:shapes" in said
    said = str(gate(f"champion: {{{RULE}}}", str(record("t" * 64, task_hash="2" * 64))).exception)
    assert "has a champion of builtin:digits with other data than the run was scored on" in said


def test_a_title_that_was_taken_away_leaves_no_champion(gate):
    with session() as s:
        told = {"project_id": 1, "task_hash": "0" * 64, "user_id": users.enrol(s, users.LOCAL_USER).id}
        champions.dethrone(s, device=DEVICE, **told)
    said = str(gate(f"champion: {{{RULE}}}", "worse").exception)
    assert "there is no champion of builtin:digits in the run's project. Name one on a run's page, under Stages" in said


def test_rules_against_the_reference_stay_so_beside_those_against_a_champion(gate):
    policy = f"size: {{ratio_at_most: 0.3}}\nchampion: {{{RULE}}}"
    told = json.loads(gate(policy, "worse", "--json").stdout)  # a fifth of the reference, half of the champion
    assert [(rule["rule"], rule["value"], rule["unit"]) for rule in told["rules"]] == [
        ("size.ratio_at_most", 0.2, "× reference"),
        ("champion.size.ratio_at_most", 0.5, "× champion"),
    ]
