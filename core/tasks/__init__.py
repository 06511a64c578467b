"""Data sets and how a model's predictions on them are scored. Loads torch only when a task is loaded."""

from typing import TYPE_CHECKING

from core.spec.model import TaskSpec

if TYPE_CHECKING:
    from core.tasks.base import Task


def load(spec: TaskSpec) -> "Task":
    """The task of a spec, with its data read and split. Raises SpecError if that fails."""
    from core.tasks.answers import AnswersTask
    from core.tasks.catalogue import read
    from core.tasks.data import AnswersData, CorpusData, EmbeddingData, ImageData
    from core.tasks.embeddings import EmbeddingTask
    from core.tasks.images import ImageTask
    from core.tasks.language import LanguageTask
    from core.tasks.texts import TextTask

    data = read(spec)
    if isinstance(data, ImageData):
        return ImageTask(spec.source, data)
    if isinstance(data, CorpusData):
        return LanguageTask(spec.source, data)
    if isinstance(data, AnswersData):
        return AnswersTask(spec.source, data)
    if isinstance(data, EmbeddingData):
        return EmbeddingTask(spec.source, data)
    return TextTask(spec.source, data)
