"""Depth pruning: planted near-identity blocks go first, caches and configs count anew, masks go along."""

import math

import pytest
import torch

from core.artifacts import artifact
from core.errors import SpecError
from core.models.anatomy import anatomy
from core.runtimes.decode import decoder_of
from core.tasks.base import logits_of
from core.techniques.pruning.depth_pruning import DepthPruning, dropped_blocks, take_out_
from core.techniques.pruning.nm_pruning import NmPruning
from core.techniques.pruning.residual_stream import Trace, angular_distance, block_influence, last_of, real_tokens
from tests.core.fakes import context, plane_subject
from tests.core.techniques.pruning.families import BUILTIN, HUGGING_FACE, loaded, subject_of


def plant_identity(subject, *indices: int) -> None:
    """Blocks that nearly hand on what they get; BERT's norms make that of the post-norm kind."""
    for index in indices:
        block = anatomy(subject.model).blocks[index]
        for name in (block.o, block.down):
            linear = subject.model.get_submodule(name)
            linear.weight.data.mul_(1e-3)
            linear.bias.data.mul_(1e-3) if linear.bias is not None else None
        if not block.pre_norm:
            for name in (block.norm1, block.norm2):
                subject.model.get_submodule(name).weight.data.fill_(1)
                subject.model.get_submodule(name).bias.data.fill_(0)


def answers(model, subject):
    with torch.inference_mode():
        return logits_of(model, subject.task.batch(torch.arange(6)))


def streams_of(model, batch) -> list[torch.Tensor]:
    """The residual stream before every block and after the last."""
    streams = []
    handles = [
        module.register_forward_pre_hook(lambda _, args: streams.append(args[0]))
        for module in (*model.blocks, model.norm)
    ]
    with torch.no_grad():
        logits_of(model, batch)
    for handle in handles:
        handle.remove()
    return streams


def test_influence_and_angle_by_hand():
    before = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    after = torch.tensor([[2.0, 0.0], [3.0, 3.0], [-1.0, 0.0]])
    torch.testing.assert_close(block_influence(before, after), torch.tensor([0.0, 1 - math.sqrt(0.5), 2.0]))
    torch.testing.assert_close(angular_distance(before, after), torch.tensor([0.0, 0.25, 1.0]))


def test_padding_does_not_count_and_the_last_token_is_the_last_real_one():
    x = torch.zeros(2, 4, 3)  # one token that the model put before three of the text
    tokens = real_tokens(x, torch.tensor([[1, 1, 0], [1, 1, 1]]))
    assert tokens.tolist() == [[True, True, True, False], [True, True, True, True]]
    assert last_of(tokens).tolist() == [[False, False, True, False], [False, False, False, True]]


def test_which_blocks_each_strategy_drops():
    influence, distances = [0.5, 0.1, 0.4, 0.2, 0.9], [0.3, 0.2, 0.1, 0.4]
    generator = torch.Generator().manual_seed(0)
    assert dropped_blocks("block_influence", 2, influence, distances, generator) == [1, 3]
    assert dropped_blocks("contiguous", 2, influence, distances, generator) == [2, 3]
    assert dropped_blocks("deepest", 2, influence, distances, generator) == [2, 3]
    assert dropped_blocks("deepest", 3, influence, distances, generator) == [1, 2, 3]
    assert len(set(dropped_blocks("random", 4, influence, distances, generator))) == 4


@pytest.mark.parametrize("last_token_only", [True, False])
def test_trace_agrees_with_the_streams_themselves(last_token_only):
    subject = subject_of("builtin encoder", depth=4)
    batches = [subject.task.batch(torch.arange(0, 5)), subject.task.batch(torch.arange(5, 12))]
    trace = Trace(4, 2, last_token_only=last_token_only)
    influence, angles = [[] for _ in range(4)], [[] for _ in range(3)]
    for batch in batches:
        streams = streams_of(subject.model, batch)
        with torch.no_grad(), trace.watching(subject.model.blocks, batch):
            logits_of(subject.model, batch)
        for row, n_tokens in enumerate(batch["attention_mask"].sum(1).tolist()):
            kept = [stream[row, : 1 + n_tokens].double() for stream in streams]
            for index in range(4):
                cos = torch.cosine_similarity(kept[index], kept[index + 1], dim=1)
                influence[index] += (1 - cos).tolist()
            for index in range(3):
                turned = slice(-1, None) if last_token_only else slice(None)
                cos = torch.cosine_similarity(kept[index][turned], kept[index + 2][turned], dim=1)
                angles[index] += (cos.arccos() / math.pi).tolist()
    found = trace.means()
    torch.testing.assert_close(torch.tensor(found[0]), torch.tensor([sum(v) / len(v) for v in influence]))
    torch.testing.assert_close(torch.tensor(found[1]), torch.tensor([sum(v) / len(v) for v in angles]))


@pytest.mark.parametrize("family", [*BUILTIN, *HUGGING_FACE])
def test_planted_blocks_go_first_and_the_artifact_is_the_shallower_model(family, tmp_path):
    subject = subject_of(family)
    plant_identity(subject, 1, 3)
    before, n_weights = answers(subject.model, subject), sum(p.numel() for p in subject.model.parameters())
    DepthPruning(n_dropped=2).apply(subject, context(subject))
    rows = subject.details["layers"]
    assert [row["kept"] for row in rows] == [True, False, True, False, True]
    influence = [row["block influence"] for row in rows]
    assert max(influence[1], influence[3]) < 0.1 * min(influence[0], influence[2], influence[4])
    assert len(anatomy(subject.model).blocks) == 3
    assert sum(p.numel() for p in subject.model.parameters()) < 0.75 * n_weights
    if family != "bert":  # after a post-norm layer the identity would have to leave another norm's output alone
        assert (answers(subject.model, subject) - before).abs().max() < 0.02 * before.abs().max()
    artifact.save(subject, tmp_path, loaded(subject))
    again = artifact.load_subject(tmp_path, subject.task, torch.device("cpu"))
    assert torch.equal(answers(again.model, subject), answers(subject.model, subject))
    assert len(anatomy(again.model).blocks) == 3


@pytest.mark.parametrize("family", ["builtin gpt", "llama", "qwen2", "opt", "gpt2"])
def test_generation_with_a_cache_equals_generation_without(family):
    subject = subject_of(family)
    take_out_(subject, [0, 3])
    model = subject.model
    prompt = subject.task.batch(torch.arange(2))["input_ids"][:, :6]
    decoder, tokens = decoder_of(model), prompt
    with torch.no_grad():
        decoder.prefill({"input_ids": prompt}, 5)
        for _ in range(5):
            expected = logits_of(model, {"input_ids": tokens})[:, -1:].argmax(-1)
            assert torch.equal(decoder.token, expected)
            tokens = torch.cat((tokens, expected), dim=1)
            decoder.step()
    if family != "builtin gpt":
        assert len(decoder.cache.layers) == 3


def test_a_config_with_an_entry_a_layer_keeps_those_of_the_kept():
    subject = subject_of("qwen2")
    take_out_(subject, [0, 3])
    kept = ["sliding_attention", "full_attention", "full_attention"]
    assert subject.configs["main"]["config"]["layer_types"] == kept == subject.model.config.layer_types
    assert subject.configs["main"]["config"]["num_hidden_layers"] == 3


def test_masks_go_along_with_their_blocks():
    subject = subject_of("builtin vit", depth=3)
    NmPruning().apply(subject, context(subject))
    expected = subject.mask("blocks.2.ffn.up.weight")
    source = subject.configs["main"]
    take_out_(subject, [0])
    assert len(subject.constraints) == 12
    assert subject.mask("blocks.1.ffn.up.weight") is expected
    assert not subject.model.blocks[1].ffn.up.weight[~expected].any()
    assert (source["depth"], subject.configs["main"]["depth"]) == (3, 2)


def test_what_cannot_be_taken_out_is_refused():
    with pytest.raises(SpecError, match="n_dropped = 5: leaves none of the 5 blocks"):
        DepthPruning(n_dropped=5).check(subject_of("builtin vit"))
    with pytest.raises(SpecError, match="whose blocks are not known to Slimboard"):
        DepthPruning().check(plane_subject())
    with pytest.raises(SpecError, match="scales its scores by the block's index"):
        DepthPruning().check(subject_of("gpt2", scale_attn_by_inverse_layer_idx=True))


def test_label_says_how_much_and_by_what():
    assert DepthPruning().label() == "25% of blocks, block influence"
    assert DepthPruning(n_dropped=2, strategy="contiguous").label() == "2 blocks, contiguous"
