"""Every source of tasks by name: to add one, add a line here. Loads no torch."""

from pydantic import ValidationError

from core.errors import SpecError, nearest
from core.plugins import load_plugins
from core.spec.model import TaskSpec
from core.spec.pydantic_errors import list_problems
from core.tasks.data import Data, TaskSource
from core.tasks.sources.digits import Digits
from core.tasks.sources.file import File
from core.tasks.sources.hugging_face import HuggingFaceData
from core.tasks.sources.listops import ListOps
from core.tasks.sources.long_recall import LongRecall
from core.tasks.sources.markov import Markov
from core.tasks.sources.python_docs import PythonDocs
from core.tasks.sources.shapes import Shapes

TASKS: dict[str, type[TaskSource]] = {
    "builtin:digits": Digits,
    "builtin:listops": ListOps,
    "builtin:long-recall": LongRecall,
    "builtin:markov": Markov,
    "builtin:python-docs": PythonDocs,
    "builtin:shapes": Shapes,
    "file": File,
    "hf": HuggingFaceData,
}


def source_of(spec: TaskSpec) -> tuple[TaskSource, str]:
    """The validated settings of the task's source, and the path or repository after its name.

    Raises SpecError for an unknown source and for unknown settings.
    """
    kind, _, name = spec.source.partition(":")
    sources: dict[str, type[TaskSource]] = {**load_plugins("tasks", TaskSource), **TASKS}
    known = sources.get(spec.source) or sources.get(kind)
    if known is None or not name:
        raise SpecError.of("task.source", spec.source, "is not a known data source", nearest(spec.source, sources))
    try:
        return known.model_validate(spec.settings), name
    except ValidationError as error:
        raise SpecError(list_problems(error, whole="task", inside="task", settings=known.model_fields)) from error


def read(spec: TaskSpec) -> Data:
    """The task's data in splits. Raises SpecError if it cannot be read."""
    source, name = source_of(spec)
    return source.read(name)
