"""What every technique owes to a 16-bit checkpoint: it runs, and what it leaves is in the checkpoint's own dtype."""

import copy
from dataclasses import dataclass
from itertools import islice

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from core import models
from core.algorithms.structured.importance import importance_of
from core.algorithms.structured.units import ffn_units
from core.artifacts import artifact
from core.errors import SpecError
from core.integrity import PACKED, WORKING
from core.models.anatomy import anatomy
from core.settings import settings
from core.spec.model import ModelSpec, StepSpec
from core.subject import Subject
from core.tasks.base import Kind, logits_of
from core.technique import INTEGER_CODES, OneShot, TrainingMethod
from core.techniques.catalogue import TECHNIQUES, technique
from core.techniques.quantization.cast import cast_
from core.training.loop import Training
from tests.core.fakes import context
from tests.core.models.conftest import CLASSES, configs, tokenizer
from tests.core.techniques.pruning.families import RandomTask, kind_of, loaded, subject_of
from tests.core.techniques.steps import SMALL, precede
from tests.core.training.test_loop import plan

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
IN_TURN = ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)]  # the code is the same for both
CHECKPOINTS = ("llama", "gpt2", "bert", "vit")
EXPERTS = "mixtral"  # for what takes no other model
BUILTIN = ("builtin gpt", "builtin encoder", "builtin vit")
KINDS = {"text": Kind.LANGUAGE_MODELLING, "padded": Kind.TEXT_CLASSIFICATION, "image": Kind.IMAGE_CLASSIFICATION}
SETTINGS = {
    "adaround": {"iterations": 4, "calibration_examples": 16},
    "autoround": {"iterations": 4, "calibration_examples": 16},
    "bigbird": {"block": 2, "random_blocks": 1},
    "block_local": {"block": 4},
    "cast": {"dtype": "bf16"},
    "channel_permutation": {"strategy": "greedy_swap", "escapes": 0},
    "cofi": {"teacher": "stage:0", "round_to": 1},
    "distill_logits": {"teacher": "stage:0"},
    "dynamic_vit": {"stages": 1},
    "etc": {"radius": 2, "global_tokens": 3, "max_distance": 2},
    "ffn_pruning": {"round_to": 1},
    "kv_cache_quantization": {"group_size": 8, "window": 2},
    "low_rank_correction": {"rank": 2},
    "mixed_precision": SMALL["mixed_precision"],
    "ptq4vit": SMALL["ptq4vit"],
    "sensitivity": SMALL["sensitivity"],
    "sliding_window": {"window": 4},
    "sparse_ffn": {"block_size": 4},
    "train": {"steps": 2, "batch_size": 4, "evaluations": 0},
    "width_pruning": {"round_to": 1},
}
STEPS = [name for name, cls in TECHNIQUES.items() if issubclass(cls, OneShot)]
METHODS = [
    name
    for name, cls in TECHNIQUES.items()
    if issubclass(cls, TrainingMethod) and INTEGER_CODES not in cls.accepts  # of quantized models: its own test has one
]


class Random(RandomTask):
    """Random inputs with a loss."""

    def __init__(self, family: str):
        super().__init__(kind_of(family))
        self.kind = KINDS[self.kind_of_input]
        self.n_classes = {"text": None, "padded": 3, "image": 10}[self.kind_of_input]
        self.image_shape = (1, 8, 8) if self.kind_of_input == "image" else None

    def loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        labels = batch["labels"]
        if logits.dim() == 3:
            logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return F.cross_entropy(logits, labels)


@dataclass(frozen=True)
class Source:
    family: str
    dtype: str

    @property
    def torch(self) -> torch.dtype:
        return DTYPES[self.dtype]


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    """Makes a subject of a source anew: a checkpoint that was saved in 16 bits, or a built-in model that was cast."""
    root = tmp_path_factory.mktemp("data")
    patch = pytest.MonkeyPatch()
    patch.setenv("SLIMBOARD_DATA", str(root))
    settings.cache_clear()
    made: dict[Source, Subject] = {}

    def make(source: Source) -> Subject:
        if source not in made:
            made[source] = (_cast if source.family in (*BUILTIN, EXPERTS) else _checkpoint)(source, root)
        return copy.deepcopy(made[source])

    yield make
    patch.undo()
    settings.cache_clear()


def _cast(source: Source, root) -> Subject:
    subject = subject_of(source.family, depth=2, **({"kv_heads": 4} if source.family == "builtin gpt" else {}))
    cast_(subject.model, source.torch)
    subject.task = Random(source.family)
    return subject


def _checkpoint(source: Source, root) -> Subject:
    torch.manual_seed(0)
    model = getattr(transformers, CLASSES[source.family])(configs()[source.family]).to(source.torch)
    folder = root / f"{source.family}-{source.dtype}"
    model.save_pretrained(folder)
    if source.family != "vit":
        tokenizer().save_pretrained(folder)
    task = Random(source.family)
    made = models.load(ModelSpec(source=f"hf:{folder}"), task, torch.Generator().manual_seed(0))
    return Subject({"main": made.module}, task, {"main": made.config}, trained=True)


def bound(name: str):
    return technique(StepSpec(technique=name, settings=SETTINGS.get(name, {})), "recipe[0]")


def refuses(name: str, subject: Subject) -> bool:
    try:
        bound(name).check(subject)
    except SpecError:
        return True
    return False


def fitting(name: str, dtype: str, subjects):
    """A subject of every source that takes the technique; in float16 only the first, since the code is the same."""
    found = (subjects(Source(family, dtype)) for family in (*CHECKPOINTS, *BUILTIN))
    taken = (subject for subject in found if not refuses(name, subject))
    chosen = list(islice(taken, 1 if dtype == "float16" else None))
    if not chosen and not refuses(name, subject := subjects(Source(EXPERTS, dtype))):
        chosen = [subject]
    assert chosen, f"{name} takes no model here"
    return chosen


def check_stage(subject: Subject, dtype: torch.dtype, folder) -> None:
    """All floating-point tensors of the artifact are in `dtype`, and it answers as the subject did."""
    artifact.save(subject, folder, loaded(subject))
    for file in (PACKED, WORKING):
        tensors = load_file(folder / file) if (folder / file).exists() else {}
        wrong = {name: t.dtype for name, t in tensors.items() if t.is_floating_point() and t.dtype != dtype}
        assert not wrong, f"{file}: {wrong}"
    with torch.inference_mode():
        again = logits_of(artifact.load_models(folder)["main"], artifact.probe_batch(subject.task))
    stored = load_file(folder / artifact.PROBE)["output"]
    assert torch.isfinite(stored).all()
    assert torch.equal(again, stored)


@pytest.mark.parametrize("dtype", IN_TURN)
@pytest.mark.parametrize("name", STEPS)
def test_a_step_leaves_a_16_bit_model_in_its_dtype(name, dtype, subjects, tmp_path):
    expected = torch.bfloat16 if name == "cast" else DTYPES[dtype]
    for index, subject in enumerate(fitting(name, dtype, subjects)):
        precede(bound(name), subject)
        bound(name).apply(subject, context(subject))
        check_stage(subject, expected, tmp_path / str(index))


@pytest.mark.parametrize("dtype", IN_TURN)
@pytest.mark.parametrize("name", METHODS)
def test_a_training_leaves_a_16_bit_model_in_its_dtype(name, dtype, subjects, tmp_path):
    for index, subject in enumerate(fitting(name, dtype, subjects)):
        Training(subject, context(subject), plan(steps=4, batch_size=4), [bound(name)]).run()
        check_stage(subject, DTYPES[dtype], tmp_path / str(index))


@pytest.mark.parametrize("dtype", IN_TURN)
@pytest.mark.parametrize("importance", ["taylor", "first_order", "mixed", "l2"])
def test_importances_are_those_of_the_same_weights_in_float32(importance, dtype, subjects):
    subject = subjects(Source("llama", dtype))
    exact = copy.deepcopy(subject)
    exact.model.float()
    found, expected = (
        importance_of(
            each, context(each), [ffn_units(each.model, b) for b in anatomy(each.model).blocks], importance, 8
        )
        for each in (subject, exact)
    )
    assert found.keys() == expected.keys()
    for name, score in found.items():
        assert score.dtype == torch.float32 and score.min() > 0
        assert torch.allclose(score, expected[name], rtol=1e-4)
    assert subject.dtype == DTYPES[dtype]


@pytest.mark.parametrize("name", ["slicegpt", "svd", "sparsegpt", "rtn", "dynamic_int8"])
def test_a_step_in_bfloat16_is_off_by_rounding_alone(name, subjects):
    subject = subjects(Source("llama", "bfloat16"))
    exact = copy.deepcopy(subject)
    exact.model.float()
    for each in (subject, exact):
        bound(name).apply(each, context(each))
    with torch.inference_mode():
        answers, expected = (logits_of(each.model, artifact.probe_batch(each.task)) for each in (subject, exact))
    assert (answers - expected).norm() < 0.05 * expected.norm()
