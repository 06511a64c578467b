import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from app.cli import main
from core.settings import Settings
from core.spec.model import RunSpec
from core.store import engine, users
from core.store.models import Role, Run, RunStatus

RECIPE = """
name: tiny
model: {source: builtin:vit, dim: 16, depth: 1, heads: 2}
task: builtin:digits
recipe:
  - train: {steps: 4}
  - rtn: {bits: 8}
measure: {repeats: 5, memory: false, test_examples: 64}
"""


def slimboard(*arguments: str) -> int:
    """The console script's exit status."""
    sys.argv = ["slimboard", *arguments]
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def arguments_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return str(path)


def test_a_submitted_run_is_queued_listed_shown_cancelled_and_requeued(store, recipe, capsys):
    assert slimboard("submit", recipe) == 0
    number = capsys.readouterr().out.strip()
    assert store == ["any"]  # the workers were told, after the commit

    assert slimboard("runs", "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (str(listed["id"]), listed["name"], listed["status"]) == (number, "tiny", "queued")

    assert slimboard("show", number, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert RunSpec.parse(shown["spec"]) == RunSpec.from_yaml(RECIPE)
    assert shown["stages"] == []

    assert slimboard("cancel", number) == 0
    assert "being cancelled" in capsys.readouterr().out
    assert slimboard("cancel", number) == 0
    assert "has already ended" in capsys.readouterr().out
    assert slimboard("runs", "--status", "cancelled") == 0
    assert "tiny" in capsys.readouterr().out
    assert slimboard("runs", "--status", "done") == 0
    assert "tiny" not in capsys.readouterr().out
    assert slimboard("requeue", number) == 0
    assert "requeued" in capsys.readouterr().out


def test_waiting_for_a_run_that_fails_exits_with_1_and_shows_why(store, recipe, capsys, monkeypatch):
    def fail_it(seconds: float) -> None:
        with engine.session() as s:
            run = s.get_one(Run, 1)
            run.status, run.failure_message = RunStatus.FAILED, "the weights were not finite"

    monkeypatch.setattr(main.time, "sleep", fail_it)
    assert slimboard("submit", recipe, "--wait") == 1
    assert "failed" in capsys.readouterr().out


HEAD = "model: builtin:vit\ntask: builtin:digits\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            HEAD + "recipe: [{rtn: {bits: 9}}]",
            "recipe[0].rtn.bits = 9: must be at most 8",
        ),
        (HEAD + "recipe: [{rtm: {}}]", "Did you mean rtn?"),
        (HEAD + "recipes: []", "recipes = []: is not a known key"),
        ("model: [", "line 1"),
    ],
)
@pytest.mark.parametrize("command", ["submit", "run"])
def test_a_spec_that_cannot_run_is_refused_in_readable_lines(store, tmp_path, capsys, command, text, line):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert slimboard(command, str(path)) == 2
    said = capsys.readouterr()
    assert line in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_commands_that_need_a_store_say_where_they_looked_and_make_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("core.settings.settings", lambda: Settings(home=tmp_path / "nowhere"))
    for command in (["runs"], ["show", "1"], ["cancel", "1"]):
        assert slimboard(*command) == 1
        assert f"There is no store in {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert slimboard("techniques") == 0  # the built-in ones need no store
    assert "rtn" in capsys.readouterr().out
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("command", ["show", "cancel", "requeue"])
def test_an_unknown_run_is_named(store, capsys, command):
    assert slimboard(command, "77") == 1
    assert "no" in capsys.readouterr().err.lower()


def test_a_viewer_cannot_cancel(store, recipe, capsys):
    assert slimboard("submit", recipe) == 0
    with engine.session() as s:
        guest = users.enrol(s, "guest").id
        users.set_role(s, guest, users.list_projects(s, users.enrol(s, users.LOCAL_USER).id)[0].id, Role.VIEWER)
    capsys.readouterr()
    assert slimboard("--user", "guest", "cancel", "1") == 1
    assert "must be a member" in capsys.readouterr().err
    assert slimboard("--user", "stranger", "runs") == 1
    assert "has no role" in capsys.readouterr().err


def test_techniques_as_json_carry_their_schemas(store, capsys):
    assert slimboard("techniques", "--json") == 0
    known = json.loads(capsys.readouterr().out)
    assert known["rtn"]["schema"]["properties"]["bits"]["maximum"] == 8


def test_the_commands_of_the_queue_load_no_torch():
    code = """if True:
        import sys
        sys.argv = ["slimboard", "techniques"]
        import app.actions.runs, app.cli.demo, app.local.health, app.local.stack
        from app.cli import main
        try:
            main.main()
        except SystemExit:
            pass
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def loaded_by(*arguments: str) -> set[str]:
    """The packages that a command of the console script has imported by its end."""
    code = f"""if True:
        import sys
        from app.cli import main
        sys.argv = ["slimboard", *{arguments!r}]
        try:
            main.main()
        except SystemExit as ended:
            assert not ended.code, ended.code
        print("LOADED", *{{name.partition(".")[0] for name in sys.modules}})
    """
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.rpartition("LOADED")[2].split())


HEAVY = {"torch", "transformers", "streamlit", "altair", "pandas", "numpy", "pyarrow", "celery", "fsspec", "alembic"}


@pytest.mark.parametrize("command", [[], *([name] for name in sorted(get_command(main.cli).commands))])
def test_help_loads_neither_the_store_nor_any_large_library(command):
    assert loaded_by(*command, "--help").isdisjoint({*HEAVY, "sqlalchemy", "jsonschema"})


@pytest.mark.parametrize("command", [["runs"], ["show", "1"]])
def test_commands_that_only_read_the_store_load_nothing_larger(store, recipe, command, monkeypatch):
    assert slimboard("submit", recipe) == 0
    assert loaded_by(*command).isdisjoint(HEAVY)


def test_a_run_in_the_foreground_keeps_its_time_limit(store, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE + "limits: {minutes: 0.00001}\n")
    assert slimboard("run", str(path)) == 1
    assert "exceeded its limit" in capsys.readouterr().err


def test_run_prints_one_json_object_and_progress_elsewhere(tmp_path, recipe):
    environment = {**os.environ, "SLIMBOARD_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli.main", "run", recipe, "--json", "--device", "cpu"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result) == ["stages", "artifact", "reload_max_error"]
    assert [stage["technique"] for stage in result["stages"]] == ["source", "train", "rtn"]
    trained, quantized = result["stages"][1:]
    assert quantized["size_bytes"] < trained["size_bytes"]
    assert quantized["score_low"] <= quantized["score"] <= quantized["score_high"]
    assert {"parameters", "nonzeros", "macs", "peak_memory_bytes"} <= quantized.keys()
    timed = {"runtime", "kernel", "batch", "p50_ms", "p95_ms", "ratio", "ratio_low", "ratio_high"}
    assert timed <= trained["latencies"][0].keys()
    assert (Path(result["artifact"]) / "manifest.json").exists()
    assert result["reload_max_error"] >= 0
    assert "[3/3] rtn" in done.stderr
    assert not (tmp_path / "home" / "slimboard.db").exists()


def test_a_file_that_is_no_text_is_refused_in_words(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xe7\x00\xff")
    assert slimboard("submit", str(path)) == 2
    assert "is not UTF-8 text. Choose a YAML file" in capsys.readouterr().err
