"""A package that Slimboard has never heard of: its technique, model, task and runtime execute like our own."""

import sys

import pytest
import torch

from core import models, tasks
from core.artifacts.store import ArtifactStore
from core.engine.pipeline import check, execute
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.plugins import load_plugins
from core.provides import provides
from core.publish import describe_catalogue
from core.software import software
from core.spec.catalogue import Catalogue
from core.spec.model import RunSpec, TaskSpec
from core.spec.schema_validation import validate
from core.tasks.data import TaskSource
from core.technique import Technique

CODE = """
import numpy as np
import torch
from pydantic import Field
from torch import nn

from core.families import Family
from core.models.base import Architecture
from core.runtimes.base import Runtime
from core.runtimes.eager import eager
from core.tasks.base import InputFormat, Kind
from core.tasks.data import ImageData, TaskSource
from core.technique import OneShot


class Halve(OneShot):
    \"\"\"Multiply the last layer by a factor.\"\"\"

    family = Family.PRUNING
    paper = "https://example.org/halve"
    factor: float = Field(0.5, gt=0, lt=1, description="what the weights are multiplied by")

    @torch.no_grad()
    def apply(self, subject, context):
        subject.model.head.weight.mul_(self.factor)


class Flat(nn.Module):
    def __init__(self, *, n_pixels, width, n_classes):
        super().__init__()
        self.up = nn.Linear(n_pixels, width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, pixel_values):
        return self.head(self.up(pixel_values.flatten(1)).relu())

    def initialize_(self, generator):
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.1, generator=generator)


class FlatSettings(Architecture):
    \"\"\"Two layers over all pixels.\"\"\"

    kind = Kind.IMAGE_CLASSIFICATION
    module = Flat
    width: int = Field(8, ge=1, le=64, description="width of the hidden layer")

    def resolve(self, task):
        channels, height, width = task.image_shape
        config = {"n_pixels": channels * height * width, "width": self.width, "n_classes": task.n_classes}
        return config, InputFormat(channels=channels)


class Dots(TaskSource):
    \"\"\"A bright dot, left or right.\"\"\"

    examples: int = Field(64, ge=16, le=1000, description="examples of each split")

    def read(self, name):
        labels = np.arange(self.examples) % 2
        pixels = np.zeros((self.examples, 2, 4, 1), dtype=np.uint8)
        pixels[np.arange(self.examples), 0, 3 * labels] = 255
        splits = ("train", "validation", "test")
        return ImageData(
            class_names=("left", "right"),
            shape=(1, 2, 4),
            labels=dict.fromkeys(splits, labels),
            pixels=lambda split: pixels,
            content_hash=self.identity(name),
        )


class Plain(Runtime):
    \"\"\"Plain PyTorch.\"\"\"

    requires = frozenset({"acme-nets"})
    streams: int = Field(1, ge=1, le=8, description="streams that execute at the same time")

    def load(self, model, device, dtype, example):
        return eager(model, device, dtype, example)
"""
ENTRY_POINTS = """
[slimboard.techniques]
halve = acme_nets:Halve

[slimboard.models]
acme:flat = acme_nets:FlatSettings
builtin:vit = acme_nets:FlatSettings

[slimboard.tasks]
acme:dots = acme_nets:Dots

[slimboard.runtimes]
acme:plain = acme_nets:Plain
"""
SPEC = {
    "model": {"source": "acme:flat", "width": 4},
    "task": {"source": "acme:dots", "examples": 32},
    "recipe": [{"train": {"steps": 20, "batch_size": 16, "evaluations": 0}}, {"halve": {"factor": 0.25}}],
    "measure": {"repeats": 5, "runtimes": [{"acme:plain": {"streams": 2}}]},
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package, installed as pip leaves it: its code, and a dist-info folder with its entry points."""
    site = tmp_path / "site"
    described = site / "acme_nets-1.0.dist-info"
    described.mkdir(parents=True)
    (site / "acme_nets.py").write_text(CODE)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-nets\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    software.cache_clear()
    yield described
    sys.modules.pop("acme_nets", None)
    software.cache_clear()


def test_all_four_execute_like_our_own(package, tmp_path):
    spec = RunSpec.parse(SPEC)
    validate(spec, Catalogue(**describe_catalogue()))
    check(spec)
    stages = execute(spec, MemoryRecord(), artifacts=ArtifactStore(str(tmp_path / "kept"), tmp_path / "kept"))
    assert [stage.measured.label for stage in stages] == ["acme:flat", "train 20 updates", "halve factor 0.25"]
    assert stages[2].measured.reload_max_error == 0 and stages[2].measured.peak_memory_bytes is not None
    assert {row.runtime for row in stages[2].latencies} == {"acme:plain streams 2"}
    assert stages[2].latencies[0].software.endswith(", acme-nets 1.0")
    assert stages[2].latencies[0].software.count("acme-nets") == 1
    assert stages[0].measured.parameters == 8 * 4 + 4 + 4 * 2 + 2


def test_they_are_published_beside_the_built_in_ones(package):
    published = describe_catalogue()
    assert published["techniques"]["halve"]["schema"]["properties"]["factor"]["exclusiveMaximum"] == 1
    assert published["models"]["acme:flat"]["summary"] == "Two layers over all pixels."
    assert published["tasks"]["acme:dots"]["schema"]["properties"]["examples"]["maximum"] == 1000
    assert published["runtimes"]["acme:plain"]["requires"] == ["acme-nets"]
    assert "acme-nets" in provides("cpu")
    assert "acme:flat" not in describe_catalogue(plugins=False)["models"]


def test_a_built_in_name_keeps_its_meaning(package):
    task = tasks.load(TaskSpec(source="builtin:digits"))
    loaded = models.load(RunSpec.parse(SPEC | {"model": "builtin:vit"}).model, task, torch.Generator())
    assert type(loaded.module).__name__ == "Vit"
    assert describe_catalogue()["models"]["builtin:vit"] == describe_catalogue(plugins=False)["models"]["builtin:vit"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": {"source": "acme:flat", "width": 65}}, "model.width"),
        ({"model": {"source": "acme:flat", "widht": 5}}, "model.widht"),
        ({"model": "acme:flatt"}, "model.source"),
        ({"task": "builtin:markov"}, "model.source"),
        ({"task": {"source": "acme:dots", "examples": 1}}, "task.examples"),
        ({"recipe": [{"halve": {"factor": 2}}]}, "recipe[0].halve.factor"),
        ({"measure": {"runtimes": ["acme:plane"]}}, "measure.runtimes[0]"),
        ({"measure": {"runtimes": [{"acme:plain": {"streams": 9}}]}}, "measure.runtimes[0].acme:plain.streams"),
    ],
)
def test_mistakes_in_them_are_told_like_any_other(package, changes, field):
    with pytest.raises(SpecError) as caught:
        check(RunSpec.parse(SPEC | changes))
    assert [problem.field for problem in caught.value.problems] == [field]


def test_without_the_package_its_model_cannot_be_built():
    with pytest.raises(ValueError, match="acme:flat is a model of a package that is not installed on this worker"):
        models.build({"source": "acme:flat", "width": 4})


def test_a_package_of_runtimes_alone_is_not_software_of_a_stage(package):
    (package / "entry_points.txt").write_text("[slimboard.runtimes]\nacme:plain = acme_nets:Plain\n")
    assert "acme-nets" not in software()


def test_what_is_no_technique_is_refused_by_its_name(package):
    (package / "entry_points.txt").write_text("[slimboard.techniques]\nwrong = acme_nets:Flat\n")
    with pytest.raises(TypeError, match=r"acme_nets:Flat, plugged .* as wrong, is not a Technique"):
        load_plugins("techniques", Technique)
    assert load_plugins("tasks", TaskSource) == {}


def test_another_version_of_a_package_is_other_software(package):
    before = software()
    assert before.endswith("acme-nets 1.0")
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-nets\nVersion: 1.1\n")
    software.cache_clear()
    assert software() == before.replace("acme-nets 1.0", "acme-nets 1.1")
