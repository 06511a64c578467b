"""The preflight check: problems that only the models reveal, found on the meta device before anything is computed."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from core import models
from core.engine.stage_plan import is_run, model_references
from core.errors import Problem, SpecError
from core.models.loaded import Described
from core.models.meta import empty_weights
from core.models.tokenizer import describe_difference
from core.nn.replacement import Replacement
from core.runtimes.catalogue import bind_runtime
from core.spec.model import ModelSpec, RunSpec, StepSpec
from core.subject import Subject
from core.tasks.base import Kind, Task
from core.technique import Technique
from core.techniques.catalogue import technique


def check(spec: RunSpec, task: Task, found: Subject | None = None) -> None:
    """Raise SpecError with every problem.

    `found` is the subject of the earlier run that the spec starts from, if its artifact is available. Without it,
    such a model is not checked.
    """
    problems: list[Problem] = []
    for problem in _problems(spec, task, found):
        if problem not in problems:
            problems.append(problem)
    if problems:
        raise SpecError(problems)


def _problems(spec: RunSpec, task: Task, found: Subject | None) -> Iterator[Problem]:
    described = None
    try:
        described = None if is_run(spec.model) else models.describe(spec.model, task)
    except SpecError as error:
        yield from error.problems
    subject = found if described is None else _subject(described, task)
    if subject is not None:
        yield from _length_problems(spec, task, subject)
    yield from _recipe_problems(spec.recipe, "recipe", task, subject, described)
    yield from _runtime_problems(spec)
    if spec.reference is not None:
        yield from _reference_problems(spec.reference, "reference", task, described)


def _subject(described: Described, task: Task) -> Subject:
    with empty_weights():
        module = models.build(described.config)
    return Subject({"main": module}, task, {"main": described.config}, described.trained)


def _length_problems(spec: RunSpec, task: Task, subject: Subject) -> Iterator[Problem]:
    longest = _longest(spec, subject)
    if task.kind is Kind.IMAGE_CLASSIFICATION or longest is None:
        return
    for field, asked in (("measure.length", spec.measure.length), ("calibration.length", spec.calibration.length)):
        if asked is not None and asked > longest:
            message = f"exceeds the model's maximum of {longest} tokens"
            yield Problem(field, asked, message, f"Choose at most {longest}.")


def _runtime_problems(spec: RunSpec) -> Iterator[Problem]:
    for index, runtime in enumerate(spec.measure.runtimes):
        try:
            bind_runtime(runtime, f"measure.runtimes[{index}]")
        except SpecError as error:
            yield from error.problems


def _longest(spec: RunSpec, subject: Subject) -> int | None:
    """Tokens that every stage takes: those of the model, or of a module that is made for its longest text."""
    config = subject.configs["main"]
    limited = any(isinstance(m, Replacement) and m.limits_length for m in subject.model.modules())
    for step in spec.recipe:
        with suppress(SpecError):  # told of its step
            limited |= technique(step, "recipe").limits_length
    return models.longest(config) or (config.get("length") if limited else None)


def _recipe_problems(
    recipe: Sequence[StepSpec], field: str, task: Task, subject: Subject | None, main: Described | None
) -> Iterator[Problem]:
    for index, step in enumerate(recipe):
        place = f"{field}[{index}]"
        try:
            bound = technique(step, place)
        except SpecError as error:
            yield from error.problems
            continue
        yield from _step_problems(bound, f"{place}.{step.technique}", task, subject, main)


def _step_problems(
    bound: Technique, place: str, task: Task, subject: Subject | None, main: Described | None
) -> Iterator[Problem]:
    try:
        if subject is not None:
            bound.check(subject)
        references = list(model_references(bound))
    except SpecError as error:
        yield from error.at(place).problems
        return
    for name, reference in references:
        yield from _reference_problems(reference, f"{place}.{name}", task, main)


def _reference_problems(reference: ModelSpec, field: str, task: Task, main: Described | None) -> Iterator[Problem]:
    """Problems of a teacher or reference, which gets the same tokens as the run's model."""
    if reference.source.startswith("stage:"):
        return
    described = None
    try:
        described = None if is_run(reference) else models.describe(reference, task)
    except SpecError as error:
        yield from error.moved("model", field).problems
    subject = None if described is None else _subject(described, task)
    yield from _recipe_problems(reference.recipe, f"{field}.recipe", task, subject, described)
    if main is None or described is None:
        return
    message = describe_difference(main.input_format.tokenizer, described.input_format.tokenizer)
    if message is not None:
        yield Problem(f"{field}.source", reference.source, message, "Choose a model with the same tokenizer.")
