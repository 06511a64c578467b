"""BigBird, ETC and windows with global tokens as steps: what enters and leaves a model, refusals, and round trips."""

import pytest
import torch

from core.artifacts import artifact
from core.errors import SpecError
from core.measure.compute import count_macs
from core.runtimes.onnxruntime import exported
from core.techniques.attention.bigbird import BigBird
from core.techniques.attention.etc import Etc
from core.techniques.attention.sliding_window import SlidingWindow
from core.techniques.low_rank.svd import Svd
from core.techniques.pruning.head_pruning import HeadPruning
from core.techniques.pruning.nm_pruning import NmPruning
from core.techniques.quantization.cast import Cast
from core.techniques.quantization.dynamic_int8 import DynamicInt8
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import context
from tests.core.techniques.attention.subjects import applied, inputs_of, subject_of

STEPS = {
    "bigbird": BigBird(block=4, random_blocks=2),
    "bigbird with global tokens": BigBird(block=4, random_blocks=1, global_tokens=3),
    "etc": Etc(radius=5, global_tokens=3, max_distance=2),
    "sliding window with global tokens": SlidingWindow(window=5, global_tokens=2),
}


@pytest.mark.parametrize("kind", ["vit", "mean", "encoder"])
@pytest.mark.parametrize("name", STEPS)
def test_models_answer_with_the_weights_they_had_and_save_multiplications(name, kind):
    before, subject = subject_of(kind), applied(STEPS[name], kind)
    again = dict(before.model.named_parameters())
    kept = [n for n, p in subject.model.named_parameters() if n in again and torch.equal(p, again[n])]
    assert kept == list(again)
    example = {key: value[:1] for key, value in inputs_of(kind).items()}
    assert subject.model(**example).shape == (1, 3)
    assert count_macs(subject.model, example) < count_macs(before.model, example)


@pytest.mark.parametrize("name", STEPS)
def test_a_model_rebuilt_from_its_artifacts_form_gives_the_same(name):
    subject = applied(STEPS[name], "encoder")
    config = subject.configs["main"]
    modules = artifact.list_replacements(subject.model)
    again = artifact._bare(config, modules)
    again.load_state_dict(subject.model.state_dict(), strict=True, assign=True)
    batch = inputs_of("encoder")
    assert torch.equal(again.eval()(**batch), subject.model(**batch))
    assert ("GlobalTokens" in [m.cls for m in modules]) == (name != "bigbird")


@pytest.mark.parametrize("name", STEPS)
def test_padding_changes_no_answer(name):
    model = applied(STEPS[name], "encoder").model
    batch = inputs_of("encoder")
    alone = model(batch["input_ids"][1:2, :23])
    torch.testing.assert_close(model(**batch)[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", STEPS)
def test_every_parameter_learns(name):
    subject = applied(STEPS[name], "encoder")
    subject.model(**inputs_of("encoder"))[:, 0].sum().backward()
    unused = [n for n, p in subject.model.named_parameters() if p.grad is None or not p.grad.any()]
    idle = (".k.bias", "blocks.1.attention.global_")  # softmax cancels the ones, nothing reads the last global tokens
    assert [n for n in unused if not any(part in n for part in idle)] == []


@pytest.mark.parametrize("name", STEPS)
def test_causal_models_are_refused_with_the_reason(name):
    with pytest.raises(SpecError, match=r"is causal: .* would pass information from later tokens"):
        STEPS[name].check(subject_of("gpt"))


@pytest.mark.parametrize("name", STEPS)
def test_a_second_pattern_is_refused(name):
    subject = applied(STEPS[name], "vit")
    with pytest.raises(SpecError, match="no full attention left"):
        STEPS["bigbird with global tokens"].check(subject)


@pytest.mark.parametrize("name", STEPS)
def test_heads_are_cut_with_what_belongs_to_them(name):
    subject = applied(STEPS[name], "vit")
    HeadPruning(pruning_ratio=0.5, importance="magnitude", rounds=1).apply(subject, context(subject))
    heads = [block.attention.heads for block in subject.model.blocks]
    assert sum(heads) == 4
    for block in subject.model.blocks:
        for own in block.attention.per_head:
            assert len(getattr(block.attention, own)) == block.attention.heads
    subject.model(**inputs_of("vit"))


@pytest.mark.parametrize("name", STEPS)
def test_masks_and_half_precision_work_with_it(name):
    subject = subject_of("encoder")
    NmPruning().apply(subject, context(subject))
    masks = set(subject.constraints)
    STEPS[name].apply(subject, context(subject))
    assert set(subject.constraints) == masks
    before = subject.model(**inputs_of("encoder"))
    Cast(dtype="bf16").apply(subject, context(subject))
    torch.testing.assert_close(subject.model(**inputs_of("encoder")).float(), before, rtol=0, atol=0.1)


WIDE = {"bigbird": BigBird(block=30), "sliding window": SlidingWindow(window=70), "etc": Etc(radius=70)}


@pytest.mark.parametrize("earlier", [Svd(rank=8), Rtn(), DynamicInt8(), Cast(dtype="bf16")])
@pytest.mark.parametrize("name", WIDE)
def test_packed_and_cast_projections_are_taken_over(name, earlier):
    subject, batch = subject_of("encoder"), inputs_of("encoder")
    earlier.apply(subject, context(subject))
    before = subject.model(**batch)
    WIDE[name].check(subject)
    WIDE[name].apply(subject, context(subject))
    after = subject.model(**batch)
    if name != "etc":  # whose labels and global tokens are new
        torch.testing.assert_close(after, before, rtol=1e-4, atol=0.05 if isinstance(earlier, Cast) else 1e-4)
    modules = artifact.list_replacements(subject.model)
    again = artifact._bare(subject.configs["main"], modules)
    again.load_state_dict(subject.model.state_dict(), strict=True, assign=True)
    torch.testing.assert_close(again.eval()(**batch), after)


def test_labels_tell_the_settings():
    assert [step.label() for step in STEPS.values()] == [
        "blocks of 4, 2 random",
        "blocks of 4, 1 random, 3 global",
        "radius 5, 3 global",
        "5 tokens, 2 global",
    ]
    assert Etc(hard=True, isolated=True).label() == "radius 84, 16 global, hard, isolated"


@pytest.mark.parametrize("name", ["bigbird", "etc"])
def test_onnx_runtime_executes_it(name):
    pytest.importorskip("onnxruntime")
    batch, model = inputs_of("mean"), applied(STEPS[name], "mean").model.requires_grad_(False)
    answers = exported(model, torch.device("cpu"), torch.float32, batch)(batch)
    torch.testing.assert_close(answers, model(**batch))
