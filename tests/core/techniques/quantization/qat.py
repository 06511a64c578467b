"""What the tests of trainings with rounded weights share."""

import torch
from pydantic import PrivateAttr
from torch import Tensor
from torch.nn import functional as F

from core.engine.recording import MemoryRecord
from core.subject import Subject
from core.tasks.base import logits_of
from core.technique import Family, TrainingMethod
from core.techniques.training.train import Train
from core.training.loop import Training
from tests.core.fakes import PlaneTask, context, plane_subject
from tests.core.techniques.pruning.families import subject_of
from tests.core.techniques.sparse_training.test_top_kast import three_layers
from tests.core.training.test_loop import plan

FAMILIES: dict[str, dict] = {
    "builtin gpt": {"kv_heads": 4},
    **{name: {} for name in ("builtin vit", "llama", "opt", "gpt2", "bert", "vit")},
}


def family_subject(family: str, dtype: torch.dtype = torch.float32) -> Subject:
    """A small model of a family with a loss on random examples."""
    subject = subject_of(family, depth=2, dtype=dtype, **FAMILIES.get(family, {}))
    subject.task.loss, subject.task.score = _loss, PlaneTask.score
    return subject


def answers(subject: Subject, n: int = 4) -> Tensor:
    """Logits of the first examples, in evaluation mode."""
    was_training = subject.model.training
    subject.model.eval()
    with torch.inference_mode():
        found = logits_of(subject.model, subject.task.split("train").batch(torch.arange(n)))
    subject.model.train(was_training)
    return found


class Watch(TrainingMethod):
    """Notes the model's answers after the last update, before anything is packed."""

    family = Family.TRAINING
    paper = "https://example.org"
    _answers: Tensor = PrivateAttr()

    def end(self, subject: Subject) -> None:
        self._answers = answers(subject)


def before_and_after_the_end(
    subject: Subject, methods: list[TrainingMethod], record: MemoryRecord | None = None, **settings: object
) -> tuple[Tensor, Tensor]:
    """The model's logits after all updates, with weights rounded in the forward pass, and after they were packed."""
    asked = {"steps": 4, "batch_size": 4, **settings}
    watch = Watch()
    Training(subject, context(subject, record), plan(**asked), [watch, *methods]).run()
    return watch._answers, answers(subject)


def float_layers(seed: int = 0) -> Subject:
    """Three layers in float32, of which the last two read what a ReLU gives."""
    return three_layers(seed, torch.float32)


def trained_plane_subject(seed: int = 0) -> Subject:
    """Two layers that have learned their task."""
    subject = plane_subject(seed)
    Train(steps=150, learning_rate=0.01, evaluations=0).apply(subject, context(subject))
    return subject


@torch.no_grad()
def loss_of(subject: Subject) -> float:
    """The task's loss on its training examples."""
    split = subject.task.split("train")
    batch = split.batch(torch.arange(len(split)))
    return float(subject.task.loss(logits_of(subject.model, batch), batch))


def _loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    labels = batch["labels"]
    if logits.dim() == 3:
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return F.cross_entropy(logits, labels)
