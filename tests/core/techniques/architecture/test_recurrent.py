"""What every step owes that gives a language model a recurrent state: the same answers however the text is cut."""

import pytest
import torch

from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.measure.compute import count
from core.runtimes.onnxruntime import exported
from core.techniques.architecture.linear_attention import LinearAttentionStep
from core.techniques.architecture.mamba import MambaStep
from core.techniques.architecture.retnet import Retnet
from core.techniques.quantization.cast import Cast
from core.techniques.quantization.rtn import Rtn
from core.techniques.training.train import Train
from tests.core.fakes import context
from tests.core.techniques.architecture.small_gpt import subject_of

STEPS = {
    "retnet": Retnet(),
    "retnet, wide values": Retnet(value_factor=2),
    "linear_attention": LinearAttentionStep(),
    "mamba": MambaStep(),
    "mamba, attention only": MambaStep(replaces="attention", n_states=4, expand=1),
}
MODELS = [{}, {"positions": "rotary", "kv_heads": 2}]
every_step = pytest.mark.parametrize("name", STEPS)


def applied(name, **model):
    subject, loaded = subject_of(**model)
    STEPS[name].check(subject)
    STEPS[name].apply(subject, context(subject))
    return subject, loaded


def state_bytes(cache) -> int:
    """Of the memory that is kept alive: a view of something longer counts as that."""
    tensors = [t for layer in cache for one in vars(layer).values() for t in _tensors(one)]
    return sum(t.untyped_storage().nbytes() for t in tensors)


def _tensors(kept):
    return kept.values() if isinstance(kept, dict) else kept.tensors.values() if hasattr(kept, "tensors") else []


@every_step
@pytest.mark.parametrize("settings", MODELS)
def test_a_trained_model_answers_the_same_with_and_without_its_state(name, settings):
    subject, _ = applied(name, length=96, **settings)
    before = {n: p.detach().clone() for n, p in subject.model.named_parameters()}
    Train(steps=3, batch_size=2, evaluations=0).apply(subject, context(subject))
    assert all(not torch.equal(p, before[n]) for n, p in subject.model.named_parameters())
    model = subject.model.double()
    tokens = torch.randint(0, 256, (2, 96))
    full = model(tokens)
    for pieces in ([1] * 96, [70] + [1] * 26, [95, 1], [3, 93]):
        cache = model.make_cache(96)
        parts = [model(part, cache=cache) for part in tokens.split(pieces, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), full, rtol=0, atol=1e-9)
        assert all(layer.length == 96 for layer in cache)


@every_step
def test_greedy_generation_is_that_of_recomputation(name):
    model = applied(name)[0].model.double()
    prompt = torch.randint(0, 256, (2, 5))
    made = model.generate(prompt, 12, temperature=0)
    expected = prompt
    for _ in range(12):
        expected = torch.cat((expected, model(expected)[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(made, expected)


@every_step
def test_later_tokens_change_no_earlier_answer(name):
    model = applied(name, length=96)[0].model.double()
    tokens = torch.randint(0, 256, (1, 96))
    other = tokens.clone()
    other[:, 80:] = (other[:, 80:] + 1) % 256
    torch.testing.assert_close(model(other)[:, :80], model(tokens)[:, :80], rtol=0, atol=1e-10)
    assert not torch.allclose(model(other)[:, 80:], model(tokens)[:, 80:])


@every_step
def test_states_take_the_same_memory_after_any_number_of_tokens(name):
    subject, _ = applied(name, length=96)
    sizes = set()
    for length in (1, 8, 96):
        cache = subject.model.make_cache(96)
        subject.model(torch.zeros(1, length, dtype=torch.long), cache=cache)
        sizes.add(state_bytes(cache))
    assert sizes == {sum(row["state (bytes)"] for row in subject.details["layers"])}


@every_step
def test_the_artifact_reloads_to_the_same(name, tmp_path):
    subject, loaded = applied(name, positions="rotary", kv_heads=2)
    artifact.save(subject, tmp_path, loaded)
    again = artifact.load_subject(tmp_path, subject.task, torch.device("cpu")).model
    tokens = torch.randint(0, 256, (2, 32))
    assert torch.equal(again(tokens), subject.model(tokens))
    assert torch.equal(again.generate(tokens[:, :4], 8, 0), subject.model.generate(tokens[:, :4], 8, 0))


@every_step
def test_fresh_parameters_follow_from_the_seed_and_differ_by_layer(name):
    first, second = (dict(applied(name)[0].model.named_parameters()) for _ in range(2))
    assert all(torch.equal(p, second[n]) for n, p in first.items())
    for n, p in first.items():
        twin = first.get(n.replace("blocks.0", "blocks.1"))
        if twin is not p and p.dim() == 2:
            assert not torch.equal(p, twin), n


@pytest.mark.slow
@every_step
def test_a_long_text_stays_finite_under_bfloat16(name):
    model = applied(name, length=8192, positions="rotary")[0].model
    tokens = torch.randint(0, 256, (1, 8192))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens)
        torch.nn.functional.cross_entropy(logits[0], tokens[0]).backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@every_step
def test_what_comes_after_works_on_it(name):
    subject, _ = applied(name)
    tokens = torch.randint(0, 256, (1, 32))
    expected = subject.model(tokens)
    Rtn(bits=8).apply(subject, context(subject))
    assert len(subject.details["layers"]) >= 2 * 4
    error = (subject.model(tokens) - expected).abs().max() / expected.abs().max()
    assert error < 0.1
    subject, _ = applied(name)
    Cast().apply(subject, context(subject))
    cache = subject.model.make_cache(32)
    halves = torch.cat([subject.model(part, cache=cache) for part in tokens.split([20, 12], dim=1)], dim=1)
    assert halves.dtype == torch.bfloat16
    assert (halves - expected).abs().max() / expected.abs().max() < 0.15


@every_step
def test_work_grows_with_the_length_and_not_with_its_square(name):
    model = applied(name, length=1024)[0].model
    work = [count(model, {"input_ids": torch.zeros(1, n, dtype=torch.long)}).macs for n in (512, 1024)]
    assert 1.99 < work[1] / work[0] < 2.01
    steps = [
        count(model, {"input_ids": torch.zeros(1, n, dtype=torch.long)}, decode=True).decode_macs for n in (32, 512)
    ]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("name", ["retnet", "linear_attention"])
def test_it_runs_in_onnx_runtime(name):
    pytest.importorskip("onnxruntime")
    model = applied(name, length=96)[0].model.eval()
    example = {"input_ids": torch.randint(0, 256, (2, 96))}
    with torch.no_grad():
        found = exported(model, torch.device("cpu"), torch.float32, example)(example)
        torch.testing.assert_close(found, model(**example), rtol=0, atol=1e-4)


@every_step
def test_packed_projections_are_refused_with_the_remedy(name):
    subject, _ = subject_of()
    Rtn(bits=8).apply(subject, context(subject))
    with pytest.raises(SpecError, match="QuantLinear inside"):
        STEPS[name].check(subject)


@every_step
def test_a_second_swap_is_refused(name):
    subject, _ = applied(name)
    with pytest.raises(SpecError, match="has no full attention left to swap"):
        STEPS[name].check(subject)


@pytest.mark.parametrize("name", [n for n in STEPS if n != "linear_attention"])
def test_models_that_see_both_sides_are_refused_with_the_remedy(name):
    subject, _ = subject_of(source="builtin:vit", task="builtin:digits", length=None)
    with pytest.raises(SpecError, match=r"is bidirectional.*linear_attention"):
        STEPS[name].check(subject)


@pytest.mark.parametrize("name", ["retnet, wide values", "mamba", "mamba, attention only"])
def test_trained_weights_are_not_dropped_silently(name):
    subject, _ = subject_of()
    subject.trained, record = True, MemoryRecord()
    STEPS[name].apply(subject, context(subject, record))
    assert [level for level, _ in record.events] == ["warning"] and not subject.trained


@pytest.mark.parametrize("name", [n for n in STEPS if n != "linear_attention"])
def test_texts_longer_than_learned_positions_can_be_generated(name):
    subject, _ = applied(name, length=16)
    assert subject.model.position_embedding is None and subject.configs["main"]["positions"] == "none"
    assert subject.model.generate(torch.zeros(1, 10, dtype=torch.long), 20, 0).shape == (1, 30)
