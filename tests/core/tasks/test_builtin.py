"""What holds for every builtin task."""

import subprocess
import sys

import pytest
import torch

from core.errors import SpecError
from core.models.tokenizer import ByteTokenizer
from core.spec.model import TaskSpec
from core.tasks import load
from core.tasks.base import InputFormat
from core.tasks.catalogue import TASKS, source_of
from core.tasks.preview import load_preview

BUILTINS = [
    name for name in TASKS if name.startswith("builtin:") and name not in ("builtin:shapes", "builtin:listops")
]  # these two take long to make: files of their own


@pytest.mark.parametrize("name", BUILTINS)
def test_splits_are_fixed_and_disjoint(name):
    first, again = load(TaskSpec(source=name)), load(TaskSpec(source=name))
    for task in (first, again):
        task.prepare(InputFormat(tokenizer=ByteTokenizer()))
        torch.manual_seed(17)  # whatever a run seeds with
    assert first.content_hash == again.content_hash
    seen = {}
    for split in ("train", "calibration", "validation", "test"):
        batch = first.split(split).batch(torch.arange(len(first.split(split))))
        same = again.split(split).batch(torch.arange(len(again.split(split))))
        assert all(torch.equal(batch[key], same[key]) for key in batch)
        examples = batch["pixel_values"] if "pixel_values" in batch else batch["input_ids"]
        seen[split] = {example.numpy().tobytes() for example in examples}
    assert seen["calibration"] <= seen["train"]
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not seen[one] & seen[other]


def test_identity_tells_settings_apart():
    hashes = {load(TaskSpec(source="builtin:markov", **settings)).content_hash for settings in ({}, {"order": 1})}
    assert len(hashes) == 2


def test_unknown_source_proposes_the_nearest():
    with pytest.raises(SpecError, match=r"task.source.*Did you mean builtin:digits\?"):
        load(TaskSpec(source="builtin:digit"))


@pytest.mark.parametrize("source", ["file:", "hf", "nothing:here"])
def test_source_without_a_name_is_unknown(source):
    with pytest.raises(SpecError, match=r"task.source"):
        source_of(TaskSpec(source=source))


def test_each_wrong_setting_is_named_with_its_value():
    with pytest.raises(SpecError) as error:
        load(TaskSpec(source="builtin:python-docs", length=3, lenght=3))
    assert {problem.field for problem in error.value.problems} == {"task.length", "task.lenght"}
    assert all(problem.value == 3 for problem in error.value.problems)


def test_every_setting_is_described():
    for name, settings in TASKS.items():
        for field in settings.model_fields.values():
            assert field.description, name


def test_preview_of_digits():
    seen = load_preview(TaskSpec(source="builtin:digits"))
    assert sum(seen.classes.values()) == 1797 and list(seen.classes) == list("0123456789")
    assert seen.counts["train"] + seen.counts["validation"] + seen.counts["test"] == 1797
    assert len(seen.items) == 12 and all(item.image.startswith(b"\x89PNG") for item in seen.items)


def test_preview_of_text_shows_its_beginning():
    seen = load_preview(TaskSpec(source="builtin:python-docs"))
    assert seen.unit == "characters" and seen.counts["train"] > 200_000
    assert len(seen.items) == 1 and len(seen.items[0].text) == 600


def test_preview_and_uploads_load_no_torch():
    code = (
        "import sys; from core.spec.model import TaskSpec; import core.tasks.upload;"
        "from core.tasks.preview import load_preview;"
        "[load_preview(TaskSpec(source=s)) for s in ('builtin:digits', 'builtin:python-docs')];"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
