"""Every source of tasks by its name: the one table to add a line to. Loads no torch."""

from pydantic import BaseModel, ValidationError

from core.errors import Problem, SpecError
from core.plugins import plugged
from core.spec.catalogue import nearest
from core.spec.model import TaskSpec
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
    """The checked settings of the task's source, and what follows its name: a path, a repository.

    Raises SpecError for an unknown source and for each setting that it does not take.
    """
    kind, _, name = spec.source.partition(":")
    sources: dict[str, type[TaskSource]] = {**plugged("tasks", TaskSource), **TASKS}
    known = sources.get(spec.source) or sources.get(kind)
    if known is None or not name:
        raise SpecError.of("task.source", spec.source, "is not a known source of data", nearest(spec.source, sources))
    try:
        return known.model_validate(spec.settings), name
    except ValidationError as error:
        raise SpecError([_problem(each, known) for each in error.errors()]) from error


def read(spec: TaskSpec) -> Data:
    """The task's data, split. Raises SpecError where it cannot be read."""
    source, name = source_of(spec)
    return source.read(name)


def _problem(error: object, source: type[BaseModel]) -> Problem:
    loc, kind, message, value = (error[key] for key in ("loc", "type", "msg", "input"))  # type: ignore[index]
    field = ".".join(["task", *map(str, loc)])
    if kind == "extra_forbidden":
        return Problem(field, value, "is not a setting of this task", f"Choose from {', '.join(source.model_fields)}.")
    return Problem(field, value, message.lower(), "Change it to a value that is allowed.")
