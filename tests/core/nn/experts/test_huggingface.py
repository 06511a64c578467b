"""Fused experts of transformers as linear layers: the same answers and gradients, and every technique takes them."""

import copy

import pytest
import torch
import transformers

from core.measure import compute
from core.models.experts import unfuse_experts_
from core.nn.catalogue import REPLACEMENTS
from core.nn.experts.huggingface import HuggingFaceExperts, unsupported
from core.nn.experts.linear import ExpertLinear

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
CONFIGS = {
    "mixtral": lambda: transformers.MixtralConfig(num_local_experts=4, intermediate_size=48, **SIZES),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(intermediate_size=48, head_dim=8, **MOE, **SIZES),
    "olmoe": lambda: transformers.OlmoeConfig(intermediate_size=48, **{**MOE, "pad_token_id": 0}, **SIZES),
}


def model_of(family):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[family]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    return model


def experts_of(model):
    return [module for module in model.modules() if isinstance(module, HuggingFaceExperts)]


@pytest.mark.parametrize("family", CONFIGS)
def test_answers_and_gradients_stay_and_every_matrix_is_a_linear_layer(family):
    fused = model_of(family)
    model = copy.deepcopy(fused)
    unfuse_experts_(model)
    assert len(experts_of(model)) == 2
    assert all(p.ndim < 3 for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in fused.parameters())
    ids = torch.randint(64, (2, 12), generator=torch.Generator().manual_seed(1))
    expected, found = fused(ids).logits, model(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    first = next(m for m in fused.modules() if hasattr(m, "gate_up_proj"))
    unfused = experts_of(model)[0]
    halves = [unfused.gate.matrices(), unfused.up.matrices()]
    torch.testing.assert_close(torch.cat(halves, dim=1), first.gate_up_proj)
    gradients = [layer.weight.grad.view(4, -1, 32) for layer in (unfused.gate, unfused.up)]
    close = {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(torch.cat(gradients, dim=1), first.gate_up_proj.grad, **close)
    torch.testing.assert_close(unfused.down.weight.grad.view_as(first.down_proj), first.down_proj.grad, **close)


def test_transposed_weights_are_turned():
    fused = next(m for m in model_of("mixtral").modules() if hasattr(m, "gate_up_proj"))
    turned = copy.deepcopy(fused)
    turned.is_transposed = True
    for name in ("gate_up_proj", "down_proj"):
        setattr(turned, name, torch.nn.Parameter(getattr(fused, name).detach().transpose(1, 2).contiguous()))
    for right, found in zip(
        HuggingFaceExperts.of(fused).parameters(), HuggingFaceExperts.of(turned).parameters(), strict=True
    ):
        assert torch.equal(found, right)


def test_experts_that_compute_something_else_stay_fused():
    config = transformers.GptOssConfig(num_local_experts=4, head_dim=8, intermediate_size=48, **SIZES)
    model = transformers.AutoModelForCausalLM.from_config(config)
    fused = next(m for m in model.modules() if hasattr(m, "gate_up_proj"))
    assert "without biases" in unsupported(fused)
    with pytest.raises(ValueError, match="without biases"):
        HuggingFaceExperts.of(fused)
    unfuse_experts_(model)
    assert not experts_of(model)


def test_what_one_token_meets_is_counted():
    fused = model_of("mixtral")
    model = copy.deepcopy(fused)
    unfuse_experts_(model)
    fused.config._experts_implementation = "eager"  # of its other forms the counter sees nothing
    batch = {"input_ids": torch.arange(12)[None]}
    before, after = compute.count(fused, batch), compute.count(model, batch)
    one = 3 * 32 * 48
    assert after.parameters == before.parameters
    assert after.active_parameters == after.parameters - 2 * 2 * one  # two of four experts, in two layers
    assert after.macs == before.macs


def test_arguments_make_an_equal_module():
    model = model_of("mixtral")
    unfuse_experts_(model)
    made = experts_of(model)[0]
    with torch.device("meta"):
        again = REPLACEMENTS["HuggingFaceExperts"](**made.arguments())
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in made.named_parameters()}
    assert again.arguments() == made.arguments()
    assert all(isinstance(layer, ExpertLinear) for layer in made.layers().values()) and len(made.layers()) == 3
