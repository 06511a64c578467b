"""RWKV as a step: every block swapped, trained, saved, counted, decoded from its state; refused where it cannot be."""

import pytest
import torch

from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.measure import compute
from core.models import longest
from core.models.encoder import Encoder
from core.nn.rwkv.block import RwkvBlock
from core.runtimes.onnxruntime import exported
from core.techniques.architecture.rwkv import Rwkv
from core.techniques.architecture.sparse_ffn import SparseFfnTechnique
from core.techniques.quantization.cast import Cast
from core.techniques.quantization.rtn import Rtn
from core.techniques.training.train import Train
from tests.core.fakes import context
from tests.core.techniques.architecture.small_gpt import subject_of

VERSIONS = [4, 5, 6]


def swapped(version: int, *, seed: int | None = None, **model: object):
    """A small language model of RWKV; with `seed` all its parameters are drawn, so that none is zero."""
    subject, loaded = subject_of(**model)
    Rwkv(version=version).apply(subject, context(subject))
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in subject.model.parameters():
            torch.nn.init.normal_(parameter, mean=0.2 if parameter.dim() == 1 else 0, std=0.2, generator=generator)
    return subject, loaded


@pytest.mark.parametrize("version", VERSIONS)
def test_every_block_is_swapped_and_reported(version):
    subject, _ = subject_of()
    norms = [(block.norm1, block.norm2) for block in subject.model.blocks]
    subject.trained, record = True, MemoryRecord()
    Rwkv(version=version).apply(subject, context(subject, record))
    blocks = list(subject.model.blocks)
    assert all(type(block) is RwkvBlock and block.version == version for block in blocks)
    assert [(block.norm1, block.norm2) for block in blocks] == norms
    assert [block.norm0 is not None for block in blocks] == [True, False]
    assert blocks[0].hidden == (128 if version == 4 else 112)
    per_channel = 3 if version == 4 else 8
    rows = [{"name": f"blocks.{i}", "channels": 32, "state (bytes)": 4 * 32 * (per_channel + 2)} for i in range(2)]
    assert subject.details["layers"] == rows
    assert not subject.trained and "need training" in record.events[0][1]
    again, _ = subject_of()
    Rwkv(version=version).apply(again, context(again))
    assert torch.equal(again.model.blocks[1].time_mix.value.weight, blocks[1].time_mix.value.weight)
    assert not torch.equal(blocks[0].time_mix.value.weight, blocks[1].time_mix.value.weight)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_the_state_decodes_as_the_whole_text_at_once_and_longer_than_any_training_text(version, positions):
    subject, _ = swapped(version, seed=0, positions=positions)
    model = subject.model.double().eval()
    tokens = torch.randint(0, 256, (2, 70), generator=torch.Generator().manual_seed(1))
    cache = model.make_cache(70)
    pieces = [model(piece, cache=cache) for piece in tokens.split([40, 1, 1, 20, 1, 7], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens))
    assert cache[0].length == cache[1].length == 70
    assert model.generate(tokens, 5, temperature=0).shape == (2, 75)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_decoding_keeps_does_not_grow_and_is_what_is_reported(version):
    subject, _ = swapped(version)
    cache = subject.model.make_cache(1000)
    sizes = []
    for length in (1, 1, 50):
        subject.model(torch.zeros(1, length, dtype=torch.long), cache=cache)
        sizes.append([sum(t.untyped_storage().nbytes() for t in layer.tensors.values()) for layer in cache])
    assert sizes[0] == sizes[1] == sizes[2] == [row["state (bytes)"] for row in subject.details["layers"]]


@pytest.mark.parametrize("version", VERSIONS)
def test_it_learns_to_predict(version):
    subject, _ = swapped(version)
    record = MemoryRecord()
    before = {name: p.detach().clone() for name, p in subject.model.named_parameters()}
    Train(steps=30, batch_size=8, evaluations=0, learning_rate=5e-3).apply(subject, context(subject, record))
    losses = [value for _, value in record.curves["0/loss"]]
    assert losses[-1] < losses[0] - 0.5
    assert all(not torch.equal(before[name], p) for name, p in subject.model.named_parameters())
    assert subject.trained


@pytest.mark.parametrize("version", VERSIONS)
def test_bfloat16_arithmetic_trains_too(version):
    subject, _ = swapped(version)
    record = MemoryRecord()
    Train(steps=3, batch_size=4, evaluations=0, precision="bfloat16").apply(subject, context(subject, record))
    assert len(record.curves["0/loss"]) == 3


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("later", [None, Cast(), Rtn()])
def test_an_artifact_reloads_to_the_same_also_packed(version, later, tmp_path):
    subject, loaded = swapped(version, seed=0)
    if later is not None:
        later.check(subject)
        later.apply(subject, context(subject))
    artifact.save(subject, tmp_path, loaded)
    reloaded = artifact.load_models(tmp_path)["main"]
    assert reloaded.position_embedding is None
    assert longest(subject.configs["main"]) is None
    tokens = torch.randint(0, 256, (2, 33), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(reloaded(tokens), subject.model.eval()(tokens), atol=1e-5, rtol=1e-5)
        assert reloaded.generate(tokens, 4, temperature=0).shape == (2, 37)
    again = artifact.load_subject(tmp_path, subject.task, torch.device("cpu"))
    assert [type(block) for block in again.model.blocks] == [RwkvBlock] * 2


def test_multiplications_of_a_token_are_counted():
    subject, _ = swapped(4)
    batch = subject.task.split("test").batch(torch.arange(1))
    counted = compute.count(subject.model, batch, per_token=True, decode=True)
    linears = 2 * (4 * 32 * 32 + 32 * 32 + 2 * 32 * 128) + 32 * subject.model.head.out_features
    assert counted.macs == counted.decode_macs == linears + 2 * 8 * 32


@pytest.mark.parametrize("version", [5, 6])
def test_work_of_decoding_does_not_depend_on_the_text_before(version):
    counts = []
    for length in (16, 32):
        subject, _ = swapped(version, length=length)
        batch = {"input_ids": torch.zeros(1, length, dtype=torch.long)}
        counts.append(compute.count(subject.model, batch, per_token=True, decode=True).decode_macs)
    assert counts[0] == counts[1]


def test_models_that_see_both_sides_are_refused():
    subject, _ = subject_of()
    subject.models["main"] = Encoder(
        vocab_size=10, length=8, pooling="mean", n_classes=2, dim=8, depth=1, heads=1, kv_heads=1, attention="full",
        attention_settings={}, ffn="mlp", ffn_dim=16,
    )  # fmt: skip
    with pytest.raises(SpecError, match=r"is bidirectional.*builtin:gpt"):
        Rwkv().check(subject)


@pytest.mark.parametrize("earlier", [Rwkv(), SparseFfnTechnique(block_size=16)])
def test_blocks_that_are_changed_already_are_refused(earlier):
    subject, _ = subject_of()
    earlier.apply(subject, context(subject))
    with pytest.raises(SpecError, match=r"blocks.0.*no longer\) a block with full attention"):
        Rwkv().check(subject)


def test_grouped_keys_and_gated_networks_are_swapped_too():
    subject, _ = subject_of(kv_heads=2, ffn="swiglu")
    Rwkv(version=5, ffn_ratio=3).apply(subject, context(subject))
    assert [(block.head_dim, block.hidden) for block in subject.model.blocks] == [(8, 96)] * 2


def test_label_is_the_version():
    assert Rwkv(version=4).label() == "RWKV-4"


@pytest.mark.parametrize("version", VERSIONS)
def test_onnx_runtime_executes_it_too(version):
    subject, _ = swapped(version, seed=0, depth=1, length=8)
    batch = {"input_ids": torch.randint(0, 256, (1, 7), generator=torch.Generator().manual_seed(1))}
    with torch.inference_mode():
        expected = subject.model.eval()(**batch)
    runner = exported(subject.model, torch.device("cpu"), torch.float32, batch)
    torch.testing.assert_close(runner(batch), expected, atol=1e-4, rtol=1e-4)
