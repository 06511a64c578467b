"""ToMe on whole models: fewer tokens, the same answers where nothing is lost, exact reload."""

import pytest
import torch

from core import models, tasks
from core.artifacts import artifact
from core.errors import SpecError
from core.measure.compute import count_macs
from core.spec.catalogue import built_in
from core.spec.model import ModelSpec, RunSpec, TaskSpec
from core.spec.schema_validation import validate
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.catalogue import TECHNIQUES
from tests.core.fakes import context
from tests.core.techniques.pruning.conftest import SOURCES, images


@pytest.mark.parametrize("source", SOURCES)
def test_merging_equal_tokens_changes_no_answer(vision_subject, source):
    subject, _ = vision_subject(source)
    batch = {"pixel_values": torch.zeros_like(images(subject)["pixel_values"])}
    for name, parameter in subject.model.named_parameters():
        if "position_embedding" in name:
            parameter.data[:] = parameter.data[:, -1:]  # every patch the same token, and so are its keys
    with torch.no_grad():
        expected = logits_of(subject.model, batch)
        TECHNIQUES["token_merging"](merged=5).apply(subject, context(subject))
        torch.testing.assert_close(logits_of(subject.model, batch), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("source", SOURCES)
def test_merging_saves_work_and_reloads_exactly(vision_subject, source, tmp_path):
    subject, loaded = vision_subject(source)
    batch = images(subject)
    before = count_macs(subject.model, batch)
    TECHNIQUES["token_merging"](merged=4).apply(subject, context(subject))
    assert count_macs(subject.model, batch) < before
    tokens = [row["tokens out"] for row in subject.details["layers"]]
    assert tokens[0] == subject.details["layers"][0]["tokens in"] - 4
    artifact.save(subject, tmp_path, loaded)
    again = artifact.load_models(tmp_path)["main"]
    with torch.no_grad():
        assert torch.equal(logits_of(again, batch), logits_of(subject.model, batch))


def test_what_is_no_vision_transformer_is_refused():
    task = tasks.load(TaskSpec.model_validate({"source": "builtin:digits"}))
    loaded = models.load(ModelSpec(source="builtin:resnet"), task, torch.Generator().manual_seed(0))
    subject = Subject({"main": loaded.module}, task, {"main": loaded.config})
    with pytest.raises(SpecError, match="Vision Transformer"):
        TECHNIQUES["token_merging"]().check(subject)


@pytest.mark.parametrize("later", ["token_merging", "dynamic_vit", "depth_pruning", "sliding_window"])
def test_blocks_that_merge_are_not_swapped_again_nor_taken_out(later, vision_subject):
    subject, _ = vision_subject("builtin cls")
    TECHNIQUES["token_merging"]().apply(subject, context(subject))
    with pytest.raises(SpecError, match=r"reduces? tokens"):
        TECHNIQUES[later](**{"stages": 1} if later == "dynamic_vit" else {}).check(subject)
    step = {"train": {"methods": [{later: {}}]}} if later == "dynamic_vit" else {later: {}}
    model, task = {"source": "builtin:vit"}, {"source": "builtin:digits"}
    with pytest.raises(SpecError, match="cannot follow token_merging"):
        validate(
            RunSpec.model_validate({"model": model, "task": task, "recipe": [{"token_merging": {}}, step]}), built_in()
        )


@pytest.mark.parametrize("name", ["token_merging", "dynamic_vit"])
def test_attention_that_was_swapped_is_not_put_back(name, vision_subject):
    subject, _ = vision_subject("builtin cls")
    TECHNIQUES["sliding_window"](window=4).apply(subject, context(subject))
    with pytest.raises(SpecError, match="has replaced attention"):
        TECHNIQUES[name](**{"stages": 1} if name == "dynamic_vit" else {}).check(subject)


def test_attention_without_heads_is_refused(vision_subject):
    subject, _ = vision_subject("builtin cls")
    for part in "qkv":
        for name in ("weight", "bias"):
            subject.shrink(f"blocks.1.attention.{part}.{name}", 0, torch.tensor([], dtype=torch.long))
    subject.shrink("blocks.1.attention.o.weight", 1, torch.tensor([], dtype=torch.long))
    logits_of(subject.model, images(subject))
    with pytest.raises(SpecError, match=r"blocks\.1\.attention': has no heads left"):
        TECHNIQUES["token_merging"]().check(subject)


@pytest.mark.parametrize("part", ["attention", "block"])
def test_dropout_within_a_block_is_refused(part, vision_subject):
    subject, _ = vision_subject("vit")
    for name, module in subject.model.named_modules():
        if part == "attention" and hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.1
        elif name.endswith(".dropout") and part == "block":
            module.p = 0.1
    with pytest.raises(SpecError, match=r"drops 0\.1 of its inputs"):
        TECHNIQUES["token_merging"]().check(subject)


def slowly_merged(model: torch.nn.Module, pixel_values: torch.Tensor, merged: int) -> torch.Tensor:
    """Logits of a mean-pooled `builtin:vit` for one image, token by token: every token a list of what it stands for."""
    x = (model.patch_embedding(pixel_values).flatten(2).transpose(1, 2) + model.position_embedding)[0]  # [T, dim]
    sizes = [1.0] * len(x)
    for block in model.blocks:
        q, k, v = block.attention.project(block.norm1(x)[None])  # [1, heads, T, head_dim]
        logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5 + torch.tensor(sizes).log()
        x = x + block.attention.o((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))[0]
        metric = torch.nn.functional.normalize(k[0].mean(0), dim=-1)
        best = {a: max(range(1, len(x), 2), key=lambda b: float(metric[a] @ metric[b])) for a in range(0, len(x), 2)}
        ranked = sorted(best, key=lambda a: -float(metric[a] @ metric[best[a]]))[: min(merged, len(x) // 2)]
        total = {i: sizes[i] * x[i] for i in range(len(x)) if i not in ranked}
        count = {i: sizes[i] for i in total}
        for a in ranked:
            total[best[a]] = total[best[a]] + sizes[a] * x[a]
            count[best[a]] += sizes[a]
        order = [i for i in total if i % 2 == 0] + [i for i in total if i % 2]
        x = torch.stack([total[i] / count[i] for i in order])
        sizes = [count[i] for i in order]
        x = x + block.ffn(block.norm2(x))
    weights = torch.tensor(sizes) / sum(sizes)
    return model.head((weights[:, None] * model.norm(x)).sum(0))


def test_a_model_that_merges_equals_the_paper_token_by_token(vision_subject):
    subject, _ = vision_subject("builtin mean")
    batch = images(subject)
    with torch.no_grad():
        expected = torch.stack([slowly_merged(subject.model, image[None], 3) for image in batch["pixel_values"]])
        TECHNIQUES["token_merging"](merged=3).apply(subject, context(subject))
        torch.testing.assert_close(logits_of(subject.model, batch), expected, rtol=1e-4, atol=1e-5)
