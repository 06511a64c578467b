"""LoRA recovery: what it trains, what it leaves alone, and merging into the grid."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from core.algorithms.adapter_merging import merged
from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.nn.adapted_linear import AdaptedLinear
from core.nn.integer_linear import IntegerLinear
from core.nn.packed_embedding import PackedEmbedding
from core.nn.sparse_integer_linear import SparseQuantLinear
from core.publish import describe_catalogue
from core.spec.catalogue import Catalogue
from core.spec.model import RunSpec
from core.spec.schema_validation import validate
from core.tasks.base import logits_of
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.quantization.dynamic_int8 import DynamicInt8, quantize
from core.techniques.quantization.lora_recovery import LoraRecovery
from core.techniques.quantization.number_format import NumberFormats
from core.techniques.quantization.rtn import Rtn
from core.techniques.training.train import Train
from core.training.loop import Training
from tests import simulated_device
from tests.core.fakes import context, taken_up
from tests.core.techniques.pruning.families import loaded
from tests.core.techniques.quantization.qat import (
    FAMILIES,
    answers,
    before_and_after_the_end,
    family_subject,
    float_layers,
    loss_of,
)
from tests.core.training.test_loop import plan, same, weights


def quantized(family: str = "llama", dtype: torch.dtype = torch.float32, **settings: object):
    subject = family_subject(family, dtype)
    Rtn(**{"bits": 3, **settings}).apply(subject, context(subject))
    return subject


def stored(model: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Codes and scales of every quantized layer, in order."""
    return [(m.codes.clone(), m.scales.clone()) for m in model.modules() if isinstance(m, IntegerLinear)]


def trained_at_2_bits(seed: int = 0):
    subject = float_layers(seed)
    Train(steps=150, learning_rate=0.01, evaluations=0).apply(subject, context(subject))
    dense = copy.deepcopy(subject.model)
    Rtn(bits=2, granularity="group", group_size=8).apply(subject, context(subject))
    return subject, dense


@pytest.mark.parametrize("family", [*FAMILIES, "mixtral"])
def test_codes_stay_bit_equal_and_adapters_stay_as_a_second_term(family, tmp_path):
    subject = quantized(family)
    codes, plain = stored(subject.model), answers(subject)
    others = {name: p.detach().clone() for name, p in subject.model.named_parameters()}
    before, after = before_and_after_the_end(subject, [LoraRecovery(rank=2)], learning_rate=0.05)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(after, plain, atol=1e-3)
    for (kept, scales), (old, old_scales) in zip(stored(subject.model), codes, strict=True):
        assert torch.equal(kept, old) and torch.equal(scales, old_scales)
    left = {name.replace(".base.", "."): p for name, p in subject.model.named_parameters()}
    assert all(torch.equal(left[name], p) and left[name].requires_grad for name, p in others.items())
    artifact.save(subject, tmp_path, loaded(subject))
    probe = load_file(tmp_path / artifact.PROBE)["output"]
    with torch.inference_mode():
        again = logits_of(artifact.load_models(tmp_path)["main"], artifact.load_probe(tmp_path))
    assert torch.equal(again, probe)


@pytest.mark.parametrize(
    "step", [Rtn(bits=4), Rtn(bits=4, symmetric=False), DynamicInt8(), NumberFormats(format="nf4")]
)
def test_every_form_of_codes_takes_adapters(step):
    subject = family_subject("llama")
    step.apply(subject, context(subject))
    first = answers(subject)
    method = LoraRecovery(rank=2, targets=["*.mlp.*"])
    Training(subject, context(subject), plan(steps=2, batch_size=4, learning_rate=0.05), [method]).run()
    assert sum(isinstance(m, AdaptedLinear) for m in subject.model.modules()) == 6
    assert not torch.allclose(answers(subject), first, atol=1e-4)


def test_it_begins_as_the_quantized_model_and_recovers_most_of_the_loss():
    for seed in range(3):
        subject, dense = trained_at_2_bits(seed)
        before = loss_of(subject)
        method = LoraRecovery(rank=2)
        method.begin(subject, context(subject))
        assert loss_of(subject) == pytest.approx(before, rel=1e-5)
        method.end(subject)
        for name in [n for n, m in subject.model.named_modules() if isinstance(m, AdaptedLinear)]:
            subject.model.set_submodule(name, subject.model.get_submodule(name).base)
        methods = [{"lora_recovery": {"rank": 2}}, {"distill_logits": {"teacher": "stage:0", "alpha": 1.0}}]
        Train(steps=80, learning_rate=0.02, evaluations=0, methods=methods).apply(
            subject, context(subject, resolve=lambda reference, dense=dense: dense)
        )
        assert loss_of(subject) < 0.6 * before


def test_bytes_of_adapters_count(tmp_path):
    subject = quantized()
    rank, sizes = 2, [(m.in_features, m.out_features) for m in subject.model.modules() if isinstance(m, IntegerLinear)]
    before = sum(t.nbytes for t in subject.model.state_dict().values())
    before_and_after_the_end(subject, [LoraRecovery(rank=rank)])
    after = sum(t.nbytes for t in subject.model.state_dict().values())
    assert after - before == sum(4 * rank * (n_in + n_out) for n_in, n_out in sizes)


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"symmetric": False}, {"granularity": "group", "group_size": 12}])
def test_merging_rounds_to_the_same_grid(settings):
    torch.manual_seed(0)
    linear = nn.Linear(20, 6)
    layer, term = Rtn(bits=4, **settings).quantize(linear), 0.2 * torch.randn(6, 20)
    made = merged(layer, term)
    assert torch.equal(made.scales, layer.scales) and torch.equal(made.bias, layer.bias)
    _, scales, _ = layer.unpacked()
    step = scales.float().repeat_interleave(settings.get("group_size", 20), dim=1)[:, :20]
    offset = layer.zero_codes().float()
    target = layer.weight() + term
    levels = (torch.arange(16.0)[:, None, None] - offset) * step
    nearest = levels.gather(0, (levels - target).abs().argmin(0)[None])[0]
    expected = torch.where(layer.weight() == 0, 0.0, nearest)
    torch.testing.assert_close(made.weight(), expected)
    assert torch.equal(merged(layer, torch.zeros(6, 20)).codes, layer.codes)  # codes survive the way there and back


@torch.no_grad()
def test_int8_codes_are_merged_too():
    torch.manual_seed(0)
    layer, term = quantize(nn.Linear(20, 6)), 0.05 * torch.randn(6, 20)
    made = merged(layer, term)
    error = (made.weight() - layer.weight() - term).abs()
    inside = (layer.weight() != 0) & (made.codes.float().abs() < 127)
    assert (error <= 0.51 * layer.scales.float()[:, None])[inside].all()
    assert not made.weight()[layer.weight() == 0].any()


def test_merging_keeps_size_and_masks_and_tells_its_cost():
    subject, record = family_subject("llama"), MemoryRecord()
    MagnitudePruning(sparsity=0.6).apply(subject, context(subject))
    masks = {name.removeprefix("main."): constraint.tensor for name, constraint in subject.constraints.items()}
    Rtn(bits=6).apply(subject, context(subject))
    before = sum(t.nbytes for t in subject.model.state_dict().values())
    method = {"lora_recovery": {"rank": 4, "merge": True}}
    Train(steps=6, batch_size=4, learning_rate=0.05, evaluations=0, methods=[method]).apply(
        subject, context(subject, record)
    )
    assert sum(t.nbytes for t in subject.model.state_dict().values()) == before
    for name, mask in masks.items():
        layer = subject.model.get_submodule(name.removesuffix(".weight"))
        assert isinstance(layer, SparseQuantLinear) and not layer.weight()[~mask].any()
    assert any("merging the adapters changed the loss" in message for _, message in record.events)
    row = subject.details["layers"][0]
    assert 0 < row["codes_changed"] < 1 and row["relative_error"] > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("merge", [False, True])
def test_a_16_bit_model_trains_in_float32_and_keeps_its_dtype_and_scales(dtype, merge):
    subject = quantized(dtype=dtype, bits=8)
    scales = [own for _, own in stored(subject.model)]
    training = Training(subject, context(subject), plan(steps=2, batch_size=4), [LoraRecovery(merge=merge)])
    assert {p.dtype for p in subject.model.parameters()} == {torch.float32}
    training.run()
    assert {p.dtype for p in subject.model.parameters()} == {dtype}
    assert {m.dtype for m in subject.model.modules() if isinstance(m, IntegerLinear)} == {dtype}
    for (_, own), old in zip(stored(subject.model), scales, strict=True):
        assert torch.equal(own, old) and own.dtype == old.dtype
    assert torch.isfinite(answers(subject)).all()


@pytest.mark.parametrize("merge", [False, True])
def test_a_training_taken_up_from_its_checkpoint_ends_the_same(tmp_path, merge):
    first, _ = trained_at_2_bits()
    train = Train(steps=20, learning_rate=0.05, evaluations=0, methods=[{"lora_recovery": {"merge": merge}}])
    (whole, _), (resumed, _) = taken_up(train, lambda seed=0: copy.deepcopy(first), tmp_path, at=13)
    assert same(weights(whole), weights(resumed))


def test_it_works_on_any_device():
    with simulated_device.active(artifact) as device:
        on_cpu, _ = trained_at_2_bits()
        on_device = copy.deepcopy(on_cpu)
        on_device.models["main"].to(device)
        for subject, where in ((on_cpu, torch.device("cpu")), (on_device, device)):
            Training(subject, context(subject, device=where), plan(steps=3), [LoraRecovery(rank=2, merge=True)]).run()
        for name, tensor in on_device.model.state_dict().items():
            assert tensor.device == device, name


def test_the_form_allows_it_after_a_step_that_quantizes_and_other_trainings_not():
    known = Catalogue(**describe_catalogue(plugins=False))

    def spec(*methods: object) -> RunSpec:
        recipe = ["rtn", {"train": {"methods": list(methods)}}]
        return RunSpec.parse({"model": "builtin:vit", "task": "builtin:digits", "recipe": recipe})

    validate(spec("lora_recovery", {"distill_logits": {"teacher": "stage:0"}}), known)
    for methods in ([], ["lsq"], ["lora_recovery", "movement_pruning"]):
        with pytest.raises(SpecError, match="cannot follow rtn, which leaves integer codes"):
            validate(spec(*methods), known)


def test_what_cannot_work_is_refused():
    with pytest.raises(SpecError, match="has no quantized layer"):
        Train(methods=["lora_recovery"]).check(float_layers())
    subject = quantized()
    Train(methods=["lora_recovery"]).check(subject)
    with pytest.raises(SpecError, match="which has no gradient"):
        Train().check(subject)
    with pytest.raises(SpecError, match="matches no quantized layer"):
        LoraRecovery(targets=["nothing"]).check(subject)
    before_and_after_the_end(subject, [LoraRecovery()])
    with pytest.raises(SpecError, match="has a low-rank term already"):
        LoraRecovery().check(subject)
    other = family_subject("llama")
    NumberFormats(format="nf4").apply(other, context(other))
    with pytest.raises(SpecError, match="without a uniform grid"):
        LoraRecovery(merge=True).check(other)


def test_packed_embeddings_stay_as_they_are():
    subject = family_subject("builtin gpt")  # its head is tied
    Rtn(bits=8, include_embeddings=True, include_head=True).apply(subject, context(subject))
    before, after = before_and_after_the_end(subject, [LoraRecovery(rank=2)], learning_rate=0.05)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    tables = [m for m in subject.model.modules() if isinstance(m, PackedEmbedding)]
    assert tables and all(isinstance(m.table, IntegerLinear) for m in tables)


def test_label():
    assert [LoraRecovery().label(), LoraRecovery(rank=4, merge=True).label()] == ["LoRA rank 8", "LoRA rank 4 merged"]
