"""Places where channels can be scaled: they preserve the function of every family, and nothing is missed."""

import pytest
import torch
import transformers

from core.algorithms.channel_scaling import fold_, of_channels, of_inputs
from core.models.experts import unfuse_experts_
from core.models.foldable import Fold, folds
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.mixture_of_experts.glam import Glam
from core.techniques.mixture_of_experts.moe import Moe
from core.techniques.pruning.head_pruning import HeadPruning
from tests.core.fakes import context
from tests.core.models.conftest import TEXT
from tests.core.techniques.pruning.families import BUILTIN, subject_of

SMALL = {"intermediate_size": 48, "num_key_value_heads": 2, **TEXT}
EXPECTED = {  # producers of a block's folds, in the order of execution
    "llama": ["input_layernorm", "self_attn.v_proj", "post_attention_layernorm", "mlp.up_proj"],
    "qwen2": ["input_layernorm", "self_attn.v_proj", "post_attention_layernorm", "mlp.up_proj"],
    "opt": ["self_attn_layer_norm", "self_attn.v_proj", "final_layer_norm", "fc1"],
    "gpt2": ["ln_1", "attn.c_attn", "ln_2"],
    "bert": ["attention.self.value"],
    "vit": ["layernorm_before", "attention.v_proj", "layernorm_after"],
    "mixtral": ["input_layernorm", "self_attn.v_proj", "post_attention_layernorm", "mlp.experts.up"],
    **{family: ["norm1", "attention.v", "norm2"] for family in BUILTIN},
}


def gated():
    return subject_of("builtin gpt", depth=2, ffn="swiglu")


def experts(step, **more):
    subject = subject_of("builtin gpt", depth=2, **more)
    step.apply(subject, context(subject))
    return subject


def pruned():
    subject = subject_of("llama", depth=2)
    HeadPruning(importance="magnitude", pruning_ratio=0.5).apply(subject, context(subject))
    return subject


def own(name, **more):
    """A model of transformers that is no family of ours."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SMALL, **more)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    unfuse_experts_(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return Subject({"main": model}, subject_of("llama", depth=1).task, {"main": {}})


OTHERS = {
    "gated": gated,
    "heads pruned": pruned,
    "moe": lambda: experts(Moe(experts=4, k=2)),
    "glam": lambda: experts(Glam(experts=4), ffn="swiglu"),
    "gemma": lambda: own("Gemma", head_dim=8),
    "gemma 2": lambda: own("Gemma2", head_dim=8),
    "qwen2 moe": lambda: own(
        "Qwen2Moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, shared_expert_intermediate_size=40
    ),
    "olmoe": lambda: own("Olmoe", num_experts=4, num_experts_per_tok=2),
}


@torch.no_grad()
def check_folds(subject, names, tolerance=1e-9):
    model, batch = subject.model.double().eval(), subject.task.batch(torch.arange(6))
    batch = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
    expected = logits_of(model, batch)
    generator = torch.Generator().manual_seed(1)
    for fold in names:
        layer = model.get_submodule(fold.consumers[0])
        shape = (getattr(layer, "experts", 1), fold.channels) if not fold.is_norm else (fold.channels,)
        scales = torch.exp(torch.randn(shape, generator=generator, dtype=torch.float64)).squeeze(0)
        fold_(model, fold, scales)
        assert torch.allclose(logits_of(model, batch), expected, rtol=tolerance, atol=tolerance), fold


@pytest.mark.parametrize("family", EXPECTED)
def test_folds_preserve_the_function_of_every_family(family):
    more = {"activation_function": "relu"} if family == "opt" else {}
    subject = subject_of(family, depth=2, **more)
    found = folds(subject.model)
    first = [f.producer for f in found if ".0." in f.producer]
    assert [name.partition(".0.")[2] for name in first] == EXPECTED[family]
    assert len(found) == 2 * len(first)
    check_folds(subject, found)


@pytest.mark.parametrize("name", OTHERS)
def test_folds_preserve_the_function_of_variants_and_experts(name):
    subject = OTHERS[name]()
    found = folds(subject.model)
    assert len(found) >= 6
    check_folds(subject, found, 1e-4 if name.startswith("gemma") else 1e-9)  # Gemma's norms compute in float32


def test_what_the_residual_stream_or_gelu_reads_is_not_folded():
    assert all(f.producer.endswith("value") for f in folds(subject_of("bert", depth=2).model))
    assert not any(
        f.producer.endswith("fc1") for f in folds(subject_of("opt", depth=2, activation_function="gelu").model)
    )
    post_norm = subject_of("opt", depth=2, do_layer_norm_before=False, activation_function="relu")
    assert [f.producer.rpartition(".")[2] for f in folds(post_norm.model)] == ["v_proj", "fc1"] * 2


def test_a_wrong_pair_changes_the_function():
    subject = subject_of("bert", depth=1)
    block = "bert.encoder.layer.0"
    wrong = Fold(f"{block}.intermediate.dense", (f"{block}.output.dense",), f"{block}.output.dense", 48)
    with pytest.raises(AssertionError):
        check_folds(subject, [wrong])


def test_query_heads_that_share_values_share_their_factors():
    fold = folds(subject_of("llama", depth=1).model)[1]  # 4 heads of 8, two for each value head
    inputs = torch.arange(32.0)
    shared = of_channels(fold, inputs)
    assert shared.tolist() == [*range(8, 16), *range(24, 32)]  # the larger of both
    assert of_inputs(fold, shared).tolist() == [*range(8, 16), *range(8, 16), *range(24, 32), *range(24, 32)]
