"""AWQ on models of every family, with planted outliers."""

import pytest

from core.errors import SpecError
from core.nn.experts.linear import ExpertLinear
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.quantization.awq import Awq
from core.techniques.quantization.layers import quantizable
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import plane_subject
from tests.core.techniques.pruning.families import subject_of
from tests.core.techniques.quantization.test_activation_quantization import applied, error
from tests.core.techniques.quantization.test_smoothquant import FAMILIES, planted

SETTINGS = {"bits": 3, "granularity": "group", "group_size": 16}


@pytest.mark.parametrize("family", FAMILIES)
def test_salient_channels_lose_less_than_by_rounding_to_nearest(family):
    subject = planted(family)
    plain = error(applied(Rtn(**SETTINGS, symmetric=False), subject), subject)
    changed = applied(Awq(**SETTINGS), subject)
    assert error(changed, subject) < 0.9 * plain
    assert [row["name"] for row in changed.details["layers"]] == quantizable(subject, False, [])
    assert not any(type(m) is ExpertLinear for m in changed.model.modules())
    assert any(row["exponent"] > 0 for row in changed.details["layers"])


def test_values_of_bert_are_scaled_and_its_padding_is_ignored():
    subject = subject_of("bert", depth=2)
    changed = applied(Awq(**SETTINGS), subject)
    scaled = {row["name"].rpartition(".encoder.")[2] for row in changed.details["layers"] if row["exponent"] > 0}
    assert scaled <= {f"layer.{i}.attention.output.dense" for i in range(2)}
    assert error(changed, subject) < error(applied(Rtn(**SETTINGS, symmetric=False), subject), subject)


def test_clipping_lowers_the_error_of_outputs():
    subject = subject_of("llama", depth=2)
    clip, plain = (error(applied(Awq(**SETTINGS, clip=clip), subject), subject) for clip in (True, False))
    assert clip < plain


def test_pruned_weights_stay_zero():
    subject = applied(MagnitudePruning(sparsity=0.5), subject_of("builtin gpt", depth=2))
    masks = {name.removeprefix("main.").removesuffix(".weight"): c.tensor for name, c in subject.constraints.items()}
    changed = applied(Awq(**SETTINGS), subject)
    for name, mask in masks.items():
        assert not changed.model.get_submodule(name).weight()[~mask].any()


def test_a_model_without_places_is_refused():
    with pytest.raises(SpecError, match="no place where the scale"):
        Awq().check(plane_subject())


def test_the_label_names_what_differs_from_the_paper():
    assert Awq().label() == "4-bit per group of 128"
    assert Awq(granularity="channel", symmetric=True, clip=False).label() == "4-bit per channel symmetric no clipping"
