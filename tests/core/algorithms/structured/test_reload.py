"""Models of transformers that were cut come back from their artifact as they were, and can be worked on."""

import pytest
import torch

from core.artifacts import artifact
from core.models import Described, build
from core.models.anatomy import anatomy, heads_of
from core.subject import Subject
from core.tasks.base import InputFormat
from core.techniques.pruning.head_pruning import HeadPruning
from core.techniques.pruning.width_pruning import WidthPruning
from core.techniques.quantization.rtn import Rtn
from tests.core.algorithms.structured.families import answers, subject_of
from tests.core.fakes import context
from tests.core.models.conftest import CLASSES, configs


def loaded(family: str, attention: str) -> tuple[Subject, Described]:
    """A family's subject with the config that its bare model is built from."""
    subject = subject_of(f"hf {family}")
    auto_class = f"AutoModelFor{CLASSES[family].partition('For')[2]}"
    plain = {**configs()[family].to_dict(), "architectures": [CLASSES[family]], "use_cache": False}
    config = {"source": "hf", "auto_class": auto_class, "config": plain, "attention": attention, "dtype": "float32"}
    model = build(config)
    model.load_state_dict(subject.model.state_dict())
    described = Described(config=config, input_format=InputFormat(), trained=False, tokenizer_files={})
    return Subject({"main": model}, subject.task, {"main": config}), described


@pytest.mark.parametrize(
    ("family", "attention"),
    [*((family, "sdpa") for family in ("llama", "opt", "bert", "vit", "deit")), ("llama", "eager"), ("opt", "eager")],
)
def test_a_cut_model_comes_back_and_is_cut_and_quantized_again(family, attention, tmp_path):
    subject, described = loaded(family, attention)
    HeadPruning(pruning_ratio=0.25).apply(subject, context(subject))
    WidthPruning(pruning_ratio=0.25, residual_ratio=0.25).apply(subject, context(subject))
    expected = answers(subject)
    artifact.save(subject, tmp_path / "first", described)
    again = artifact.load_subject(tmp_path / "first", subject.task, torch.device("cpu"))
    torch.testing.assert_close(answers(again), expected)
    known = anatomy(again.model)
    heads = [heads_of(again.model, known, block) for block in known.blocks]
    assert heads != [(4, 2 if family == "llama" else 4)] * 2 and min(heads)[0] >= 1
    WidthPruning(pruning_ratio=0.5, round_to=4).apply(again, context(again))
    Rtn(bits=8).apply(again, context(again))
    artifact.save(again, tmp_path / "second", described)
    packed = Subject(artifact.load_models(tmp_path / "second"), subject.task, again.configs)
    torch.testing.assert_close(answers(packed), answers(again), atol=1e-4, rtol=1e-4)
