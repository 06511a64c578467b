"""Regressions: inputs that a compressed model gets wrong and its reference gets right, saved for inspection."""

import base64
import json
from pathlib import Path
from typing import Any

import torch
from scipy.stats import rankdata
from torch import Tensor

from core import disk
from core.measure.score import Examples, scored_indices
from core.tasks.base import Task

MOST = 24
OTHER_UNITS = {"cosine": "1 - cosine", "similarity": "share of ranks"}  # of a loss that is not in nats


def save(
    folder: Path, task: Task, examples: Examples, reference: Examples, reference_key: str, limit: int | None
) -> None:
    """Write `mistakes-<reference>.json` in an artifact's folder: the worst first, each with its input.

    `examples` and `reference` hold per-example results of the same test examples, of which `limit` were scored.
    """
    worse = _loss(examples) - _loss(reference)
    if "correct" in examples and "label" in examples:
        lost = reference["correct"].bool() & ~examples["correct"].bool()
        worse = worse.masked_fill(~lost, -torch.inf)
    order = worse.argsort(descending=True)[:MOST]
    rows = order[worse[order] > 0].tolist()
    indices = scored_indices(len(task.split("test")), limit)[rows].tolist() if rows else []
    shown = task.show("test", indices) if indices else []
    items = [
        {"index": index, **_plain(item), **_answers(task, examples, reference, row)}
        for index, row, item in zip(indices, rows, shown, strict=True)
    ]
    with disk.replacing(folder / f"mistakes-{reference_key}.json") as partial:
        partial.write_text(json.dumps(items))


def _loss(examples: Examples) -> Tensor:
    """Loss of each example: nats, per token where an example has several.

    Of embeddings, 1 - cosine with the reference, or by what share of the pairs the cosine's rank is off the score's.
    """
    if "cosine" in examples:
        return 1 - examples["cosine"]
    if "similarity" in examples:
        found, wanted = (torch.from_numpy(rankdata(examples[name])) for name in ("similarity", "score"))
        return (found - wanted).abs() / len(found)
    return examples["nats"] / examples["tokens"].clamp(min=1) if "tokens" in examples else examples["nats"]


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    return {key: base64.b64encode(value).decode() if isinstance(value, bytes) else value for key, value in item.items()}


def _answers(task: Task, examples: Examples, reference: Examples, row: int) -> dict[str, Any]:
    answers: dict[str, Any] = {"nats": float(_loss(examples)[row]), "reference_nats": float(_loss(reference)[row])}
    unit = next((unit for name, unit in OTHER_UNITS.items() if name in examples), None)
    if unit is not None:  # the names are those of the first releases, whose losses all were in nats
        answers["unit"] = unit
    if "predicted" in examples:
        answers["predicted"] = task.class_names[int(examples["predicted"][row])]
        answers["reference_predicted"] = task.class_names[int(reference["predicted"][row])]
    return answers
