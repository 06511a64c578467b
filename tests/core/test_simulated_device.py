"""Everything that a run does also works on a device other than the CPU, and gives what the CPU gives."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core import models, tasks
from core.artifacts import artifact
from core.artifacts.store import ArtifactStore
from core.engine.pipeline import Execution
from core.engine.recording import MemoryRecord
from core.errors import Interrupted, SpecError
from core.measure import compute, latency, memory
from core.measure.stage import StageMeasurer
from core.nn.precision import HALF_DTYPES
from core.runtimes.decode import decoder_of
from core.settings import settings
from core.spec.model import ModelSpec, RunSpec, StepSpec, TaskSpec
from core.subject import Subject
from core.tasks.base import Kind, logits_of
from core.technique import INTEGER_CODES, QUANTIZED_ACTIVATIONS, OneShot, TrainingMethod
from core.techniques.catalogue import TECHNIQUES, technique
from core.techniques.training.train import Train
from tests import simulated_device
from tests.core.fakes import StopAt, context
from tests.core.sentences import save_encoder, save_pairs, save_texts
from tests.core.techniques.pruning.families import kind_of, loaded, subject_of
from tests.core.techniques.steps import precede
from tests.core.techniques.test_contract import SOURCES
from tests.core.techniques.test_orders import SETTINGS

FAMILIES = {
    "builtin gpt": {"kv_heads": 4},
    "builtin vit": {"pooling": "mean"},
    "builtin encoder": {},
    "llama": {},
    "qwen2": {},
    "opt": {},
    "gpt2": {},
    "bert": {},
    "vit": {},
    "mixtral": {},
}
KINDS = {"image": Kind.IMAGE_CLASSIFICATION, "text": Kind.LANGUAGE_MODELLING, "padded": Kind.TEXT_CLASSIFICATION}
ONE_SHOTS = [name for name, cls in TECHNIQUES.items() if issubclass(cls, OneShot) and name != "train"]
METHODS = [
    name
    for name, cls in TECHNIQUES.items()
    if issubclass(cls, TrainingMethod) and INTEGER_CODES not in cls.accepts  # of quantized models: its own test has one
]


@pytest.fixture(autouse=True)
def sim():
    with simulated_device.active(artifact) as device:
        yield device


def bound(name: str) -> OneShot:
    return technique(StepSpec(technique=name, settings=SETTINGS.get(name, {})), "recipe[0]")


def fitting(step: OneShot, families: list[str]) -> Subject:
    """A subject of the first family that takes the step."""
    for family in families:
        subject = subject_of(family, depth=2, **FAMILIES[family])
        subject.task.kind = KINDS[kind_of(family)]
        try:
            step.check(subject)
        except SpecError:
            continue
        return subject
    pytest.skip("no family of these takes the step")


def moved(subject: Subject, device: torch.device) -> Subject:
    model = copy.deepcopy(subject.model).to(device)
    return Subject({"main": model}, subject.task, copy.deepcopy(subject.configs), subject.trained)


def answers(model: torch.nn.Module, subject: Subject, device: torch.device) -> Tensor:
    batch = {key: value.to(device) for key, value in artifact.probe_batch(subject.task).items()}
    with torch.inference_mode():
        output = logits_of(model, batch)
    assert output.device == device
    return output.float().cpu()


def require_on(device: torch.device, subject: Subject) -> None:
    tensors = [*subject.model.state_dict().values(), *(c.tensor for c in subject.constraints.values())]
    assert {tensor.device for tensor in tensors} == {device}


def test_the_device_refuses_what_a_gpu_refuses(sim):
    on_sim = torch.ones(2, device=sim)
    with pytest.raises(RuntimeError, match="on one device"):
        torch.ones(2) + on_sim
    with pytest.raises(RuntimeError, match="expected a sim generator"):
        torch.empty(2, device=sim).normal_(generator=torch.Generator())
    with pytest.raises(TypeError, match="to numpy"):
        on_sim.numpy()
    assert (on_sim + torch.tensor(1.0))[torch.tensor([0])].tolist() == [2.0]  # CPU scalars and indices are allowed


def apply_on_both(name: str, families: list[str], sim: torch.device, folder: Path) -> None:
    step = bound(name)
    on_cpu = fitting(step, families)
    on_sim = moved(on_cpu, sim)
    precede(step, on_cpu)
    precede(step, on_sim, device=sim)
    step.apply(on_cpu, context(on_cpu))
    step.apply(on_sim, context(on_sim, device=sim))
    require_on(sim, on_sim)
    expected = answers(on_cpu.model, on_cpu, torch.device("cpu"))
    may_flip = on_cpu.dtype in HALF_DTYPES or QUANTIZED_ACTIVATIONS in step.leaves  # to the next code
    tolerance = 2e-2 if may_flip else 1e-5
    assert torch.allclose(answers(on_sim.model, on_sim, sim), expected, atol=tolerance * float(expected.abs().max()))

    artifact.save(on_sim, folder, loaded(on_sim))
    error, scale, _ = memory._run_probe(folder, str(sim), 1)
    assert error <= 1e-5 * scale
    require_on(sim, artifact.load_subject(folder, on_sim.task, sim))
    deployed = artifact.load_models(folder, sim)["main"]
    counts = [
        compute.count(model, {key: value.to(device) for key, value in artifact.probe_batch(on_sim.task).items()})
        for model, device in ((deployed, sim), (artifact.load_models(folder)["main"], torch.device("cpu")))
    ]
    assert counts[0] == counts[1]
    if decoder_of(deployed) is not None:
        decode_on(sim, deployed, on_sim)


def decode_on(device: torch.device, model: torch.nn.Module, subject: Subject) -> None:
    decoder = decoder_of(model)
    prompt = artifact.probe_batch(subject.task)["input_ids"].to(device)[:, :-3]
    with torch.inference_mode():
        decoder.prefill({"input_ids": prompt}, 3)
        decoder.step()
        decoder.step()
    assert decoder.token.device == device


@pytest.mark.parametrize("name", ONE_SHOTS)
def test_a_step_gives_what_it_gives_on_the_cpu(name, sim, tmp_path):
    apply_on_both(name, list(FAMILIES), sim, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ONE_SHOTS)
def test_a_step_gives_what_it_gives_on_the_cpu_in_every_family(name, family, sim, tmp_path):
    apply_on_both(name, [family], sim, tmp_path)


@pytest.fixture(scope="module")
def prepared():
    """A subject with a real task by its name, its task read once."""
    made: dict[str, tuple[tasks.Task, ModelSpec]] = {}

    def make(name: str, seed: int = 0) -> Subject:
        if name not in made:
            model, task_spec = SOURCES[name]
            spec, task = ModelSpec.model_validate(model), tasks.load(TaskSpec.model_validate(task_spec))
            task.prepare(models.describe(spec, task).input_format)
            made[name] = task, spec
        task, spec = made[name]
        found = models.load(spec, task, torch.Generator().manual_seed(seed))
        return Subject({"main": found.module}, task, {"main": found.config})

    return make


def trained(
    subject: Subject, train: Train, device: torch.device, teacher: Subject, folder: Path | None = None
) -> MemoryRecord:
    """Train; with a folder the training is interrupted after 2 updates and taken up from its checkpoint."""
    record = MemoryRecord()
    options = {
        "device": device,
        "checkpoint": folder and folder / "state",
        "resolve": lambda reference: moved(teacher, device).model,
    }
    if folder is not None:
        broken = moved(subject, device)
        with pytest.raises(Interrupted):
            train.apply(broken, context(broken, StopAt(2), **options))
    train.apply(subject, context(subject, record, **options))
    return record


def curves_match(on_sim: MemoryRecord, on_cpu: MemoryRecord) -> None:
    for name, points in on_sim.curves.items():
        expected = dict(on_cpu.curves[name])
        for step, value in points:
            assert value == pytest.approx(expected[step], rel=1e-3, abs=1e-4), (name, step)


@pytest.mark.parametrize("name", METHODS)
def test_a_training_method_trains_and_resumes_as_on_the_cpu(name, prepared, sim, tmp_path):
    method = {name: SETTINGS.get(name, {})}
    train = Train(steps=4, batch_size=8, evaluations=0, methods=[method])
    on_cpu = prepared("vit")
    train.check(on_cpu)
    on_sim = moved(on_cpu, sim)
    teacher = prepared("vit", seed=1)  # the student's own weights would leave gradients of rounding errors alone
    found = trained(on_sim, train, sim, teacher, tmp_path)
    require_on(sim, on_sim)
    curves_match(found, trained(on_cpu, train, torch.device("cpu"), teacher))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_plain_training_is_that_of_the_cpu(precision, prepared, sim):
    train = Train(steps=3, batch_size=8, evaluations=1, precision=precision)
    on_cpu = prepared("gpt")
    on_sim = moved(on_cpu, sim)
    found = trained(on_sim, train, sim, on_sim)
    require_on(sim, on_sim)
    if precision == "float32":  # autocast changes nothing on the simulated device
        curves_match(found, trained(on_cpu, train, torch.device("cpu"), on_cpu))


@pytest.mark.parametrize(
    ("source", "recipe"),
    [
        (
            "vit",
            [{"train": {"steps": 2, "methods": [{"distill_logits": {"teacher": "stage:0"}}]}}, {"rtn": {"bits": 4}}],
        ),
        pytest.param("gpt", [{"train": {"steps": 2}}, "wanda"], marks=pytest.mark.slow),
    ],
)
def test_a_run_is_scored_timed_and_compared(source, recipe, sim, tmp_path, monkeypatch):
    def reload_here(folder, device_type, **_):
        return memory.Reload(*memory._run_probe(folder, device_type, 1), peak_bytes=1)

    monkeypatch.setattr(memory, "reload", reload_here)  # the device does not exist in a fresh process
    monkeypatch.setattr(latency, "TRIES", 1)
    monkeypatch.setattr(latency, "SHORTEST_MS", 0.0)
    monkeypatch.setattr(latency, "WARM_UP_SECONDS", 0.0)
    model, task = SOURCES[source]
    measure = {"test_examples": 16, "repeats": 5, "decode_tokens": 2}
    spec = RunSpec.parse({"model": model, "task": task, "recipe": recipe, "measure": measure})
    store = ArtifactStore(str(tmp_path / "kept"), tmp_path / "kept")
    stages = Execution(spec, MemoryRecord(), store, sim, tmp_path).run()
    assert [stage.measured.trained for stage in stages] == [False, True, True]
    assert stages[2].comparison is not None and stages[2].measured.reload_max_error is not None
    phases = {"forward"} if source == "vit" else {"prefill", "decode"}
    assert {row.phase for row in stages[1].latencies} == phases  # packed layers have no kernel on this device


def test_embeddings_are_compared_and_calibrated_on_the_device(sim, tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMBOARD_DATA", str(tmp_path))
    settings.cache_clear()
    monkeypatch.setattr(memory, "reload", lambda *_, **__: memory.Reload(0.0, 1.0, 1.0, 1))
    monkeypatch.setattr(StageMeasurer, "_latencies", lambda *_: [])
    save_encoder(tmp_path / "encoder")
    save_texts(tmp_path)
    save_pairs(tmp_path)
    task = {"source": "file:pairs.csv", "kind": "embeddings", "test": 0.4}
    spec = RunSpec.parse(
        {
            "model": "hf:encoder",
            "task": task,
            "calibration": {"sources": ["task", {"source": "file:texts.txt"}], "count": 8, "seed": 1},
            "recipe": [{"sparsegpt": {}}],
        }
    )
    store = ArtifactStore(str(tmp_path / "kept"), tmp_path / "kept")
    _, pruned = Execution(spec, MemoryRecord(), store, sim, tmp_path).run()
    settings.cache_clear()
    assert 0 < pruned.fidelity.cosine < 1 and 0 < pruned.fidelity.neighbours_kept < 100
    assert pruned.measured.details["calibration"]["examples"] == {"task": 4, "file:texts.txt": 4}


def test_generated_tokens_are_those_of_the_cpu(sim):
    model = subject_of("builtin gpt", depth=2).model
    prompt = torch.tensor([[5, 6, 7], [8, 9, 10]])
    with torch.inference_mode():
        expected = model.generate(prompt, 5, temperature=0)
        on_sim = copy.deepcopy(model).to(sim)
        assert on_sim.generate(prompt.to(sim), 5, temperature=0).tolist() == expected.tolist()
        assert on_sim.generate(prompt.to(sim), 5, top_k=3).device == sim
