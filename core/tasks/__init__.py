"""Data sets and how a model's predictions on them are scored. Loads torch only when a task is loaded."""

from typing import TYPE_CHECKING

from core.spec.model import TaskSpec

if TYPE_CHECKING:
    from core.tasks.base import Task
    from core.tasks.data import Data


def load(spec: TaskSpec) -> "Task":
    """The task of a spec, with its data read and split. Raises SpecError if that fails."""
    from core.tasks.catalogue import read

    return of_data(spec.source, read(spec))


def of_data(name: str, data: "Data") -> "Task":
    """The task of this name on data that was read."""
    from core.tasks.answers import AnswersTask
    from core.tasks.data import AnswersData, CorpusData, EmbeddingData, ImageData
    from core.tasks.embeddings import EmbeddingTask
    from core.tasks.images import ImageTask
    from core.tasks.language import LanguageTask
    from core.tasks.texts import TextTask

    if isinstance(data, ImageData):
        return ImageTask(name, data)
    if isinstance(data, CorpusData):
        return LanguageTask(name, data)
    if isinstance(data, AnswersData):
        return AnswersTask(name, data)
    if isinstance(data, EmbeddingData):
        return EmbeddingTask(name, data)
    return TextTask(name, data)
