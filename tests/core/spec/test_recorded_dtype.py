"""Specs and bundles of releases that loaded every checkpoint as float32."""

import pytest

from core.spec.model import RunSpec
from core.spec.recorded_dtype import settings_with_recorded_dtype, with_recorded_dtype

TEACHER = "hf:acme/teacher"


def test_every_hugging_face_model_names_its_dtype_and_nothing_else_changes():
    spec = {
        "model": {"source": "hf:acme/small", "attention": "eager"},
        "task": {"source": "hf:acme/reviews", "text": "body"},
        "reference": {"source": "builtin:gpt", "dim": 64},
        "recipe": [
            {"train": {"methods": [{"cofi": {"teacher": TEACHER}}, {"distill_logits": {"teacher": "stage:0"}}]}},
            {"train": {"methods": [{"cofi": {"teacher": {"source": TEACHER, "recipe": [{"rtn": {"bits": 4}}]}}}]}},
            {"train": {"methods": [{"cofi": {"teacher": {"source": TEACHER, "dtype": "bfloat16"}}}]}},
        ],
    }
    told = RunSpec.parse(with_recorded_dtype(RunSpec.parse(spec).to_dict())).to_dict()
    assert told["model"] == {"source": "hf:acme/small", "attention": "eager", "dtype": "float32"}
    assert told["task"] == spec["task"] and told["reference"] == spec["reference"]
    teachers = [step["train"]["methods"][0]["cofi"]["teacher"] for step in told["recipe"]]
    assert teachers == [
        {"source": TEACHER, "dtype": "float32"},
        {"source": TEACHER, "dtype": "float32", "recipe": [{"rtn": {"bits": 4}}]},
        {"source": TEACHER, "dtype": "bfloat16"},
    ]
    assert told["recipe"][0]["train"]["methods"][1] == {"distill_logits": {"teacher": "stage:0"}}


@pytest.mark.parametrize(
    ("source", "settings", "told"),
    [
        ("hf:acme/small", {}, {"dtype": "float32"}),
        ("hf:acme/small", {"dtype": "float16"}, {"dtype": "float16"}),
        ("builtin:vit", {"dim": 8}, {"dim": 8}),
        ("run:12", {}, {}),
    ],
)
def test_a_recorded_source_tells_its_dtype(source, settings, told):
    assert settings_with_recorded_dtype(source, settings) == told
