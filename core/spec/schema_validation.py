"""Validates a spec against the published schemas, before any worker checks it. Loads no torch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from core.errors import Problem, SpecError, nearest
from core.spec.catalogue import Catalogue
from core.spec.model import OWN_DATA, ModelSpec, RunSpec, RuntimeSpec, StepSpec, TaskSpec


def validate(spec: RunSpec, catalogue: Catalogue) -> None:
    """Raise SpecError with every problem that the schemas reveal."""
    problems = [*_source_problems("models", spec.model, "model", catalogue, 0)]
    if spec.model.recipe:
        remedy = "Move these steps to the start of the recipe. Only references and teachers may have nested recipes."
        problems.append(Problem("model.recipe", len(spec.model.recipe), "cannot be set for the run's model", remedy))
    problems += _source_problems("tasks", spec.task, "task", catalogue, 0)
    problems += _calibration_problems(spec, catalogue)
    if spec.reference is not None:
        problems += _source_problems("models", spec.reference, "reference", catalogue, len(spec.recipe))
    for index, step in enumerate(spec.recipe):
        problems += _step_problems(step, f"recipe[{index}]", "step", catalogue, index)
    problems += _order_problems(spec.recipe, catalogue)
    problems += _follow_problems(spec, catalogue)
    problems += _runtime_problems(spec.measure.runtimes, catalogue)
    problems += _device_problems(spec, catalogue)
    if problems:
        raise SpecError(problems)


def _calibration_problems(spec: RunSpec, catalogue: Catalogue) -> Iterator[Problem]:
    for index, source in enumerate(spec.calibration.sources):
        place = f"calibration.sources[{index}]"
        if source.source != OWN_DATA:
            yield from _source_problems("tasks", source.task, place, catalogue, 0)
        elif source.settings:
            name = next(iter(source.settings))
            yield Problem(f"{place}.{name}", source.settings[name], "is a setting of the task itself", "Remove it.")
        if source in spec.calibration.sources[:index]:
            yield Problem(f"{place}.source", source.source, "is listed twice", "Give one of them a larger weight.")


def _order_problems(recipe: Sequence[StepSpec], catalogue: Catalogue) -> Iterator[Problem]:
    """Steps that refuse what an earlier step leaves; only the first reason for each step."""
    left: dict[str, str] = {}  # property -> the step that left it
    for index, step in enumerate(recipe):
        methods = [_method(item) for item in step.settings.get("methods") or ()]
        parts = [step, *filter(None, methods)]
        entries = [catalogue.techniques.get(part.technique, {}) for part in parts]
        accepted = {name for entry in entries for name in entry.get("accepts", ())}  # by a method, of its training
        against: set[str] = set()
        for part, entry in zip(parts, entries, strict=True):
            for name, remedy in _as_set(part, entry, "refuses"):
                is_refused = name in left and not (part is step and name in accepted)
                if is_refused and left[name] not in against:
                    against.add(left[name])
                    message = f"cannot follow {left[name]}, which leaves {name}"
                    yield Problem(f"recipe[{index}]", step.technique, message, remedy)
        for part, entry in zip(parts, entries, strict=True):
            left |= {name: step.technique for name, _ in _as_set(part, entry, "leaves")}


def _follow_problems(spec: RunSpec, catalogue: Catalogue) -> Iterator[Problem]:
    """Steps without the step that must come directly before them; what an earlier run left is not known here."""
    left: set[str] | None = None if spec.model.source.startswith("run:") else set()
    for index, step in enumerate(spec.recipe):
        entry = catalogue.techniques.get(step.technique, {})
        for name, remedy in _as_set(step, entry, "follows"):
            if left is not None and name not in left:
                yield Problem(f"recipe[{index}]", step.technique, f"needs {name} from the step before it", remedy)
        left = {name for name, _ in _as_set(step, entry, "leaves")}


def _runtime_problems(runtimes: Sequence[RuntimeSpec], catalogue: Catalogue) -> Iterator[Problem]:
    for index, runtime in enumerate(runtimes):
        place = f"measure.runtimes[{index}]"
        entry = catalogue.runtimes.get(runtime.name)
        if entry is None:
            remedy = nearest(runtime.name, catalogue.runtimes)
            yield Problem(place, runtime.name, "is not a known runtime", remedy)
            continue
        if runtime in runtimes[:index]:
            yield Problem(place, runtime.name, "is listed twice with the same settings", "Remove one of them.")
        yield from _schema_problems(runtime.settings, entry["schema"], f"{place}.{runtime.name}")


_EXCLUDED = {"any": (), "cpu": ("gpu", "cuda"), "gpu": ("cpu",)}  # what workers with this device do not provide


def _device_problems(spec: RunSpec, catalogue: Catalogue) -> Iterator[Problem]:
    """A device on which a technique or runtime of the spec cannot run, so that the run would wait forever."""
    for need, user in catalogue.requires(spec).items():
        if need in _EXCLUDED[spec.device]:
            remedy = f"Choose the device {'gpu' if spec.device == 'cpu' else 'cpu'} or any, or remove {user}."
            yield Problem("device", spec.device, f"cannot run {user}, which requires {need}", remedy)


def _as_set(step: StepSpec, entry: dict[str, Any], kind: str) -> Iterator[tuple[str, str]]:
    """What a step with its settings `leaves` (or `refuses`, with remedies); the last entry is a setting value's."""
    fields = entry.get("schema", {}).get("properties", {})
    found = _with_remedies(entry.get(kind, {}))
    for condition, names in entry.get(f"{kind}_with", {}).items():
        setting, _, value = condition.partition("=")
        given = step.settings.get(setting, fields.get(setting, {}).get("default"))
        if str(given) == value if value else given is not None:
            found |= _with_remedies(names)
    yield from found.items()


def _with_remedies(names: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    return dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, "")


def _source_problems(
    kind: str, spec: ModelSpec | TaskSpec, field: str, catalogue: Catalogue, position: int
) -> Iterator[Problem]:
    """Problems of a model or task; `position` is the number of stages that `stage:<n>` may refer to."""
    if isinstance(spec, ModelSpec) and spec.source.startswith("stage:"):
        yield from _stage_problems(spec, f"{field}.source", position)
        return
    found = catalogue.source(kind, spec.source)
    if found is None:
        remedy = nearest(spec.source, getattr(catalogue, kind))
        yield Problem(f"{field}.source", spec.source, f"is not a known {kind[:-1]} source", remedy)
        return
    yield from _schema_problems(spec.settings, found[1]["schema"], field)
    if isinstance(spec, ModelSpec):
        for index, step in enumerate(spec.recipe):
            yield from _step_problems(step, f"{field}.recipe[{index}]", "step", catalogue, index)


def _stage_problems(spec: ModelSpec, field: str, position: int) -> Iterator[Problem]:
    number = spec.source.removeprefix("stage:")
    if not number.isdecimal() or int(number) > position:
        remedy = f"Choose stage:0 (the loaded model) to stage:{position} (the last stage before this step)."
        yield Problem(field, spec.source, "is not an earlier stage", remedy)


def _step_problems(step: StepSpec, field: str, form: str, catalogue: Catalogue, position: int) -> Iterator[Problem]:
    entry = catalogue.techniques.get(step.technique)
    if entry is None:
        remedy = nearest(step.technique, catalogue.techniques)
        yield Problem(field, step.technique, "is not a known technique", remedy)
        return
    if form not in entry["forms"]:
        yield Problem(field, step.technique, *_WRONG_FORM[form])
        return
    place = f"{field}.{step.technique}"
    yield from _schema_problems(step.settings, entry["schema"], place)
    yield from _nested_problems(step, entry["schema"], place, catalogue, position)


_WRONG_FORM = {
    "step": ("is a training method, not a step", "Add it to the methods of a train step."),
    "method": ("is a step, not a training method", "Add it to the recipe as a step, before or after the train step."),
}


def _nested_problems(
    step: StepSpec, schema: dict[str, Any], place: str, catalogue: Catalogue, position: int
) -> Iterator[Problem]:
    """Problems of the methods and models in a step's settings."""
    for key, property_schema in schema.get("properties", {}).items():
        value = step.settings.get(key)
        if value is None:
            continue
        if property_schema.get("role") == "methods" and isinstance(value, list):
            for index, item in enumerate(value):
                method = _method(item)
                if method is None:
                    remedy = "Write {technique: {setting: value}}, or only its name."
                    yield Problem(f"{place}.{key}[{index}]", item, "is not a method", remedy)
                else:
                    yield from _step_problems(method, f"{place}.{key}[{index}]", "method", catalogue, position)
        elif property_schema.get("role") == "model" and isinstance(value, (str, dict)):
            if isinstance(value, dict) and "source" not in value:
                yield Problem(
                    f"{place}.{key}.source", "", "is missing", "Name a model, such as builtin:vit, stage:1 or run:12."
                )
                continue
            reference = ModelSpec.model_validate(value)
            yield from _source_problems("models", reference, f"{place}.{key}", catalogue, position)


def _method(item: Any) -> StepSpec | None:
    shaped = isinstance(item, str) or (isinstance(item, dict) and len(item) == 1)
    if not shaped:
        return None
    settings = {} if isinstance(item, str) else next(iter(item.values()))
    return StepSpec.model_validate(item) if settings is None or isinstance(settings, dict) else None


def _schema_problems(settings: dict[str, Any], schema: dict[str, Any], field: str) -> Iterator[Problem]:
    for error in Draft202012Validator(schema).iter_errors(settings):
        yield _problem(_innermost(error), field, schema)


def _innermost(error: ValidationError) -> ValidationError:
    """The part of an optional value's error that is about the value, not about `null`."""
    context = [e for e in error.context or () if e.validator_value != "null"]
    return _innermost(best_match(context) or error) if context else error


def _problem(error: ValidationError, field: str, schema: dict[str, Any]) -> Problem:
    path = field + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
    limit = cast("Any", error.validator_value)
    value = cast("Any", error.instance)
    match error.validator:
        case "additionalProperties":
            known = (error.schema or {}).get("properties", {}) if isinstance(error.schema, dict) else {}
            name = next(key for key in value if key not in known)
            remedy = nearest(name, known) if known else "Remove it."
            return Problem(f"{path}.{name}", value[name], "is not a known setting", remedy)
        case "required":
            name = next(key for key in limit if key not in value)
            return Problem(f"{path}.{name}", "", "is missing", "Set it.")
        case "enum" | "const":
            allowed = limit if isinstance(limit, list) else [limit]
            return Problem(path, value, "is not an allowed value", f"Choose {_listed(allowed)}.")
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            return Problem(path, value, f"must be {_BOUND[error.validator]} {limit}", _range(error.schema))
        case "type":
            remedy = f"Give {_TYPES.get(str(limit), str(limit))}."
            return Problem(path, value, f"must be {_TYPES.get(str(limit), str(limit))}", remedy)
        case _:
            return Problem(path, value, error.message, "Change it to an allowed value.")


_BOUND = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "above",
    "exclusiveMaximum": "below",
}
_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def _listed(values: list[Any]) -> str:
    return " or ".join(str(value) for value in values)


def _range(schema: Any) -> str:
    low = [f"{word} {schema[key]}" for key, word in _BOUND.items() if key in schema]
    return f"Choose a value {' and '.join(low)}."
