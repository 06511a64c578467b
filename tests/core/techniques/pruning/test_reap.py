"""REAP: saliencies as a slow oracle sums them, planted idle experts go, and routers choose among the others."""

import pytest
import torch
import transformers
from torch.nn import functional as F

from core.algorithms.expert_pruning import Saliency, routed_experts, saliencies
from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.models.experts import unfuse_experts_
from core.subject import Subject
from core.tasks.base import logits_of
from core.technique import OneShot
from core.techniques.low_rank.svd import Svd
from core.techniques.mixture_of_experts.moe import Moe
from core.techniques.mixture_of_experts.switch import Switch
from core.techniques.pruning.reap import Reap, kept_experts
from core.techniques.pruning.wanda import Wanda
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import PlaneTask, context
from tests.core.nn.test_huggingface_sliding_window import LLAMA
from tests.core.techniques.pruning.families import loaded, subject_of
from tests.core.techniques.test_decoders import assert_decodes


def mixtral(depth: int = 2) -> Subject:
    subject = subject_of("mixtral", depth=depth)
    torch.manual_seed(1)
    for name, parameter in subject.model.named_parameters():
        if name.endswith("gate.weight"):
            parameter.data.normal_()
    return subject


def mixture(step: OneShot, family: str = "builtin gpt") -> Subject:
    subject = subject_of(family, depth=2)
    step.apply(subject, context(subject))
    torch.manual_seed(1)
    for name, parameter in subject.model.named_parameters():
        if ".ffn." in name and parameter.dtype.is_floating_point:
            parameter.data.normal_(std=0.3)
    return subject


def batches(subject: Subject) -> list[dict[str, torch.Tensor]]:
    return list(context(subject).calibration(24))


def logits(subject: Subject, model=None) -> torch.Tensor:
    with torch.no_grad():
        return logits_of(model or subject.model, batches(subject)[0])


def scale_experts(subject: Subject, experts: list[int], factor: float) -> None:
    """What these experts of each layer give, multiplied."""
    for layer in routed_experts(subject.model):
        down = subject.model.get_submodule(layer.feed).down
        down.matrices().data[experts] *= factor
        if down.bias is not None:
            down.offsets().data[experts] *= factor


def oracle(subject: Subject) -> list[torch.Tensor]:
    """Mean of g ||f(x)|| of each expert of each of Mixtral's layers, token by token."""
    means = []
    for layer in subject.model.model.layers:
        seen: list[torch.Tensor] = []
        handle = layer.mlp.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        logits(subject)
        handle.remove()
        totals, counts = torch.zeros(4), torch.zeros(4)
        experts = layer.mlp.experts
        for x in seen[0].flatten(0, 1):
            probabilities = (layer.mlp.gate.weight @ x).softmax(0)
            chosen = probabilities.topk(2)
            for gate, e in zip(chosen.values / chosen.values.sum(), chosen.indices.tolist(), strict=True):
                gated, up, down = (part.matrices()[e] for part in (experts.gate, experts.up, experts.down))
                totals[e] += gate * (down @ (F.silu(gated @ x) * (up @ x))).norm()
                counts[e] += 1
        means.append(totals / counts)
    return means


@torch.no_grad()
def test_saliencies_are_those_of_a_slow_oracle():
    subject = mixtral()
    found = saliencies(subject.model, routed_experts(subject.model), batches(subject)[:1])
    for saliency, expected in zip(found.values(), oracle(subject), strict=True):
        torch.testing.assert_close(saliency.means.float(), expected, rtol=1e-4, atol=1e-5)


def test_padding_is_not_counted():
    subject = mixture(Moe(experts=4, every=1), "builtin encoder")
    batch = batches(subject)[0]
    found = saliencies(subject.model, routed_experts(subject.model), [batch])
    n_tokens = int(batch["attention_mask"].sum()) + len(batch["attention_mask"])  # a class token each
    for layer in routed_experts(subject.model):
        assert int(found[layer.name].tokens.sum()) == n_tokens * layer.choices


@pytest.mark.parametrize(
    "made",
    [mixtral, lambda: mixture(Moe(experts=6, every=1)), lambda: mixture(Switch(experts=6, every=1), "builtin vit")],
    ids=["mixtral", "moe", "switch"],
)
def test_experts_that_give_little_are_removed(made, tmp_path):
    subject = made()
    scale_experts(subject, [1, 3], 1e-4)
    n_experts = routed_experts(subject.model)[0].experts
    step = Reap(pruning_ratio=2 / n_experts)
    step.check(subject)
    step.apply(subject, context(subject))
    assert [row["removed"] for row in subject.details["layers"]] == ["1, 3"] * 2
    assert {layer.experts for layer in routed_experts(subject.model)} == {n_experts - 2}
    after = logits(subject)
    artifact.save(subject, tmp_path, loaded(subject))
    assert torch.equal(logits(subject, artifact.load_models(tmp_path)["main"]), after)
    again = artifact.load_subject(tmp_path, subject.task, torch.device("cpu"))
    assert {layer.experts for layer in routed_experts(again.model)} == {n_experts - 2}


@torch.no_grad()
def test_the_router_shares_its_weight_among_the_experts_that_stay():
    subject, original = mixtral(depth=1), mixtral(depth=1)
    scale_experts(subject, [0, 2], 1e-4)
    Reap(pruning_ratio=0.5).apply(subject, context(subject))
    x = torch.randn(1, 9, 32)
    found = subject.model.model.layers[0].mlp(x)[0]
    block = original.model.model.layers[0].mlp
    for token, y in zip(x[0], found, strict=True):
        gates = (block.gate.weight[[1, 3]] @ token).softmax(0)
        expected = 0
        for gate, e in zip(gates, (1, 3), strict=True):
            gated, up, down = (getattr(block.experts, n).matrices()[e] for n in ("gate", "up", "down"))
            expected = expected + gate * (down @ (F.silu(gated @ token) * (up @ token)))
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_says_how_many_experts_it_has():
    subject = mixtral()
    Reap(pruning_ratio=0.25).apply(subject, context(subject))
    assert subject.model.config.num_local_experts == 3
    assert subject.configs["main"]["config"]["num_local_experts"] == 3
    assert subject.model.num_experts == 3


@pytest.mark.parametrize("shared", [False, True])
def test_qwens_experts_are_pruned_beside_shared_ones(shared):
    torch.manual_seed(0)
    sizes = {**LLAMA, "moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 2}
    kind = transformers.Qwen2MoeConfig if shared else transformers.Qwen3MoeConfig
    model = transformers.AutoModelForCausalLM.from_config(kind(decoder_sparse_step=1, **sizes)).eval()
    unfuse_experts_(model)
    subject = Subject({"main": model}, PlaneTask(), {"main": {}})
    for layer in routed_experts(model):
        model.get_parameter(layer.router[0]).data.normal_()
    ids = {"input_ids": torch.randint(3, 60, (4, 16))}
    made = context(subject)
    made.calibration = lambda _: [ids]
    scale_experts(subject, [5], 1e-4)
    Reap(pruning_ratio=0.2).apply(subject, made)
    assert [row["removed"] for row in subject.details["layers"]] == ["5", "5"]
    assert_decodes(model, 60)


def test_experts_without_tokens_are_not_judged():
    saliency = Saliency(torch.tensor([3.0, 0, 8, 0, 1]), torch.tensor([1.0, 0, 8, 0, 4]))
    assert kept_experts(saliency, 1, 1).tolist() == [0, 1, 2, 3]
    assert kept_experts(saliency, 2, 1).tolist() == [0, 1, 3]
    assert kept_experts(saliency, 4, 1).tolist() == [0, 1, 3]
    assert kept_experts(saliency, 4, 2).tolist() == [0, 1, 2, 3]


def test_experts_without_tokens_stay_and_are_told_of(tmp_path):
    subject, record = mixture(Switch(experts=4, every=1)), MemoryRecord()
    first = subject.model.get_submodule(routed_experts(subject.model)[0].name)
    first.router.data[:] = 0
    first.router.data[0] = torch.randn(32)
    first.router.data[1] = -first.router.data[0]
    Reap(pruning_ratio=0.5).apply(subject, context(subject, record))
    rows = subject.details["layers"]
    assert rows[0]["removed"] in ("0", "1")
    assert rows[0]["experts"] == 3
    message = next(m for level, m in record.events if level == "warning" and "experts 2, 3 of" in m)
    assert "they stay, and only 1 of 2 are removed" in message
    after = logits(subject)
    artifact.save(subject, tmp_path, loaded(subject))
    assert torch.equal(logits(subject, artifact.load_models(tmp_path)["main"]), after)


def test_masks_are_cut_along_and_later_steps_follow():
    subject = mixtral(depth=1)
    Wanda(sparsity=0.5, calibration_examples=8).apply(subject, context(subject))
    Reap(pruning_ratio=0.5).apply(subject, context(subject))
    for layer in routed_experts(subject.model):
        weight = subject.model.get_parameter(f"{layer.feed}.up.weight")
        mask = subject.mask(f"{layer.feed}.up.weight")
        assert weight.shape == mask.shape == (2 * 48, 32)
        assert not weight[~mask].any()
    Rtn(bits=4).apply(subject, context(subject))
    assert logits(subject).isfinite().all()


def test_what_cannot_be_removed_is_refused_with_the_reason():
    with pytest.raises(SpecError, match="has no experts that can be removed"):
        Reap().check(subject_of("llama", depth=1))
    with pytest.raises(SpecError, match="removes none of the 4 experts"):
        Reap(pruning_ratio=0.2).check(mixtral())
    with pytest.raises(SpecError, match=r"leaves 1 experts in .*, where a token meets 2"):
        Reap(pruning_ratio=0.75).check(mixtral())
    for step in (Svd(kept=0.5), Rtn(bits=4)):
        subject = mixtral(depth=1)
        step.apply(subject, context(subject))
        with pytest.raises(SpecError, match="is not made of plain matrices"):
            Reap().check(subject)
