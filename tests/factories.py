"""Plausible rows in bulk: for tests of pages, for tuning queries and for benchmarks."""

import hashlib
import itertools
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from core.measured import Fidelity, LatencyRow, MeasuredStage
from core.spec.model import RunSpec
from core.store import runs, users
from core.store.models import (
    Artifact,
    Base,
    FailureClass,
    Latency,
    Run,
    RunStage,
    RunStatus,
    RunTechnique,
    Stage,
)

HARDWARE = "Example CPU, 8 cores"
SOFTWARE = "torch 2.13, slimboard 0.1"
MODELS = ("builtin:vit", "builtin:gpt", "builtin:encoder", "builtin:resnet")
TASKS = {
    "builtin:digits": ("accuracy", "%", True, 97.0),
    "builtin:shapes": ("accuracy", "%", True, 91.0),
    "builtin:python-docs": ("bits per character", "bits", False, 2.1),
}
SEED_NOISE = {"builtin:digits": 0.3, "builtin:shapes": 0.4, "builtin:python-docs": 0.005}
STEPS = (  # technique, family, settings, share of the size kept, loss of score, share of the time
    ("rtn", "quantization", {"bits": 8}, 0.27, 0.002, 1.1),
    ("rtn", "quantization", {"bits": 4}, 0.15, 0.02, 1.2),
    ("cast", "quantization", {"dtype": "bf16"}, 0.5, 0.001, 0.8),
    ("dynamic_int8", "quantization", {}, 0.27, 0.004, 0.5),
    ("svd", "low rank", {"rank": 32}, 0.6, 0.03, 0.7),
    ("nm_pruning", "pruning", {"n": 2, "m": 4}, 0.57, 0.03, 1.0),
    ("magnitude_pruning", "pruning", {"sparsity": 0.5}, 0.55, 0.015, 1.0),
    ("sliding_window", "attention", {"window": 64}, 1.0, 0.01, 0.9),
)
STATUSES = (RunStatus.DONE,) * 17 + (RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.QUEUED)


@dataclass
class _Made:
    """Rows by table, with the ids that they will have."""

    rows: dict[type[Base], list[dict[str, Any]]]
    next_stage_id: int
    trained: dict[tuple[str, str, int, int], int]  # model, task, prefix, seed -> stage id of the trained model
    wanted: tuple[str, str, int, list[Any]] = ("", "", 0, [])  # model, task, prefix and steps of the last recipe
    measured: tuple[tuple[float, ...], ...] = ()  # what each of its steps makes of size, score and time


def spec(name: str = "", **changes: Any) -> RunSpec:
    """A small valid spec."""
    value = {
        "name": name,
        "model": "builtin:vit",
        "task": "builtin:digits",
        "recipe": [{"train": {"steps": 20}}, "rtn"],
    }
    return RunSpec.parse(value | changes)


def submit(session: Session, user: str = "local", **changes: Any) -> Run:
    """Queue a run of `spec(**changes)` in the default project; any worker of the device may take it."""
    owner = users.enrol(session, user)
    project_id = users.list_projects(session, owner.id)[0].id
    return runs.submit_run(session, spec(**changes), project_id=project_id, owner_id=owner.id, needs=())


def measured(key: str, **changes: Any) -> MeasuredStage:
    """A measured stage."""
    values: dict[str, Any] = {
        "key": key, "technique": "rtn", "family": "quantization", "label": "rtn bits 8", "settings": {"bits": 8},
        "model": "builtin:vit", "task": "builtin:digits", "task_hash": "0" * 64, "trained": True, "compressed": True,
        "size_bytes": 1_000_000, "score_name": "accuracy", "score_unit": "%", "higher_is_better": True, "score": 95.0,
        "score_low": 93.0, "score_high": 97.0, "scores": {}, "parameters": 1_000_000, "active_parameters": 1_000_000,
        "nonzeros": 1_000_000, "macs": 10_000_000, "nominal_bits": 8.0, "nominal_sparsity": 0.0,
        "peak_memory_bytes": 4_000_000, "reload_max_error": 0.0, "seconds": 1.5, "details": {},
    }  # fmt: skip
    return MeasuredStage(**values | changes)


def latency(**changes: Any) -> LatencyRow:
    """A measured latency."""
    values: dict[str, Any] = {
        "hardware": HARDWARE, "software": SOFTWARE, "runtime": "eager", "kernel": "fp32", "dtype": "float32",
        "threads": 8, "batch": 1, "length": None, "phase": "forward", "p50_ms": 2.0, "p95_ms": 2.4,
        "reference_p50_ms": 4.0, "ratio": 0.5, "ratio_low": 0.48, "ratio_high": 0.52, "repeats": 30,
        "disturbed": False, "contention": 0.0,
    }  # fmt: skip
    return LatencyRow(**values | changes)


def fill_store(session: Session, n_runs: int, seed: int = 0, user: str = "local", n_seeds: int = 1) -> int:
    """Add `n_runs` plausible runs with their stages and latencies to the default project; returns its id.

    About twenty runs share each trained model; each has one or two steps of its own after it. `n_seeds` runs in a
    row have one recipe.
    """
    owner = users.enrol(session, user)
    project_id: int = users.list_projects(session, owner.id)[0].id
    chance = random.Random(seed)
    first_run = (session.scalar(select(func.max(Run.id))) or 0) + 1
    first_stage = (session.scalar(select(func.max(Stage.id))) or 0) + 1
    made = _Made({t: [] for t in (Run, RunTechnique, Stage, Artifact, RunStage, Latency)}, first_stage, {})
    for number, run_id in enumerate(range(first_run, first_run + n_runs)):
        if number % n_seeds == 0:
            prefix = chance.randrange(max(1, run_id // 240 + 1))
            steps = chance.sample(STEPS, chance.choice((1, 1, 2)))
            made.wanted = chance.choice(MODELS), chance.choice(list(TASKS)), prefix, steps
            made.measured = tuple(
                (kept * chance.uniform(0.9, 1.1), lost * chance.expovariate(1.0), faster * chance.uniform(0.9, 1.1))
                for *_, kept, lost, faster in steps
            )
        age = (first_run + n_runs - run_id) * 60.0
        _add_run(made, chance, run_id, project_id, owner.id, age, replicate=number % n_seeds)
    for table, rows in made.rows.items():
        for part in _parts(rows, 5000):
            session.execute(insert(table), part)
    _advance_sequences(session)
    return project_id


def _add_run(
    made: _Made, chance: random.Random, run_id: int, project_id: int, owner_id: int, age: float, replicate: int
) -> None:
    model, task, prefix, own = made.wanted
    status = chance.choice(STATUSES)
    recipe: list[Any] = [{"train": {"steps": 500 + prefix}}, *({name: settings} for name, _, settings, *_ in own)]
    wanted = spec(f"{own[0][0]} {run_id}", model=model, task=task, recipe=recipe, seed=replicate)
    created = time.time() - age
    run = {
        "id": run_id, "project_id": project_id, "owner_id": owner_id, "name": wanted.name, "spec": wanted.to_dict(),
        "spec_hash": wanted.hash, "model": model, "task": task, "recipe": runs.describe_recipe(wanted),
        "status": status,
        "position": created, "environment": {"torch": "2.13", "hardware": HARDWARE},
        "progress": 1.0 if status is RunStatus.DONE else 0.0, "compute_seconds": chance.uniform(5, 600),
        "failure": FailureClass.OUT_OF_MEMORY if status is RunStatus.FAILED else None,
        "failure_message": "out of memory" if status is RunStatus.FAILED else "", "created_at": created,
        "started_at": None if status is RunStatus.QUEUED else created + 1,
        "ended_at": None if status is RunStatus.QUEUED else created + 300,
    }  # fmt: skip
    run["search"] = " ".join((wanted.name, model, task, run["recipe"])).lower()
    made.rows[Run].append(run)
    made.rows[RunTechnique] += [{"run_id": run_id, "technique": name} for name in wanted.techniques()]
    if status is RunStatus.DONE:
        _add_stages(made, chance, run, prefix, own, replicate)


def _add_stages(
    made: _Made, chance: random.Random, run: dict[str, Any], prefix: int, own: list[Any], replicate: int
) -> None:
    shared = (run["model"], run["task"], prefix, replicate)
    reference_id = made.trained.get(shared)
    reused = reference_id is not None
    base_score = TASKS[run["task"]][3]
    if reference_id is None:
        size = 4e6 * math.exp(random.Random(repr(shared[:3])).gauss(0, 0.5))  # seeds are of one size
        base_score += chance.gauss(0, SEED_NOISE[run["task"]])
        reference_id = _add_stage(
            made, run, ("train", "training", {"steps": 500 + prefix}), size, base_score, 4.0, None
        )
        made.rows[Stage][-1] |= {"recipe_hash": _number(shared[:3]), "seeds_hash": replicate}
        made.trained[shared] = reference_id
    _attach(made, run, 1, reference_id, reference_id, reused)
    reference = made.rows[Stage][reference_id - made.rows[Stage][0]["id"]]
    size, score, ms = reference["size_bytes"], reference["score"], 4.0
    for position, ((name, family, settings, *_), (kept, lost, faster)) in enumerate(
        zip(own, made.measured, strict=True), start=2
    ):
        size *= kept
        worse = 100 * lost if TASKS[run["task"]][2] else -lost  # accuracy is in percent
        score += chance.gauss(0, SEED_NOISE[run["task"]]) - worse
        ms *= faster * chance.uniform(0.98, 1.02)
        stage_id = _add_stage(made, run, (name, family, settings), size, score, ms, reference_id)
        recipe = (run["id"] - replicate, position)
        made.rows[Stage][-1] |= {"recipe_hash": _number(recipe), "seeds_hash": replicate}
        _attach(made, run, position, stage_id, reference_id, False)


def _add_stage(
    made: _Made, run: dict[str, Any], step: Any, size: float, score: float, ms: float, reference_id: int | None
) -> int:
    name, family, settings = step
    score_name, unit, higher, _ = TASKS[run["task"]]
    stage_id = made.next_stage_id
    made.next_stage_id += 1
    key = hashlib.sha256(f"stage {stage_id}".encode()).hexdigest()
    stage = measured(
        key, technique=name, family=family, label=_label(name, settings), settings=settings, model=run["model"],
        task=run["task"], task_hash=hashlib.sha256(run["task"].encode()).hexdigest(), compressed=name != "train",
        size_bytes=int(size), score_name=score_name, score_unit=unit, higher_is_better=higher, score=score,
        score_low=score * 0.99, score_high=score * 1.01, parameters=int(size) // 4, macs=int(size * 2.5),
        nonzeros=int(size) // 4, active_parameters=int(size) // 4,
        scores={} if unit == "%" else {"perplexity": 2 ** (1.6 * score)},
    )  # fmt: skip
    made.rows[Stage].append({"id": stage_id, "created_at": run["created_at"], **vars(stage)})
    made.rows[Artifact].append(
        {"stage_id": stage_id, "address": f"{key[:2]}/{key}", "bytes": int(size) + 2000, "manifest_sha256": key}
    )
    for batch in (1, 64):
        ratio = ms / 4.0
        timed = latency(batch=batch, p50_ms=ms * batch**0.8, p95_ms=ms * 1.2 * batch**0.8, ratio=ratio,
                        ratio_low=ratio * 0.96, ratio_high=ratio * 1.04, reference_p50_ms=4.0 * batch**0.8)  # fmt: skip
        ids = {"stage_id": stage_id, "run_id": run["id"], "reference_stage_id": reference_id}
        made.rows[Latency].append({**ids, **vars(timed)})
    return stage_id


def _number(value: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:7], "big")


def _attach(made: _Made, run: dict[str, Any], position: int, stage_id: int, reference_id: int, reused: bool) -> None:
    compared = stage_id != reference_id
    kl = 10.0 ** -(0.5 + stage_id % 30 / 10)
    near = Fidelity(kl, 0.9 * kl, 1.1 * kl, 20 * kl, 100 - 10 * kl, 3 * kl, 2 * kl)
    made.rows[RunStage].append(
        {
            "run_id": run["id"],
            "position": position,
            "stage_id": stage_id,
            "project_id": run["project_id"],
            "reference_stage_id": reference_id,
            "reused": reused,
            "p_value": 0.04 if compared else None,
            "score_delta": -1.0 if compared else None,
            "score_delta_low": -2.0 if compared else None,
            "score_delta_high": 0.0 if compared else None,
            **(vars(near) if compared else dict.fromkeys(vars(near))),
        }
    )


def _parts(rows: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    remaining = iter(rows)
    while part := list(itertools.islice(remaining, size)):
        yield part


def _advance_sequences(session: Session) -> None:
    """Rows were numbered here; Postgres must not give the same numbers again."""
    if session.get_bind().dialect.name != "postgresql":
        return
    for table in (Run, Stage):
        last = session.scalar(select(func.max(table.id))) or 1
        session.execute(select(func.setval(func.pg_get_serial_sequence(table.__tablename__, "id"), last)))


def _label(name: str, settings: dict[str, Any]) -> str:
    return " ".join([name, *(f"{key} {value}" for key, value in settings.items())])
