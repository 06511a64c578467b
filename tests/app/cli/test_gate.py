"""`slimboard gate` by its exit status and what it prints."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import main
from core.errors import SpecError
from core.measured import Comparison
from core.store import stages
from core.store.engine import session
from core.store.models import Run, RunStatus
from tests import factories

SMALL = {"size_bytes": 250_000, "score": 94.5, "score_low": 92.5, "score_high": 96.5}
HOSTILE = "rtn\n::error::pwned \x1b[31m"


@pytest.fixture
def run_id(store) -> int:
    """A finished run: a trained model, which is the reference, and two compressed ones."""
    with session() as s:
        run = factories.submit(s)
        changes: list[dict] = [{"compressed": False}, SMALL, {**SMALL, "label": HOSTILE, "peak_memory_bytes": None}]
        reference = None
        for position, changed in enumerate(changes):
            stage_id = stages.add_stage(s, factories.measured(str(position) * 64, **changed), f"a/{position}", 1, "0")
            reference = reference or stage_id
            comparison = Comparison(-0.5, -1.2, 0.2, 0.21) if position else None
            stages.attach_stage(
                s, run.id, position, stage_id, reused=False, reference_stage_id=reference, comparison=comparison
            )
            if position < 2:
                stages.set_latencies(s, run.id, stage_id, [factories.latency()], reference)
        run.status = RunStatus.DONE
        return run.id


@pytest.fixture
def gate(tmp_path: Path, run_id: int):
    """The command's result for a policy's text and a run."""

    def held(text: str, run: str, *more: str):
        path = tmp_path / "policy.yaml"
        path.write_text(text)
        return CliRunner().invoke(main.cli, ["gate", str(path), run, *more])

    return held


def test_a_run_that_keeps_every_limit_exits_with_0_and_tells_each(gate, run_id):
    policy = (
        "size: {at_most: 1 MB, ratio_at_most: 0.25}\nscore: {at_least: 94.5 %, loss_at_most: 0.5}\n"
        "latency: {at_most: 2 ms, batch: 1}\n"
    )
    done = gate(policy, f"{run_id}.1")
    assert (done.exit_code, done.stderr) == (0, "")
    title, _, head, *lines, _, last = done.stdout.splitlines()
    assert title == f"run {run_id}, stage 1: rtn bits 8"
    assert head.split() == ["rule", "limit", "measured", "95", "%", "interval"]
    assert [line.split("  ")[0] for line in lines] == ["pass"] * 5
    assert lines[0].split() == ["pass", "size.at_most", "at", "most", "1", "MB", "250", "kB"]
    assert lines[1].split() == [
        "pass",
        "size.ratio_at_most",
        "at",
        "most",
        "0.25",
        "×",
        "reference",
        "0.25",
        "×",
        "reference",
    ]
    assert "94.5 %     " in lines[2] and "92.5 % … 96.5 %" in lines[2]
    assert (
        "0.5 points" in lines[3]
        and "-0.2 points … 1.2 points" in lines[3]
        and "not significant (p = 0.210)" in lines[3]
    )
    assert "eager float32, batch 1, forward, 8 threads" in lines[4]
    assert last == "All 5 rules passed."


def test_a_limit_that_is_not_kept_exits_with_1(gate, run_id):
    done = gate("size: {at_most: 249.9 kB}\nmemory: {at_most: 1 GB}\n", f"{run_id}.1")
    assert done.exit_code == 1
    assert "FAIL  size.at_most    at most 249.9 kB  250 kB" in done.stdout
    assert "1 of 2 rules failed." in done.stdout


def test_the_last_stage_is_meant_and_what_it_lacks_is_not_kept(gate, run_id):
    done = gate("memory: {at_most: 1 GB}\nlatency: {at_most: 1 s}\n", str(run_id))
    assert done.exit_code == 1
    assert f"run {run_id}, stage 2:" in done.stdout
    assert done.stdout.count("NOT MEASURED") == 2
    assert "no kernel supports it there" in done.stdout


def test_labels_cannot_steer_a_log(gate, run_id):
    said = gate("size: {at_most: 1 MB}", str(run_id)).stdout
    assert "rtn·::error::pwned ·[31m" in said
    assert "\x1b" not in said and "\n::" not in said


def test_a_loss_that_may_be_chance_is_excused_in_words(gate, run_id):
    assert gate("score: {loss_at_most: 0.4}", f"{run_id}.1").exit_code == 1
    done = gate("score: {loss_at_most: 0.4, significant_only: true}", f"{run_id}.1")
    assert done.exit_code == 0
    assert "not significant (p = 0.210), so it passes" in done.stdout


def test_json_has_raw_values_and_the_same_exit_status(gate, run_id):
    done = gate("score: {loss_at_most: 0.25}\nmemory: {at_most: 1 GB}\n", f"{run_id}", "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert {name: told[name] for name in ("run", "position", "stage", "passed")} == {
        "run": run_id, "position": 2, "stage": HOSTILE, "passed": False
    }  # fmt: skip
    loss, memory = told["rules"]
    assert loss == {
        "rule": "score.loss_at_most", "outcome": "fail", "quantity": "score_loss", "unit": "points", "limit": 0.25,
        "value": 0.5, "low": -0.2, "high": 1.2, "p_value": 0.21, "note": "",
    }  # fmt: skip
    assert (memory["outcome"], memory["value"], memory["unit"]) == ("not measured", None, "bytes")


@pytest.mark.parametrize(
    ("text", "run", "said"),
    [
        ("size: {at_most: 1 mb}", "{}", "size.at_most = '1 mb': has the unknown unit 'mb'"),
        ("size: {at_most: [", "{}", "line 1"),
        ("score: {at_most: 95}", "{}", "a higher accuracy is better. Use score.at_least."),
        ("size: {at_most: 1 MB}", "77", "RUN = 77: does not exist. `slimboard runs` lists all runs."),
        ("size: {at_most: 1 MB}", "{}.7", "is not a stage of the run. Choose one of 0, 1, 2."),
        ("size: {at_most: 1 MB}", "last", "RUN = 'last': is not a run. Write a run as 12"),
        ("size: {at_most: 1 MB}", "1,2", "RUN = '1,2': names 2 runs"),
        ("size: {at_most: 1 MB}", "", "RUN = '': names 0 runs"),
    ],
)
def test_what_cannot_be_told_is_an_error_of_the_user(gate, run_id, text, run, said):
    done = gate(text, run.format(run_id))
    assert isinstance(done.exception, SpecError)  # for which the console script exits with 2
    assert said in str(done.exception)
    assert done.stdout == ""


@pytest.mark.parametrize("status", [status for status in RunStatus if status is not RunStatus.DONE])
def test_an_unfinished_run_cannot_be_told(gate, run_id, status):
    with session() as s:
        s.get_one(Run, run_id).status = status
    done = gate("size: {at_most: 1 MB}", str(run_id))
    assert f"is {status.value}, not done" in str(done.exception)


def test_the_console_script_exits_with_2_where_it_cannot_be_told(store, tmp_path, monkeypatch, capsys):
    policy = tmp_path / "policy.yaml"
    policy.write_text("size: {at_most: 1 MB}")
    for arguments, home in ((["gate", str(policy), "77"], tmp_path), (["gate", str(policy), "77"], tmp_path / "none")):
        monkeypatch.setattr("sys.argv", ["slimboard", *arguments])
        monkeypatch.setattr(main.shell, "store_exists", lambda home=home: home == tmp_path)
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert ended.value.code == 2
        assert ("does not exist" if home == tmp_path else "There is no store") in capsys.readouterr().err


def test_a_policy_that_is_no_text_is_refused(store, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xe7\x00\xff")
    done = CliRunner().invoke(main.cli, ["gate", str(path), "1"])
    assert "policy" in str(done.exception) and "is not UTF-8 text" in str(done.exception)
