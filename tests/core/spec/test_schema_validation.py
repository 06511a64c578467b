# ruff: noqa: E501  a table of messages reads better unbroken
from contextlib import nullcontext

import pytest

from core.errors import SpecError
from core.spec.catalogue import Catalogue, built_in
from core.spec.model import RunSpec
from core.spec.schema_validation import validate

BITS = {"type": "integer", "minimum": 2, "maximum": 8, "default": 8}


def entry(properties: dict, **more: object) -> dict:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"schema": schema, "forms": ["step"], "leaves": [], "refuses": {}, "requires": [], **more}


CATALOGUE = Catalogue(
    techniques={
        "train": entry(
            {"steps": {"type": "integer", "exclusiveMinimum": 0}, "methods": {"type": "array", "role": "methods"}},
            refuses={"integer codes": "Put train first."},
        ),
        "rtn": entry(
            {"bits": BITS, "observer": {"enum": ["minmax", "mse"]}, "group": {"anyOf": [BITS, {"type": "null"}]}},
            leaves=["integer codes"],
        ),
        "sr_ste": entry({"n": BITS}, forms=["method"]),
        "distill_logits": entry({"teacher": {"role": "model"}}, forms=["method"]),
    },
    models={"builtin:vit": entry({"dim": {"type": "integer", "minimum": 8}}), "hf": entry({}), "run": entry({})},
    tasks={"builtin:digits": entry({})},
    runtimes={
        "eager": entry({}),
        "onnxruntime": entry({"level": {"enum": ["none", "all"]}}, requires=["cpu"]),
        "tensorrt": entry({}, requires=["cuda"]),
    },
)


def problems(recipe: list | None = None, **changes: object) -> list[tuple[str, object, str, str]]:
    spec = {"model": "builtin:vit", "task": "builtin:digits", "recipe": recipe or [], **changes}
    try:
        validate(RunSpec.parse(spec), CATALOGUE)
    except SpecError as error:
        return [(p.field, p.value, p.message, p.remedy) for p in error.problems]
    return []


@pytest.mark.parametrize(
    ("runtimes", "expected"),
    [
        (["eager", "onnx"], ("measure.runtimes[1]", "onnx", "is not a known runtime", "Did you mean onnxruntime?")),
        (
            [{"onnxruntime": {"level": "some"}}],
            ("measure.runtimes[0].onnxruntime.level", "some", "is not an allowed value", "Choose none or all."),
        ),
        (
            [{"eager": {"level": "all"}}],
            (
                "measure.runtimes[0].eager.level",
                "all",
                "is not a known setting",
                "Remove it.",
            ),
        ),
        (
            ["eager", "eager"],
            ("measure.runtimes[1]", "eager", "is listed twice with the same settings", "Remove one of them."),
        ),
    ],
)
def test_a_runtime_that_cannot_be_used_is_named(runtimes, expected):
    assert problems(measure={"runtimes": runtimes}) == [expected]


@pytest.mark.parametrize("device", ["any", "cpu", "gpu"])
def test_a_device_without_what_a_runtime_requires_is_refused_before_the_run_waits_for_it(device):
    for runtime, need, fits in (("onnxruntime", "cpu", "cpu"), ("tensorrt", "cuda", "gpu"), ("eager", "", "")):
        found = problems(device=device, measure={"runtimes": [runtime]})
        message = f"cannot run runtime {runtime}, which requires {need}"
        remedy = f"Choose the device {fits} or any, or remove runtime {runtime}."
        assert found == ([("device", device, message, remedy)] if fits and device not in ("any", fits) else [])


def test_the_same_runtime_with_two_settings_passes():
    assert problems(measure={"runtimes": [{"onnxruntime": {"level": "none"}}, {"onnxruntime": {"level": "all"}}]}) == []


def test_a_right_spec_passes():
    methods = [{"sr_ste": {"n": 2}}, {"distill_logits": {"teacher": "stage:0"}}]
    assert problems([{"train": {"steps": 5, "methods": methods}}, "rtn"]) == []


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (["rtm"], ("recipe[0]", "rtm", "is not a known technique", "Did you mean rtn?")),
        ([{"rtn": {"bits": 9}}], ("recipe[0].rtn.bits", 9, "must be at most 8", "Choose a value at least 2 and at most 8.")),
        ([{"rtn": {"group": 1}}], ("recipe[0].rtn.group", 1, "must be at least 2", "Choose a value at least 2 and at most 8.")),
        ([{"rtn": {"bits": "4"}}], ("recipe[0].rtn.bits", "4", "must be a whole number", "Give a whole number.")),
        ([{"rtn": {"bitz": 4}}], ("recipe[0].rtn.bitz", 4, "is not a known setting", "Did you mean bits?")),
        ([{"rtn": {"observer": "max"}}], ("recipe[0].rtn.observer", "max", "is not an allowed value", "Choose minmax or mse.")),
        (
            ["sr_ste"],
            ("recipe[0]", "sr_ste", "is a training method, not a step", "Add it to the methods of a train step."),
        ),
        (
            [{"train": {"methods": ["rtn"]}}],
            ("recipe[0].train.methods[0]", "rtn", "is a step, not a training method", "Add it to the recipe as a step, before or after the train step."),
        ),
        ([{"train": {"methods": [{"sr_ste": {"n": 1}}]}}],
         ("recipe[0].train.methods[0].sr_ste.n", 1, "must be at least 2", "Choose a value at least 2 and at most 8.")),
        (["rtn", "train"], ("recipe[1]", "train", "cannot follow rtn, which leaves integer codes", "Put train first.")),
        ([{"train": {"methods": [{"distill_logits": {"teacher": "stage:1"}}]}}],
         ("recipe[0].train.methods[0].distill_logits.teacher.source", "stage:1", "is not an earlier stage",
          "Choose stage:0 (the loaded model) to stage:0 (the last stage before this step).")),
    ],
)  # fmt: skip
def test_each_mistake_names_field_value_and_remedy(recipe, expected):
    assert problems(recipe) == [expected]


def test_sources_and_their_settings_are_checked():
    assert problems(model="builtin:vitt") == [
        ("model.source", "builtin:vitt", "is not a known model source", "Did you mean builtin:vit?")
    ]
    assert problems(model={"source": "builtin:vit", "dim": 4})[0][:3] == ("model.dim", 4, "must be at least 8")
    assert problems(task="builtin:digit")[0][3] == "Did you mean builtin:digits?"
    assert problems(model="hf:some/repo") == []


def test_every_problem_is_told_at_once():
    assert len(problems(["rtm", {"rtn": {"bits": 1}}], task="nothing:at all")) == 3


def test_a_reference_may_be_any_stage_of_the_recipe():
    assert problems(["rtn"], reference="stage:1") == []
    assert problems(["rtn"], reference="stage:2")[0][2] == "is not an earlier stage"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (["moe", "mamba"], "cannot follow moe, which leaves experts"),
        (["moe", {"mamba": {"replaces": "block"}}], "cannot follow moe, which leaves experts"),
        (["moe", {"mamba": {"replaces": "attention"}}], None),
        ([{"mamba": {"replaces": "attention"}}, "moe"], None),
        (["mamba", "moe"], "cannot follow mamba, which leaves no dense feed-forward network"),
        (["reversible", "rwkv"], "cannot follow reversible, which leaves two streams"),
        (["reversible", "switch"], "cannot follow reversible, which leaves two streams"),
        (["reversible", {"train": {"steps": 1}}, "depth_pruning"], None),
        ([{"block_local": {"every": 2}}, "linear_attention"], None),
        (["block_local", "linear_attention"], "cannot follow block_local, which leaves no full attention"),
        (["retnet", "ffn_pruning"], None),
        (["token_merging", {"train": {"methods": [{"cofi": {"teacher": "stage:0", "residual": False}}]}}], None),
        (
            ["token_merging", {"train": {"methods": [{"cofi": {"teacher": "stage:0"}}]}}],
            "cannot follow token_merging, which leaves blocks that reduce tokens",
        ),
    ],
)
def test_orders_of_architectures_that_cannot_work_are_refused_as_the_settings_are(recipe, message):
    spec = RunSpec.parse({"model": "builtin:gpt", "task": "builtin:python-docs", "recipe": recipe})
    if message is None:
        validate(spec, built_in())
        return
    with pytest.raises(SpecError) as caught:
        validate(spec, built_in())
    assert [problem.message for problem in caught.value.problems] == [message]  # one reason is enough


@pytest.mark.parametrize("later", ["ffn_pruning", "width_pruning", "channel_permutation"])
@pytest.mark.parametrize(
    ("earlier", "leaves"),
    [
        ({"nm_pruning": {}}, True),
        ({"train": {"steps": 1, "methods": ["sr_ste"]}}, True),
        ({"wanda": {"structure": "n:m"}}, True),
        ({"sparsegpt": {"structure": "n:m"}}, True),
        ({"wanda": {}}, False),
        ({"magnitude_pruning": {}}, False),
    ],
)
def test_what_would_break_an_nm_pattern_is_refused_after_it(earlier, leaves, later):
    spec = RunSpec.parse({"model": "builtin:vit", "task": "builtin:digits", "recipe": [earlier, later]})
    refused = pytest.raises(SpecError, match="leaves an N:M pattern") if leaves else nullcontext()
    with refused:
        validate(spec, built_in())
